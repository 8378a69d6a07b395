//! Messages to the JSON they stand for. Whatever the bytes, the outcome is a value or an error: depth
//! is bounded and no length is believed before its bytes are there.

use super::{
    MAGIC,
    wire::{Parts, Wire},
};
use crate::{
    decode::Head,
    schema::{Element, Field, Schema, Shape, Type, TypeId},
    time,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

/// Deeper messages are refused, as the JSON reader refuses deeper values.
const DEPTH_MAX: usize = 100;

/// What is wrong with a body, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is no envelope, so that nothing is known of it.
    #[error("{0}")]
    Envelope(String),
    /// It names a type, whose message it is not.
    #[error("{0}")]
    Message(String),
}

/// The JSON of an object of type `ty`, with `apiVersion` and `kind` from the envelope.
pub fn read(schema: &Schema, ty: TypeId, body: &[u8]) -> Result<Value, ReadError> {
    let (head, raw) = open(body).map_err(ReadError::Envelope)?;
    let mut object = read_message(schema, ty, raw).map_err(ReadError::Message)?;
    for (field, value) in [("apiVersion", head.api_version), ("kind", head.kind)] {
        if !value.is_empty() {
            object.insert(field.into(), value.into());
        }
    }
    Ok(Value::Object(object))
}

/// What a body says it is; empty where it says nothing.
pub fn head(body: &[u8]) -> Head {
    open(body).map(|(head, _)| head).unwrap_or_default()
}

/// A message without its envelope, as it stands inside another one.
pub fn read_message(
    schema: &Schema,
    ty: TypeId,
    bytes: &[u8],
) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    message(schema, ty, bytes, &mut object, 0)?;
    Ok(object)
}

/// The head and the message of an envelope.
fn open(body: &[u8]) -> Result<(Head, &[u8]), String> {
    if body.is_empty() {
        return Err("empty data".into());
    }
    let envelope = body.strip_prefix(MAGIC).ok_or(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
    )?;
    if envelope.is_empty() {
        return Err("empty body".into());
    }
    let (mut head, mut raw) = (Head::default(), &[][..]);
    for part in Parts(envelope) {
        match part? {
            (1, Wire::Bytes(bytes)) => {
                for part in Parts(bytes) {
                    match part? {
                        (1, Wire::Bytes(bytes)) => head.api_version = text(bytes)?,
                        (2, Wire::Bytes(bytes)) => head.kind = text(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    Ok((head, raw))
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
    // Fields come in order, so the next one is mostly the same or the next in the table.
    let mut from = 0;
    for part in Parts(bytes) {
        let (number, wire) = part?;
        let (before, behind) = ty.fields.split_at(from);
        let found = behind.iter().position(|field| field.number == number).map(|at| from + at);
        let found = found.or_else(|| before.iter().position(|field| field.number == number));
        let Some(at) = found else { continue };
        from = at;
        let field = &ty.fields[at];
        match (field.inline, field.message(), wire) {
            (true, Some(inner), Wire::Bytes(bytes)) => {
                message(schema, inner, bytes, object, depth + 1)?;
            }
            _ => Reader { schema, ty, depth: depth + 1 }.field(field, wire, object)?,
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
                if field.pointer || !(left_out && is_zero(field, &value)) {
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
            (
                Element::String
                | Element::Bool
                | Element::Int32
                | Element::Int64
                | Element::Float64
                | Element::Any,
                _,
            ) => return Err(self.mismatch()),
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
                    Element::Time => time::format(at).into(),
                    _ => time::format_micro(at).into(),
                }
            }
            Element::Quantity if raw(1).is_empty() => "0".into(),
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

fn is_zero(field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        // Go's JSON leaves a struct out only where it is told to by `omitzero`.
        Value::Object(map) => field.omit_zero && map.is_empty(),
    }
}

/// Nanoseconds in Go's notation: `1h2m3.5s`.
pub(super) fn go_duration(nanoseconds: i64) -> String {
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
