//! What is asked of a volume: the spec of a PersistentVolumeClaim, also as the template of an
//! ephemeral volume or of a StatefulSet.

use super::{
    child,
    field::{At, Errors},
    labels,
};
use k8s::names as rules;
use serde_json::{Map, Value};

const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(crate) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// The old field and the new one say the same, unless the new one names another namespace
/// (upstream's NormalizeDataSources).
pub(crate) fn settle_sources(spec: &mut Map<String, Value>) {
    let local = |reference: &mut Map<String, Value>| {
        let mut reference = reference.clone();
        let elsewhere = reference
            .remove("namespace")
            .is_some_and(|namespace| namespace.as_str().is_some_and(|text| !text.is_empty()));
        (!elsewhere).then_some(reference)
    };
    if !spec.contains_key("dataSourceRef") {
        if let Some(source) = child(spec, "dataSource").map(|source| source.clone()) {
            spec.insert("dataSourceRef".into(), source.into());
        }
    } else if !spec.contains_key("dataSource")
        && let Some(source) = child(spec, "dataSourceRef").and_then(local)
    {
        spec.insert("dataSource".into(), source.into());
    }
}

/// Access modes of a volume or of what asks for one.
pub(crate) fn validate_modes(modes: &At<'_, '_>, errors: &mut Errors) {
    let (mut alone, mut others) = (false, false);
    for mode in modes.texts() {
        if !MODES.contains(&mode) {
            errors.not_supported_value(modes, mode, &MODES);
        } else if mode == "ReadWriteOncePod" {
            alone = true;
        } else {
            others = true;
        }
    }
    if alone && others {
        errors.forbidden(modes, "may not use ReadWriteOncePod with other access modes");
    }
}

/// `old` is the spec before; what was wrong then may stay.
pub(crate) fn validate_spec(spec: &At<'_, '_>, old: Option<&At<'_, '_>>, errors: &mut Errors) {
    let modes = spec.field("accessModes");
    if modes.count() == 0 {
        errors.required(&modes, "at least 1 access mode is required");
    }
    labels::validate_selector(&spec.field("selector"), errors);
    validate_modes(&modes, errors);
    storage(spec, errors);
    let class = spec.field("storageClassName");
    if !class.text().is_empty() {
        errors.subdomain(&class);
    }
    errors.one_of(&spec.field("volumeMode"), &VOLUME_MODES, false);
    let had_group = old.is_some_and(|old| {
        ["dataSource", "dataSourceRef"]
            .into_iter()
            .any(|field| old.field(field).field("apiGroup").exists())
    });
    for field in ["dataSource", "dataSourceRef"] {
        data_source(&spec.field(field), had_group, errors);
    }
    sources_agree(spec, errors);
    let attributes = spec.field("volumeAttributesClassName");
    if !attributes.text().is_empty() {
        errors.subdomain(&attributes);
    }
}

fn storage(spec: &At<'_, '_>, errors: &mut Errors) {
    let resources = spec.field("resources");
    let requests = resources.field("requests");
    // Upstream leaves `requests` out of the path.
    let asked = requests.key("storage");
    let path = format!("{resources}[storage]");
    let Some(size) = asked.quantity() else {
        errors.0.push(k8s::FieldError::required(path, ""));
        return;
    };
    let detail = match size.sign() {
        ..=0 => "must be greater than zero",
        _ if size.milli_value() % 1000 != 0 => "must be an integer",
        _ => return,
    };
    errors.0.push(k8s::FieldError::invalid(path, size.to_string().into(), detail));
}

fn data_source(source: &At<'_, '_>, had_group: bool, errors: &mut Errors) {
    if !source.exists() {
        return;
    }
    let (group, kind) = (source.field("apiGroup"), source.field("kind"));
    errors.needs_text(&source.field("name"));
    errors.needs_text(&kind);
    if group.text().is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid_value(source, kind.text(), detail);
    }
    if !group.text().is_empty() && !had_group {
        errors.subdomain(&group);
    }
    let namespace = source.field("namespace");
    if !namespace.text().is_empty() {
        errors.invalid_each(&namespace, rules::is_dns1123_label(namespace.text()));
    }
}

fn sources_agree(spec: &At<'_, '_>, errors: &mut Errors) {
    let (source, reference) = (spec.field("dataSource"), spec.field("dataSourceRef"));
    if !source.exists() || !reference.exists() {
        return;
    }
    let equal = ["apiGroup", "kind", "name"]
        .into_iter()
        .all(|field| source.field(field).value() == reference.field(field).value());
    let detail = if !reference.field("namespace").text().is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if !equal {
        "must match dataSourceRef"
    } else {
        return;
    };
    // The bad value is the path, as upstream has it.
    errors.invalid_value(spec, source.to_string(), detail);
}

/// What a client is warned of in the spec of a claim.
pub(crate) fn warnings(spec: &At<'_, '_>) -> Vec<String> {
    let resources = spec.field("resources");
    ["requests", "limits"]
        .into_iter()
        .filter_map(|kind| {
            let amounts = resources.field(kind);
            let storage = amounts.key("storage");
            let amount = storage.quantity().filter(|amount| amount.milli_value() % 1000 != 0)?;
            Some(format!(
                "{storage}: fractional byte value \"{amount}\" is invalid, must be an integer"
            ))
        })
        .collect()
}
