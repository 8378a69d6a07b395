//! CustomResourceDefinitions: kinds that users add. What they are made into is in `custom/`.

use super::{
    KindDef, Subresource,
    common::{
        child,
        field::{At, Errors},
        made, set_text,
    },
};
use crate::custom::{CLEANUP, names, rules};
use k8s::{
    FieldError, Object,
    names::{is_dns1035_label, is_dns1123_subdomain},
    structural::{self, FieldPath, Node, Ty},
};
use serde_json::{Map, Value, json};

/// Upstream's MaxSelectableFields.
const SELECTABLE_MAX: usize = 8;

pub(super) const KIND: KindDef = KindDef {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    schema: "apiextensions.v1.CustomResourceDefinition",
    subresources: &[Subresource::Status],
    prepare_create: |definition| {
        definition.0.remove("status");
        store_version(definition);
    },
    prepare_update: |new, old| {
        super::common::keep_status(new, old);
        store_version(new);
    },
    // Its instances go first: see `custom/keeper.rs`.
    held: |definition| definition.deletion_timestamp().is_none(),
    mark_deleted,
    generation: true,
    unconditional_update: false,
    default,
    validate,
    validate_status,
    ..KindDef::BASE
};

fn default(definition: &mut Object) {
    let spec = definition.map_mut("spec");
    if let Some(names) = child(spec, "names") {
        let kind = names.get("kind").and_then(Value::as_str).unwrap_or_default().to_string();
        if !kind.is_empty() {
            set_text(names, "singular", &kind.to_lowercase());
            set_text(names, "listKind", &format!("{kind}List"));
        }
    }
    if let Some(conversion) = made(spec, "conversion") {
        set_text(conversion, "strategy", "None");
        let service = child(conversion, "webhook")
            .and_then(|webhook| child(webhook, "clientConfig"))
            .and_then(|config| child(config, "service"));
        if let Some(service) = service {
            service.entry("port").or_insert_with(|| 443.into());
        }
    }
}

/// `status.storedVersions` has every version objects may have been stored in.
fn store_version(definition: &mut Object) {
    let versions = definition.at("/spec/versions").and_then(Value::as_array);
    let storage = versions.into_iter().flatten().find(|version| version["storage"] == true);
    let Some(name) = storage.map(|version| version["name"].clone()) else { return };
    let stored = definition.map_mut("status").entry("storedVersions").or_insert(Value::Null);
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Some(stored) = stored.as_array_mut()
        && !stored.contains(&name)
    {
        stored.push(name);
    }
}

fn mark_deleted(definition: &mut Object) {
    let metadata = definition.metadata_mut();
    let finalizers = metadata.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.contains(&json!(CLEANUP))
    {
        finalizers.push(CLEANUP.into());
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin \
                   soon";
    names::set(definition, "Terminating", true, "InstanceDeletionPending", message);
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    check_name(new, &spec, &mut errors);
    check_group(&spec.field("group"), &mut errors);
    errors.one_of(&spec.field("scope"), &["Cluster", "Namespaced"], true);
    check_versions(&spec, old, &mut errors);
    let names = spec.field("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        errors.needs_text(&names.field(field));
    }
    check_names(&names, &mut errors);
    let kept = spec.field("preserveUnknownFields");
    if kept.flag() {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                   spec.versions[*].schema instead";
        errors.invalid(&kept, why);
    }
    let established = old.is_some_and(is_established);
    check_conversion(&spec.field("conversion"), established, &mut errors);
    if let Some(old) = old {
        let was = At::top(old, "spec");
        if established {
            errors.immutable(&spec.field("scope"), &was.field("scope"));
            errors.immutable(&names.field("kind"), &was.field("names").field("kind"));
        }
        errors.immutable(&spec.field("group"), &was.field("group"));
        errors.immutable(&names.field("plural"), &was.field("names").field("plural"));
    }
    check_status(new, &mut errors);
    check_stored(new, &mut errors);
    check_approval(new, old, &mut errors);
    errors.0
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    check_status(new, &mut errors);
    errors.0
}

fn is_established(definition: &Object) -> bool {
    let conditions = definition.at("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "Established" && condition["status"] == "True"
    })
}

fn check_name(new: &Object, spec: &At<'_, '_>, errors: &mut Errors) {
    let of = |at: At<'_, '_>| at.text().to_string();
    let plural = of(spec.field("names").field("plural"));
    if new.name() != format!("{plural}.{}", spec.field("group").text()) {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(&At::top(new, "metadata").field("name"), detail);
    }
}

fn check_group(group: &At<'_, '_>, errors: &mut Errors) {
    if !errors.needs_text(group) {
        return;
    }
    let wrong = is_dns1123_subdomain(group.text());
    if !wrong.is_empty() {
        errors.invalid(group, wrong.join(","));
    } else if !group.text().contains('.') {
        errors.invalid(group, "should be a domain with at least one dot");
    }
}

fn check_versions(spec: &At<'_, '_>, old: Option<&Object>, errors: &mut Errors) {
    let before = old.and_then(|old| old.at("/spec/versions")).and_then(Value::as_array);
    let before = |name: &str| {
        let version = before?.iter().find(|version| version["name"] == name)?;
        version.pointer("/schema/openAPIV3Schema")
    };
    let versions = spec.field("versions");
    let mut seen: Vec<&str> = Vec::new();
    let (mut unique, mut stored) = (true, 0);
    for version in versions.items() {
        let name = version.field("name");
        let wrong = is_dns1035_label(name.text());
        if !wrong.is_empty() {
            errors.invalid_value(&name, name.text(), wrong.join(","));
        }
        unique &= !seen.contains(&name.text());
        seen.push(name.text());
        stored += usize::from(version.field("storage").flag());
        check_version(&version, before(name.text()), errors);
    }
    if !unique {
        errors.invalid(&versions, "must contain unique version names");
    }
    if stored != 1 {
        errors.invalid(&versions, "must have exactly one version marked as storage version");
    }
}

/// `before`: the schema the version had before an update.
fn check_version(version: &At<'_, '_>, before: Option<&Value>, errors: &mut Errors) {
    check_deprecation(version, errors);
    let subresources = version.field("subresources");
    let outer = version.field("schema");
    let schema = outer.field("openAPIV3Schema");
    match schema.value() {
        None => errors.required(&schema, ""),
        Some(value) => {
            let with_status = subresources.field("status").exists();
            let found = structural::check(value, &schema.to_string(), with_status);
            // Rules are about values of a schema that makes sense, and were checked when they were new.
            if found.is_empty() && before != Some(value) {
                check_rules(value, &schema.to_string(), errors);
            }
            errors.0.extend(found);
        }
    }
    let scale = subresources.field("scale");
    if scale.exists() {
        check_scale(&scale, errors);
    }
    for column in version.field("additionalPrinterColumns").items() {
        check_column(&column, errors);
    }
    let selectable = version.field("selectableFields");
    if let Some(value) = schema.value() {
        check_selectable(&selectable, &Node::read(value), errors);
    }
}

fn check_rules(schema: &Value, path: &str, errors: &mut Errors) {
    let node = Node::read(schema);
    let (rules, wrong) = rules::compile(schema, &node, path);
    match rules {
        Some(rules) if wrong.is_empty() => {
            errors.0.extend(rules::check_defaults(&rules, &node, path));
        }
        _ => errors.0.extend(wrong),
    }
}

fn check_deprecation(version: &At<'_, '_>, errors: &mut Errors) {
    let warning = version.field("deprecationWarning");
    if !warning.exists() {
        return;
    }
    if !version.field("deprecated").flag() {
        return errors.invalid(&warning, "can only be set for deprecated versions");
    }
    if warning.text().len() > 256 {
        errors.invalid(&warning, "must be <= 256 characters long");
    }
    if warning.text().is_empty() {
        errors.invalid(&warning, "must not be an empty string");
    }
    if let Some((at, _)) = warning.text().char_indices().find(|(_, c)| c.is_control()) {
        let why = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index \
             {at}"
        );
        errors.invalid(&warning, why);
    }
}

fn check_scale(scale: &At<'_, '_>, errors: &mut Errors) {
    for (field, prefix, why) in [
        ("specReplicasPath", ".spec.", "should be a json path under .spec"),
        ("statusReplicasPath", ".status.", "should be a json path under .status"),
    ] {
        let path = scale.field(field);
        if errors.needs_text(&path) && check_path(&path, errors) && !path.text().starts_with(prefix)
        {
            errors.invalid(&path, why);
        }
    }
    let selector = scale.field("labelSelectorPath");
    let text = selector.text();
    let below = text.starts_with(".spec.") || text.starts_with(".status.");
    if !text.is_empty() && check_path(&selector, errors) && !below {
        errors.invalid(&selector, "should be a json path under either .spec or .status");
    }
}

/// True if it begins as a path does.
fn check_path(path: &At<'_, '_>, errors: &mut Errors) -> bool {
    let good = path.text().starts_with('.');
    if !good {
        errors.invalid(path, "must be a simple json path starting with .");
    }
    good
}

fn check_column(column: &At<'_, '_>, errors: &mut Errors) {
    const TYPES: &str = "boolean,date,integer,number,string";
    const FORMATS: &str = "byte,date,date-time,double,float,int32,int64,password";
    errors.needs_text(&column.field("name"));
    let ty = column.field("type");
    let one_of = |list: &str, text: &str| list.split(',').any(|known| known == text);
    if ty.text().is_empty() {
        errors.required(&ty, &format!("must be one of {TYPES}"));
    } else if !one_of(TYPES, ty.text()) {
        errors.invalid(&ty, format!("must be one of {TYPES}"));
    }
    let format = column.field("format");
    if !format.text().is_empty() && !one_of(FORMATS, format.text()) {
        errors.invalid(&format, format!("must be one of {FORMATS}"));
    }
    let path = column.field("jsonPath");
    let at = format!("{column}.JSONPath");
    match path.text() {
        "" => errors.0.push(FieldError::required(at, "")),
        text if text.starts_with('.') => {}
        text => {
            let why = "must be a simple json path starting with .";
            errors.0.push(FieldError::invalid(at, text.into(), why));
        }
    }
}

fn check_selectable(fields: &At<'_, '_>, node: &Node, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for field in fields.items() {
        let path = field.field("jsonPath");
        if !errors.needs_text(&path) {
            continue;
        }
        let found = FieldPath::parse(path.text(), false)
            .and_then(|parsed| Ok((parsed.dotted(), parsed.resolve(node)?.ty)));
        let (dotted, ty) = match found {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&path, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if dotted == "metadata" || dotted.starts_with("metadata.") {
            errors.invalid(&path, "must not point to fields in metadata");
        }
        if !matches!(ty, Ty::String | Ty::Boolean | Ty::Integer) {
            let why = "must point to a field of type string, boolean or integer. Enum string \
                       fields and strings with formats are allowed.";
            errors.invalid(&path, why);
        }
        if seen.contains(&dotted) {
            errors.duplicate(&path);
        } else {
            seen.push(dotted);
        }
    }
    if seen.len() > SELECTABLE_MAX {
        let at = fields.to_string();
        errors.0.push(FieldError::too_many(at, seen.len(), SELECTABLE_MAX));
    }
}

fn check_names(names: &At<'_, '_>, errors: &mut Errors) {
    const MIXED: &str = "may have mixed case, but should otherwise match: ";
    for field in ["plural", "singular", "kind", "listKind"] {
        let name = names.field(field);
        let mixed = field.ends_with("ind");
        let text = if mixed { name.text().to_lowercase() } else { name.text().to_string() };
        let wrong = is_dns1035_label(&text);
        if !text.is_empty() && !wrong.is_empty() {
            let prefix = if mixed { MIXED } else { "" };
            errors.invalid(&name, format!("{prefix}{}", wrong.join(",")));
        }
    }
    for field in ["shortNames", "categories"] {
        for name in names.field(field).items() {
            let wrong = is_dns1035_label(name.text());
            if !wrong.is_empty() {
                errors.invalid(&name, wrong.join(","));
            }
        }
    }
    let list_kind = names.field("listKind");
    if !list_kind.text().is_empty() && list_kind.text() == names.field("kind").text() {
        errors.invalid(&list_kind, "kind and listKind may not be the same");
    }
}

fn check_conversion(conversion: &At<'_, '_>, established: bool, errors: &mut Errors) {
    if !conversion.exists() {
        return;
    }
    errors.one_of(&conversion.field("strategy"), &["None", "Webhook"], true);
    let webhook = conversion.field("webhook");
    let config = webhook.field("clientConfig");
    // Upstream names the fields of its internal version.
    let at = |field: &str| format!("{conversion}.{field}");
    if conversion.field("strategy").text() != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if config.exists() {
            errors.0.push(FieldError::forbidden(at("webhookClientConfig"), why));
        }
        if webhook.field("conversionReviewVersions").count() > 0 {
            errors.0.push(FieldError::forbidden(at("conversionReviewVersions"), why));
        }
        return;
    }
    match config.value().and_then(Value::as_object) {
        None => {
            let why = "required when strategy is set to Webhook";
            errors.0.push(FieldError::required(at("webhookClientConfig"), why));
        }
        Some(config) => check_client(config, &at("webhookClientConfig"), established, errors),
    }
    check_reviews(&webhook.field("conversionReviewVersions"), &at("conversionReviewVersions"), errors);
}

fn check_client(config: &Map<String, Value>, at: &str, established: bool, errors: &mut Errors) {
    let set = |field: &str| config.get(field).is_some_and(|value| !value.is_null());
    if set("url") == set("service") {
        let why = "exactly one of url or service is required";
        return errors.0.push(FieldError::required(at, why));
    }
    if let Some(url) = config.get("url").and_then(Value::as_str) {
        check_url(url, &format!("{at}.url"), errors);
    }
    if let Some(service) = config.get("service") {
        for field in ["name", "namespace"] {
            if service[field].as_str().unwrap_or_default().is_empty() {
                errors.0.push(FieldError::required(format!("{at}.service.{field}"), ""));
            }
        }
        let port = service["port"].as_i64().unwrap_or(443);
        if !(1..=65535).contains(&port) {
            let why = "port is not valid: must be between 1 and 65535, inclusive";
            errors.0.push(FieldError::invalid(format!("{at}.service.port"), port.into(), why));
        }
        let path = service["path"].as_str().unwrap_or_default();
        if !path.is_empty() && !path.starts_with('/') {
            let why = "must start with a '/'";
            errors.0.push(FieldError::invalid(format!("{at}.service.path"), path.into(), why));
        }
    }
    // Before a definition is established, its controller may still have to fill this in.
    let bundle = config.get("caBundle").and_then(Value::as_str).unwrap_or_default();
    if established && !bundle.is_empty() && !holds_certificates(bundle) {
        let why = "unable to load root certificates: unable to parse bytes as PEM block";
        errors.0.push(FieldError::invalid(format!("{at}.caBundle"), bundle.into(), why));
    }
}

fn holds_certificates(bundle: &str) -> bool {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let Ok(pem) = STANDARD.decode(bundle) else { return false };
    let mut certificates = CertificateDer::pem_slice_iter(&pem).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

fn check_url(text: &str, at: &str, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let url = match url::Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            let why = format!("url must be a valid URL: {error}{FORM}");
            return errors.0.push(FieldError::required(at, why));
        }
    };
    let mut refuse = |value: &str, why: String| {
        errors.0.push(FieldError::invalid(at, value.into(), why));
    };
    if url.scheme() != "https" {
        refuse(url.scheme(), format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if !url.has_host() {
        refuse("", format!("host must be specified{FORM}"));
    }
    if !url.username().is_empty() {
        refuse(url.username(), "user information is not permitted in the URL".into());
    }
    if let Some(fragment) = url.fragment() {
        refuse(fragment, "fragments are not permitted in the URL".into());
    }
    if let Some(query) = url.query() {
        refuse(query, "query parameters are not permitted in the URL".into());
    }
}

fn check_reviews(versions: &At<'_, '_>, at: &str, errors: &mut Errors) {
    if versions.count() == 0 {
        return errors.0.push(FieldError::required(at, ""));
    }
    let names: Vec<&str> = versions.items().map(|version| version.text()).collect();
    for (index, name) in names.iter().enumerate() {
        let path = format!("{at}[{index}]");
        if names[..index].contains(name) {
            errors.0.push(FieldError::invalid(path, (*name).into(), "duplicate version"));
            continue;
        }
        for wrong in is_dns1035_label(name) {
            errors.0.push(FieldError::invalid(&path, (*name).into(), wrong));
        }
    }
    if !names.iter().any(|name| matches!(*name, "v1" | "v1beta1")) {
        let why = "must include at least one of v1, v1beta1";
        errors.0.push(FieldError::invalid(at, json!(names), why));
    }
}

fn check_status(new: &Object, errors: &mut Errors) {
    check_names(&At::top(new, "status").field("acceptedNames"), errors);
}

fn check_stored(new: &Object, errors: &mut Errors) {
    let status = At::top(new, "status");
    let stored = status.field("storedVersions");
    if stored.count() == 0 {
        return errors.invalid_value(&stored, json!([]), "must have at least one stored version");
    }
    let versions = new.at("/spec/versions").and_then(Value::as_array);
    let known: Vec<&Value> = versions.into_iter().flatten().collect();
    for version in known.iter().filter(|version| version["storage"] == true) {
        if !stored.items().any(|name| name.value() == version.get("name")) {
            let name = version["name"].as_str().unwrap_or_default();
            errors.invalid(&stored, format!("must have the storage version {name}"));
        }
    }
    for name in stored.items() {
        if known.iter().any(|version| version.get("name") == name.value()) {
            continue;
        }
        let v = name.text();
        let why = format!(
            "missing from spec.versions; {v} was previously a storage version, and must remain in \
             spec.versions until a storage migration ensures no data remains persisted in {v} and \
             removes {v} from status.storedVersions"
        );
        errors.invalid(&name, why);
    }
}

fn check_approval(new: &Object, old: Option<&Object>, errors: &mut Errors) {
    if !names::is_protected(new.str_at("/spec/group")) {
        return;
    }
    let (reason, message) = names::approval(new);
    if old.is_some_and(|old| names::approval(old).0 == reason) {
        return;
    }
    const APPROVAL: &str = "api-approved.kubernetes.io";
    let at = format!("metadata.annotations[{APPROVAL}]");
    match reason {
        "MissingAnnotation" => errors.0.push(FieldError::required(at, message)),
        "InvalidAnnotation" => {
            let value = new.annotation(APPROVAL).unwrap_or_default();
            errors.0.push(FieldError::invalid(at, value.into(), message));
        }
        _ => {}
    }
}
