//! One step of the way to a field, in the canonical text of `fieldsV1`: `f:name` of a map or struct,
//! `k:{"name":"a"}` of a list by its keys, `v:"a"` of a set, `i:0` of a list by position.

use crate::text::go_quote;
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// Says that a field with children is itself a member of a set.
pub(super) const SELF: &str = ".";

pub(super) fn field(name: &str) -> String {
    let mut step = String::with_capacity(name.len() + 2);
    step.push_str("f:");
    step.push_str(name);
    step
}

pub(super) fn value(value: &Value) -> String {
    let mut step = String::from("v:");
    write_json(&mut step, value);
    step
}

/// `pairs` need not be sorted.
pub(super) fn keys(mut pairs: Vec<(&str, &Value)>) -> String {
    pairs.sort_by_key(|(name, _)| *name);
    let mut step = String::from("k:{");
    for (position, (name, value)) in pairs.into_iter().enumerate() {
        if position > 0 {
            step.push(',');
        }
        write_text(&mut step, name);
        step.push(':');
        write_json(&mut step, value);
    }
    step.push('}');
    step
}

/// `Ok(None)`: a step of a kind that is not known, which upstream drops; `Err`: no step at all.
pub(super) fn canonical(step: &str) -> Result<Option<String>, String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
    let Some((kind, rest)) = step.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
        return Err(format!("missing colon: {step}"));
    };
    match kind {
        "f" => Ok(Some(step.to_string())),
        "v" => Ok(Some(value(&parse(rest)?))),
        "k" => match parse(rest)? {
            Value::Object(map) => {
                Ok(Some(keys(map.iter().map(|(name, value)| (name.as_str(), value)).collect())))
            }
            _ => Err(format!("not an object: {step}")),
        },
        "i" => match rest.parse::<i64>() {
            Ok(index) => Ok(Some(format!("i:{index}"))),
            Err(error) => Err(error.to_string()),
        },
        _ => Ok(None),
    }
}

/// As upstream prints it in paths: `.name`, `[name="a"]`, `[="a"]`, `[0]`.
pub(super) fn display(step: &str) -> String {
    let (kind, rest) = step.split_at(step.len().min(2));
    match (kind, serde_json::from_str::<Value>(rest)) {
        ("f:", _) => format!(".{rest}"),
        ("k:", Ok(Value::Object(map))) => {
            let pairs: Vec<String> =
                map.iter().map(|(name, value)| format!("{name}={}", show(value))).collect();
            format!("[{}]", pairs.join(","))
        }
        ("v:", Ok(value)) => format!("[={}]", show(&value)),
        _ => format!("[{rest}]"),
    }
}

/// Upstream's order of steps: fields before keys before values before indexes, numbers by value.
pub(super) fn order(a: &str, b: &str) -> Ordering {
    let rank = |step: &str| "fkvi".find(&step[..step.len().min(1)]).unwrap_or(4);
    let parsed = |step: &str| serde_json::from_str::<Value>(&step[step.len().min(2)..]).ok();
    rank(a).cmp(&rank(b)).then_with(|| match a.as_bytes().first() {
        Some(b'k' | b'v' | b'i') => match (parsed(a), parsed(b)) {
            (Some(x), Some(y)) => order_values(&x, &y),
            _ => a.cmp(b),
        },
        _ => a.cmp(b),
    })
}

fn order_values(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Object(x), Value::Object(y)) => order_maps(x, y),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn order_maps(a: &Map<String, Value>, b: &Map<String, Value>) -> Ordering {
    for ((name, value), (other_name, other)) in a.iter().zip(b) {
        let order = name.cmp(other_name).then_with(|| order_values(value, other));
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        other => other.to_string(),
    }
}

/// JSON as Go writes it: whole floats without a fraction; `<`, `>` and `&` escaped.
fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => write_text(out, text),
        Value::Number(number) if number.is_f64() => {
            let float = number.as_f64().unwrap_or_default();
            if float.fract() == 0.0 && float.abs() < 1e15 {
                out.push_str(&(float as i64).to_string());
            } else {
                out.push_str(&number.to_string());
            }
        }
        other => out.push_str(&other.to_string()),
    }
}

fn write_text(out: &mut String, text: &str) {
    let special = |byte: u8| byte < 0x20 || matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
    if text.bytes().any(special) {
        out.push_str(&crate::text::go_json(&Value::from(text)));
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_have_one_text() {
        let port = json!({"protocol": "TCP", "port": 80.0});
        let pairs = port.as_object().unwrap().iter().rev().map(|(name, value)| (&**name, value));
        assert_eq!(keys(pairs.collect()), r#"k:{"port":80,"protocol":"TCP"}"#);
        let canonical = |step: &str| canonical(step).unwrap();
        assert_eq!(
            canonical(r#"k:{ "b" : "x<y", "a":1}"#).as_deref(),
            Some(r#"k:{"a":1,"b":"x\u003cy"}"#)
        );
        assert_eq!(canonical(r#"v: 1.0"#).as_deref(), Some("v:1"));
        assert_eq!(canonical("z:x"), None);
        for bad in ["", "f", "nope", "v:", "k:[]", "i:x", "ff:x"] {
            assert!(super::canonical(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn steps_print_as_upstream_prints_them() {
        let printed = ["f:spec", r#"k:{"name":"a","port":80}"#, r#"v:"x""#, "v:1", "i:3"];
        let printed: String = printed.into_iter().map(display).collect();
        assert_eq!(printed, r#".spec[name="a",port=80][="x"][=1][3]"#);
    }

    #[test]
    fn numbers_are_ordered_by_value() {
        let mut steps =
            [r#"k:{"port":443}"#, r#"k:{"port":80}"#, "f:z", "v:true", r#"v:"a""#, "v:9", "v:10"];
        steps.sort_by(|a, b| order(a, b));
        let sorted =
            ["f:z", r#"k:{"port":80}"#, r#"k:{"port":443}"#, "v:9", "v:10", r#"v:"a""#, "v:true"];
        assert_eq!(steps, sorted);
    }
}
