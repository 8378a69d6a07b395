//! How Go prints values, where upstream's texts depend on it.

use serde_json::Value;

/// `strconv.Quote`.
pub fn go_quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\0'..' ' | '\u{7f}' => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            _ if is_printable(c) => quoted.push(c),
            _ if (c as u32) < 0x10000 => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            _ => quoted.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    quoted.push('"');
    quoted
}

/// Rust's `Debug` knows what is printable; it escapes the rest.
fn is_printable(c: char) -> bool {
    c == '\'' || c.escape_debug().count() == 1
}

/// `%v`: `map[a:1 b:[x y]]`.
pub fn go_text(value: &Value) -> String {
    let mut text = String::new();
    write_go(&mut text, value);
    text
}

fn write_go(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("<nil>"),
        Value::String(string) => text.push_str(string),
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::Array(list) => {
            text.push('[');
            for (index, entry) in list.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                write_go(text, entry);
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            text.push_str("map[");
            for (index, (key, entry)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(key);
                text.push(':');
                write_go(text, entry);
            }
            text.push(']');
        }
    }
}

/// `%v` of a float64: the shortest digits that read back, with an exponent where it is far from zero.
pub fn go_float(number: f64) -> String {
    let size = number.abs();
    if size == 0.0 || (1e-4..1e21).contains(&size) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `json.Marshal`: as everyone's JSON, but with `<`, `>` and `&` escaped.
pub(crate) fn go_json(value: &Value) -> String {
    let text = value.to_string();
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_those_of_go() {
        assert_eq!(go_quote("it's é \"x\"\\\n\u{1}\u{200b}"), r#""it's é \"x\"\\\n\x01\u200b""#);
        assert_eq!(go_text(&json!({"b": [1, "x"], "a": null})), "map[a:<nil> b:[1 x]]");
        assert_eq!(go_json(&json!(["a<b"])), "[\"a\\u003cb\"]");
        let floats = [0.5, 1e21, 1.5e-7, 3.0].map(go_float);
        assert_eq!(floats, ["0.5", "1e+21", "1.5e-07", "3"]);
    }
}
