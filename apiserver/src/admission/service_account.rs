//! ServiceAccount: every pod runs as some account. No token volume is added: this server issues no
//! tokens yet, so a pod could do nothing with one.

use super::{Cx, Operation};
use k8s::{Object, Status};
use serde_json::Value;

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    let mirror = pod.annotation("kubernetes.io/config.mirror").is_some();
    if cx.operation != Operation::Create || !cx.is("", "pods") || mirror {
        return Ok(());
    }
    let name = match (pod.str_at("/spec/serviceAccountName"), pod.str_at("/spec/serviceAccount")) {
        ("", "") => "default",
        ("", old_field) => old_field,
        (name, _) => name,
    }
    .to_string();
    let account = cx.view.object("serviceaccounts", &format!("{}/{name}", cx.namespace));
    // The default account is made by a controller just after its namespace; upstream waits for it.
    if account.is_none() && name != "default" {
        let place = cx.namespace;
        let why = format!(
            "error looking up service account {place}/{name}: serviceaccount {name:?} not found"
        );
        return Err(cx.forbidden(pod, why));
    }
    let pulls = account.as_ref().and_then(|account| account.0.get("imagePullSecrets"));
    let spec = pod.map_mut("spec");
    spec.insert("serviceAccountName".into(), name.clone().into());
    spec.insert("serviceAccount".into(), name.into());
    let none_given =
        spec.get("imagePullSecrets").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if let (true, Some(pulls)) = (none_given, pulls) {
        spec.insert("imagePullSecrets".into(), pulls.clone());
    }
    Ok(())
}
