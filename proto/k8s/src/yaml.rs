//! JSON values as YAML, laid out as upstream's server lays it out: keys sorted, lists not indented
//! below their key, text of several lines as a literal block. What any reader of YAML 1.1 could take
//! for something else than text is quoted.

use serde_json::{Map, Value};

/// A longer key stands on a line of its own behind a question mark.
// Readers need not take more than 1,024 characters for a key without one; upstream writes up to 128.
const SIMPLE_KEY_BYTES_MAX: usize = 128;

/// Appends `value` as a document of its own.
pub fn write(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(map) if !map.is_empty() => entries(out, map, 0, true),
        Value::Array(list) if !list.is_empty() => {
            list.iter().for_each(|item| write_item(out, item));
        }
        _ => {
            scalar(out, value, 0);
            out.push(b'\n');
        }
    }
}

/// Appends `value` as one more entry of a list that began at the left margin.
pub fn write_item(out: &mut Vec<u8>, value: &Value) {
    item(out, value, 0);
}

fn entries(out: &mut Vec<u8>, map: &Map<String, Value>, indent: usize, margin_first: bool) {
    for (position, (key, value)) in map.iter().enumerate() {
        if position > 0 || margin_first {
            margin(out, indent);
        }
        let start = out.len();
        text(out, key, indent, false);
        if out.len() - start > SIMPLE_KEY_BYTES_MAX {
            out.splice(start..start, *b"? ");
            out.push(b'\n');
            margin(out, indent);
        }
        out.push(b':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push(b'\n');
                entries(out, inner, indent + 2, true);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push(b'\n');
                list.iter().for_each(|entry| item(out, entry, indent));
            }
            _ => {
                out.push(b' ');
                scalar(out, value, indent + 2);
                out.push(b'\n');
            }
        }
    }
}

fn item(out: &mut Vec<u8>, value: &Value, indent: usize) {
    margin(out, indent);
    out.extend_from_slice(b"- ");
    match value {
        Value::Object(map) if !map.is_empty() => entries(out, map, indent + 2, false),
        Value::Array(list) if !list.is_empty() => {
            // The first entry stands on the dash's line.
            let start = out.len();
            list.iter().for_each(|entry| item(out, entry, indent + 2));
            out.drain(start..start + indent + 2);
        }
        _ => {
            scalar(out, value, indent + 2);
            out.push(b'\n');
        }
    }
}

fn margin(out: &mut Vec<u8>, indent: usize) {
    out.resize(out.len() + indent, b' ');
}

fn scalar(out: &mut Vec<u8>, value: &Value, indent: usize) {
    match value {
        Value::String(string) => text(out, string, indent, true),
        Value::Object(_) => out.extend_from_slice(b"{}"),
        Value::Array(_) => out.extend_from_slice(b"[]"),
        other => out.extend_from_slice(other.to_string().as_bytes()),
    }
}

fn text(out: &mut Vec<u8>, text: &str, indent: usize, may_be_block: bool) {
    if is_plain(text) {
        out.extend_from_slice(text.as_bytes());
    } else if may_be_block && is_block(text) {
        out.extend_from_slice(if text.ends_with('\n') { b"|" } else { b"|-" });
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            out.push(b'\n');
            if !line.is_empty() {
                margin(out, indent);
                out.extend_from_slice(line.as_bytes());
            }
        }
    } else {
        quoted(out, text);
    }
}

/// As JSON, which YAML takes in; what YAML 1.1 sees as a line's end is escaped too.
fn quoted(out: &mut Vec<u8>, text: &str) {
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            }
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Several lines that a literal block keeps as they are.
fn is_block(text: &str) -> bool {
    let odd = |c: char| c != '\n' && c != '\t' && (c.is_control() || is_break(c));
    text.contains('\n')
        && !text.starts_with([' ', '\t', '\n'])
        && !text.ends_with("\n\n")
        && !text.contains(odd)
}

fn is_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Text that needs no quotes: it cannot be taken for another type, a comment or a key.
fn is_plain(text: &str) -> bool {
    const INDICATORS: &str = "-?:,[]{}#&*!|>'\"%@`=<~";
    let Some(first) = text.chars().next() else { return false };
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    let number = (first.is_ascii_digit() || matches!(first, '+' | '-' | '.'))
        && text.chars().all(|c| c.is_ascii_hexdigit() || "+-._:xXoOinfINFTtZz ".contains(c));
    let dash = first == '-' && text.len() > 1 && !text.starts_with("- ") && !text.starts_with("--");
    !word
        && !number
        && (dash || !INDICATORS.contains(first))
        && !first.is_whitespace()
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.chars().any(|c| c.is_control() || is_break(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn document(value: &Value) -> String {
        let mut out = Vec::new();
        write(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_is_laid_out_as_upstream_does() {
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": { "name": "a", "labels": {}, "finalizers": ["x/y", "2"] },
            "data": { "script": "#!/bin/sh\necho 1\n", "n": "1", "yes": "no", "a b": "c: d" },
            "ports": [{ "port": 80, "names": [[1], []] }, null, 1.5],
        });
        insta::assert_snapshot!(document(&object));
    }

    #[test]
    fn a_long_key_is_read_as_written() {
        let long = "k\t".repeat(1000);
        for value in [json!(1), json!("x"), json!({"a": 1}), json!([1, {"b": 2}]), json!({})] {
            let value = json!({"m": [{&long: value, "z": 1}], &long: {&long: value}});
            let text = document(&value);
            assert_eq!(crate::decode::yaml_to_value(text.as_bytes()), Ok(value), "{text}");
        }
        assert_eq!(document(&json!({"k".repeat(129): 1})), format!("? {}\n: 1\n", "k".repeat(129)));
        assert_eq!(document(&json!({"k".repeat(128): 1})), format!("{}: 1\n", "k".repeat(128)));
    }

    fn value() -> impl Strategy<Value = Value> {
        let word = prop_oneof![
            Just("0x1f".to_string()),
            Just("1e3".to_string()),
            Just("Null".to_string()),
            Just("2026-01-02".to_string()),
            "[ -~\\n\\té\u{85}]{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            word.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z0-9 ./~:#-]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in value()) {
            let text = document(&value);
            let back = crate::decode::yaml_to_value(text.as_bytes());
            prop_assert_eq!(back, Ok(value), "{}", text);
        }
    }
}
