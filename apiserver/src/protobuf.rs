//! Request bodies in Kubernetes' protobuf, which typed clients (kubectl create among them) send: read
//! into the JSON they stand for, over the same schema. Answers go out as JSON, which those clients
//! accept beside it.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s::schema::{Element, Field, Schema, Shape, Type, TypeId};
use serde_json::{Map, Number, Value};

/// How every body begins (`k8s\0`), before a `runtime.Unknown`.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages are refused, as the JSON reader refuses deeper values.
const DEPTH_MAX: usize = 100;

/// The JSON of an object of type `ty`, with `apiVersion` and `kind` from the envelope. `Err` says
/// what is wrong with the bytes.
pub(crate) fn read(schema: &Schema, ty: TypeId, body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or(
        "provided data does not appear to be a \
        protobuf message, expected prefix [107 56 115 0]",
    )?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for part in Parts(envelope) {
        match part? {
            (1, Wire::Bytes(bytes)) => {
                for part in Parts(bytes) {
                    match part? {
                        (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = Map::new();
    message(schema, ty, raw, &mut object, 0)?;
    for (field, value) in [("apiVersion", api_version), ("kind", kind)] {
        if !value.is_empty() {
            object.insert(field.into(), value.into());
        }
    }
    Ok(Value::Object(object))
}

/// A value as it stands on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("unexpected EOF")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".into())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        if count > self.0.len() {
            return Err("unexpected EOF".into());
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn part(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| "proto: illegal tag")?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| "unexpected EOF")?;
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let count = usize::try_from(self.varint()?).map_err(|_| "unexpected EOF")?;
                Wire::Bytes(self.take(count)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((number, wire))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_err() {
            self.0 = &[];
        }
        Some(part)
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

/// Reads a message into `object`; inlined messages go into the same one.
fn message(
    schema: &Schema,
    ty: TypeId,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err("exceeded max depth".into());
    }
    let ty = schema.ty(ty);
    for part in Parts(bytes) {
        let (number, wire) = part?;
        let Some(field) = ty.fields.iter().find(|field| field.number == number) else {
            continue;
        };
        let read = Reader { schema, ty, depth: depth + 1 };
        match (field.inline, field.message(), wire) {
            (true, Some(inner), Wire::Bytes(bytes)) => {
                message(schema, inner, bytes, object, depth + 1)?;
            }
            _ => read.field(field, wire, object)?,
        }
    }
    Ok(())
}

struct Reader<'a> {
    schema: &'a Schema,
    ty: &'a Type,
    depth: usize,
}

impl Reader<'_> {
    fn field(
        &self,
        field: &Field,
        wire: Wire<'_>,
        object: &mut Map<String, Value>,
    ) -> Result<(), String> {
        let name = field.json.to_string();
        match (field.shape, wire) {
            (Shape::One, wire) => {
                let value = self.value(field.element, wire)?;
                // Go's writer sends every field that is no pointer; JSON leaves those that are zero out.
                let left_out = field.omit_empty || field.omit_zero;
                if field.pointer || !(left_out && is_zero(&value)) {
                    object.insert(name, value);
                }
            }
            (Shape::List, Wire::Bytes(bytes)) if field.wrapped => {
                let items: Result<Vec<Value>, String> =
                    Parts(bytes).map(|part| self.value(field.element, part?.1)).collect();
                object.insert(name, items?.into());
            }
            (Shape::List, wire) => {
                let value = self.value(field.element, wire)?;
                let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = list {
                    list.push(value);
                }
            }
            (Shape::Map, Wire::Bytes(bytes)) => {
                let (mut key, mut value) = (String::new(), None);
                for part in Parts(bytes) {
                    match part? {
                        (1, Wire::Bytes(bytes)) => key = text(bytes)?,
                        (2, wire) => value = Some(self.value(field.element, wire)?),
                        _ => {}
                    }
                }
                let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value.unwrap_or_else(|| "".into()));
                }
            }
            (Shape::Map, _) => return Err(self.mismatch()),
        }
        Ok(())
    }

    fn mismatch(&self) -> String {
        format!("proto: wrong wireType for a field of {}", self.ty.name)
    }

    fn value(&self, element: Element, wire: Wire<'_>) -> Result<Value, String> {
        Ok(match (element, wire) {
            (Element::String, Wire::Bytes(bytes)) => text(bytes)?.into(),
            (Element::Bool, Wire::Varint(value)) => (value != 0).into(),
            (Element::Int32, Wire::Varint(value)) => (value as i32).into(),
            (Element::Int64, Wire::Varint(value)) => (value as i64).into(),
            (Element::Float64, Wire::Fixed64(bits)) => {
                Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
            }
            (Element::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            (Element::Message(ty), Wire::Bytes(bytes)) => {
                let mut object = Map::new();
                message(self.schema, ty, bytes, &mut object, self.depth)?;
                object.into()
            }
            (element, Wire::Bytes(bytes)) => self.special(element, bytes)?,
            _ => return Err(self.mismatch()),
        })
    }

    /// Types whose JSON is not that of their message.
    fn special(&self, element: Element, bytes: &[u8]) -> Result<Value, String> {
        let parts: Vec<(u32, Wire<'_>)> = Parts(bytes).collect::<Result<_, _>>()?;
        let part = |number: u32| parts.iter().find(|part| part.0 == number).map(|part| part.1);
        let int = |number| match part(number) {
            Some(Wire::Varint(value)) => value,
            _ => 0,
        };
        let raw = |number| match part(number) {
            Some(Wire::Bytes(bytes)) => bytes,
            _ => &[],
        };
        Ok(match element {
            Element::Time | Element::MicroTime if bytes.is_empty() => Value::Null,
            Element::Time | Element::MicroTime => {
                let at = Timestamp::new(int(1) as i64, int(2) as i32);
                let at = at.map_err(|error| error.to_string())?;
                match element {
                    Element::Time => k8s::time::format(at).into(),
                    _ => k8s::time::format_micro(at).into(),
                }
            }
            Element::Quantity => text(raw(1))?.into(),
            Element::Duration => go_duration(int(1) as i64).into(),
            Element::IntOrString if int(1) == 1 => text(raw(3))?.into(),
            Element::IntOrString => (int(2) as i32).into(),
            Element::StringList => {
                let items = parts.iter().map(|(_, wire)| self.value(Element::String, *wire));
                items.collect::<Result<Vec<Value>, String>>()?.into()
            }
            Element::SchemaOrBool(ty) => match part(2) {
                Some(wire) => self.value(Element::Message(ty), wire)?,
                None => (int(1) != 0).into(),
            },
            Element::SchemaOrArray(ty) | Element::SchemaOrStringArray(ty) => match part(1) {
                Some(wire) => self.value(Element::Message(ty), wire)?,
                None => {
                    let item = match element {
                        Element::SchemaOrArray(ty) => Element::Message(ty),
                        _ => Element::String,
                    };
                    let items = parts.iter().map(|(_, wire)| self.value(item, *wire));
                    items.collect::<Result<Vec<Value>, String>>()?.into()
                }
            },
            _ if raw(1).is_empty() => Value::Null,
            _ => serde_json::from_slice(raw(1)).map_err(|error| error.to_string())?,
        })
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Nanoseconds in Go's notation: `1h2m3.5s`.
fn go_duration(nanoseconds: i64) -> String {
    let total = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let text = match total {
        0 => return "0s".into(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => format!("{}µs", total as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{}ms", total as f64 / 1e6),
        _ => {
            let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
            let seconds = (total % 60_000_000_000) as f64 / 1e9;
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, _) => format!("{minutes}m{seconds}s"),
                _ => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A length-delimited field.
    fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, content.len() as u8];
        out.extend_from_slice(content);
        out
    }

    fn enveloped(kind: &str, raw: &[u8]) -> Vec<u8> {
        let ty = [bytes(1, b"v1"), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &ty), bytes(2, raw)].concat()
    }

    fn config_map(body: &[u8]) -> Result<Value, String> {
        let schema = Schema::built_in();
        read(schema, schema.get("core.v1.ConfigMap").expect("known"), body)
    }

    #[test]
    fn an_object_is_read_as_its_json() {
        let entry = [bytes(1, b"color"), bytes(2, b"blue")].concat();
        let raw = [bytes(1, &bytes(1, b"a")), bytes(2, &entry)].concat();
        assert_eq!(
            config_map(&enveloped("ConfigMap", &raw)),
            Ok(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": "a" }, "data": { "color": "blue" },
            }))
        );
    }

    #[test]
    fn every_truncation_is_refused_or_read_and_never_panics() {
        let whole = enveloped("ConfigMap", &bytes(1, &bytes(1, b"a")));
        for end in 0..whole.len() {
            let _ = config_map(&whole[..end]);
        }
        assert!(config_map(b"{}").is_err());
    }

    #[test]
    fn durations_are_in_gos_notation() {
        assert_eq!(go_duration(90_500_000_000), "1m30.5s");
        assert_eq!(go_duration(3_600_000_000_000), "1h0m0s");
        assert_eq!(go_duration(-1_500_000), "-1.5ms");
    }
}
