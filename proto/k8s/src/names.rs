//! What names, keys and values must look like. Each check returns upstream's messages; an empty list
//! means the value is good.

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
                              start and end with an alphanumeric character";

/// The longest RFC 1123 label, in bytes.
pub const LABEL_BYTES_MAX: usize = 63;
/// The longest RFC 1123 subdomain, in bytes.
pub const SUBDOMAIN_BYTES_MAX: usize = 253;

/// An RFC 1123 label: names of namespaces, ports' hosts, ….
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, LABEL_BYTES_MAX, "characters");
    if !dns1123_label(value) {
        wrong.push(if dns1123_subdomain(value) {
            "must not contain dots".to_string()
        } else {
            regex(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
                 '-', and must start and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    wrong
}

/// An RFC 1123 subdomain: the names of most objects.
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, SUBDOMAIN_BYTES_MAX, "characters");
    if !dns1123_subdomain(value) {
        wrong.push(regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '-' or '.', and must start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    wrong
}

/// The same with underscores: search paths of DNS.
pub fn is_dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, SUBDOMAIN_BYTES_MAX, "characters");
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |part: &str| {
        let bytes = part.strip_prefix('_').unwrap_or(part).as_bytes();
        bytes.first().is_some_and(|c| edge(*c))
            && bytes.last().is_some_and(|c| edge(*c))
            && bytes.iter().all(|c| edge(*c) || matches!(c, b'-' | b'_'))
    };
    if !value.split('.').all(label) {
        wrong.push(regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
             '_', '-' or '.', and must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    wrong
}

/// `*.` and a subdomain: wildcard hosts of an Ingress.
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, SUBDOMAIN_BYTES_MAX, "characters");
    if !value.strip_prefix("*.").is_some_and(dns1123_subdomain) {
        wrong.push(regex(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS \
             subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and \
             end with an alphanumeric character",
            &format!(r"\*\.{DNS1123_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    wrong
}

/// An RFC 1035 label: names of Services.
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, LABEL_BYTES_MAX, "characters");
    if !(dns1123_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        wrong.push(regex(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
             with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    wrong
}

/// A key of labels and annotations: `name` or `subdomain/name`.
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                wrong.push("prefix part must be non-empty".to_string());
            } else {
                let prefixed = is_dns1123_subdomain(prefix).into_iter();
                // Here upstream counts bytes.
                wrong.extend(prefixed.map(|text| {
                    format!("prefix part {}", text.replace("253 characters", "253 bytes"))
                }));
            }
            name
        }
        _ => {
            let text = regex(LABEL_KEY_TEXT, LABEL_KEY, &examples);
            return vec![format!(
                "a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        wrong.push("name part must be non-empty".to_string());
    } else if name.len() > LABEL_BYTES_MAX {
        wrong.push(format!("name part must be no more than {LABEL_BYTES_MAX} bytes"));
    }
    if !label_text(name) {
        wrong.push(format!("name part {}", regex(LABEL_KEY_TEXT, LABEL_KEY, &examples)));
    }
    wrong
}

/// A value of a label.
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, LABEL_BYTES_MAX, "bytes");
    if !value.is_empty() && !label_text(value) {
        wrong.push(regex(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', \
             '_' or '.', and must start and end with an alphanumeric character",
            &format!("({LABEL_KEY})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    wrong
}

/// A name that is one segment of a URL path: RBAC objects.
pub fn is_path_segment_name(value: &str) -> Vec<String> {
    if matches!(value, "." | "..") {
        return vec![format!("may not be '{value}'")];
    }
    is_path_segment_prefix(value)
}

/// The start of such a name (`generateName`).
pub fn is_path_segment_prefix(value: &str) -> Vec<String> {
    let illegal = ["/", "%"].into_iter().filter(|part| value.contains(part));
    illegal.map(|part| format!("may not contain '{part}'")).collect()
}

/// A `generateName` as its check sees it: one trailing dash is allowed where a suffix follows.
pub fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if rest.len() > 1 => {
            // As upstream: the character before the dash goes too, whatever it was.
            let cut = rest.char_indices().next_back().map_or(0, |(at, _)| at);
            format!("{}a", &rest[..cut])
        }
        Some(rest) if !rest.is_empty() => "a".to_string(),
        _ => prefix.to_string(),
    }
}

/// 1 to 65535.
pub fn is_port_number(port: i64) -> Vec<String> {
    is_in_range(port, 1, 65535)
}

pub fn is_in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        return Vec::new();
    }
    vec![format!("must be between {low} and {high}, inclusive")]
}

/// A port's name: `http`, at most 15 bytes (RFC 6335).
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, 15, "characters");
    let charset = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if value.is_empty() || !value.chars().all(charset) {
        wrong.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string(),
        );
    }
    if !value.contains(|c: char| c.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".to_string());
    }
    if value.contains("--") {
        wrong.push("must not contain consecutive hyphens".to_string());
    }
    if value.starts_with('-') || value.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".to_string());
    }
    wrong
}

/// `12%`.
pub fn is_percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()) {
        return Vec::new();
    }
    let text = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex(text, "[0-9]+%", &["1%", "93%"])]
}

/// A name of an HTTP header in a probe.
pub fn is_http_header_name(value: &str) -> Vec<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !value.is_empty() && value.chars().all(good) {
        return Vec::new();
    }
    let text = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex(text, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A name of an environment variable.
pub fn is_env_var_name(value: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if value.is_empty() {
        wrong.push("environment variable name must be non-empty".to_string());
    }
    if !value.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        wrong.push(
            "a valid environment variable name must consist only of printable ASCII characters \
             other than '='"
                .to_string(),
        );
    }
    wrong
}

/// A key in the data of a ConfigMap or Secret.
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut wrong = at_most(value, SUBDOMAIN_BYTES_MAX, "characters");
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if value.is_empty() || !value.chars().all(good) {
        wrong.push(regex(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." | ".." => wrong.push(format!("must not be '{value}'")),
        _ if value.starts_with("..") => wrong.push("must not start with '..'".to_string()),
        _ => {}
    }
    wrong
}

/// A C identifier.
pub fn is_c_identifier(value: &str) -> Vec<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts && value.chars().all(good) {
        return Vec::new();
    }
    let text = "a valid C identifier must start with alphabetic character or '_', followed by a \
                string of alphanumeric characters or '_'";
    vec![regex(text, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// An IP address in the notation that upstream accepts for new fields.
pub fn is_ip(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_string()]
        }
    }
}

/// A network: `10.0.0.0/8`.
pub fn is_cidr(value: &str) -> Vec<String> {
    let parsed = value.split_once('/').and_then(|(address, length)| {
        let address: std::net::IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let plain = !length.is_empty() && length.bytes().all(|c| c.is_ascii_digit());
        length.parse::<u8>().ok().filter(|length| plain && *length <= bits)
    });
    match parsed {
        Some(_) => Vec::new(),
        None => {
            vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_string()]
        }
    }
}

fn dns1123_label(value: &str) -> bool {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = value.as_bytes();
    bytes.first().is_some_and(|c| good(*c))
        && bytes.last().is_some_and(|c| good(*c))
        && bytes.iter().all(|c| good(*c) || *c == b'-')
}

fn dns1123_subdomain(value: &str) -> bool {
    value.split('.').all(dns1123_label)
}

fn label_text(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

fn at_most(value: &str, max: usize, unit: &str) -> Vec<String> {
    if value.len() <= max {
        return Vec::new();
    }
    vec![format!("must be no more than {max} {unit}")]
}

fn regex(text: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    let examples = examples.join(" or ");
    format!("{text} (e.g. {examples}regex used for validation is '{pattern}')")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn good_names_pass() {
        assert_eq!(is_dns1123_label("a-1"), [] as [String; 0]);
        assert_eq!(is_dns1123_subdomain("a.b-c.1"), [] as [String; 0]);
        assert_eq!(is_dns1035_label("web-1"), [] as [String; 0]);
        for key in ["a", "A_b.c", "example.com/x"] {
            assert_eq!(is_qualified_name(key), [] as [String; 0], "{key}");
        }
        assert_eq!(is_label_value(""), [] as [String; 0]);
        assert_eq!(is_port_name("http-2"), [] as [String; 0]);
        assert_eq!(is_path_segment_name("system:a"), [] as [String; 0]);
        assert_eq!(is_config_map_key(".bashrc"), [] as [String; 0]);
        assert_eq!(is_percent("25%"), [] as [String; 0]);
        assert_eq!(is_cidr("10.0.0.0/8"), [] as [String; 0]);
        assert_eq!(is_wildcard_dns1123_subdomain("*.a.b"), [] as [String; 0]);
    }

    #[test]
    fn messages_are_those_of_upstream() {
        let long = "a".repeat(254);
        let texts = [
            is_dns1123_label("A"),
            is_dns1123_label("a.b"),
            is_dns1123_label(&long),
            is_dns1123_subdomain("a..b"),
            is_dns1123_subdomain(&long),
            is_dns1035_label("1a"),
            is_qualified_name("a/b/c"),
            is_qualified_name("/b"),
            is_qualified_name("A/"),
            is_qualified_name(&long),
            is_label_value("-"),
            is_path_segment_name(".."),
            is_path_segment_name("a/b%"),
            is_port_number(0),
            is_port_name("-a--very-long-name"),
            is_port_name("80"),
            is_percent("x"),
            is_http_header_name("a b"),
            is_env_var_name("="),
            is_env_var_name(""),
            is_config_map_key("..x y"),
            is_c_identifier("1a"),
            is_ip("1.2.3"),
            is_cidr("10.0.0.0/33"),
            is_wildcard_dns1123_subdomain("*a"),
        ];
        let lines: Vec<String> = texts.iter().map(|texts| texts.join("; ")).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_generated_name_may_end_in_a_dash() {
        assert_eq!(mask_trailing_dash("web-"), "wea");
        assert_eq!(mask_trailing_dash("a-"), "a");
        assert_eq!(mask_trailing_dash("-"), "-");
        assert_eq!(mask_trailing_dash("web"), "web");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,70}") {
            let _ = (is_dns1123_label(&text), is_qualified_name(&text), is_label_value(&text));
            let _ = (is_cidr(&text), is_port_name(&text), mask_trailing_dash(&text));
        }

        #[test]
        fn a_label_is_a_subdomain(text in "[a-z0-9.-]{1,20}") {
            if is_dns1123_label(&text).is_empty() {
                prop_assert!(is_dns1123_subdomain(&text).is_empty());
            }
            if is_dns1035_label(&text).is_empty() {
                prop_assert!(is_dns1123_label(&text).is_empty());
            }
        }
    }
}
