//! DenyServiceExternalIPs (off unless asked for): no new `spec.externalIPs` of services.

use super::Cx;
use k8s::{Object, Status};
use serde_json::Value;

pub(super) fn validate(cx: &Cx<'_>, service: &Object) -> Result<(), Status> {
    if !(cx.creates("", "services") || cx.updates("", "services")) {
        return Ok(());
    }
    let ips = |service: &Object| {
        let list = service.at("/spec/externalIPs").and_then(Value::as_array).cloned();
        list.unwrap_or_default()
    };
    let had = cx.old.map(ips).unwrap_or_default();
    if ips(service).iter().all(|ip| had.contains(ip)) {
        return Ok(());
    }
    Err(cx.forbidden(service, "Use of external IPs is denied by admission control"))
}
