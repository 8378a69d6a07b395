//! The body of an apply: YAML, which mostly is JSON.

use crate::Status;
use crate::decode::{self, go_kind};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// The configuration, and what a strict reader minds: a key that was given twice.
pub fn parse(body: &[u8]) -> Result<(Value, Option<String>), Status> {
    let bad = |why: &dyn fmt::Display| Status::bad_request(format!("error decoding YAML: {why}"));
    // JSON is read exactly and faster by its own parser; what that refuses YAML has the words for.
    let json = body.trim_ascii_start().starts_with(b"{");
    let (value, duplicate) = match serde_json::from_slice::<Once>(body) {
        Ok(Once(value)) if json => (value, None),
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

/// JSON in which no key is given twice.
struct Once(Value);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Once, D::Error> {
        source.deserialize_any(OnceVisitor).map(Once)
    }
}

struct OnceVisitor;

impl<'de> Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(value)) = source.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Once(value))) = source.next_entry::<String, Once>()? {
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key was given twice"));
            }
        }
        Ok(Value::Object(map))
    }
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
