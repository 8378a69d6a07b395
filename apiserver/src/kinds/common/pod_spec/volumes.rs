//! Volumes of a pod.

use super::{
    super::field::{At, Errors},
    Taken,
    containers::validate_field_source,
};
use k8s::{names as rules, quantity::Quantity};
use serde_json::Value;

const ONE_SOURCE: &str = "may not specify more than 1 volume type";
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Checks the volumes and gives their names.
pub(crate) fn validate_volumes<'v>(volumes: &At<'_, 'v>, errors: &mut Errors) -> Taken<'v> {
    let mut names = Taken::default();
    for volume in volumes.items() {
        let name = volume.field("name");
        match name.text() {
            "" => errors.required(&name, ""),
            text => match rules::is_dns1123_label(text) {
                wrong if !wrong.is_empty() => errors.invalid_each(&name, wrong),
                _ => {
                    names.add(&name, errors);
                }
            },
        }
        source(&volume, errors);
    }
    names
}

fn source(volume: &At<'_, '_>, errors: &mut Errors) {
    let fields = volume.value().and_then(Value::as_object).into_iter().flatten();
    let mut sources = fields.filter(|(field, value)| *field != "name" && !value.is_null());
    if sources.next().is_none() {
        errors.required(volume, "must specify a volume type");
    }
    for (field, _) in sources {
        let path = format!("{volume}.{field}");
        errors.0.push(k8s::FieldError::forbidden(path, ONE_SOURCE));
    }
    host_path(&volume.field("hostPath"), errors);
    empty_dir(&volume.field("emptyDir"), errors);
    let secret = volume.field("secret");
    if secret.exists() {
        errors.needs_text(&secret.field("secretName"));
        files(&secret, errors);
    }
    let config_map = volume.field("configMap");
    if config_map.exists() {
        errors.needs_text(&config_map.field("name"));
        files(&config_map, errors);
    }
    let claim = volume.field("persistentVolumeClaim");
    if claim.exists() {
        errors.needs_text(&claim.field("claimName"));
    }
    let downward = volume.field("downwardAPI");
    if downward.exists() {
        mode(&downward.field("defaultMode"), errors);
        downward_items(&downward, errors);
    }
    projected(&volume.field("projected"), errors);
    let nfs = volume.field("nfs");
    if nfs.exists() {
        errors.needs_text(&nfs.field("server"));
        errors.needs_text(&nfs.field("path"));
    }
    let csi = volume.field("csi");
    if csi.exists() {
        errors.needs_text(&csi.field("driver"));
    }
    let ephemeral = volume.field("ephemeral");
    if ephemeral.exists() && !ephemeral.field("volumeClaimTemplate").exists() {
        errors.required(&ephemeral.field("volumeClaimTemplate"), "");
    }
}

fn host_path(host_path: &At<'_, '_>, errors: &mut Errors) {
    if !host_path.exists() {
        return;
    }
    let path = host_path.field("path");
    if errors.needs_text(&path) {
        no_back_steps(&path, errors);
    }
    let kind = host_path.field("type");
    if kind.exists() && !HOST_PATH_TYPES.contains(&kind.text()) {
        errors.not_supported(&kind, &HOST_PATH_TYPES);
    }
}

fn empty_dir(empty_dir: &At<'_, '_>, errors: &mut Errors) {
    let limit = empty_dir.field("sizeLimit");
    if let Some(Ok(quantity)) = quantity(&limit)
        && quantity.sign() < 0
    {
        errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

/// The quantity at a place, which may be text or a number.
pub(super) fn quantity(at: &At<'_, '_>) -> Option<Result<Quantity, k8s::quantity::QuantityError>> {
    match at.value()? {
        Value::String(text) => Some(Quantity::parse(text)),
        Value::Number(number) => Some(Quantity::parse(&number.to_string())),
        _ => None,
    }
}

fn mode(mode: &At<'_, '_>, errors: &mut Errors) {
    if mode.int().is_some_and(|bits| !(0..=0o777).contains(&bits)) {
        errors.invalid(mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// `items` and `defaultMode` of a Secret or ConfigMap as a volume.
fn files(source: &At<'_, '_>, errors: &mut Errors) {
    mode(&source.field("defaultMode"), errors);
    for item in source.field("items").items() {
        errors.needs_text(&item.field("key"));
        let path = item.field("path");
        if errors.needs_text(&path) {
            relative(&path, errors);
        }
        mode(&item.field("mode"), errors);
    }
}

fn downward_items(source: &At<'_, '_>, errors: &mut Errors) {
    for item in source.field("items").items() {
        let path = item.field("path");
        if errors.needs_text(&path) {
            relative(&path, errors);
        }
        let (field, resource) = (item.field("fieldRef"), item.field("resourceFieldRef"));
        match (field.exists(), resource.exists()) {
            (true, true) => {
                errors.invalid(
                    &item,
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (false, false) => {
                errors.required(&item, "one of fieldRef and resourceFieldRef is required");
            }
            _ => validate_field_source(&field, &resource, true, errors),
        }
        mode(&item.field("mode"), errors);
    }
}

fn projected(projected: &At<'_, '_>, errors: &mut Errors) {
    if !projected.exists() {
        return;
    }
    mode(&projected.field("defaultMode"), errors);
    for source in projected.field("sources").items() {
        let fields = source.value().and_then(Value::as_object).into_iter().flatten();
        for (field, _) in fields.filter(|(_, value)| !value.is_null()).skip(1) {
            let path = format!("{source}.{field}");
            errors.0.push(k8s::FieldError::forbidden(path, ONE_SOURCE));
        }
        for kind in ["secret", "configMap"] {
            let source = source.field(kind);
            if source.exists() {
                errors.needs_text(&source.field("name"));
                files(&source, errors);
            }
        }
        downward_items(&source.field("downwardAPI"), errors);
        let token = source.field("serviceAccountToken");
        if token.exists() {
            errors.needs_text(&token.field("path"));
        }
    }
}

/// A path inside a volume.
pub(super) fn relative(path: &At<'_, '_>, errors: &mut Errors) {
    if path.text().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    no_back_steps(path, errors);
}

fn no_back_steps(path: &At<'_, '_>, errors: &mut Errors) {
    if path.text().split('/').any(|part| part == "..") {
        errors.invalid(path, "must not contain '..'");
    }
}
