//! The string formats that upstream checks.

use super::Ty;
use crate::names;
use regex::Regex;
use std::net::Ipv6Addr;
use std::sync::LazyLock;

/// In the order of upstream's list, without dashes.
const STRINGS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// True if values of `ty` are checked against `format`; any other format is a remark.
pub fn is_known(format: &str, ty: Ty) -> bool {
    match ty {
        Ty::Any | Ty::String => STRINGS.contains(&normal(format).as_str()),
        Ty::Integer => matches!(format, "int32" | "int64"),
        Ty::Number => matches!(format, "float" | "double"),
        Ty::Object | Ty::Array | Ty::Boolean => false,
    }
}

fn normal(format: &str) -> String {
    format.replace('-', "")
}

macro_rules! pattern {
    ($name:ident, $text:expr) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($text).expect("a literal, tested"));
    };
}

pattern!(
    HOSTNAME,
    r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
);
pattern!(
    CREDIT_CARD,
    r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$"
);
pattern!(SSN, r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$");
pattern!(HEX_COLOR, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(
    RGB_COLOR,
    r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*\)$"
);
pattern!(
    BASE64,
    r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"
);
pattern!(TIME, r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$");
pattern!(
    GO_DURATION,
    r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))*$"
);
pattern!(SCALA_DURATION, r"([0-9]+)\s*([A-Za-z]+)");

/// True if `text` is what `format` wants.
pub(super) fn matches(format: &str, text: &str) -> bool {
    match normal(format).as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => {
            HOSTNAME.is_match(text)
                && text.len() <= 255
                && text.split('.').all(|label| label.len() <= 63)
        }
        "ipv4" => text.contains('.') && is_ip(text),
        "ipv6" => text.contains(':') && is_ip(text),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => text.len() == 11 && SSN.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => BASE64.is_match(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "k8sshortname" => names::is_dns1123_label(text).is_empty(),
        "k8slongname" => names::is_dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

/// Leading zeros are read as Go's sloppy parser reads them.
fn is_ip(text: &str) -> bool {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().is_ok();
    }
    let parts: Vec<&str> = text.split('.').collect();
    let byte = |part: &&str| {
        (1..=3).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u16>().is_ok_and(|part| part < 256)
    };
    parts.len() == 4 && parts.iter().all(byte)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = if address.contains(':') { 128 } else { 32 };
    let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    is_ip(address) && digits && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// An absolute URI, or a path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut bytes = scheme.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        && !rest.split('#').next().unwrap_or_default().contains(' ')
}

/// `name@host`, perhaps with a display name: `Ann <ann@example.com>`.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match (text.rfind('<'), text.strip_suffix('>')) {
        (Some(open), Some(closed)) => &closed[open + 1..],
        (None, None) => text,
        _ => return false,
    };
    let Some((local, host)) = address.rsplit_once('@') else { return false };
    let atom = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    (quoted || local.split('.').all(atom)) && host.split('.').all(atom)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let hex = |part: &&str| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
        let count = parts.len() * digits / 2;
        parts.iter().all(hex) && matches!(count, 6 | 8 | 20)
    };
    groups(':', 2) || groups('-', 2) || groups('.', 4)
}

/// With or without any of the dashes; of a version, where one is given.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut rest = text;
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(part) = rest.get(..length) else { return false };
        if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        let first = part.chars().next().unwrap_or_default();
        if index == 2 && version.is_some_and(|version| version != first) {
            return false;
        }
        let variant = matches!(version, Some('4' | '5'));
        if index == 3 && variant && !matches!(first.to_ascii_lowercase(), '8' | '9' | 'a' | 'b') {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty()
}

fn compact(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = compact(text);
    let (Some(body), Some(check)) = (text.get(..9), text.get(9..)) else { return false };
    let Some(sum) = weighted(body, |index| index as u32 + 1) else { return false };
    let last = match check {
        "X" => 10,
        _ if check.len() == 1 => match check.parse::<u32>() {
            Ok(digit) => digit,
            Err(_) => return false,
        },
        _ => return false,
    };
    (sum + 10 * last).is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = compact(text);
    let (Some(body), Some(check)) = (text.get(..12), text.get(12..)) else { return false };
    let sum = weighted(body, |index| if index % 2 == 0 { 1 } else { 3 });
    let check = check.parse::<u32>().ok().filter(|_| text.len() == 13);
    matches!((sum, check), (Some(sum), Some(check)) if check == (10 - sum % 10) % 10)
}

fn weighted(digits: &str, weight: impl Fn(usize) -> u32) -> Option<u32> {
    let each = digits.chars().enumerate();
    each.map(|(index, c)| Some(weight(index) * c.to_digit(10)?)).sum()
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let doubled = |index: usize, digit: u32| match (index % 2, digit * 2) {
        (0, _) => digit,
        (_, twice) if twice >= 10 => twice - 9,
        (_, twice) => twice,
    };
    let each = digits.chars().rev().filter_map(|c| c.to_digit(10)).enumerate();
    let sum: u32 = each.map(|(index, digit)| doubled(index, digit)).sum();
    CREDIT_CARD.is_match(&digits) && sum.is_multiple_of(10)
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    let Some(parts) = TIME.captures(time) else { return false };
    let within = |index: usize, most: &str| parts.get(index).is_some_and(|it| it.as_str() <= most);
    matches("date", date) && within(1, "23") && within(2, "59") && within(3, "59")
}

fn is_duration(text: &str) -> bool {
    const UNITS: &[&str] = &[
        "ns", "nano", "us", "µs", "micro", "ms", "milli", "s", "sec", "second", "m", "min",
        "minute", "h", "hr", "hour", "d", "day", "w", "wk", "week",
    ];
    let unit = |word: &str| {
        let word = word.to_lowercase();
        let exact = UNITS.contains(&word.as_str());
        let long = ["nano", "micro", "milli", "second", "minute", "hour", "day", "week"];
        exact || long.iter().any(|long| word.starts_with(long))
    };
    text == "0"
        || GO_DURATION.is_match(text)
        || SCALA_DURATION.captures_iter(text).any(|found| unit(&found[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_tell_good_from_bad() {
        let good_and_bad = [
            ("ipv4", "10.0.0.1", "10.0.0.256"),
            ("ipv6", "fd00::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23:45"),
            ("uuid", "0F3C7B1E-1111-4222-8333-444455556666", "0f3c"),
            ("uuid4", "0f3c7b1e111142228333444455556666", "0f3c7b1e-1111-3222-8333-444455556666"),
            ("hostname", "www.example.com", "-www.example.com"),
            ("uri", "https://example.com/a?b=c", "example.com"),
            ("email", "Ann <ann@example.com>", "ann"),
            ("isbn", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-22-3333", "11-22-3333"),
            ("hexcolor", "#fff", "#ffff"),
            ("rgbcolor", "rgb(0, 10, 255)", "rgb(0, 10, 256)"),
            ("byte", "aGk=", "aGk"),
            ("date", "2026-02-28", "2026-02-30"),
            ("date-time", "2026-02-28T12:00:00.5+01:00", "2026-02-28 12:00:00"),
            ("duration", "1h2.5m", "1 fortnight"),
            ("duration", "22 ns", "soon"),
            ("k8s-short-name", "a-b", "a.b"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
        ];
        for (format, good, bad) in good_and_bad {
            assert!(is_known(format, Ty::String), "{format}");
            assert!(matches(format, good), "{format}: {good}");
            assert!(!matches(format, bad), "{format}: {bad}");
        }
        assert!(!is_known("int32", Ty::String) && is_known("int32", Ty::Integer));
    }
}
