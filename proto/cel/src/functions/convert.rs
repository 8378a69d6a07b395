//! Conversions between types: `int`, `uint`, `double`, `string`, `bytes`, `bool`, `dyn`, `type`.

use super::{Declared, strings, time};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
};

pub(super) const FUNCTIONS: &[Declared] = &[
    (
        "int",
        "(int) int | (uint) int | (double) int | (string) int | (timestamp) int | (duration) int",
        int,
    ),
    ("uint", "(uint) uint | (int) uint | (double) uint | (string) uint", uint),
    ("double", "(double) double | (int) double | (uint) double | (string) double", double),
    (
        "string",
        "(string) string | (bool) string | (int) string | (uint) string | (double) string | \
         (bytes) string | (timestamp) string | (duration) string | (IP) string | (CIDR) string",
        string,
    ),
    ("bytes", "(bytes) bytes | (string) bytes", bytes),
    ("bool", "(bool) bool | (string) bool", boolean),
    ("dyn", "(A) dyn", |_, args| Ok(args[0].clone())),
    ("type", "(A) type<A>", |_, args| Ok(Value::Type(args[0].type_name()))),
    ("duration", "(string) duration | (duration) duration", |_, args| match &args[0] {
        Value::String(text) => time::read_duration(text.as_str()),
        Value::Duration(_) => Ok(args[0].clone()),
        other => Err(unconvertible(other, "google.protobuf.Duration")),
    }),
    ("timestamp", "(string) timestamp | (int) timestamp | (timestamp) timestamp", |_, args| {
        match &args[0] {
            Value::String(text) => time::read_timestamp(text.as_str()),
            Value::Int(seconds) => time::of_seconds(*seconds),
            Value::Timestamp(_) => Ok(args[0].clone()),
            other => Err(unconvertible(other, "google.protobuf.Timestamp")),
        }
    }),
];

fn unconvertible(value: &Value<'_>, to: &str) -> EvalError {
    let from = value.type_name();
    EvalError::new(format!("type conversion error from '{from}' to '{to}'"))
}

fn range() -> EvalError {
    EvalError::new("integer overflow")
}

fn int<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Int(match &args[0] {
        Value::Int(number) => *number,
        Value::Uint(number) => i64::try_from(*number).map_err(|_| range())?,
        Value::Double(number) if number.abs() < 9_223_372_036_854_775_807.0 => *number as i64,
        Value::Double(_) => return Err(range()),
        Value::String(text) => text.as_str().parse().map_err(|_| unconvertible(&args[0], "int"))?,
        Value::Timestamp(at) => at.as_second(),
        Value::Duration(nanos) => *nanos,
        other => return Err(unconvertible(other, "int")),
    }))
}

fn uint<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let range = || EvalError::new("unsigned integer overflow");
    Ok(Value::Uint(match &args[0] {
        Value::Uint(number) => *number,
        Value::Int(number) => u64::try_from(*number).map_err(|_| range())?,
        Value::Double(number) if (0.0..18_446_744_073_709_551_615.0).contains(number) => {
            *number as u64
        }
        Value::Double(_) => return Err(range()),
        Value::String(text) => {
            text.as_str().parse().map_err(|_| unconvertible(&args[0], "uint"))?
        }
        other => return Err(unconvertible(other, "uint")),
    }))
}

fn double<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Double(match &args[0] {
        Value::Double(number) => *number,
        Value::Int(number) => *number as f64,
        Value::Uint(number) => *number as f64,
        Value::String(text) => {
            text.as_str().parse().map_err(|_| unconvertible(&args[0], "double"))?
        }
        other => return Err(unconvertible(other, "double")),
    }))
}

fn string<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    if let Value::Bytes(bytes) = &args[0]
        && std::str::from_utf8(bytes).is_err()
    {
        return Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string"));
    }
    match (&args[0], strings::text_of(&args[0])) {
        (Value::String(_), _) => Ok(args[0].clone()),
        (_, Some(text)) => Ok(Value::string(text)),
        (other, None) => Err(unconvertible(other, "string")),
    }
}

fn bytes<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Bytes(_) => Ok(args[0].clone()),
        Value::String(text) => Ok(Value::Bytes(text.as_str().as_bytes().into())),
        other => Err(unconvertible(other, "bytes")),
    }
}

fn boolean<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Bool(_) => Ok(args[0].clone()),
        Value::String(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => Err(unconvertible(&args[0], "bool")),
        },
        other => Err(unconvertible(other, "bool")),
    }
}
