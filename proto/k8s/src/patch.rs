//! The three patches a client may send and the server applies by itself: JSON patch, merge patch and
//! strategic merge patch. Each is a function of two values.

mod json;
mod merge;
mod strategic;

use crate::decode::{self, Decoded};
use crate::schema::{Schema, TypeId};
use crate::text::go_text;
use crate::{FieldError, PatchType, Status};
use serde_json::Value;

pub use json::{COPIED_BYTES_MAX, OPERATIONS_MAX, json};
pub use merge::{merge, merge_diff};
pub use strategic::strategic;

/// Reads the body of a patch.
pub fn parse(kind: PatchType, body: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(body).map_err(|error| {
        let text = decode::json_syntax_error(body).unwrap_or_else(|| error.to_string());
        Status::bad_request(match kind {
            PatchType::Merge => format!("error decoding patch: {text}"),
            _ => text,
        })
    })
}

/// Checks `patched`, which `patch` made, against the schema; a refusal says what upstream says. With
/// `strict`, unknown fields are refused too.
pub fn decode(
    schema: &Schema,
    ty: TypeId,
    kind: PatchType,
    patched: &Value,
    patch: &Value,
    strict: bool,
) -> Result<Decoded, Status> {
    let decoded = match kind {
        PatchType::StrategicMerge => decode::converted(schema, ty, patched),
        _ => decode::value(schema, ty, patched),
    };
    let why = match &decoded {
        Ok(decoded) => decoded.strict_error().filter(|_| strict),
        Err(error) => Some(error.to_string()),
    };
    match (decoded, why) {
        (Ok(decoded), None) => Ok(decoded),
        (_, why) => {
            // Upstream shows the patch if it is a map to it, else the whole outcome.
            let shown = match kind {
                PatchType::StrategicMerge => go_text(patch),
                _ => patched.to_string(),
            };
            let error = FieldError::invalid("patch", shown.into(), why.unwrap_or_default());
            Err(Status::invalid("", "", "", &[error]))
        }
    }
}

/// Why a patch was refused, named by upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed: `400`.
    #[error("{0}")]
    BadRequest(String),
    /// More operations than upstream allows: `413`.
    #[error("{0}")]
    TooLarge(String),
    /// The patch is well formed but does not fit this object: `422`. Clients see a general text.
    #[error("{0}")]
    Unprocessable(String),
    /// Upstream has no code for it and answers `500` with the text.
    #[error("{0}")]
    Unclassified(String),
}

impl PatchError {
    pub fn status(&self) -> Status {
        match self {
            PatchError::BadRequest(text) => Status::bad_request(text),
            PatchError::TooLarge(text) => Status::new(
                413,
                "RequestEntityTooLarge",
                format!("Request entity too large: {text}"),
            ),
            PatchError::Unprocessable(_) => Status::new(
                422,
                "Invalid",
                "the server rejected our request due to an error in our request",
            ),
            PatchError::Unclassified(text) => Status::new(500, "", text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusal(kind: PatchType, patch: Value) -> String {
        let schema = Schema::built_in();
        let ty = schema.get("apps.v1.Deployment").unwrap();
        let doc = json!({"metadata": {"name": "a"}, "spec": {"replicas": 1}});
        let patched = match kind {
            PatchType::StrategicMerge => strategic(schema, ty, doc, &patch).unwrap(),
            _ => merge(doc, &patch).unwrap(),
        };
        let status = decode(schema, ty, kind, &patched, &patch, true).unwrap_err();
        format!("{} {} {}", status.code, status.reason, status.message)
    }

    #[test]
    fn outcomes_that_do_not_fit_are_refused_as_upstream_refuses_them() {
        let strategic = [
            json!({"spec": {"replicas": "three"}}),
            json!({"spec": {"replicas": 1.5}}),
            json!({"spec": {"paused": 1}}),
            json!({"spec": {"template": {"spec": {"nodeName": 1}}}}),
            json!({"spec": {"template": {"spec": {"nodeName": {}}}}}),
            json!({"spec": {"template": {"spec": {"containers": "x"}}}}),
            json!({"spec": {"template": []}}),
            json!({"metadata": {"labels": 5}}),
            json!({"metadata": {"creationTimestamp": "x"}}),
            json!({"spec": {"bogus": 1}}),
        ];
        let mut lines: Vec<String> =
            strategic.map(|patch| refusal(PatchType::StrategicMerge, patch)).into();
        lines.push(refusal(PatchType::Merge, json!({"spec": {"replicas": "three"}})));
        lines.push(refusal(PatchType::Merge, json!({"spec": {"bogus": 1}})));
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_patch_that_is_not_json_is_a_bad_request() {
        let merge = parse(PatchType::Merge, b"{").unwrap_err();
        assert_eq!(merge.message, "error decoding patch: unexpected end of JSON input");
        let json = parse(PatchType::Json, b"x").unwrap_err();
        assert_eq!(
            (json.code, &*json.message),
            (400, "invalid character 'x' looking for beginning of value",)
        );
    }
}
