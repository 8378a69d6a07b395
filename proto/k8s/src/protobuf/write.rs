//! JSON to messages. An object that was decoded once always fits; the errors are for the others.

use super::wire::{Backwards, FIXED64};
use crate::schema::{Element, Field, Schema, Shape, Type, TypeId};
use crate::time;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

/// Deeper values are refused, as no reader of ours accepts them.
const DEPTH_MAX: usize = 200;
/// Room for a small object; the buffer doubles when it does not suffice.
const CAPACITY: usize = 1024;

/// Why a value has no protobuf form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ty} has no protobuf form: {why}")]
pub struct WriteError {
    /// The type in which it was found.
    pub ty: String,
    pub why: String,
}

/// The message of an object of type `ty`; `apiVersion` and `kind` of the object itself do not count.
pub fn write(
    schema: &Schema,
    ty: TypeId,
    object: &Map<String, Value>,
) -> Result<Vec<u8>, WriteError> {
    let mut writer = Writer { schema, out: Backwards::with_capacity(CAPACITY) };
    writer.object(ty, object, 0)?;
    Ok(writer.out.finish())
}

struct Writer<'a> {
    schema: &'a Schema,
    out: Backwards,
}

impl Writer<'_> {
    fn object(
        &mut self,
        ty: TypeId,
        object: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), WriteError> {
        let schema = self.schema;
        let ty = schema.ty(ty);
        if depth > DEPTH_MAX {
            return Err(misfit(ty, "exceeded max depth"));
        }
        for field in ty.in_wire_order().rev() {
            if field.number == 0 {
                return Err(misfit(ty, "upstream gives it no field numbers"));
            }
            match (field.inline, field.message()) {
                (true, Some(inner)) => {
                    let inside = schema.ty(inner).properties().iter();
                    if field.pointer && !inside.into_iter().any(|one| has(object, one)) {
                        continue;
                    }
                    let end = self.out.len();
                    self.object(inner, object, depth + 1)?;
                    self.out.message(field.number, end);
                }
                _ => self.field(ty, field, object.get(&*field.json), depth)?,
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        ty: &Type,
        field: &Field,
        value: Option<&Value>,
        depth: usize,
    ) -> Result<(), WriteError> {
        let value = value.unwrap_or(&Value::Null);
        let null = value.is_null();
        let number = field.number;
        match (field.shape, value) {
            (Shape::One, _) if null && (field.pointer || field.element == Element::Bytes) => Ok(()),
            (Shape::One, _) => self.value(ty, field.element, number, value, depth),
            (Shape::List | Shape::Map, Value::Null) => Ok(()),
            (Shape::List, Value::Array(list)) if field.wrapped => {
                let end = self.out.len();
                for item in list.iter().rev() {
                    self.value(ty, field.element, 1, item, depth)?;
                }
                self.out.message(number, end);
                Ok(())
            }
            (Shape::List, Value::Array(list)) => {
                let mut items = list.iter().rev();
                items.try_for_each(|item| self.value(ty, field.element, number, item, depth))
            }
            // The keys of serde_json's map are sorted, as upstream's writer sorts them.
            (Shape::Map, Value::Object(map)) => {
                for (key, item) in map.iter().rev() {
                    let end = self.out.len();
                    self.value(ty, field.element, 2, item, depth)?;
                    self.out.bytes(1, key.as_bytes());
                    self.out.message(number, end);
                }
                Ok(())
            }
            _ => Err(misfit(ty, format!("{} is of another type", field.json))),
        }
    }

    fn value(
        &mut self,
        ty: &Type,
        element: Element,
        number: u32,
        value: &Value,
        depth: usize,
    ) -> Result<(), WriteError> {
        let bad = || misfit(ty, format!("field {number} holds {value}"));
        let out = &mut self.out;
        match (element, value) {
            (Element::String, Value::Null) => out.bytes(number, b""),
            (Element::String, Value::String(text)) => out.bytes(number, text.as_bytes()),
            (Element::Bool, Value::Null) => out.int(number, 0),
            (Element::Bool, Value::Bool(value)) => out.int(number, u64::from(*value)),
            (Element::Int32 | Element::Int64, Value::Null) => out.int(number, 0),
            (Element::Int32 | Element::Int64, value) => {
                // Negative numbers take ten bytes, of 32 bits too.
                out.int(number, value.as_i64().ok_or_else(bad)? as u64);
            }
            (Element::Float64, Value::Null) => fixed(out, number, 0.0),
            (Element::Float64, value) => fixed(out, number, value.as_f64().ok_or_else(bad)?),
            (Element::Bytes, Value::Null) => out.bytes(number, b""),
            (Element::Bytes, Value::String(text)) => {
                out.bytes(number, &STANDARD.decode(text).map_err(|_| bad())?);
            }
            (Element::Message(inner), Value::Object(_) | Value::Null) => {
                let (end, nothing) = (out.len(), Map::new());
                self.object(inner, value.as_object().unwrap_or(&nothing), depth + 1)?;
                self.out.message(number, end);
            }
            (
                Element::String
                | Element::Bool
                | Element::Bytes
                | Element::Message(_)
                | Element::Duration
                | Element::Any,
                _,
            ) => return Err(bad()),
            (element, value) => {
                let end = out.len();
                self.special(ty, element, value, depth)?;
                self.out.message(number, end);
            }
        }
        Ok(())
    }

    /// Types whose JSON is not that of their message.
    fn special(
        &mut self,
        ty: &Type,
        element: Element,
        value: &Value,
        depth: usize,
    ) -> Result<(), WriteError> {
        let bad = || misfit(ty, format!("unexpected {value}"));
        let out = &mut self.out;
        match (element, value) {
            (Element::Time | Element::MicroTime, Value::Null) => {}
            (Element::Time | Element::MicroTime, Value::String(text)) => {
                let micro = element == Element::MicroTime;
                let at =
                    if micro { time::parse_rfc3339_micro(text) } else { time::parse_rfc3339(text) };
                let at = at.map_err(|why| misfit(ty, why))?;
                let nanos = if micro { at.subsec_nanosecond() / 1000 * 1000 } else { 0 };
                out.int(2, i64::from(nanos) as u64);
                out.int(1, at.as_second() as u64);
            }
            (Element::Quantity, Value::Null) => out.bytes(1, b"0"),
            (Element::Quantity, Value::String(text)) => out.bytes(1, text.as_bytes()),
            (Element::Quantity, Value::Number(number)) => {
                out.bytes(1, number.to_string().as_bytes());
            }
            (Element::IntOrString, Value::String(text)) => {
                out.bytes(3, text.as_bytes());
                out.int(2, 0);
                out.int(1, 1);
            }
            (Element::IntOrString, Value::Null | Value::Number(_)) => {
                out.bytes(3, b"");
                out.int(2, value.as_i64().unwrap_or(0) as u64);
                out.int(1, 0);
            }
            (Element::StringList, Value::Null) => {}
            (Element::StringList, Value::Array(list)) => {
                for item in list.iter().rev() {
                    out.bytes(1, item.as_str().ok_or_else(bad)?.as_bytes());
                }
            }
            (Element::RawExtension | Element::FieldsV1 | Element::Json, Value::Null) => {}
            (Element::RawExtension | Element::FieldsV1 | Element::Json, value) => {
                out.bytes(1, value.to_string().as_bytes());
            }
            (Element::SchemaOrBool(_), Value::Bool(allowed)) => out.int(1, u64::from(*allowed)),
            (Element::SchemaOrBool(inner), value) => {
                self.value(ty, Element::Message(inner), 2, value, depth)?;
                self.out.int(1, 1);
            }
            (Element::SchemaOrArray(inner), Value::Array(list)) => {
                let inner = Element::Message(inner);
                list.iter().rev().try_for_each(|item| self.value(ty, inner, 2, item, depth))?;
            }
            (Element::SchemaOrStringArray(_), Value::Array(list)) => {
                for item in list.iter().rev() {
                    out.bytes(2, item.as_str().ok_or_else(bad)?.as_bytes());
                }
            }
            (Element::SchemaOrArray(inner) | Element::SchemaOrStringArray(inner), value) => {
                self.value(ty, Element::Message(inner), 1, value, depth)?;
            }
            _ => return Err(bad()),
        }
        Ok(())
    }
}

fn has(object: &Map<String, Value>, field: &Field) -> bool {
    object.get(&*field.json).is_some_and(|value| !value.is_null())
}

fn fixed(out: &mut Backwards, number: u32, value: f64) {
    out.raw(&value.to_le_bytes());
    out.tag(number, FIXED64);
}

fn misfit(ty: &Type, why: impl Into<String>) -> WriteError {
    WriteError { ty: ty.name.to_string(), why: why.into() }
}
