//! Bodies as objects of a custom kind: any JSON, then metadata as everywhere, then what the schema
//! knows, with its defaults.

use super::{CustomKind, embedded};
use crate::{
    kind::Kind,
    pipeline::{Body, Core, Type},
};
use k8s::{
    FieldError, Object, PatchType, Status, decode,
    schema::Schema,
    structural::{self, prune, prune_nulls},
    text::go_quote,
};
use serde_json::{Map, Value};

const PATCHES: &str = "the body of the request was in an unknown format - accepted media types \
                       include: application/json-patch+json, application/merge-patch+json, \
                       application/apply-patch+yaml, application/apply-patch+cbor";
const BODIES: &str = "the body of the request was in an unknown format - accepted media types \
                      include: application/json, application/yaml";

impl Core {
    /// The object of `kind` that a write brought, with what to warn of; built-in or custom.
    pub(crate) fn decode_kind(
        &self,
        kind: &Kind,
        version: &str,
        body: &Body,
        validation: Option<&str>,
    ) -> Result<(Object, Vec<String>), Status> {
        let wanted = Type::of(kind, version);
        match kind.custom() {
            None => self.decode(&wanted, body, validation),
            Some(custom) => read(custom, &wanted, body, validation),
        }
    }

    /// What a patch makes of an object of `kind`, decoded as if it had been sent whole.
    pub(crate) fn patch_kind(
        &self,
        kind: &Kind,
        version: &str,
        patch: PatchType,
        whole: Value,
        document: &Value,
        validation: Option<&str>,
    ) -> Result<(Object, Vec<String>), Status> {
        let wanted = Type::of(kind, version);
        let Some(custom) = kind.custom() else {
            let new =
                crate::pipeline::apply_patch(self.schema, wanted.schema, patch, whole, document)?;
            return self.decode_patched(&wanted, patch, &new, document, validation);
        };
        let patched = match patch {
            PatchType::Json => k8s::patch::json(whole, document),
            PatchType::Merge => k8s::patch::merge(whole, document),
            PatchType::StrategicMerge | PatchType::Apply => return Err(unsupported_patch()),
        };
        let patched = patched.map_err(|error| error.status())?;
        let shown = patched.to_string();
        let (object, strict) = coerce(custom, &wanted, patched)?;
        match validation {
            Some("Ignore") => Ok((object, Vec::new())),
            Some("Strict") if !strict.is_empty() => {
                let why = format!("strict decoding error: {}", strict.join(", "));
                let error = FieldError::invalid("patch", shown.into(), why);
                Err(Status::invalid("", "", "", &[error]))
            }
            _ => Ok((object, strict)),
        }
    }
}

/// Strategic merge needs what only built-in types say of their lists.
pub(crate) fn unsupported_patch() -> Status {
    Status::unsupported_media_type(PATCHES)
}

fn read(
    custom: &CustomKind,
    wanted: &Type<'_>,
    body: &Body,
    validation: Option<&str>,
) -> Result<(Object, Vec<String>), Status> {
    let refused = |error: decode::DecodeError, bytes: &[u8]| {
        let head = decode::head(bytes).unwrap_or_default();
        error.status(&wanted.head(&head.api_version, &head.kind), wanted.kind, bytes)
    };
    let (value, mut strict) = match body {
        Body::None => return Err(Status::bad_request("the request has no body")),
        Body::Protobuf(_) => return Err(Status::unsupported_media_type(BODIES)),
        Body::Json(bytes) => {
            decode::head(bytes).map_err(|error| refused(error, bytes))?;
            decode::free_json(bytes).map_err(|error| refused(error, bytes))?
        }
        Body::Yaml(bytes) => decode::free_yaml(bytes).map_err(|error| refused(error, bytes))?,
        Body::Value(value) => (value.clone(), Vec::new()),
    };
    let (object, unknown) = coerce(custom, wanted, value)?;
    strict.extend(unknown);
    match validation {
        Some("Ignore") => Ok((object, Vec::new())),
        Some("Strict") if !strict.is_empty() => {
            let head = wanted.head(object.api_version(), object.kind());
            let why = format!("strict decoding error: {}", strict.join(", "));
            Err(head.cannot_be_handled_as(wanted.kind, why))
        }
        _ => Ok((object, strict)),
    }
}

/// What Go does when it decodes into a struct, done to any JSON: metadata has its types, unknown
/// fields go, and nulls that may not be are absent.
fn coerce(
    custom: &CustomKind,
    wanted: &Type<'_>,
    value: Value,
) -> Result<(Object, Vec<String>), Status> {
    let Some(mut object) = Object::from_value(value) else {
        return Err(Status::bad_request("the body of the request is no JSON object"));
    };
    check_type(wanted, &object)?;
    let head = wanted.head(object.api_version(), object.kind());
    let mut strict = Vec::new();
    let metadata = metadata(object.0.remove("metadata"), "metadata", &mut strict)
        .map_err(|why| head.cannot_be_handled_as(wanted.kind, why))?;
    let node = &custom.version().node;
    let mut value = Value::Object(object.0);
    let unknown = prune(&mut value, node, true);
    strict.extend(unknown.iter().map(|path| format!("unknown field {}", go_quote(path))));
    prune_nulls(&mut value, Some(node));
    embedded::coerce(&mut value, node, &mut strict)
        .map_err(|why| head.cannot_be_handled_as(wanted.kind, why))?;
    structural::default(&mut value, node);
    let mut object = Object::from_value(value).unwrap_or_default();
    object.0.insert("metadata".into(), Value::Object(metadata));
    Ok((object, strict))
}

fn check_type(wanted: &Type<'_>, object: &Object) -> Result<(), Status> {
    if object.kind().is_empty() {
        let shown = Value::Object(object.0.clone()).to_string();
        let why = format!("Object 'Kind' is missing in '{shown}'");
        return Err(Status::bad_request(why));
    }
    if object.kind() != wanted.kind {
        let why = format!("must be {}", wanted.kind);
        let error = FieldError::invalid("kind", object.kind().into(), why);
        let group = wanted.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        return Err(Status::invalid(group, wanted.kind, object.name(), &[error]));
    }
    wanted.check(object)
}

/// `ObjectMeta` as built-in kinds have it; unknown fields below `path` are told and dropped.
pub(super) fn metadata(
    value: Option<Value>,
    path: &str,
    strict: &mut Vec<String>,
) -> Result<Map<String, Value>, String> {
    let value = match value {
        None | Some(Value::Null) => return Ok(Map::new()),
        Some(value) => value,
    };
    let schema = Schema::built_in();
    let ty = schema.get("meta.v1.ObjectMeta").ok_or("no type ObjectMeta")?;
    let decoded = decode::value(schema, ty, &value).map_err(|error| error.to_string())?;
    let unknown = decoded.unknown.iter().map(|below| format!("{path}.{below}"));
    strict.extend(unknown.map(|path| format!("unknown field {}", go_quote(&path))));
    Ok(decoded.object.0)
}
