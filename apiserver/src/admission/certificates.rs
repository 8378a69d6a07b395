//! CertificateSigningRequests: who asked is written down by the server (and cannot be claimed), only
//! who may approve for a signer approves, only who may sign for it signs, and nobody asks for a
//! master's certificate.

use super::{Cx, Operation};
use crate::{
    authz::{self, Attributes},
    certificates::{request::Request, signers},
    identity::SYSTEM_MASTERS,
    pipeline::meta,
};
use k8s::{FieldError, Object, Status};
use serde_json::{Value, json};

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
/// Who settles it: once there, such a condition stays as it is.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn admit(cx: &Cx<'_>, request: &mut Object) -> Result<(), Status> {
    if cx.kind.group != GROUP || cx.kind.plural != PLURAL {
        return Ok(());
    }
    match (cx.operation, cx.subresource, cx.old) {
        (Operation::Create, "", _) => sign_the_question(cx, request),
        (Operation::Update, "approval", Some(old)) => {
            // An approval changes conditions, nothing else.
            let status = request.map_mut("status");
            match old.at("/status/certificate") {
                Some(certificate) => status.insert("certificate".into(), certificate.clone()),
                None => status.remove("certificate"),
            };
            stamp_times(request, old);
        }
        (Operation::Update, "status", Some(old)) => stamp_times(request, old),
        _ => {}
    }
    Ok(())
}

/// `spec.username` and its fellows are those of whoever sends it.
fn sign_the_question(cx: &Cx<'_>, request: &mut Object) {
    let identity = cx.identity;
    let spec = request.map_mut("spec");
    for field in ["username", "uid", "groups", "extra"] {
        spec.remove(field);
    }
    spec.insert("username".into(), identity.user.clone().into());
    if !identity.uid.is_empty() {
        spec.insert("uid".into(), identity.uid.clone().into());
    }
    if !identity.groups.is_empty() {
        spec.insert("groups".into(), json!(identity.groups));
    }
    if !identity.extra.is_empty() {
        spec.insert("extra".into(), json!(identity.extra));
    }
}

/// When a condition came, and when it last changed its status.
fn stamp_times(request: &mut Object, old: &Object) {
    let was = old.at("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let status = request.map_mut("status");
    let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter_map(Value::as_object_mut) {
        let absent = |condition: &serde_json::Map<String, Value>, field: &str| {
            condition.get(field).is_none_or(Value::is_null)
        };
        if absent(condition, "lastUpdateTime") {
            condition.insert("lastUpdateTime".into(), meta::now().into());
        }
        if absent(condition, "lastTransitionTime") {
            let before = was.iter().find(|before| {
                before.get("type") == condition.get("type")
                    && before.get("status") == condition.get("status")
            });
            let since = before.and_then(|before| before.get("lastTransitionTime").cloned());
            condition.insert("lastTransitionTime".into(), since.unwrap_or(meta::now().into()));
        }
    }
}

pub(super) fn validate(cx: &Cx<'_>, request: &Object) -> Result<(), Status> {
    if cx.kind.group != GROUP || cx.kind.plural != PLURAL {
        return Ok(());
    }
    match (cx.operation, cx.subresource, cx.old) {
        (Operation::Create, "", _) => subject_restriction(cx, request),
        (Operation::Update, "approval", Some(old)) => {
            let signer = request.str_at("/spec/signerName");
            if !may(cx, "approve", signer) {
                let why =
                    format!("user not permitted to approve requests with signerName {signer:?}");
                return Err(cx.forbidden(request, why));
            }
            unchanged_decisions(request, old, true)
        }
        (Operation::Update, "status", Some(old)) => {
            let signer = request.str_at("/spec/signerName");
            let same = |pointer: &str| request.at(pointer) == old.at(pointer);
            let changes = !same("/status/certificate") || !same("/status/conditions");
            if changes && !may(cx, "sign", signer) {
                let why = format!("user not permitted to sign requests with signerName {signer:?}");
                return Err(cx.forbidden(request, why));
            }
            unchanged_decisions(request, old, false)
        }
        _ => Ok(()),
    }
}

fn subject_restriction(cx: &Cx<'_>, request: &Object) -> Result<(), Status> {
    if request.str_at("/spec/signerName") != signers::CLIENT {
        return Ok(());
    }
    // What cannot be read is refused by validation.
    let Ok(read) = Request::of(request) else { return Ok(()) };
    if read.organizations.iter().any(|group| group == SYSTEM_MASTERS) {
        let signer = signers::CLIENT;
        let why = format!("use of {signer} signer with {SYSTEM_MASTERS} group is not allowed");
        return Err(cx.forbidden(request, why));
    }
    Ok(())
}

/// May the user do this for the signer, or for all signers of its domain?
fn may(cx: &Cx<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    [signer.to_string(), format!("{domain}/*")].iter().any(|name| {
        let asked = Attributes {
            user: cx.identity,
            verb,
            group: GROUP,
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            field_selector: "",
            path: "",
        };
        authz::rbac_allows(cx.view, &asked)
    })
}

/// Decisions stay; new ones are made by approval only.
fn unchanged_decisions(new: &Object, old: &Object, approval: bool) -> Result<(), Status> {
    const AT: &str = "status.conditions";
    let of = |object: &Object, kind: &str| -> Vec<Value> {
        let all = object.at("/status/conditions").and_then(Value::as_array).cloned();
        all.unwrap_or_default().into_iter().filter(|it| it["type"] == kind).collect()
    };
    let mut errors = Vec::new();
    for kind in FINAL {
        let (had, has) = (of(old, kind), of(new, kind));
        let why = if has.len() < had.len() {
            "remove"
        } else if has.len() > had.len() && !approval && kind != "Failed" {
            "add"
        } else if has.iter().zip(&had).any(|(new, old)| new != old) {
            "modify"
        } else {
            continue;
        };
        let why = format!("updates may not {why} a condition of type {kind:?}");
        errors.push(FieldError::forbidden(AT, why));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(GROUP, "CertificateSigningRequest", new.name(), &errors)),
    }
}
