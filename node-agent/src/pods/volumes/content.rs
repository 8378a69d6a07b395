//! Volumes whose files are made from API objects: `configMap`, `secret`, `downwardAPI` and
//! `projected`. Pure.

use super::{
    super::{
        env::{Facts, pod_field, resource_field},
        sources::Sources,
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
    } else if source.service_account_token.is_some() {
        Err("serviceAccountToken is not supported yet: this cluster issues no tokens".to_string())
    } else {
        Err("this projected source is not supported yet".to_string())
    }
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
            files.insert(PathBuf::from(key), File { bytes, mode: mode as u32 });
        }
        return Ok(());
    };
    for item in items {
        match data.remove(&item.key) {
            Some(bytes) => {
                let mode = item.mode.unwrap_or(mode) as u32;
                files.insert(within(&item.path)?, File { bytes, mode });
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
        files.insert(within(&item.path)?, File { bytes: text.into_bytes(), mode });
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
            services: Vec::new(),
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
        let token = json!([{"serviceAccountToken": {"path": "token"}}]);
        let text = check(json!({"name": "v", "projected": {"sources": token}}));
        assert!(text.contains("not supported yet"), "{text}");
    }
}
