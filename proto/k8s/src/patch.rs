//! The three patches a client may send and the server applies by itself: JSON patch, merge patch and
//! strategic merge patch. Each is a function of two values.

mod json;
mod merge;
mod strategic;

use crate::Status;
use serde_json::Value;

pub use json::{COPIED_BYTES_MAX, OPERATIONS_MAX, json};
pub use merge::{merge, merge_diff};
pub use strategic::strategic;

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

/// A value as Go prints it with `%v`, which some of upstream's texts do.
pub fn go_text(value: &Value) -> String {
    let mut text = String::new();
    write_go(&mut text, value);
    text
}

fn write_go(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::String(string) => text.push_str(string),
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::Array(list) => {
            text.push('[');
            for (index, entry) in list.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                write_go(text, entry);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push_str("map[");
            for (index, (key, entry)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(key);
                text.push(':');
                write_go(text, entry);
            }
            text.push(']');
        }
    }
}
