//! JSON of no type in particular, as objects of custom kinds are: any value, with the places of
//! fields that were given twice.

use super::{BODY_BYTES_MAX, DecodeError, json_error};
use crate::text::go_quote;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Upstream's bound on how many strict errors one body may cause.
const STRICT_MAX: usize = 100;

/// The value of a JSON body; the last of duplicate fields counts, and each is told once:
/// `duplicate field "spec.a"`.
pub fn free_json(body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLarge { limit_bytes: BODY_BYTES_MAX });
    }
    let mut walk = Walk::default();
    let mut source = serde_json::Deserializer::from_slice(body);
    let read = Seed(&mut walk).deserialize(&mut source).and_then(|value| {
        source.end()?;
        Ok(value)
    });
    read.map(|value| (value, walk.duplicates)).map_err(|error| json_error(&error, body))
}

/// The same of YAML; only the first duplicate is told.
pub fn free_yaml(body: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    // What calls itself YAML mostly is JSON, which a JSON parser reads exactly and faster.
    if body.trim_ascii_start().starts_with(b"{")
        && let Ok(read) = free_json(body)
    {
        return Ok(read);
    }
    let (value, duplicate) = super::yaml::to_value(body)?;
    Ok((value, duplicate.into_iter().map(|duplicate| duplicate.message).collect()))
}

#[derive(Default)]
struct Walk {
    path: String,
    duplicates: Vec<String>,
}

impl Walk {
    /// Reads one value below `step`.
    fn below<T>(&mut self, step: &str, read: impl FnOnce(&mut Walk) -> T) -> T {
        let length = self.path.len();
        if !step.starts_with('[') && length > 0 {
            self.path.push('.');
        }
        self.path.push_str(step);
        let result = read(self);
        self.path.truncate(length);
        result
    }

    fn note(&mut self, name: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        let text = format!("duplicate field {}", go_quote(&format!("{}{dot}{name}", self.path)));
        if self.duplicates.len() < STRICT_MAX && !self.duplicates.contains(&text) {
            self.duplicates.push(text);
        }
    }
}

struct Seed<'w>(&'w mut Walk);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
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
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let step = format!("[{}]", list.len());
            let entry = self.0.below(&step, |walk| source.next_element_seed(Seed(walk)))?;
            match entry {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = source.next_key::<String>()? {
            if map.contains_key(&name) {
                self.0.note(&name);
            }
            let value = self.0.below(&name, |walk| source.next_value_seed(Seed(walk)))?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn duplicates_are_told_with_their_place() {
        let body = br#"{"spec":{"a":1,"list":[{"b":1,"b":2}],"a":3},"spec2":{}}"#;
        let (value, duplicates) = free_json(body).expect("JSON");
        assert_eq!(value, json!({"spec": {"a": 3, "list": [{"b": 2}]}, "spec2": {}}));
        let told = [r#"duplicate field "spec.list[0].b""#, r#"duplicate field "spec.a""#];
        assert_eq!(duplicates, told);
        assert!(free_json(b"{\"a\":}").is_err());
        assert!(free_json(b"{} x").is_err());
        let (value, duplicates) = free_yaml(b"a: 1\na: 2\n").expect("YAML");
        assert_eq!((value, duplicates.len()), (json!({"a": 2}), 1));
    }
}
