//! PersistentVolumeClaims: storage asked for by a pod.

use super::{
    Column, KindDef, Subresource,
    common::{
        self, claims,
        field::{At, Errors, IMMUTABLE, same},
        print, resources, set_text,
    },
};
use k8s::{FieldError, Object, names};
use serde_json::{Value, json};

pub(super) const KIND: KindDef = KindDef {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    short_names: &["pvc"],
    schema: "core.v1.PersistentVolumeClaim",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Status", |o, _| {
            (if o.deletion_timestamp().is_some() {
                "Terminating"
            } else {
                o.str_at("/status/phase")
            })
            .into()
        }),
        Column::text("Volume", |o, _| print::text(o, "/spec/volumeName")),
        Column::text("Capacity", |o, _| match is_bound(o) {
            true => print::scalar(o.at("/status/capacity/storage"), "0").into(),
            false => "".into(),
        }),
        Column::text("Access Modes", |o, _| match is_bound(o) {
            true => print::access_modes(print::list(o, "/status/accessModes")),
            false => "".into(),
        }),
        Column::text("StorageClass", |o, _| print::storage_class(o)),
        Column::text("VolumeAttributesClass", |o, _| {
            print::text_or(o, "/spec/volumeAttributesClassName", "<unset>")
        }),
        Column::AGE,
        Column::text("VolumeMode", |o, _| print::text_or(o, "/spec/volumeMode", "<unset>")).wide(),
    ],
    default,
    prepare_create,
    prepare_update,
    validate,
    validate_status,
    warnings,
    ..KindDef::BASE
};

fn is_bound(claim: &Object) -> bool {
    !claim.str_at("/spec/volumeName").is_empty()
}

fn default(claim: &mut Object) {
    set_text(claim.map_mut("spec"), "volumeMode", "Filesystem");
    set_text(claim.map_mut("status"), "phase", "Pending");
}

fn prepare_create(claim: &mut Object) {
    claim.0.insert("status".into(), json!({ "phase": "Pending" }));
    claims::settle_sources(claim.map_mut("spec"));
}

fn prepare_update(new: &mut Object, old: &Object) {
    common::keep_status(new, old);
    claims::settle_sources(new.map_mut("spec"));
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    match old {
        None => claims::validate_spec(&spec, None, &mut errors),
        Some(old) => {
            let was = At::top(old, "spec");
            claims::validate_spec(&spec, Some(&was), &mut errors);
            validate_update(new, old, &mut errors);
        }
    }
    errors.0
}

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MAY_CHANGE: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

fn validate_update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, was) = (At::top(new, "spec"), At::top(old, "spec"));
    let (Some(now), Some(before)) = (spec.value(), was.value()) else { return };
    let (mut now, mut before) = (now.clone(), before.clone());
    if before["volumeName"].as_str().unwrap_or_default().is_empty() {
        before["volumeName"] = now["volumeName"].clone();
    }
    // The class may be told once, by the annotation or by the field.
    let (class, had_class) = (spec.field("storageClassName"), was.field("storageClassName"));
    let said = old.annotation(OLD_CLASS);
    if had_class.exists() || said.is_some_and(|said| class.text() != said) {
        let (now, was) = (new.annotation(OLD_CLASS), old.annotation(OLD_CLASS));
        if now.unwrap_or_default() != was.unwrap_or_default() {
            let path = format!("metadata.annotations.{OLD_CLASS}");
            let value = now.unwrap_or_default();
            errors.0.push(FieldError::invalid(path, value.into(), IMMUTABLE));
        }
    } else if class.exists() {
        now["storageClassName"] = before["storageClassName"].clone();
    }
    let size =
        |spec: &At<'_, '_>| spec.field("resources").field("requests").key("storage").quantity();
    if new.str_at("/status/phase") == "Bound" {
        now["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
        if let Some(requests) = now.pointer_mut("/resources/requests") {
            let had = before.pointer("/resources/requests/storage").cloned();
            requests["storage"] = had.unwrap_or_default();
        }
    }
    if !same(Some(&now), Some(&before)) {
        errors.forbidden(&spec, format!("{MAY_CHANGE}\n  {before} -> {now}"));
    }
    let has = At::top(old, "status");
    let has = has.field("capacity").key("storage").quantity();
    if let (Some(now), Some(before)) = (size(&spec), size(&was))
        && now < before
        && now <= has.unwrap_or_default()
    {
        let detail = "field can not be less than status.capacity";
        errors.0.push(FieldError::forbidden("spec.resources.requests.storage", detail));
    }
    let (mode, had) = (spec.field("volumeMode"), was.field("volumeMode"));
    if !same(mode.value(), had.value()) {
        errors.0.push(FieldError::invalid("volumeMode", mode.owned(), IMMUTABLE));
    }
    attributes_stay(&spec, old, errors);
}

fn attributes_stay(spec: &At<'_, '_>, old: &Object, errors: &mut Errors) {
    if old.at("/status/currentVolumeAttributesClassName").is_none_or(Value::is_null) {
        return;
    }
    let class = spec.field("volumeAttributesClassName");
    let to = match (class.exists(), class.text()) {
        (false, _) => "nil",
        (true, "") => "empty string",
        _ => return,
    };
    let detail = format!(
        "update to {to} is forbidden when status.currentVolumeAttributesClassName is not nil"
    );
    errors.forbidden(&class, detail);
}

const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let status = At::top(new, "status");
    for (_, amount) in status.field("capacity").entries() {
        resources::validate_basic(&amount, &mut errors);
    }
    let resizes = status.field("allocatedResourceStatuses");
    for (name, resize) in resizes.entries() {
        resource_name(name, &resizes, &mut errors);
        if !RESIZES.contains(&resize.text()) {
            let mut known = RESIZES;
            known.sort_unstable();
            errors.not_supported_value(&resizes, name, &known);
        }
    }
    let allocated = status.field("allocatedResources");
    for (name, amount) in allocated.entries() {
        if resource_name(name, &allocated, &mut errors) {
            resources::validate_basic(&amount, &mut errors);
            resources::validate_amount("storage", &amount, &mut errors);
        }
    }
    errors.0
}

/// Storage, or something of a driver's own.
fn resource_name(name: &str, at: &At<'_, '_>, errors: &mut Errors) -> bool {
    let wrong = names::is_qualified_name(name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if wrong.is_empty() && native && name != "storage" {
        errors.not_supported_value(at, name, &["storage"]);
        return false;
    }
    let good = wrong.is_empty();
    wrong.into_iter().for_each(|detail| errors.invalid_value(at, name, detail));
    good
}

fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    let mut warnings = Vec::new();
    if new.annotation(OLD_CLASS).is_some() {
        warnings.push(format!(
            "metadata.annotations[{OLD_CLASS}]: deprecated since v1.8; use \"storageClassName\" \
             attribute instead"
        ));
    }
    warnings.extend(claims::warnings(&At::top(new, "spec")));
    warnings
}
