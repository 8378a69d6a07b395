//! Values. What comes from JSON is borrowed and read when it is asked for, by its declared type; only
//! what an expression makes is its own.

use crate::{
    Budget, EvalError, Identity, Kind, ListType, ObjectType, Type,
    functions::{authorizer::Check, formats::Format, net::Cidr, semver::Semver, url::Url},
};
use base64::Engine as _;
use jiff::Timestamp;
use k8s::quantity::Quantity;
use serde_json::Value as Json;
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    net::IpAddr,
    rc::Rc,
    sync::{Arc, LazyLock},
};

/// A value of CEL, borrowed where it can be. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Rc<[u8]>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    /// The name of a type.
    Type(Rc<str>),
    Optional(Option<Rc<Value<'a>>>),
    Opaque(Opaque<'a>),
}

/// A string, borrowed or shared.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Rc<str>),
}

#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json], &'a ListType),
    Built(Rc<Vec<Value<'a>>>),
}

#[derive(Clone, Debug)]
pub enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>, View<'a>),
    Built(Rc<BTreeMap<Key, Value<'a>>>),
    /// Made by `Name{…}`.
    Object(Rc<str>, Rc<BTreeMap<String, Value<'a>>>),
    /// Computed when asked for; has no keys to list.
    Lazy(&'a dyn Fields<'a>),
}

/// How the members of a JSON object are read.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    Values(&'a Type),
    Object(&'a ObjectType),
}

/// Values that are computed when they are asked for, such as `variables` of a policy.
pub trait Fields<'a> {
    /// `None`: there is none of this name. What it costs is taken from `budget`.
    fn get(&'a self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>>;
}

impl std::fmt::Debug for dyn Fields<'_> + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fields")
    }
}

/// A key of a map an expression made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Rc<str>),
}

/// Values of the libraries.
#[derive(Clone, Debug)]
pub enum Opaque<'a> {
    Ip(IpAddr),
    Cidr(Cidr),
    Quantity(Quantity),
    Url(Rc<Url>),
    Semver(Rc<Semver>),
    Format(&'static Format),
    Check(Rc<Check<'a>>),
}

static DYN: Type = Type::DYN;
static DYN_LIST: LazyLock<ListType> =
    LazyLock::new(|| ListType { element: Type::DYN, identity: Identity::Atomic });

impl<'a> Value<'a> {
    /// JSON of which nothing is known: integers, doubles, strings, lists and maps as they are.
    pub fn json(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(number), _) => Value::Int(number),
                (_, number) => Value::Double(number.unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::String(Text::Borrowed(text)),
            Json::Array(items) => Value::List(List::Json(items, &DYN_LIST)),
            Json::Object(members) => Value::map(members),
        }
    }

    /// The members of a JSON object of which nothing is known.
    pub fn map(members: &'a serde_json::Map<String, Json>) -> Value<'a> {
        Value::Map(Map::Json(members, View::Values(&DYN)))
    }

    /// JSON of a declared type; what does not fit the type is read as it is, but a time, duration or
    /// bytes that cannot be read is an error when it is used.
    pub fn typed(json: &'a Json, ty: &'a Type) -> Result<Value<'a>, EvalError> {
        Ok(match (json, &ty.kind) {
            (Json::Array(items), Kind::List(list)) => Value::List(List::Json(items, list)),
            (Json::Object(members), Kind::Object(object)) if !object.open => {
                Value::Map(Map::Json(members, View::Object(object)))
            }
            (Json::Object(members), Kind::Map(map)) => {
                Value::Map(Map::Json(members, View::Values(&map.1)))
            }
            (Json::Number(number), Kind::Double) => {
                Value::Double(number.as_f64().unwrap_or(f64::NAN))
            }
            (Json::Number(number), Kind::Int) if number.as_i64().is_none() => {
                match number.as_f64() {
                    Some(double) if double.fract() == 0.0 && double.abs() < 9e18 => {
                        Value::Int(double as i64)
                    }
                    _ => return Err(EvalError::new(format!("{number} is not an integer"))),
                }
            }
            (Json::String(text), Kind::Timestamp) => crate::functions::time::read_timestamp(text)?,
            (Json::String(text), Kind::Duration) => crate::functions::time::read_duration(text)?,
            (Json::String(text), Kind::Bytes) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text);
                Value::Bytes(bytes.map_err(|error| EvalError::new(error.to_string()))?.into())
            }
            _ => Value::json(json),
        })
    }

    pub fn string(text: impl Into<Rc<str>>) -> Value<'a> {
        Value::String(Text::Shared(text.into()))
    }

    pub fn str(text: &'a str) -> Value<'a> {
        Value::String(Text::Borrowed(text))
    }

    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Built(Rc::new(items)))
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Rc::new(value)))
    }

    pub const NONE: Value<'a> = Value::Optional(None);

    /// The authorizer of a request's user.
    pub fn authorizer(authorizer: &'a dyn crate::Authorizer) -> Value<'a> {
        Value::Opaque(Opaque::Check(Rc::new(Check::new(authorizer))))
    }

    /// `authorizer.requestResource`: what the request itself is about.
    pub fn resource_check(
        authorizer: &'a dyn crate::Authorizer,
        attributes: crate::Attributes,
    ) -> Value<'a> {
        Value::Opaque(Opaque::Check(Rc::new(Check::resource(authorizer, attributes))))
    }

    /// A map whose members are computed when they are asked for.
    pub fn lazy(fields: &'a dyn Fields<'a>) -> Value<'a> {
        Value::Map(Map::Lazy(fields))
    }

    /// Objects made by `Name{…}` must be called by the path of their fields: in `Object.spec` the field
    /// `template` holds an `Object.spec.template`, or a list or map of them. `Err` says which is not.
    pub fn check_object_names(&self) -> Result<(), String> {
        self.object_names(&mut Room(JSON_ROOM))
    }

    fn object_names(&self, room: &mut Room) -> Result<(), String> {
        room.take(1).map_err(|error| error.to_string())?;
        match self {
            Value::Map(Map::Object(name, _)) => self.named(name, room),
            Value::List(List::Built(items)) => {
                items.iter().try_for_each(|item| item.object_names(room))
            }
            _ => Ok(()),
        }
    }

    fn named(&self, wanted: &str, room: &mut Room) -> Result<(), String> {
        room.take(1 + wanted.len() as u64 / 64).map_err(|error| error.to_string())?;
        match self {
            Value::Map(Map::Object(name, _)) if **name != *wanted => Err(format!(
                "unexpected type name {name:?}, expected {wanted:?}, which matches field name path \
                 from root Object type"
            )),
            // What a patch puts somewhere begins a path of its own.
            Value::Map(Map::Object(_, fields)) if wanted == "JSONPatch" => {
                fields.values().try_for_each(|value| value.object_names(room))
            }
            Value::Map(Map::Object(_, fields)) => fields
                .iter()
                .try_for_each(|(field, value)| value.named(&format!("{wanted}.{field}"), room)),
            Value::Map(Map::Built(entries)) => {
                entries.values().try_for_each(|value| value.named(wanted, room))
            }
            Value::List(List::Built(items)) => {
                items.iter().try_for_each(|value| value.named(wanted, room))
            }
            _ => Ok(()),
        }
    }

    /// Fails if an expression made a value of more levels than this: whoever walks it needs stack for
    /// each, and what is kept in variables can grow without end. What the walk takes, `budget` pays.
    pub fn check_levels(&self, levels_max: u16, budget: &mut Budget) -> Result<(), EvalError> {
        let mut below = |value: &Value<'a>| match levels_max.checked_sub(1) {
            Some(levels) => value.check_levels(levels, budget),
            None => Err(EvalError::new("the value is nested too deeply")),
        };
        match self {
            Value::List(List::Built(items)) => items.iter().try_for_each(&mut below),
            Value::Map(Map::Built(entries)) => entries.values().try_for_each(&mut below),
            Value::Map(Map::Object(_, fields)) => fields.values().try_for_each(&mut below),
            Value::Optional(Some(inner)) => below(inner),
            _ => return Ok(()),
        }?;
        budget.work(self.size())
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub(crate) fn type_name(&self) -> Rc<str> {
        match self {
            Value::Null => "null_type".into(),
            Value::Bool(_) => "bool".into(),
            Value::Int(_) => "int".into(),
            Value::Uint(_) => "uint".into(),
            Value::Double(_) => "double".into(),
            Value::String(_) => "string".into(),
            Value::Bytes(_) => "bytes".into(),
            Value::Timestamp(_) => "google.protobuf.Timestamp".into(),
            Value::Duration(_) => "google.protobuf.Duration".into(),
            Value::List(_) => "list".into(),
            Value::Map(Map::Object(name, _)) => name.clone(),
            Value::Map(Map::Json(_, View::Object(object))) if !object.name.is_empty() => {
                object.name.as_str().into()
            }
            Value::Map(_) => "map".into(),
            Value::Type(_) => "type".into(),
            Value::Optional(_) => "optional_type".into(),
            Value::Opaque(opaque) => opaque.type_name().into(),
        }
    }

    /// Elements of a list or map, code points of a string, bytes; everything else counts as one.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Value::String(text) => text.as_str().chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Opaque(Opaque::Cidr(cidr)) => cidr.size(),
            Value::Opaque(Opaque::Ip(IpAddr::V4(_))) => 4,
            Value::Opaque(Opaque::Ip(IpAddr::V6(_))) => 16,
            _ => 1,
        }
    }

    /// As JSON, for patches and annotations; durations and times become text. What is larger than any
    /// object may be is an error.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        self.json_in(&mut Room(JSON_ROOM))
    }

    fn json_in(&self, room: &mut Room) -> Result<Json, EvalError> {
        room.take(NODE_BYTES)?;
        Ok(match self {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(number) => (*number).into(),
            Value::Uint(number) => (*number).into(),
            Value::Double(number) => (*number).into(),
            Value::String(text) => {
                room.take(text.as_str().len() as u64)?;
                text.as_str().into()
            }
            Value::Bytes(bytes) => {
                room.take(bytes.len() as u64)?;
                base64::engine::general_purpose::STANDARD.encode(bytes).into()
            }
            Value::Timestamp(time) => crate::functions::time::print_timestamp(*time).into(),
            Value::Duration(nanos) => crate::functions::time::print_duration(*nanos).into(),
            Value::List(List::Json(items, _)) => {
                items.iter().try_for_each(|item| room.take_json(item))?;
                Json::Array(items.to_vec())
            }
            Value::List(list) => list
                .iter()
                .map(|item| item?.json_in(room))
                .collect::<Result<Vec<Json>, EvalError>>()?
                .into(),
            Value::Map(map) => Json::Object(map.json_in(room)?),
            Value::Optional(Some(value)) => value.json_in(room)?,
            Value::Opaque(Opaque::Quantity(quantity)) => quantity.to_string().into(),
            Value::Type(_) | Value::Opaque(_) => {
                let name = self.type_name();
                return Err(EvalError::new(format!("{name} has no JSON form")));
            }
        })
    }
}

/// Bytes of a value as JSON: several times as much as a request may have.
const JSON_ROOM: u64 = 16 << 20;
/// What every value takes at least.
const NODE_BYTES: u64 = 8;

/// What is left of the size a value may have. The same part may be in it any number of times.
struct Room(u64);

impl Room {
    fn take(&mut self, bytes: u64) -> Result<(), EvalError> {
        let left = self.0.checked_sub(bytes);
        self.0 = left.ok_or_else(|| EvalError::new("the value is too large"))?;
        Ok(())
    }

    fn take_json(&mut self, json: &Json) -> Result<(), EvalError> {
        self.take(NODE_BYTES)?;
        match json {
            Json::String(text) => self.take(text.len() as u64),
            Json::Array(items) => items.iter().try_for_each(|item| self.take_json(item)),
            Json::Object(members) => members.iter().try_for_each(|(name, member)| {
                self.take(name.len() as u64)?;
                self.take_json(member)
            }),
            _ => Ok(()),
        }
    }
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Built(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `None`: out of bounds.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            List::Json(items, list) => {
                items.get(index).map(|item| Value::typed(item, &list.element))
            }
            List::Built(items) => items.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn identity(&self) -> &Identity {
        match self {
            List::Json(_, list) => &list.identity,
            List::Built(_) => &Identity::Atomic,
        }
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json(members, _) => members.len(),
            Map::Built(entries) => entries.len(),
            Map::Object(_, fields) => fields.len(),
            Map::Lazy(_) => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The member a selection `a.name` or an index `a["name"]` asks for.
    pub(crate) fn member(
        &self,
        name: &str,
        budget: &mut Budget,
    ) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Map::Json(members, View::Values(ty)) => {
                members.get(name).map(|member| Value::typed(member, ty))
            }
            Map::Json(members, View::Object(object)) => {
                let field = object.field(name)?;
                // An object's field that is null is not there.
                let member = members.get(&*field.json).filter(|member| !member.is_null())?;
                Some(Value::typed(member, &field.ty))
            }
            Map::Built(entries) => entries.get(&Key::String(name.into())).cloned().map(Ok),
            Map::Object(_, fields) => fields.get(name).cloned().map(Ok),
            Map::Lazy(fields) => fields.get(name, budget),
        }
    }

    pub(crate) fn get(
        &self,
        key: &Value<'a>,
        budget: &mut Budget,
    ) -> Option<Result<Value<'a>, EvalError>> {
        if let Value::String(text) = key {
            return self.member(text.as_str(), budget);
        }
        let Map::Built(entries) = self else { return None };
        let found = match key {
            Value::Bool(value) => entries.get(&Key::Bool(*value)),
            _ => {
                let (int, uint) = (whole(key)?, whole(key)?);
                let int = i64::try_from(int).ok().and_then(|int| entries.get(&Key::Int(int)));
                int.or_else(|| entries.get(&Key::Uint(u64::try_from(uint).ok()?)))
            }
        };
        found.cloned().map(Ok)
    }

    /// In the order of the keys.
    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Map::Json(members, View::Values(_)) => {
                members.keys().map(|key| Value::str(key)).collect()
            }
            Map::Json(members, View::Object(object)) => {
                let known = object.fields.iter().filter(|field| {
                    members.get(&*field.1.json).is_some_and(|member| !member.is_null())
                });
                known.map(|(name, _)| Value::str(name)).collect()
            }
            Map::Built(entries) => entries.keys().map(Key::value).collect(),
            Map::Object(_, fields) => fields.keys().map(|name| Value::string(&**name)).collect(),
            Map::Lazy(_) => Vec::new(),
        }
    }

    fn json_in(&self, room: &mut Room) -> Result<serde_json::Map<String, Json>, EvalError> {
        let mut entry = |key: String, value: &Value<'a>| {
            room.take(key.len() as u64)?;
            Ok((key, value.json_in(room)?))
        };
        match self {
            Map::Json(members, _) => {
                members.values().try_for_each(|member| room.take_json(member))?;
                Ok((*members).clone())
            }
            Map::Object(_, fields) => fields
                .iter()
                .map(|(name, value)| {
                    entry(crate::unescape(name).unwrap_or_else(|| name.clone()), value)
                })
                .collect(),
            Map::Built(entries) => entries
                .iter()
                .map(|(key, value)| match key {
                    Key::String(key) => entry(key.to_string(), value),
                    other => {
                        let name = other.value().type_name();
                        Err(EvalError::new(format!("unsupported map key type {name} in JSON")))
                    }
                })
                .collect(),
            Map::Lazy(_) => Err(EvalError::new("variables have no JSON form")),
        }
    }
}

impl ObjectType {
    /// By its name in CEL; a reserved word may be written as it is.
    pub(crate) fn field(&self, name: &str) -> Option<&crate::Field> {
        self.fields.get(name).or_else(|| {
            let reserved = crate::escape::RESERVED.contains(&name);
            self.fields.get(&format!("__{name}__")).filter(|_| reserved)
        })
    }
}

/// The integer a number is.
pub(crate) fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Uint(number) => Some((*number).into()),
        Value::Double(number) if number.fract() == 0.0 && number.abs() < 1.9e19 => {
            Some(*number as i128)
        }
        _ => None,
    }
}

impl Key {
    pub(crate) fn of(value: &Value<'_>) -> Result<Key, EvalError> {
        Ok(match value {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(number) => Key::Int(*number),
            Value::Uint(number) => Key::Uint(*number),
            Value::String(Text::Shared(text)) => Key::String(text.clone()),
            Value::String(Text::Borrowed(text)) => Key::String((*text).into()),
            other => {
                let name = other.type_name();
                return Err(EvalError::new(format!("unsupported key type: {name}")));
            }
        })
    }

    pub(crate) fn value<'a>(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(number) => Value::Int(*number),
            Key::Uint(number) => Value::Uint(*number),
            Key::String(text) => Value::String(Text::Shared(text.clone())),
        }
    }
}

impl Opaque<'_> {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Opaque::Ip(_) => "net.IP",
            Opaque::Cidr(_) => "net.CIDR",
            Opaque::Quantity(_) => "kubernetes.Quantity",
            Opaque::Url(_) => "kubernetes.URL",
            Opaque::Semver(_) => "kubernetes.Semver",
            Opaque::Format(_) => "kubernetes.NamedFormat",
            Opaque::Check(check) => check.type_name(),
        }
    }
}

/// The order of two numbers of whatever kinds; `None`: one is not a number, or NaN.
pub(crate) fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    let integer = |value: &Value<'_>| match value {
        Value::Int(number) => Some(i128::from(*number)),
        Value::Uint(number) => Some(i128::from(*number)),
        _ => None,
    };
    let double = |value: &Value<'_>| match value {
        Value::Double(number) => Some(*number),
        _ => None,
    };
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (None, None) => double(a)?.partial_cmp(&double(b)?),
        (Some(a), None) => compare_mixed(a, double(b)?),
        (None, Some(b)) => compare_mixed(b, double(a)?).map(Ordering::reverse),
    }
}

fn compare_mixed(integer: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond 64 bits every double is larger or smaller than every integer here.
    if double.abs() >= 1.9e19 {
        return Some(if double > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = double.floor();
    let by_floor = integer.cmp(&(floor as i128));
    Some(if by_floor == Ordering::Equal && double > floor { Ordering::Less } else { by_floor })
}

/// Types are shared between threads, values are not.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Type>();
    shared::<Arc<ListType>>();
};
