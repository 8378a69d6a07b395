//! Annotations of pods that mean something to the server, and the fields that took their place.

use super::{
    super::{
        field::{At, Errors},
        volume_sources::descending,
    },
    os::LISTS,
};
use k8s::FieldError;

/// The kubelet's, on the pods it made of files.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn validate(annotations: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let mirror = annotations.key(MIRROR);
    if mirror.exists() && spec.field("nodeName").text().is_empty() {
        errors.invalid(&mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = annotations.key(DELETION_COST);
    if cost.exists() && !is_cost(cost.text()) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
    for (key, value) in annotations.entries() {
        if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(annotations, key, &value, errors);
        }
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            if !has_container(spec, container) {
                errors.invalid_value(&value, container, "container not found");
            }
            let known = matches!(value.text(), "" | "runtime/default" | "unconfined");
            if !known && !value.text().starts_with("localhost/") {
                let detail = format!("invalid AppArmor profile name: {:?}", value.text());
                errors.invalid(&value, detail);
            }
        }
    }
}

/// Only one way to write each number.
fn is_cost(text: &str) -> bool {
    let plain = text == "0" || text.starts_with(|c: char| c == '-' || ('1'..='9').contains(&c));
    plain && text.parse::<i32>().is_ok()
}

/// Upstream names the annotation after a dot here.
fn seccomp(annotations: &At<'_, '_>, key: &str, value: &At<'_, '_>, errors: &mut Errors) {
    if matches!(value.text(), "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    let path = format!("{annotations}.{key}");
    let Some(file) = value.text().strip_prefix("localhost/") else {
        let detail = "must be a valid seccomp profile";
        return errors.0.push(FieldError::invalid(path, value.owned(), detail));
    };
    let mut within = Errors::default();
    descending(value, &mut within);
    if file.starts_with('/') {
        within.invalid(value, "must be a relative path");
    }
    errors.0.extend(within.0.into_iter().map(|error| FieldError {
        path: path.clone(),
        bad_value: Some(file.into()),
        ..error
    }));
}

fn has_container(spec: &At<'_, '_>, name: &str) -> bool {
    LISTS.into_iter().any(|list| {
        spec.field(list).items().any(|container| container.field("name").text() == name)
    })
}

/// Where both the annotation and the field are there, they say the same.
pub(super) fn match_fields(annotations: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let context = spec.field("securityContext");
    let (pod_seccomp, pod_armor) =
        (context.field("seccompProfile"), context.field("appArmorProfile"));
    let said = annotations.key(SECCOMP_POD);
    if pod_seccomp.exists() && said.exists() {
        must_match(&pod_seccomp, "seccomp", said.text(), errors);
    }
    let windows = spec.field("os").field("name").text() == "windows";
    for list in LISTS {
        for container in spec.field(list).items() {
            let context = container.field("securityContext");
            let name = container.field("name").text();
            let profile = context.field("seccompProfile");
            let key = format!("{SECCOMP_CONTAINER}{name}");
            let said = annotations.value().and_then(|map| map.get(&key)?.as_str());
            if let (true, Some(said)) = (profile.exists(), said) {
                must_match(&profile, "seccomp", said, errors);
            }
            let own = context.field("appArmorProfile");
            let key = format!("{APP_ARMOR}{name}");
            let said = annotations.value().and_then(|map| map.get(&key)?.as_str());
            let (Some(said), false) = (said, windows) else { continue };
            if own.exists() {
                must_match(&own, "apparmor", said, errors);
            } else if pod_armor.exists() {
                inherited(&own, &pod_armor, said, errors);
            }
        }
    }
}

/// The pod's profile, told at the container's place.
fn inherited(own: &At<'_, '_>, of_pod: &At<'_, '_>, said: &str, errors: &mut Errors) {
    let mut within = Errors::default();
    must_match(of_pod, "apparmor", said, &mut within);
    errors.adopt(within, of_pod, own);
}

fn must_match(profile: &At<'_, '_>, what: &str, said: &str, errors: &mut Errors) {
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    let same = match kind.text() {
        "Unconfined" => said == "unconfined",
        "RuntimeDefault" => {
            said == "runtime/default" || (what == "seccomp" && said == "docker/default")
        }
        "Localhost" => match said.strip_prefix("localhost/") {
            Some(file) if file != local.text() || !local.exists() => {
                let detail = format!("{what} profile in annotation and field must match");
                return errors.forbidden(&local, detail);
            }
            file => file.is_some(),
        },
        _ => true,
    };
    if !same {
        errors.forbidden(&kind, format!("{what} type in annotation and field must match"));
    }
}

/// What an update may not do to them.
pub(super) fn validate_update(new: &At<'_, '_>, old: &At<'_, '_>, errors: &mut Errors) {
    let ours = |key: &str| key.starts_with(APP_ARMOR) || key == MIRROR;
    let what = |key: &str| match key {
        MIRROR => "mirror pod annotation",
        _ => "AppArmor annotations",
    };
    for (key, was) in old.entries().filter(|(key, _)| ours(key)) {
        if new.key(key).value() != was.value() {
            errors.forbidden(&new.key(key), format!("may not remove or update {}", what(key)));
        }
    }
    for (key, now) in new.entries().filter(|(key, _)| ours(key)) {
        if !old.key(key).exists() {
            errors.forbidden(&now, format!("may not add {}", what(key)));
        }
    }
}
