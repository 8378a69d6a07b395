//! The three patches a client may send and the server applies by itself: JSON patch, merge patch and
//! strategic merge patch. Each is a function of two values.

mod json;
mod merge;
mod strategic;

use crate::Status;

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
