//! The body of an apply: YAML, which mostly is JSON.

use crate::Status;
use crate::decode::{self, go_kind};
use serde_json::Value;
use std::fmt;

/// The configuration, and what a strict reader minds: a key that was given twice.
pub fn parse(body: &[u8]) -> Result<(Value, Option<String>), Status> {
    let bad = |why: &dyn fmt::Display| Status::bad_request(format!("error decoding YAML: {why}"));
    // JSON is read exactly and faster by its own parser; what that refuses YAML has the words for.
    let json = body.trim_ascii_start().starts_with(b"{");
    let (value, duplicate) = match decode::free_json(body) {
        Ok((value, duplicates)) if json && duplicates.is_empty() => (value, None),
        _ => decode::yaml_noting_duplicates(body).map_err(|error| bad(&error))?,
    };
    if value.is_object() {
        return Ok((value, duplicate));
    }
    Err(bad(&format_args!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of \
         type map[string]interface {{}}",
        go_kind(&value)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_yaml_or_json() {
        let text = |body: &str| match parse(body.as_bytes()) {
            Ok((value, duplicate)) => format!("{value} {}", duplicate.unwrap_or_default()),
            Err(status) => format!("{} {}", status.code, status.message),
        };
        assert_eq!(text(r#"{"a": {"b": [1, "x", null]}}"#), r#"{"a":{"b":[1,"x",null]}} "#);
        assert_eq!(text("a:\n  b: 1\n"), r#"{"a":{"b":1}} "#);
        let twice = "yaml: unmarshal errors:\n  line 1: key \"a\" already set in map";
        assert_eq!(text(r#"{"a": 1, "a": 2}"#), format!(r#"{{"a":2}} {twice}"#));
        assert_eq!(
            text("[]"),
            "400 error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot \
             unmarshal array into Go value of type map[string]interface {}"
        );
        assert!(text("{").starts_with("400 error decoding YAML: error converting YAML to JSON:"));
    }
}
