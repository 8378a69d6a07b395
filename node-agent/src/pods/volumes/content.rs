//! Volumes whose files are made from API objects: `configMap`, `secret`, `downwardAPI` and
//! `projected`. Pure.

use super::{
    super::{
        env::{Facts, pod_field, resource_field},
        sources::Sources,
        tokens::Wanted,
    },
    atomic::{File, Files},
};
use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume, VolumeProjection,
};
use std::{collections::BTreeMap, path::PathBuf};

/// Upstream's default mode of such files.
const MODE: i32 = 0o644;

/// The files of the volume; `None` if it is of another type.
pub(super) fn of(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<Files>, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let data = config_map(sources, &source.name, source.optional)?;
        let mode = source.default_mode.unwrap_or(MODE);
        add(&mut files, data, source.items.as_deref(), mode, source.optional, "configmap")?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let data = secret(sources, &name, source.optional)?;
        let mode = source.default_mode.unwrap_or(MODE);
        add(&mut files, data, source.items.as_deref(), mode, source.optional, "secret")?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(MODE);
        downward(&mut files, pod, source.items.as_deref().unwrap_or_default(), mode, facts)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(MODE);
        for source in source.sources.iter().flatten() {
            project(&mut files, pod, source, mode, sources, facts)?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(files))
}

/// Such volumes are never written to by containers.
pub(super) fn is_read_only(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

fn project(
    files: &mut Files,
    pod: &Pod,
    source: &VolumeProjection,
    mode: i32,
    sources: &Sources,
    facts: &Facts,
) -> Result<(), String> {
    if let Some(source) = &source.config_map {
        let data = config_map(sources, &source.name, source.optional)?;
        add(files, data, source.items.as_deref(), mode, source.optional, "configmap")
    } else if let Some(source) = &source.secret {
        let data = secret(sources, &source.name, source.optional)?;
        add(files, data, source.items.as_deref(), mode, source.optional, "secret")
    } else if let Some(source) = &source.downward_api {
        downward(files, pod, source.items.as_deref().unwrap_or_default(), mode, facts)
    } else if let Some(source) = &source.service_account_token {
        let wanted = Wanted::new(source.audience.as_ref(), source.expiration_seconds);
        let token = sources.tokens.get(&wanted).ok_or("its token has not been fetched")?;
        files.insert(within(&source.path)?, token_file(pod, token, mode));
        Ok(())
    } else {
        Err("this projected source is not supported yet".to_string())
    }
}

/// Only its readers may read a token: the one user all containers run as, or the pod's group.
fn token_file(pod: &Pod, token: &str, mode: i32) -> File {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let group = context.and_then(|context| context.fs_group);
    let owner = common_user(pod);
    let restricted = owner.is_some() || group.is_some();
    let mode = if restricted { 0o600 } else { mode as u32 };
    File { bytes: token.as_bytes().to_vec(), mode, owner }
}

/// The user that every container of the pod runs as, if it is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = all.map(|container| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first).and_then(|user| u32::try_from(user).ok())
}

type Data = BTreeMap<String, Vec<u8>>;

fn config_map(sources: &Sources, name: &str, optional: Option<bool>) -> Result<Data, String> {
    let Some(map) = sources.config_maps.get(name).and_then(Option::as_ref) else {
        return absent(optional, format!("configmap {name:?} not found"));
    };
    let ConfigMap { data, binary_data, .. } = map;
    let text = data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes()));
    let bytes = binary_data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone()));
    Ok(text.chain(bytes).collect())
}

fn secret(sources: &Sources, name: &str, optional: Option<bool>) -> Result<Data, String> {
    let Some(secret) = sources.secrets.get(name).and_then(Option::as_ref) else {
        return absent(optional, format!("secret {name:?} not found"));
    };
    let Secret { data, .. } = secret;
    Ok(data.iter().flatten().map(|(key, bytes)| (key.clone(), bytes.0.clone())).collect())
}

fn absent(optional: Option<bool>, text: String) -> Result<Data, String> {
    if optional == Some(true) { Ok(Data::new()) } else { Err(text) }
}

/// All keys, or those named by `items` under their paths.
fn add(
    files: &mut Files,
    mut data: Data,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
    kind: &str,
) -> Result<(), String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in data {
            files.insert(PathBuf::from(key), File { bytes, mode: mode as u32, owner: None });
        }
        return Ok(());
    };
    for item in items {
        match data.remove(&item.key) {
            Some(bytes) => {
                let mode = item.mode.unwrap_or(mode) as u32;
                files.insert(within(&item.path)?, File { bytes, mode, owner: None });
            }
            None if optional == Some(true) => {}
            None => return Err(format!("{kind} references non-existent key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    files: &mut Files,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    facts: &Facts,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => pod_field(pod, &field.field_path, facts)?,
            (None, Some(field)) => resource_field(pod, None, field, facts)?,
            (None, None) => return Err(format!("{}: no source", item.path)),
        };
        let mode = item.mode.unwrap_or(mode) as u32;
        let file = File { bytes: text.into_bytes(), mode, owner: None };
        files.insert(within(&item.path)?, file);
    }
    Ok(())
}

/// Validation has seen it already; this is what keeps the agent from being talked out of the volume.
fn within(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    let normal = |part| matches!(part, std::path::Component::Normal(_));
    if path.components().all(normal) && !path.starts_with("..") {
        Ok(path)
    } else {
        Err(format!("{} leaves the volume", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(volume: serde_json::Value) -> Result<String, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}},
            "spec": {"containers": [{"name": "app", "resources": {"limits": {"memory": "1Gi"}}}]},
        }))
        .unwrap();
        let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Mw=="}});
        let sources = Sources {
            config_maps: [("map".into(), Some(serde_json::from_value(map).unwrap()))].into(),
            secrets: [("none".into(), None)].into(),
            tokens: [(Wanted::new(None, Some(600)), "eyJ".to_string())].into(),
            ..Sources::default()
        };
        let volume = serde_json::from_value(volume).unwrap();
        let files = of(&pod, &volume, &sources, &Facts::default())?.unwrap_or_default();
        let show = |(path, file): (&PathBuf, &File)| {
            let text = String::from_utf8_lossy(&file.bytes).replace('\n', "|");
            format!("{} {:o} {text}\n", path.display(), file.mode)
        };
        Ok(files.iter().map(show).collect())
    }

    #[test]
    fn all_keys_or_some() {
        let all = check(json!({"name": "v", "configMap": {"name": "map"}}));
        assert_eq!(all.unwrap(), "a 644 1\nb 644 2\nc 644 3\n");
        let some = json!({"name": "map", "defaultMode": 0o600,
            "items": [{"key": "a", "path": "x/y"}, {"key": "c", "path": "z", "mode": 0o400}]});
        let some = check(json!({"name": "v", "configMap": some}));
        assert_eq!(some.unwrap(), "x/y 600 1\nz 400 3\n");
    }

    #[test]
    fn several_sources_in_one_volume() {
        let text = check(json!({"name": "v", "projected": {"sources": [
            {"configMap": {"name": "map", "items": [{"key": "b", "path": "b"}]}},
            {"secret": {"name": "none", "optional": true}},
            {"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "memory", "resourceFieldRef":
                    {"containerName": "app", "resource": "limits.memory", "divisor": "1Mi"}}]}},
        ]}}));
        let expected = "b 644 2\nlabels 644 app=\"web\"|tier=\"front\"\nmemory 644 1024\n";
        assert_eq!(text.unwrap(), expected);
    }

    #[test]
    fn a_token_is_for_its_reader_only() {
        let volume = json!({"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]}});
        assert_eq!(check(volume).unwrap(), "token 644 eyJ\n");
        let pod = |context: serde_json::Value, own: serde_json::Value| -> Pod {
            let spec = json!({"securityContext": context, "containers": [
                {"name": "a", "securityContext": own}, {"name": "b"}]});
            serde_json::from_value(json!({"spec": spec})).unwrap()
        };
        let file = |pod: Pod| {
            let file = token_file(&pod, "eyJ", 0o644);
            (file.mode, file.owner)
        };
        assert_eq!(file(pod(json!({"runAsUser": 7}), json!({}))), (0o600, Some(7)));
        assert_eq!(file(pod(json!({"runAsUser": 7}), json!({"runAsUser": 8}))), (0o644, None));
        assert_eq!(file(pod(json!({}), json!({"runAsUser": 8}))), (0o644, None));
        assert_eq!(file(pod(json!({"fsGroup": 9}), json!({}))), (0o600, None));
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        let check = |volume| check(volume).unwrap_err();
        let text = check(json!({"name": "v", "secret": {"secretName": "none"}}));
        assert_eq!(text, "secret \"none\" not found");
        let items = json!([{"key": "zz", "path": "z"}]);
        let text = check(json!({"name": "v", "configMap": {"name": "map", "items": items}}));
        assert_eq!(text, "configmap references non-existent key: zz");
        let items = json!([{"key": "a", "path": "../z"}]);
        let text = check(json!({"name": "v", "configMap": {"name": "map", "items": items}}));
        assert_eq!(text, "../z leaves the volume");
    }
}
