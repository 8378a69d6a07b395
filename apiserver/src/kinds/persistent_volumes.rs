//! PersistentVolumes: storage there is.

use super::{
    Column, KindDef, Subresource,
    common::{
        self, child,
        claims::{self, VOLUME_MODES},
        field::{At, Errors, IMMUTABLE, same},
        pod_spec, print, resources, set_text,
        volume_sources::{self, Place},
    },
};
use crate::pipeline::meta;
use k8s::{FieldError, Object};
use serde_json::{Map, Value, json};

pub(super) const KIND: KindDef = KindDef {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    short_names: &["pv"],
    namespaced: false,
    schema: "core.v1.PersistentVolume",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Capacity", |o, _| print::scalar(o.at("/spec/capacity/storage"), "").into()),
        Column::text("Access Modes", |o, _| {
            print::access_modes(print::list(o, "/spec/accessModes"))
        }),
        Column::text("Reclaim Policy", |o, _| {
            print::text(o, "/spec/persistentVolumeReclaimPolicy")
        }),
        Column::text("Status", |o, _| {
            (if o.deletion_timestamp().is_some() {
                "Terminating"
            } else {
                o.str_at("/status/phase")
            })
            .into()
        }),
        Column::text("Claim", |o, _| claim(o)),
        Column::text("StorageClass", |o, _| print::storage_class(o)),
        Column::text("VolumeAttributesClass", |o, _| {
            print::text_or(o, "/spec/volumeAttributesClassName", "<unset>")
        }),
        Column::text("Reason", |o, _| print::text(o, "/status/reason")),
        Column::AGE,
        Column::text("VolumeMode", |o, _| print::text_or(o, "/spec/volumeMode", "<unset>")).wide(),
    ],
    prepare_update: common::keep_status,
    prepare_status,
    default,
    prepare_create,
    validate,
    warnings,
    ..KindDef::BASE
};

fn claim(object: &Object) -> Value {
    match object.at("/spec/claimRef") {
        Some(claim) => {
            format!("{}/{}", print::field(claim, "namespace"), print::field(claim, "name")).into()
        }
        None => "".into(),
    }
}

fn default(volume: &mut Object) {
    let spec = volume.map_mut("spec");
    set_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_text(spec, "volumeMode", "Filesystem");
    volume_sources::default(spec);
    if let Some(claim) = child(spec, "claimRef") {
        // A reference to a claim needs no more than its name.
        set_text(claim, "kind", "PersistentVolumeClaim");
        set_text(claim, "apiVersion", "v1");
    }
    set_text(volume.map_mut("status"), "phase", "Pending");
}

fn prepare_create(volume: &mut Object) {
    let since = volume.str_at("/metadata/creationTimestamp");
    let status = json!({ "phase": "Pending", "lastPhaseTransitionTime": since });
    volume.0.insert("status".into(), status);
}

/// Whoever changes the phase need not know of its time (KEP-3762).
fn prepare_status(new: &mut Object, old: &Object) {
    const TIME: &str = "lastPhaseTransitionTime";
    let was = old.at("/status/lastPhaseTransitionTime").cloned();
    let changed = new.at("/status/phase") != old.at("/status/phase");
    let status = new.map_mut("status");
    let own = status.get(TIME).filter(|time| !time.is_null());
    match was {
        _ if changed && own.is_none_or(|own| Some(own) == was.as_ref()) => {
            status.insert(TIME.into(), meta::now().into());
        }
        Some(was) if own.is_none() => _ = status.insert(TIME.into(), was),
        _ => (),
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    validate_spec(&spec, new.name(), &mut errors);
    if let Some(old) = old {
        validate_update(&spec, &At::top(old, "spec"), &mut errors);
    }
    errors.0
}

fn validate_spec(spec: &At<'_, '_>, name: &str, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.count() == 0 {
        errors.required(&modes, "");
    }
    claims::validate_modes(&modes, errors);
    capacity(&spec.field("capacity"), errors);
    let policy = spec.field("persistentVolumeReclaimPolicy");
    errors.one_of(&policy, &["Delete", "Recycle", "Retain"], false);
    let affinity = spec.field("nodeAffinity");
    let required = affinity.field("required");
    if required.exists() {
        pod_spec::node_selector(&required, errors);
    } else if affinity.exists() {
        errors.required(&required, "must specify required node constraints");
    }
    volume_sources::validate(spec, Place::Persistent { name }, errors);
    if spec.field("local").exists() && !affinity.exists() {
        errors.required(&affinity, "Local volume requires node affinity");
    }
    let path = spec.field("hostPath");
    let root = path.field("path").text().split('/').all(|part| matches!(part, "" | "."));
    if path.exists() && root && policy.text() == "Recycle" {
        errors.forbidden(&policy, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = spec.field("storageClassName");
    if !class.text().is_empty() {
        errors.subdomain(&class);
    }
    errors.one_of(&spec.field("volumeMode"), &VOLUME_MODES, false);
    let attributes = spec.field("volumeAttributesClassName");
    if !attributes.exists() {
        return;
    }
    match attributes.text() {
        "" => errors.required(&attributes, "an empty string is disallowed"),
        _ => errors.subdomain(&attributes),
    }
    if !spec.field("csi").exists() {
        let detail = "has to be specified when using volumeAttributesClassName";
        errors.required(&spec.field("csi"), detail);
    }
}

fn capacity(capacity: &At<'_, '_>, errors: &mut Errors) {
    if capacity.count() == 0 {
        errors.required(capacity, "");
    }
    if !capacity.has("storage") || capacity.count() > 1 {
        errors.not_supported(capacity, &["storage"]);
    }
    for (_, at) in capacity.entries() {
        resources::validate_basic(&at, errors);
        if let Some(amount) = at.quantity().filter(|amount| amount.sign() <= 0) {
            errors.invalid_value(&at, amount.to_string(), "must be greater than zero");
        }
    }
}

/// Where the data is does not change, nor how it is used.
fn validate_update(spec: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let fields = |spec: &At<'_, '_>| -> Map<String, Value> {
        let all = spec.value().and_then(Value::as_object).cloned().unwrap_or_default();
        all.into_iter().filter(|(field, _)| volume_sources::is_source(field)).collect()
    };
    let (mut now, before) = (fields(spec), fields(was));
    let expand = "controllerExpandSecretRef";
    if let (Some(now), Some(before)) = (child(&mut now, "csi"), before.get("csi"))
        && before.get(expand).is_none()
    {
        now.remove(expand);
    }
    let (now, before) = (Value::Object(now), Value::Object(before));
    if !same(Some(&now), Some(&before)) {
        let detail =
            format!("spec.persistentvolumesource is immutable after creation\n  {before} -> {now}");
        errors.0.push(FieldError::forbidden("spec.persistentvolumesource", detail));
    }
    for field in ["volumeMode", "nodeAffinity"] {
        let (now, before) = (spec.field(field), was.field(field));
        let fixed = field == "volumeMode" || before.exists();
        if fixed && !same(now.value(), before.value()) {
            // Upstream leaves out where the field is.
            errors.0.push(FieldError::invalid(field, now.owned(), IMMUTABLE));
        }
    }
    let attributes = "volumeAttributesClassName";
    if was.field(attributes).exists() && !spec.field(attributes).exists() {
        let detail = "update from non-nil value to nil is forbidden";
        errors.forbidden(&spec.field(attributes), detail);
    }
}

fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    const MOUNT: &str = "volume.beta.kubernetes.io/mount-options";
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    const OLD: [(&str, &str, &str); 6] = [
        (
            "photonPersistentDisk",
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    let spec = At::top(new, "spec");
    let mut warnings = Vec::new();
    if new.annotation(CLASS).is_some() {
        warnings.push(format!(
            "metadata.annotations[{CLASS}]: deprecated since v1.8; use \"storageClassName\" \
             attribute instead"
        ));
    }
    if new.annotation(MOUNT).is_some() {
        warnings.push(format!(
            "metadata.annotations[{MOUNT}]: deprecated since v1.31; use \"mountOptions\" attribute \
             instead"
        ));
    }
    if spec.field("persistentVolumeReclaimPolicy").text() == "Recycle" {
        warnings.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. \
             Instead, the recommended approach is to use dynamic provisioning."
                .into(),
        );
    }
    for (field, name, text) in OLD {
        if spec.field(field).exists() {
            warnings.push(format!("spec.{name}: {text}"));
        }
    }
    let storage = spec.field("capacity");
    let storage = storage.key("storage");
    if let Some(amount) = storage.quantity().filter(|amount| amount.milli_value() % 1000 != 0) {
        warnings.push(format!(
            "{storage}: fractional byte value \"{amount}\" is invalid, must be an integer"
        ));
    }
    warnings
}
