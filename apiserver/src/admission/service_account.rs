//! ServiceAccount: every pod runs as some account and, unless pod or account say otherwise, gets a
//! token of it that the node renews, the cluster's certificate and the name of its namespace.

use super::{Cx, Operation};
use crate::pipeline::{Core, meta};
use k8s::{Object, Status};
use serde_json::{Value, json};
use std::time::Duration;

const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour and as much as kubelets may differ; recognized again by who issues the token.
const TOKEN_SECONDS: i64 = crate::authn::service_account::WARN_ONLY_SECONDS;
/// How long a pod waits for the account that a controller makes right after its namespace
/// (upstream: ten tries of 100 to 200 ms).
const ACCOUNT_WAIT: Duration = Duration::from_millis(1500);

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    if cx.operation != Operation::Create || !cx.is("", "pods") {
        return Ok(());
    }
    if pod.annotation(MIRROR).is_some() {
        return mirror(cx, pod);
    }
    let name = account_name(pod);
    let namespace = cx.namespace;
    let Some(account) = cx.view.object("serviceaccounts", &format!("{namespace}/{name}")) else {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        return Err(cx.forbidden(pod, why));
    };
    let spec = pod.map_mut("spec");
    spec.insert("serviceAccountName".into(), name.clone().into());
    spec.insert("serviceAccount".into(), name.into());
    let pulls = account.0.get("imagePullSecrets").filter(|list| list.is_array());
    let none_given =
        spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if let (true, Some(pulls)) = (none_given, pulls) {
        spec.insert("imagePullSecrets".into(), pulls.clone());
    }
    let said = |object: &Object, pointer: &str| object.at(pointer).and_then(Value::as_bool);
    let wanted = said(pod, "/spec/automountServiceAccountToken")
        .or_else(|| said(&account, "/automountServiceAccountToken"));
    if wanted != Some(false) {
        mount_token(pod);
    }
    Ok(())
}

fn account_name(pod: &Object) -> String {
    match (pod.str_at("/spec/serviceAccountName"), pod.str_at("/spec/serviceAccount")) {
        ("", "") => "default",
        ("", old_field) => old_field,
        (name, _) => name,
    }
    .to_string()
}

/// Waits a little for the account of a pod to be made: it is often created in one breath with its
/// namespace.
pub(crate) async fn await_account(core: &Core, namespace: &str, pod: &Object) {
    if pod.annotation(MIRROR).is_some() || account_name(pod) != "default" {
        return;
    }
    let path = format!("{namespace}/default");
    let there = || core.view.stored("serviceaccounts", &path).is_some();
    if there() || core.view.stored("namespaces", namespace).is_none() {
        return;
    }
    let Ok(mut changes) = core.store.watch("serviceaccounts", &path, core.store.revision()) else {
        return;
    };
    let appears = async { while !there() && changes.next().await.is_ok() {} };
    // Whether it came is seen by the one who asks for it.
    let _ = tokio::time::timeout(ACCOUNT_WAIT, appears).await;
}

/// A pod that a node shows of its own accord has nothing of the API's.
fn mirror(cx: &Cx<'_>, pod: &Object) -> Result<(), Status> {
    if !pod.str_at("/spec/serviceAccountName").is_empty() {
        return Err(cx.forbidden(pod, "a mirror pod may not reference service accounts"));
    }
    let volumes = pod.at("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    for volume in volumes {
        if volume.get("secret").is_some() {
            return Err(cx.forbidden(pod, "a mirror pod may not reference secrets"));
        }
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        if sources.into_iter().any(|source| source.get("serviceAccountToken").is_some()) {
            let why = "a mirror pod may not use ServiceAccountToken volume projections";
            return Err(cx.forbidden(pod, why));
        }
    }
    Ok(())
}

/// A volume with token, certificate and namespace in every container that has nothing in its place.
fn mount_token(pod: &mut Object) {
    let spec = pod.map_mut("spec");
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let mut names = volumes.filter_map(|volume| volume["name"].as_str());
    let own = names.find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_string);
    let name = own.clone().unwrap_or_else(|| meta::generate_name(VOLUME_PREFIX));
    let mount = json!({ "name": name, "readOnly": true, "mountPath": MOUNT_PATH });
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert(Value::Null);
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != MOUNT_PATH) {
                mounts.push(mount.clone());
                mounted = true;
            }
        }
    }
    if mounted && own.is_none() {
        let volumes = spec.entry("volumes").or_insert(Value::Null);
        if volumes.is_null() {
            *volumes = json!([]);
        }
        if let Some(volumes) = volumes.as_array_mut() {
            volumes.push(token_volume(&name));
        }
    }
}

fn token_volume(name: &str) -> Value {
    let namespace = json!({ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } });
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                { "serviceAccountToken": { "path": "token", "expirationSeconds": TOKEN_SECONDS } },
                { "configMap": {
                    "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }],
                } },
                { "downwardAPI": { "items": [namespace] } },
            ],
        },
    })
}
