//! YAML to JSON as upstream's server reads it: YAML 1.1 booleans and octals, the first document only
//! by itself, aliases and nesting bounded.

use super::{BODY_BYTES_MAX, DecodeError};
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

/// The first key that was given twice.
pub(super) struct Duplicate {
    pub(super) key: String,
    pub(super) message: String,
}

/// The value, and the first duplicate key if there is one; the last of duplicates counts.
pub(super) fn to_value(body: &[u8]) -> Result<(Value, Option<Duplicate>), DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge { limit_bytes: BODY_BYTES_MAX });
    }
    let text = std::str::from_utf8(body)
        .map_err(|_| DecodeError::Yaml("yaml: invalid UTF-8".to_string()))?;
    let error = match read(text, DuplicateKeyPolicy::Error) {
        Ok(value) => return Ok((value, None)),
        Err(error) => error,
    };
    let Some(duplicate) = duplicate_key(&error) else {
        return Err(refused(&error));
    };
    match read(text, DuplicateKeyPolicy::LastWins) {
        Ok(value) => Ok((value, Some(duplicate))),
        Err(error) => Err(refused(&error)),
    }
}

fn read(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: duplicates,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options)
}

fn duplicate_key(error: &serde_saphyr::Error) -> Option<Duplicate> {
    let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error else {
        return None;
    };
    let key = key.clone().unwrap_or_default();
    let line = error.location().map_or(0, |location| location.line());
    let message = format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map");
    Some(Duplicate { key, message })
}

fn refused(error: &serde_saphyr::Error) -> DecodeError {
    let text = error.to_string();
    let line = error.location().map_or(0, |location| location.line());
    DecodeError::Yaml(format!("yaml: line {line}: {text}"))
}
