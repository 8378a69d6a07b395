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
    let mut value = serde_saphyr::from_str_with_options(text, options)?;
    whole_numbers(&mut value);
    Ok(value)
}

/// Upstream turns YAML into JSON text, where `1.0` and `1e3` are printed without a fraction.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            // Beyond 2^53 a float no longer stands for one whole number.
            let whole = number.as_f64().filter(|float| {
                number.is_f64() && float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0
            });
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
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
