//! `"%s is %d".format([…])` (cel-go's ext.Strings).

use super::strings::{double, text_of};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
    value::{List, Map},
};
use std::fmt::Write;

/// Digits behind the point beyond which nobody can want more; each is memory.
const PRECISION_MAX: usize = 1000;
/// More than the cost of one evaluation pays for.
const FORMATTED_BYTES_MAX: usize = 10 * crate::PER_CALL_LIMIT as usize;

pub(super) fn format<'a>(cx: &mut Cx<'a, '_>, text: &str, args: &List<'a>) -> Evaluated<'a> {
    let mut out = String::new();
    let mut next = 0;
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            precision = after[..digits].parse::<usize>().ok();
            if precision.is_none_or(|precision| precision > PRECISION_MAX) {
                return Err(clause("unable to find end of precision specifier"));
            }
            rest = &after[digits..];
        }
        let Some(verb) = rest.chars().next() else {
            return Err(clause("unexpected end of string"));
        };
        rest = &rest[verb.len_utf8()..];
        let Some(arg) = args.get(next) else {
            return Err(EvalError::new(format!("index {next} out of range")));
        };
        next += 1;
        let before = out.len();
        one(cx, &mut out, verb, precision, &arg?)?;
        cx.charge(crate::cost::traversal((out.len() - before) as u64, 0.1))?;
    }
    out.push_str(rest);
    Ok(Value::string(out))
}

fn clause(why: &str) -> EvalError {
    EvalError::new(format!("could not parse formatting clause: {why}"))
}

fn one<'a>(
    cx: &mut Cx<'a, '_>,
    out: &mut String,
    verb: char,
    precision: Option<usize>,
    arg: &Value<'a>,
) -> Result<(), EvalError> {
    let name = arg.type_name();
    let refuse = |what: &str| {
        let why = format!("error during formatting: {what} clause can only be used on {name}");
        EvalError::new(why.replace(&format!("on {name}"), &allowed(what, &name)))
    };
    let done = match (verb, arg) {
        ('s', arg) => return string(cx, out, arg),
        ('d', Value::Int(number)) => write!(out, "{number}"),
        ('d', Value::Uint(number)) => write!(out, "{number}"),
        ('d' | 'f', Value::Double(number)) if !number.is_finite() => {
            write!(out, "{}", infinite(*number))
        }
        ('f', Value::Double(number)) => write!(out, "{:.*}", precision.unwrap_or(6), number),
        ('f', Value::Int(number)) => {
            write!(out, "{:.*}", precision.unwrap_or(6), *number as f64)
        }
        ('e', Value::Double(number)) => write!(out, "{}", exponent(*number, precision)),
        ('e', Value::Int(number)) => write!(out, "{}", exponent(*number as f64, precision)),
        ('b', Value::Int(number)) => write!(out, "{}", signed(*number, |n| format!("{n:b}"))),
        ('b', Value::Uint(number)) => write!(out, "{number:b}"),
        ('b', Value::Bool(value)) => write!(out, "{}", u8::from(*value)),
        ('o', Value::Int(number)) => write!(out, "{}", signed(*number, |n| format!("{n:o}"))),
        ('o', Value::Uint(number)) => write!(out, "{number:o}"),
        ('x', Value::Int(number)) => write!(out, "{}", signed(*number, |n| format!("{n:x}"))),
        ('X', Value::Int(number)) => write!(out, "{}", signed(*number, |n| format!("{n:X}"))),
        ('x', Value::Uint(number)) => write!(out, "{number:x}"),
        ('X', Value::Uint(number)) => write!(out, "{number:X}"),
        ('x' | 'X', Value::String(text)) => return hex(out, verb, text.as_str().as_bytes()),
        ('x' | 'X', Value::Bytes(bytes)) => return hex(out, verb, bytes),
        ('d', _) => return Err(refuse("decimal")),
        ('f', _) => return Err(refuse("fixed-point")),
        ('e', _) => return Err(refuse("scientific")),
        ('b', _) => return Err(refuse("binary")),
        ('o', _) => return Err(refuse("octal")),
        ('x' | 'X', _) => return Err(refuse("hex")),
        _ => return Err(clause(&format!("unrecognized formatting clause \"{verb}\""))),
    };
    done.map_err(|_| EvalError::new("formatting failed"))
}

fn allowed(what: &str, name: &str) -> String {
    let types = match what {
        "binary" => "on integers and bools",
        "hex" => "on integers, byte buffers, and strings",
        "fixed-point" | "scientific" => "on doubles",
        _ => "on integers",
    };
    format!("{types}, was given {name}")
}

fn infinite(number: f64) -> &'static str {
    match number {
        _ if number.is_nan() => "NaN",
        _ if number > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

fn signed(number: i64, digits: fn(u64) -> String) -> String {
    format!("{}{}", if number < 0 { "-" } else { "" }, digits(number.unsigned_abs()))
}

fn exponent(number: f64, precision: Option<usize>) -> String {
    if !number.is_finite() {
        return infinite(number).into();
    }
    let text = format!("{:.*e}", precision.unwrap_or(6), number);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn hex(out: &mut String, verb: char, bytes: &[u8]) -> Result<(), EvalError> {
    for byte in bytes {
        let done = if verb == 'x' { write!(out, "{byte:02x}") } else { write!(out, "{byte:02X}") };
        done.map_err(|_| EvalError::new("formatting failed"))?;
    }
    Ok(())
}

/// Lists as `[a, b]`, maps as `{k: v}`.
fn string<'a>(cx: &mut Cx<'a, '_>, out: &mut String, arg: &Value<'a>) -> Result<(), EvalError> {
    cx.work(4)?;
    if out.len() > FORMATTED_BYTES_MAX {
        return Err(EvalError::CostLimit);
    }
    match arg {
        Value::Null => out.push_str("null"),
        Value::Double(number) if !number.is_finite() => out.push_str(infinite(*number)),
        Value::Double(number) => out.push_str(&double(*number)),
        Value::List(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                string(cx, out, &item?)?;
            }
            out.push(']');
        }
        Value::Map(map) => entries(cx, out, map)?,
        other => match text_of(other) {
            Some(text) => {
                cx.work(text.len() as u64 / 64)?;
                out.push_str(&text);
            }
            None => {
                let why = format!(
                    "error during formatting: string clause can only be used on strings, bools, \
                     bytes, ints, doubles, maps, lists, types, durations, and timestamps, was \
                     given {}",
                    other.type_name()
                );
                return Err(EvalError::new(why));
            }
        },
    }
    Ok(())
}

fn entries<'a>(cx: &mut Cx<'a, '_>, out: &mut String, map: &Map<'a>) -> Result<(), EvalError> {
    out.push('{');
    for (index, key) in map.keys().into_iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        string(cx, out, &key)?;
        out.push_str(": ");
        if let Some(value) = map.get(&key, cx.budget) {
            string(cx, out, &value?)?;
        }
    }
    out.push('}');
    Ok(())
}
