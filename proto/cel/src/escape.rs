//! How names of JSON fields become names CEL can read: `namespace` is `__namespace__`, `a-b` is
//! `a__dash__b`. Rules: KEP-2876, "Escaping".

/// Words that name no variable.
pub(crate) const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// The name in CEL of a JSON field; `None`: it has none and cannot be reached.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (taken, text) = match c {
            '_' if rest.starts_with("__") => (2, "__underscores__"),
            '.' => (1, "__dot__"),
            '-' => (1, "__dash__"),
            '/' => (1, "__slash__"),
            _ if c == '_' || c.is_ascii_alphanumeric() => (1, &rest[..1]),
            _ => return None,
        };
        escaped.push_str(text);
        rest = &rest[taken..];
    }
    Some(escaped)
}

/// The JSON field of a name in CEL; `None`: it is no escaped name.
pub fn unescape(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(start) = rest.find("__") {
        let Some(length) = rest[start + 2..].find("__").filter(|length| *length > 0) else { break };
        let word = &rest[start + 2..start + 2 + length];
        if word.contains('_') {
            plain.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
            continue;
        }
        plain.push_str(&rest[..start]);
        match word {
            "underscores" => plain.push_str("__"),
            "dot" => plain.push('.'),
            "dash" => plain.push('-'),
            "slash" => plain.push('/'),
            _ if RESERVED.contains(&word) && name.len() == length + 4 => plain.push_str(word),
            _ => return None,
        }
        rest = &rest[start + length + 4..];
    }
    plain.push_str(rest);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers_and_come_back() {
        let cases = [
            ("name", Some("name")),
            ("namespace", Some("__namespace__")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("a_b", Some("a_b")),
            ("_", Some("_")),
            ("1a", None),
            ("a b", None),
            ("é", None),
            ("", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(escape(name).as_deref(), wanted, "{name}");
            if let Some(escaped) = wanted {
                assert_eq!(unescape(escaped).as_deref(), Some(name));
            }
        }
        assert_eq!(unescape("a__nonsense__b"), None);
        assert_eq!(unescape("a__if__b"), None);
    }
}
