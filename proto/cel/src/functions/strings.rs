//! The string library (cel-go's ext.Strings, version 2) and what cel-spec has for strings. Positions
//! count code points.

use super::{Declared, formatting, time};
use crate::{
    EvalError, Value, equality,
    eval::{Cx, Evaluated, KEEP},
    value::{List, Opaque, Text},
};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("contains", "string.(string) bool", |_, args| test(args, |text, part| text.contains(part))),
    ("startsWith", "string.(string) bool", |_, args| {
        test(args, |text, part| text.starts_with(part))
    }),
    ("endsWith", "string.(string) bool", |_, args| test(args, |text, part| text.ends_with(part))),
    ("charAt", "string.(int) string", char_at),
    ("indexOf", "string.(string) int | string.(string,int) int | list<A>.(A) int", index_of),
    (
        "lastIndexOf",
        "string.(string) int | string.(string,int) int | list<A>.(A) int",
        last_index_of,
    ),
    ("lowerAscii", "string.() string", |_, args| {
        Ok(Value::string(text(args, 0)?.to_ascii_lowercase()))
    }),
    ("upperAscii", "string.() string", |_, args| {
        Ok(Value::string(text(args, 0)?.to_ascii_uppercase()))
    }),
    ("replace", "string.(string,string) string | string.(string,string,int) string", replace),
    ("split", "string.(string) list<string> | string.(string,int) list<string>", split),
    ("substring", "string.(int) string | string.(int,int) string", substring),
    ("trim", "string.() string", |_, args| Ok(Value::string(text(args, 0)?.trim()))),
    ("join", "list<string>.() string | list<string>.(string) string", join),
    ("format", "string.(list<dyn>) string", |cx, args| match &args[1] {
        Value::List(list) => formatting::format(cx, text(args, 0)?, list),
        _ => Err(EvalError::no_such_overload()),
    }),
    ("strings.quote", "(string) string", |_, args| Ok(Value::string(quote(text(args, 0)?)))),
    ("jsonpatch.escapeKey", "(string) string", |_, args| {
        Ok(Value::string(text(args, 0)?.replace('~', "~0").replace('/', "~1")))
    }),
];

/// The string among the arguments.
pub(super) fn text<'v>(args: &'v [Value<'_>], index: usize) -> Result<&'v str, EvalError> {
    args.get(index).and_then(Value::as_str).ok_or_else(EvalError::no_such_overload)
}

pub(super) fn number(args: &[Value<'_>], index: usize) -> Result<Option<i64>, EvalError> {
    match args.get(index) {
        None => Ok(None),
        Some(Value::Int(number)) => Ok(Some(*number)),
        Some(_) => Err(EvalError::no_such_overload()),
    }
}

/// As `string(value)`; `None`: it has no such form.
pub(crate) fn text_of(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::String(text) => text.as_str().into(),
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => double(*number),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.into(),
        Value::Timestamp(at) => time::print_timestamp(*at),
        Value::Duration(nanos) => time::print_duration(*nanos),
        Value::Type(name) => name.to_string(),
        Value::Opaque(Opaque::Ip(ip)) => ip.to_string(),
        Value::Opaque(Opaque::Cidr(cidr)) => cidr.to_string(),
        Value::Opaque(Opaque::Quantity(quantity)) => quantity.to_string(),
        _ => return None,
    })
}

/// Go's `%g`-like shortest form: `1`, `0.5`, `1e+21`.
pub(super) fn double(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = match exponent.strip_prefix('-') {
            Some(digits) => ('-', digits),
            None => ('+', exponent),
        };
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    number.to_string()
}

fn test<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Evaluated<'a> {
    Ok(Value::Bool(holds(text(args, 0)?, text(args, 1)?)))
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::new(format!("index out of range: {index}"))
}

/// Where the code point of this number begins; its end is the end.
fn place(text: &str, index: i64) -> Result<usize, EvalError> {
    let number = usize::try_from(index).map_err(|_| out_of_range(index))?;
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().nth(number).ok_or_else(|| out_of_range(index))
}

fn points(text: &str) -> i64 {
    text.chars().count() as i64
}

fn char_at<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, index) = (text(args, 0)?, number(args, 1)?.unwrap_or(0));
    let at = place(text, index)?;
    let found = text[at..].chars().next();
    Ok(Value::string(found.map(String::from).unwrap_or_default()))
}

fn index_of<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    if let Value::List(list) = &args[0] {
        let found = equality::position(cx, list, &args[1])?;
        return Ok(Value::Int(found.map_or(-1, |index| index as i64)));
    }
    let (whole, part) = (text(args, 0)?, text(args, 1)?);
    let offset = number(args, 2)?.unwrap_or(0);
    let from = place(whole, offset)?;
    let found = whole[from..].find(part).map(|at| points(&whole[..from + at]));
    Ok(Value::Int(found.unwrap_or(-1)))
}

fn last_index_of<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    if let Value::List(list) = &args[0] {
        return last_position(cx, list, &args[1]);
    }
    let (whole, part) = (text(args, 0)?, text(args, 1)?);
    let found = match number(args, 2)? {
        None => whole.rfind(part),
        Some(offset) => {
            let last = place(whole, offset)?;
            // A match may begin at the offset and reach beyond it.
            let end = (last + part.len()).min(whole.len());
            whole.get(..end).unwrap_or(whole).rfind(part)
        }
    };
    Ok(Value::Int(found.map_or(-1, |at| points(&whole[..at]))))
}

fn last_position<'a>(cx: &mut Cx<'a, '_>, list: &List<'a>, wanted: &Value<'a>) -> Evaluated<'a> {
    for (index, one) in list.iter().enumerate().collect::<Vec<_>>().into_iter().rev() {
        if equality::equal(cx, &one?, wanted)? {
            return Ok(Value::Int(index as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn replace<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (whole, from, to) = (text(args, 0)?, text(args, 1)?, text(args, 2)?);
    let limit = number(args, 3)?.filter(|limit| *limit >= 0).map_or(usize::MAX, |n| n as usize);
    // The result may be larger than what was paid for: each replacement may grow it.
    let most = if from.is_empty() { whole.len() + 1 } else { whole.len() / from.len() };
    cx.work((most.min(limit) as u64).saturating_mul(to.len() as u64) / 4)?;
    Ok(Value::string(whole.replacen(from, to, limit)))
}

fn split<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (whole, by) = (text(args, 0)?, text(args, 1)?);
    let limit = match number(args, 2)? {
        Some(0) => return Ok(Value::list(Vec::new())),
        Some(limit) if limit > 0 => limit as usize,
        _ => usize::MAX,
    };
    // Each part has a memory of its own, be it one letter.
    let most = if by.is_empty() { whole.len() } else { whole.matches(by).count() + 1 };
    cx.work(KEEP * most.min(limit) as u64)?;
    let parts: Vec<Value<'a>> = if by.is_empty() {
        let mut parts = Vec::new();
        let mut rest = whole;
        while let Some(c) = rest.chars().next() {
            if parts.len() + 1 == limit {
                parts.push(Value::string(rest));
                break;
            }
            parts.push(Value::string(&rest[..c.len_utf8()]));
            rest = &rest[c.len_utf8()..];
        }
        parts
    } else {
        whole.splitn(limit, by).map(Value::string).collect()
    };
    Ok(Value::list(parts))
}

fn substring<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let whole = text(args, 0)?;
    let start = number(args, 1)?.unwrap_or(0);
    let from = place(whole, start)?;
    let Some(end) = number(args, 2)? else { return Ok(Value::string(&whole[from..])) };
    let to = place(whole, end)?;
    if from > to {
        let why = format!("invalid substring range. start: {start}, end: {end}");
        return Err(EvalError::new(why));
    }
    Ok(Value::string(&whole[from..to]))
}

fn join<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::List(list) = &args[0] else { return Err(EvalError::no_such_overload()) };
    let separator = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        match item? {
            Value::String(text) => joined.push_str(text.as_str()),
            _ => return Err(EvalError::no_such_overload()),
        }
        // A long separator between many short elements.
        if joined.len() > JOINED_BYTES_MAX {
            return Err(EvalError::CostLimit);
        }
    }
    Ok(Value::String(Text::Shared(joined.into())))
}

/// What joining may make before its cost is known: at a tenth of a unit per byte, all there is.
const JOINED_BYTES_MAX: usize = 10 * crate::PER_CALL_LIMIT as usize;

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
