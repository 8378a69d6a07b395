//! The one walk over a body and the schema at once. Stops at the first value of a wrong type;
//! collects fields that are unknown or given twice.

use super::{DecodeError, Decoded};
use crate::quantity::Quantity;
use crate::schema::{Element, Field, Schema, Shape, Type, TypeId};
use crate::text::go_quote;
use crate::{Object, time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Upstream's bound on how many strict errors one body may cause.
const STRICT_MAX: usize = 100;
/// Places of `apiVersion` and `kind` in the set of seen fields, after every property.
const API_VERSION_BIT: usize = 126;
const KIND_BIT: usize = 127;

/// One step from the root to a value.
enum Step<'s> {
    Field { owner: &'s Type, name: &'s str },
    Key(String),
    Index(usize),
}

/// State of one decoding.
pub(super) struct Walk<'s> {
    schema: &'s Schema,
    path: Vec<Step<'s>>,
    decoded: Decoded,
    /// Above zero inside types that upstream decodes by hand, where it is not strict.
    lenient: usize,
    /// Refusals have the words of upstream's converter of generic maps, not those of its JSON parser.
    converting: bool,
    error: Option<DecodeError>,
}

/// A kind of JSON value as the parser's texts and as the converter's texts name it.
#[derive(Clone, Copy)]
struct Got<'a> {
    parsed: &'a str,
    converted: &'a str,
}

const STRING: Got<'static> = Got { parsed: "string", converted: "string" };
const BOOL: Got<'static> = Got { parsed: "bool", converted: "bool" };
const OBJECT: Got<'static> = Got { parsed: "object", converted: "map" };
const ARRAY: Got<'static> = Got { parsed: "array", converted: "slice" };

/// What a value has to be.
#[derive(Clone, Copy)]
enum Want<'s> {
    /// A struct; the outermost always may have `apiVersion` and `kind`.
    Struct { ty: &'s Type, outermost: bool },
    /// A field as a whole.
    Field(&'s Field),
    /// One entry of a field that is a list or a map, or the value of one that is neither.
    Entry(&'s Field),
    /// `apiVersion` or `kind`.
    TypeMeta,
}

impl<'s> Walk<'s> {
    pub(super) fn new(schema: &'s Schema) -> Walk<'s> {
        Walk {
            schema,
            path: Vec::new(),
            decoded: Decoded::default(),
            lenient: 0,
            converting: false,
            error: None,
        }
    }

    /// For values that upstream has as generic maps: what a strategic merge patch made.
    pub(super) fn converting(schema: &'s Schema) -> Walk<'s> {
        Walk { converting: true, ..Walk::new(schema) }
    }

    /// Reads a whole object; on failure see [`Walk::error`] first.
    pub(super) fn root<'de, D: Deserializer<'de>>(
        &mut self,
        ty: TypeId,
        source: D,
    ) -> Result<Object, D::Error> {
        let want = Want::Struct { ty: self.schema.ty(ty), outermost: true };
        let value = Seed { walk: self, want }.deserialize(source)?;
        // As in Go, `null` is an object without fields.
        Ok(Object::from_value(value).unwrap_or_default())
    }

    /// What was wrong, if the failure was the schema's and not the parser's.
    pub(super) fn error(&mut self) -> Option<DecodeError> {
        self.error.take()
    }

    pub(super) fn finish(self, object: Object) -> Decoded {
        Decoded { object, ..self.decoded }
    }

    fn fail<E: Error>(&mut self, text: String) -> E {
        self.error = Some(DecodeError::Type(text));
        E::custom("refused by the schema")
    }

    /// Go's `UnmarshalTypeError`.
    fn mismatch<E: Error>(&mut self, got: Got<'_>, want: Want<'s>) -> E {
        if self.converting {
            let text = self.conversion_error(got.converted, want);
            return self.fail(text);
        }
        let got = got.parsed;
        let wanted = self.go_type(want);
        let struct_name = self.path.iter().rev().find_map(|step| match step {
            Step::Field { owner, .. } => Some(owner.kind()),
            _ => None,
        });
        let Some(struct_name) = struct_name else {
            return self
                .fail(format!("json: cannot unmarshal {got} into Go value of type {wanted}"));
        };
        let names = self.path.iter().filter_map(|step| match step {
            Step::Field { name, .. } => Some(*name),
            _ => None,
        });
        let path = names.collect::<Vec<_>>().join(".");
        self.fail(format!(
            "json: cannot unmarshal {got} into Go struct field {struct_name}.{path} of type {wanted}"
        ))
    }

    /// What `runtime.DefaultUnstructuredConverter` says.
    fn conversion_error(&self, got: &str, want: Want<'s>) -> String {
        let wanted = match want {
            Want::Struct { .. } => return format!("cannot restore struct from: {got}"),
            Want::Field(field) if field.shape == Shape::List => {
                return format!("cannot restore slice from {got}");
            }
            Want::Field(field) if field.shape == Shape::Map => {
                return format!("cannot restore map from {got}");
            }
            Want::Field(field) | Want::Entry(field) => match field.element {
                Element::Message(_) => return format!("cannot restore struct from: {got}"),
                Element::Bytes | Element::StringList => {
                    return format!("cannot restore slice from {got}");
                }
                Element::Bool => "bool",
                Element::Int32 => "int32",
                Element::Int64 => "int64",
                Element::Float64 => "float64",
                _ => "string",
            },
            Want::TypeMeta => "string",
        };
        // Go converts between numbers, and from a whole number to a string, so these two get as far
        // as being refused as JSON.
        let convertible = match got {
            "int64" => !matches!(wanted, "bool"),
            "float64" => matches!(wanted, "int32" | "int64"),
            _ => false,
        };
        if convertible {
            return format!("cannot convert {got} to {}", self.go_type(want));
        }
        format!("unrecognized type: {wanted}")
    }

    fn go_type(&self, want: Want<'s>) -> String {
        match want {
            Want::Struct { ty, .. } => ty.go_name().to_string(),
            Want::TypeMeta => "string".to_string(),
            Want::Entry(field) => self.go_entry_type(field),
            Want::Field(field) => match (field.shape, &field.go_whole) {
                (Shape::One, _) => self.go_entry_type(field),
                (_, Some(name)) => name.to_string(),
                (Shape::List, None) => format!("[]{}", self.go_entry_type(field)),
                (Shape::Map, None) => format!("map[string]{}", self.go_entry_type(field)),
            },
        }
    }

    fn go_entry_type(&self, field: &Field) -> String {
        if let Some(name) = &field.go_scalar {
            return name.to_string();
        }
        let name = match field.element {
            Element::String => "string",
            Element::Bool => "bool",
            Element::Int32 => "int32",
            Element::Int64 => "int64",
            Element::Float64 => "float64",
            Element::Bytes => "[]uint8",
            Element::Message(id) => self.schema.ty(id).go_name(),
            Element::Time => "v1.Time",
            Element::MicroTime => "v1.MicroTime",
            Element::Duration => "v1.Duration",
            Element::IntOrString => "intstr.IntOrString",
            Element::Quantity => "resource.Quantity",
            Element::RawExtension => "runtime.RawExtension",
            Element::FieldsV1 => "v1.FieldsV1",
            Element::Json => "v1.JSON",
            Element::SchemaOrBool(_) => "v1.JSONSchemaPropsOrBool",
            Element::SchemaOrArray(_) => "v1.JSONSchemaPropsOrArray",
            Element::SchemaOrStringArray(_) => "v1.JSONSchemaPropsOrStringArray",
            Element::StringList => "v1.ExtraValue",
            Element::Any => "interface {}",
        };
        name.to_string()
    }

    /// Notes an unknown field or one given twice, once for each text.
    fn note(&mut self, what: &str, name: &str) {
        if self.lenient > 0 || self.decoded.strict.len() >= STRICT_MAX {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field { name, .. } => push_name(&mut path, name),
                Step::Key(name) => push_name(&mut path, name),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        push_name(&mut path, name);
        let message = format!("{what} field {}", go_quote(&path));
        if self.decoded.strict.contains(&message) {
            return;
        }
        self.decoded.strict.push(message);
        let list = match what {
            "unknown" => &mut self.decoded.unknown,
            _ => &mut self.decoded.duplicate,
        };
        list.push(path);
    }

    /// One value below `step`.
    fn below<T>(&mut self, step: Step<'s>, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let result = read(self);
        self.path.pop();
        result
    }

    fn read_struct<'de, A: MapAccess<'de>>(
        &mut self,
        ty: &'s Type,
        outermost: bool,
        mut source: A,
    ) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let mut seen = 0u128;
        while let Some(key) = source.next_key::<String>()? {
            let position = ty.position(&key);
            let (bit, step, want) = match position.map(|at| &ty.properties()[at]) {
                Some(field) => {
                    let step = Step::Field { owner: ty, name: &field.json };
                    (position.unwrap_or_default(), step, Want::Field(field))
                }
                None if outermost || ty.has_type_meta() => match key.as_str() {
                    "apiVersion" => type_meta(ty, API_VERSION_BIT, "apiVersion"),
                    "kind" => type_meta(ty, KIND_BIT, "kind"),
                    _ => {
                        self.note("unknown", &key);
                        source.next_value::<IgnoredAny>()?;
                        continue;
                    }
                },
                None => {
                    self.note("unknown", &key);
                    source.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if seen & (1 << bit) != 0 {
                self.note("duplicate", &key);
            }
            seen |= 1 << bit;
            let value = self.below(step, |walk| source.next_value_seed(Seed { walk, want }))?;
            if is_absent(&value, want) {
                object.remove(&key);
            } else {
                object.insert(key, value);
            }
        }
        Ok(Value::Object(object))
    }

    fn read_map<'de, A: MapAccess<'de>>(
        &mut self,
        field: &'s Field,
        mut source: A,
    ) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = source.next_key::<String>()? {
            if object.contains_key(&key) {
                self.note("duplicate", &key);
            }
            let want = Want::Entry(field);
            let step = Step::Key(key.clone());
            let value = self.below(step, |walk| source.next_value_seed(Seed { walk, want }))?;
            object.insert(key, or_zero(value, field));
        }
        Ok(Value::Object(object))
    }

    fn read_list<'de, A: SeqAccess<'de>>(
        &mut self,
        field: &'s Field,
        mut source: A,
    ) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let want = Want::Entry(field);
            let step = Step::Index(list.len());
            let entry = self.below(step, |walk| source.next_element_seed(Seed { walk, want }))?;
            match entry {
                Some(value) => list.push(or_zero(value, field)),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    /// Lists inside values that upstream decodes by hand.
    fn read_strings<'de, A: SeqAccess<'de>>(&mut self, mut source: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(entry) = source.next_element::<Value>()? {
            match entry {
                Value::String(_) => list.push(entry),
                Value::Null => list.push("".into()),
                other => {
                    let got = go_kind(&other);
                    let text = "json: cannot unmarshal {} into Go value of type string";
                    return Err(self.fail(text.replace("{}", &got)));
                }
            }
        }
        Ok(Value::Array(list))
    }

    fn read_schemas<'de, A: SeqAccess<'de>>(
        &mut self,
        ty: TypeId,
        mut source: A,
    ) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let want = Want::Struct { ty: self.schema.ty(ty), outermost: false };
            match source.next_element_seed(Seed { walk: self, want })? {
                Some(Value::Null) => list.push(Value::Object(Map::new())),
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn text<E: Error>(&mut self, want: Want<'s>, text: &str) -> Result<Value, E> {
        let field = match want {
            Want::TypeMeta => return Ok(text.into()),
            Want::Field(field) if field.shape == Shape::One => field,
            Want::Entry(field) => field,
            _ => return Err(self.mismatch(STRING, want)),
        };
        let read = match field.element {
            Element::String | Element::IntOrString => Ok(text.into()),
            Element::Bytes => canonical_base64(text).map(Value::from),
            Element::Quantity => match Quantity::parse(text.trim()) {
                Ok(quantity) => Ok(quantity.to_string().into()),
                Err(error) => Err(error.to_string()),
            },
            Element::Time => time::parse_rfc3339(text).map(|time| time::format(time).into()),
            Element::MicroTime => {
                time::parse_rfc3339_micro(text).map(|time| time::format_micro(time).into())
            }
            Element::Duration => Ok(text.into()),
            Element::SchemaOrBool(_) => Err("boolean or JSON schema expected".to_string()),
            _ => return Err(self.mismatch(STRING, want)),
        };
        match read {
            // Go's zero time is printed as null.
            Ok(Value::String(text)) if text.starts_with("0001-01-01T00:00:00") => Ok(Value::Null),
            Ok(value) => Ok(value),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn number<E: Error>(&mut self, want: Want<'s>, number: Number) -> Result<Value, E> {
        let converted = if number.is_f64() { "float64" } else { "int64" };
        let got = Got { parsed: "number", converted };
        let field = match want {
            Want::Field(field) if field.shape == Shape::One => field,
            Want::Entry(field) => field,
            _ => return Err(self.mismatch(got, want)),
        };
        let fits = |bits: u32| match bits {
            32 => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
            _ => number.as_i64().is_some(),
        };
        match field.element {
            Element::Int32 if fits(32) => Ok(number.into()),
            Element::Int64 if fits(64) => Ok(number.into()),
            Element::Int32 | Element::Int64 => {
                let parsed = format!("number {number}");
                Err(self.mismatch(Got { parsed: &parsed, ..got }, want))
            }
            Element::Float64 => Ok(number.into()),
            Element::IntOrString if fits(32) => Ok(number.into()),
            Element::IntOrString => Err(self.fail(format!(
                "json: cannot unmarshal number {number} into Go value of type int32"
            ))),
            Element::Quantity => match Quantity::parse(&number.to_string()) {
                Ok(quantity) => Ok(quantity.to_string().into()),
                Err(error) => Err(self.fail(error.to_string())),
            },
            _ => Err(self.by_hand(got, field, want)),
        }
    }

    fn bool<E: Error>(&mut self, want: Want<'s>, flag: bool) -> Result<Value, E> {
        let field = match want {
            Want::Field(field) if field.shape == Shape::One => field,
            Want::Entry(field) => field,
            _ => return Err(self.mismatch(BOOL, want)),
        };
        match field.element {
            Element::Bool | Element::SchemaOrBool(_) => Ok(flag.into()),
            _ => Err(self.by_hand(BOOL, field, want)),
        }
    }

    /// The refusal of a kind of JSON value by a type with its own JSON form, else the usual one.
    fn by_hand<E: Error>(&mut self, got: Got<'_>, field: &Field, want: Want<'s>) -> E {
        let parsed = got.parsed;
        match field.element {
            Element::Time | Element::MicroTime | Element::Duration => {
                self.fail(format!("json: cannot unmarshal {parsed} into Go value of type string"))
            }
            Element::IntOrString => {
                self.fail(format!("json: cannot unmarshal {parsed} into Go value of type int32"))
            }
            Element::Quantity => self.fail(crate::quantity::QuantityError::Format.to_string()),
            Element::SchemaOrBool(_) => self.fail("boolean or JSON schema expected".to_string()),
            _ => self.mismatch(got, want),
        }
    }

    fn map<'de, A: MapAccess<'de>>(
        &mut self,
        want: Want<'s>,
        source: A,
    ) -> Result<Value, A::Error> {
        let field = match want {
            Want::Struct { ty, outermost } => return self.read_struct(ty, outermost, source),
            Want::Field(field) if field.shape == Shape::Map => return self.read_map(field, source),
            Want::Field(field) if field.shape == Shape::One => field,
            Want::Entry(field) => field,
            _ => return Err(self.mismatch(OBJECT, want)),
        };
        match field.element {
            Element::Message(id) => self.read_struct(self.schema.ty(id), false, source),
            Element::SchemaOrBool(id)
            | Element::SchemaOrArray(id)
            | Element::SchemaOrStringArray(id) => {
                self.lenient += 1;
                let value = self.read_struct(self.schema.ty(id), false, source);
                self.lenient -= 1;
                value
            }
            _ => Err(self.by_hand(OBJECT, field, want)),
        }
    }

    fn list<'de, A: SeqAccess<'de>>(
        &mut self,
        want: Want<'s>,
        source: A,
    ) -> Result<Value, A::Error> {
        let field = match want {
            Want::Field(field) if field.shape == Shape::List => {
                return self.read_list(field, source);
            }
            Want::Field(field) if field.shape == Shape::One => field,
            Want::Entry(field) => field,
            _ => return Err(self.mismatch(ARRAY, want)),
        };
        match field.element {
            Element::StringList | Element::SchemaOrStringArray(_) => self.read_strings(source),
            Element::SchemaOrArray(id) => {
                self.lenient += 1;
                let value = self.read_schemas(id, source);
                self.lenient -= 1;
                value
            }
            _ => Err(self.by_hand(ARRAY, field, want)),
        }
    }
}

fn type_meta<'s>(ty: &'s Type, bit: usize, name: &'static str) -> (usize, Step<'s>, Want<'s>) {
    (bit, Step::Field { owner: ty, name }, Want::TypeMeta)
}

fn push_name(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// What Go would not print again: `null`, and the zero value of an `omitempty` field.
fn is_absent(value: &Value, want: Want<'_>) -> bool {
    let omit = match want {
        Want::Field(field) => field.omit_empty && !field.pointer,
        _ => true,
    };
    match value {
        Value::Null => true,
        Value::Bool(flag) => omit && !flag && is_scalar(want),
        Value::Number(number) => omit && number.as_f64() == Some(0.0) && is_scalar(want),
        Value::String(text) => omit && text.is_empty() && is_scalar(want),
        Value::Array(list) => omit && list.is_empty() && is_repeated(want) && !is_reset(want),
        Value::Object(map) => omit && map.is_empty() && is_repeated(want),
    }
}

fn is_scalar(want: Want<'_>) -> bool {
    let scalar = |element| {
        use Element::{Bool, Bytes, Float64, Int32, Int64, String};
        matches!(element, String | Bool | Int32 | Int64 | Float64 | Bytes)
    };
    match want {
        Want::Field(field) => field.shape == Shape::One && scalar(field.element),
        Want::TypeMeta => true,
        _ => false,
    }
}

/// An empty list of managers is a request to forget them; upstream's update sees it before it goes.
fn is_reset(want: Want<'_>) -> bool {
    matches!(want, Want::Field(field) if &*field.json == "managedFields")
}

fn is_repeated(want: Want<'_>) -> bool {
    matches!(want, Want::Field(field) if field.shape != Shape::One)
}

/// What Go has for a `null` inside a list or map.
fn or_zero(value: Value, field: &Field) -> Value {
    if !value.is_null() {
        return value;
    }
    match field.element {
        Element::String | Element::Bytes => "".into(),
        Element::Bool => false.into(),
        Element::Int32 | Element::Int64 | Element::Float64 | Element::IntOrString => 0.into(),
        Element::Message(_) => Value::Object(Map::new()),
        Element::Quantity => "0".into(),
        _ => Value::Null,
    }
}

/// Base64 as Go reads it (line breaks ignored), written without them.
fn canonical_base64(text: &str) -> Result<String, String> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&clean) {
        Ok(_) => Ok(clean),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => clean.len() / 4 * 4,
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

/// How Go's error texts name a kind of JSON value.
pub(crate) fn go_kind(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
    .to_string()
}

/// The refusal of a body whose outermost value is no object.
pub(super) fn not_an_object(value: &Value) -> DecodeError {
    let got = go_kind(value);
    DecodeError::Syntax(format!(
        "json: cannot unmarshal {got} into Go value of type struct {{ APIVersion string \
         \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    ))
}

/// Reads one value as `want`.
struct Seed<'w, 's> {
    walk: &'w mut Walk<'s>,
    want: Want<'s>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        use Element::{Any, FieldsV1, Json, RawExtension};
        let free = match self.want {
            Want::Field(field) => field.shape == Shape::One && is_free(field),
            Want::Entry(field) => is_free(field),
            _ => false,
        };
        fn is_free(field: &Field) -> bool {
            matches!(field.element, RawExtension | FieldsV1 | Json | Any)
        }
        if free { Value::deserialize(source) } else { source.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        self.walk.bool(self.want, flag)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.walk.number(self.want, number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.walk.number(self.want, number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        match Number::from_f64(number) {
            Some(number) => self.walk.number(self.want, number),
            // Only YAML has such numbers.
            None => {
                Err(self.walk.mismatch(Got { parsed: "number", converted: "float64" }, self.want))
            }
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.walk.text(self.want, text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Value, A::Error> {
        self.walk.list(self.want, list)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        self.walk.map(self.want, map)
    }
}
