//! Security contexts: users, groups, privileges.

use super::{
    super::field::{At, Errors},
    I32_MAX,
};
use serde_json::Value;

fn id(at: &At<'_, '_>, errors: &mut Errors) {
    if at.int().is_some_and(|id| !(0..=I32_MAX).contains(&id)) {
        errors.invalid(at, format!("must be between 0 and {I32_MAX}, inclusive"));
    }
}

pub(super) fn validate_pod(context: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        id(&context.field(field), errors);
    }
    for group in context.field("supplementalGroups").items() {
        id(&group, errors);
    }
    seccomp(&context.field("seccompProfile"), errors);
    errors.one_of(&context.field("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], false);
    errors.one_of(&context.field("supplementalGroupsPolicy"), &["Merge", "Strict"], false);
    let shared = spec.field("shareProcessNamespace");
    if shared.flag() && spec.field("hostPID").flag() {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&shared, detail);
    }
}

pub(super) fn validate_container(context: &At<'_, '_>, errors: &mut Errors) {
    if !context.exists() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        id(&context.field(field), errors);
    }
    seccomp(&context.field("seccompProfile"), errors);
    errors.one_of(&context.field("procMount"), &["Default", "Unmasked"], false);
    let escalation = context.field("allowPrivilegeEscalation");
    if !escalation.exists() || escalation.flag() {
        return;
    }
    if context.field("privileged").flag() {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(context, detail);
    }
    let capabilities = context.field("capabilities");
    let added = capabilities.field("add");
    let added = added.value().and_then(Value::as_array).into_iter().flatten();
    if added.into_iter().any(|capability| capability.as_str() == Some("CAP_SYS_ADMIN")) {
        let detail =
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(context, detail);
    }
}

fn seccomp(profile: &At<'_, '_>, errors: &mut Errors) {
    if !profile.exists() {
        return;
    }
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.text() {
        "" => errors.required(&kind, "type is required when seccompProfile is set"),
        "Localhost" if local.text().is_empty() => {
            errors.required(&local, "must be set when seccomp type is Localhost");
        }
        "Localhost" => (),
        "RuntimeDefault" | "Unconfined" if local.exists() => {
            errors.invalid(&local, "can only be set when seccomp type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => (),
        _ => errors.not_supported(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}
