//! Bytes to objects, guided by the schema, in one pass: every type checked, unknown and duplicate
//! fields noted, quantities and times made canonical. Error texts are those of upstream's API.
//!
//! As in Go, `null` is the same as absent, and a zero value of an `omitempty` field is dropped.

mod free;
mod syntax;
mod walk;
mod yaml;

use crate::protobuf::{self, ReadError};
use crate::schema::{Schema, TypeId};
use crate::{Object, Status};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;
use walk::Walk;

pub use free::{free_json, free_yaml};
pub use syntax::json_syntax_error;
pub(crate) use walk::go_kind;

/// The largest body upstream accepts, in bytes.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// An object as it was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// Only fields the schema knows.
    pub object: Object,
    /// Paths of fields the schema does not know: `spec.containers[0].imagee`.
    pub unknown: Vec<String>,
    /// Paths of fields that were given more than once; the last one counts.
    pub duplicate: Vec<String>,
    /// Both kinds as upstream words them, in the order they were met, at most 100.
    pub strict: Vec<String>,
}

impl Decoded {
    /// `strict decoding error: unknown field "spec.foo"`, or `None` if nothing was amiss.
    pub fn strict_error(&self) -> Option<String> {
        if self.strict.is_empty() {
            return None;
        }
        Some(format!("strict decoding error: {}", self.strict.join(", ")))
    }

    /// The refusal under `fieldValidation=Strict`; `None` if nothing was amiss.
    pub fn strict_status(&self, head: &Head, kind: &str) -> Option<Status> {
        self.strict_error().map(|error| head.cannot_be_handled_as(kind, error))
    }
}

/// Why bytes are no object of a type. `Display` is upstream's text without the part that names the
/// kinds; [`DecodeError::status`] is the whole answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON.
    #[error("{0}")]
    Syntax(String),
    /// Not YAML.
    #[error("error converting YAML to JSON: {0}")]
    Yaml(String),
    /// Not Kubernetes' protobuf.
    #[error("{0}")]
    Protobuf(String),
    /// JSON, but not of this type.
    #[error("{0}")]
    Type(String),
    #[error("exceeded max depth")]
    TooDeep,
    #[error("Request entity too large: limit is {limit_bytes}")]
    TooLarge { limit_bytes: usize },
}

impl DecodeError {
    /// The `400` (or `413`) upstream answers: `head` is what the body (or, where it says nothing, the
    /// path) names, `kind` what the path wants.
    pub fn status(&self, head: &Head, kind: &str, body: &[u8]) -> Status {
        match self {
            DecodeError::TooLarge { limit_bytes } => Status::too_large(*limit_bytes),
            DecodeError::Type(_) => head.cannot_be_handled_as(kind, self),
            DecodeError::Syntax(_) | DecodeError::TooDeep => {
                let why = format!("couldn't get version/kind; json parse error: {self}");
                unrecognized(kind, &why, body)
            }
            DecodeError::Yaml(_) | DecodeError::Protobuf(_) => {
                unrecognized(kind, &self.to_string(), body)
            }
        }
    }
}

fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Status {
    let start = summary(body);
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({start})"
    ))
}

/// The first 30 bytes, as text if they may be JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    let shown = &body[..body.len().min(30)];
    let text = match body.first() {
        None => return "<empty>".into(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > 30 { text + " ..." } else { text }
}

/// `apiVersion` and `kind` of a body, either of them empty if absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Head {
    pub api_version: String,
    pub kind: String,
}

impl Head {
    pub fn new(api_version: impl Into<String>, kind: impl Into<String>) -> Head {
        Head { api_version: api_version.into(), kind: kind.into() }
    }

    /// `v1` of `apps/v1`.
    pub fn version(&self) -> &str {
        self.api_version.rsplit_once('/').map_or(&self.api_version, |(_, version)| version)
    }

    /// `400` with upstream's words for a body that was read but does not fit.
    pub fn cannot_be_handled_as(&self, kind: &str, why: impl fmt::Display) -> Status {
        let (named, version) = (&self.kind, self.version());
        Status::bad_request(format!(
            "{named} in version {version:?} cannot be handled as a {kind}: {why}"
        ))
    }
}

/// What a JSON body says it is, before anything else of it is believed.
pub fn head(body: &[u8]) -> Result<Head, DecodeError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Loose {
        api_version: Option<Value>,
        kind: Option<Value>,
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge { limit_bytes: BODY_BYTES_MAX });
    }
    let loose: Option<Loose> = match serde_json::from_slice(body) {
        Ok(loose) => loose,
        // A duplicate `kind` is for the strict pass to report; the last one counts.
        Err(error) => match serde_json::from_slice(body) {
            Ok(Value::Object(mut map)) => {
                Some(Loose { api_version: map.remove("apiVersion"), kind: map.remove("kind") })
            }
            Ok(other) => return Err(walk::not_an_object(&other)),
            Err(_) => return Err(json_error(&error, body)),
        },
    };
    let text = |value: Option<Value>, field: &str| match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(DecodeError::Syntax(format!(
            "json: cannot unmarshal {} into Go struct field .{field} of type string",
            walk::go_kind(&other)
        ))),
    };
    let Some(loose) = loose else {
        return Ok(Head::default());
    };
    Ok(Head {
        api_version: text(loose.api_version, "apiVersion")?,
        kind: text(loose.kind, "kind")?,
    })
}

/// Reads a JSON body as an object of type `ty`.
pub fn json(schema: &Schema, ty: TypeId, body: &[u8]) -> Result<Decoded, DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge { limit_bytes: BODY_BYTES_MAX });
    }
    let mut source = serde_json::Deserializer::from_slice(body);
    let mut walk = Walk::new(schema);
    let object = match walk.root(ty, &mut source) {
        Ok(object) => object,
        Err(error) => return Err(walk.error().unwrap_or_else(|| json_error(&error, body))),
    };
    source.end().map_err(|error| json_error(&error, body))?;
    Ok(walk.finish(object))
}

/// Reads a YAML (or JSON) body as an object of type `ty`.
pub fn yaml(schema: &Schema, ty: TypeId, body: &[u8]) -> Result<Decoded, DecodeError> {
    // What calls itself YAML mostly is JSON, which a JSON parser reads exactly and faster.
    if body.trim_ascii_start().starts_with(b"{") {
        match json(schema, ty, body) {
            Err(DecodeError::Syntax(_)) => {}
            done => return done,
        }
    }
    let (value, duplicate) = yaml::to_value(body)?;
    let mut decoded = self::value(schema, ty, &value)?;
    if let Some(duplicate) = duplicate {
        decoded.strict.insert(0, duplicate.message);
        decoded.duplicate.push(duplicate.key);
    }
    Ok(decoded)
}

/// Reads a protobuf body as an object of type `ty`.
pub fn protobuf(schema: &Schema, ty: TypeId, body: &[u8]) -> Result<Decoded, DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge { limit_bytes: BODY_BYTES_MAX });
    }
    let value = protobuf::read(schema, ty, body).map_err(|error| match error {
        ReadError::Envelope(why) => DecodeError::Protobuf(why),
        ReadError::Message(why) => DecodeError::Type(why),
    })?;
    self::value(schema, ty, &value)
}

/// The JSON value a YAML body stands for; the last of duplicate keys counts.
pub fn yaml_to_value(body: &[u8]) -> Result<Value, DecodeError> {
    yaml::to_value(body).map(|(value, _)| value)
}

/// The same, with what a strict reader says of a key that was given twice.
pub(crate) fn yaml_noting_duplicates(body: &[u8]) -> Result<(Value, Option<String>), DecodeError> {
    let (value, duplicate) = yaml::to_value(body)?;
    Ok((value, duplicate.map(|duplicate| duplicate.message)))
}

/// Checks an object that is a value already, as [`json`] checks bytes.
pub fn check(schema: &Schema, ty: TypeId, object: &Object) -> Result<Decoded, DecodeError> {
    read(schema, ty, &object.0)
}

/// Checks any JSON value, such as the outcome of a patch.
pub fn value(schema: &Schema, ty: TypeId, value: &Value) -> Result<Decoded, DecodeError> {
    read(schema, ty, value)
}

/// Checks what a strategic merge patch made, in the words upstream has for it.
pub(crate) fn converted(
    schema: &Schema,
    ty: TypeId,
    value: &Value,
) -> Result<Decoded, DecodeError> {
    read_by(Walk::converting(schema), ty, value)
}

fn read<'de, D>(schema: &Schema, ty: TypeId, source: D) -> Result<Decoded, DecodeError>
where
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    read_by(Walk::new(schema), ty, source)
}

fn read_by<'de, D>(mut walk: Walk<'_>, ty: TypeId, source: D) -> Result<Decoded, DecodeError>
where
    D: serde::Deserializer<'de, Error = serde_json::Error>,
{
    match walk.root(ty, source) {
        Ok(object) => Ok(walk.finish(object)),
        Err(error) => Err(walk.error().unwrap_or_else(|| DecodeError::Type(error.to_string()))),
    }
}

fn json_error(error: &serde_json::Error, body: &[u8]) -> DecodeError {
    let text = error.to_string();
    if text.starts_with("recursion limit exceeded") {
        return DecodeError::TooDeep;
    }
    // What only one of the two parsers minds (a lone surrogate, say) keeps this parser's text.
    DecodeError::Syntax(json_syntax_error(body).unwrap_or(text))
}

#[cfg(test)]
mod tests;
