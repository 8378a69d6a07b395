//! URLs as Go's `net/url` reads request URIs: absolute, or a path.

use super::{Declared, strings::text};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
    value::{Key, Map, Opaque},
};
use std::{collections::BTreeMap, rc::Rc};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("url", "(string) URL", |_, args| match Url::parse(text(args, 0)?) {
        Ok(url) => Ok(Value::Opaque(Opaque::Url(Rc::new(url)))),
        Err(why) => {
            Err(EvalError::new(format!("URL parse error during conversion from string: {why}")))
        }
    }),
    ("isURL", "(string) bool", |_, args| Ok(Value::Bool(Url::parse(text(args, 0)?).is_ok()))),
    ("getScheme", "URL.() string", |_, args| Ok(Value::string(url(args)?.scheme.as_str()))),
    ("getHost", "URL.() string", |_, args| Ok(Value::string(url(args)?.host.as_str()))),
    ("getHostname", "URL.() string", |_, args| Ok(Value::string(url(args)?.host_and_port().0))),
    ("getPort", "URL.() string", |_, args| Ok(Value::string(url(args)?.host_and_port().1))),
    ("getEscapedPath", "URL.() string", |_, args| Ok(Value::string(url(args)?.path.as_str()))),
    ("getQuery", "URL.() map<string,list<string>>", query),
];

#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    /// Escaped.
    path: String,
    query: String,
}

fn url<'v>(args: &'v [Value<'_>]) -> Result<&'v Url, EvalError> {
    match args {
        [Value::Opaque(Opaque::Url(url))] => Ok(url),
        _ => Err(EvalError::no_such_overload()),
    }
}

impl Url {
    /// Refuses in Go's words.
    pub(super) fn parse(text: &str) -> Result<Url, String> {
        let refuse = |why: &str| Err(format!("parse {text:?}: {why}"));
        if text.is_empty() {
            return refuse("empty url");
        }
        if text.bytes().any(|c| c < 0x20 || c == 0x7f) {
            return refuse("net/url: invalid control character in URL");
        }
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            // An opaque URL is a request URI, a relative one is not.
            if scheme.is_empty() {
                return refuse("invalid URI for request");
            }
            let path = String::new();
            return Ok(Url { scheme, host: String::new(), path, query: query.into() });
        }
        let (authority, path) = match rest
            .strip_prefix("//")
            .filter(|_| !scheme.is_empty() || !rest.starts_with("///"))
        {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (&rest[..end], &rest[end..])
            }
            None => ("", rest),
        };
        // Of a path alone `//` begins no host.
        let (authority, path) = if scheme.is_empty() { ("", rest) } else { (authority, path) };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if let Some(why) = bad_host(host).or_else(|| bad_escape(path)) {
            return refuse(&why);
        }
        let path = escaped(path);
        Ok(Url { scheme, host: host.into(), path, query: query.into() })
    }

    /// Both empty if there is none; an IPv6 address without its brackets.
    fn host_and_port(&self) -> (&str, &str) {
        let host = self.host.as_str();
        if let Some(rest) = host.strip_prefix('[')
            && let Some((address, port)) = rest.split_once(']')
        {
            return (address, port.strip_prefix(':').unwrap_or_default());
        }
        host.rsplit_once(':').unwrap_or((host, ""))
    }
}

/// Lowercase, without its colon.
fn split_scheme(text: &str) -> Result<(String, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err(format!("parse {text:?}: missing protocol scheme")),
            ':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn bad_host(host: &str) -> Option<String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.rsplit_once(']') {
            Some((_, port)) => ("", port),
            None => return Some("missing ']' in host".into()),
        },
        None => host.rfind(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    if !digits.bytes().all(|c| c.is_ascii_digit()) || (port == digits && !port.is_empty()) {
        return Some(format!("invalid port {port:?} after host"));
    }
    name.chars()
        .find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}'))
        .map(|c| format!("invalid character {:?} in host name", c.to_string()))
        .or_else(|| bad_escape(name))
}

fn bad_escape(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let escape: String = rest[at..].chars().take(3).collect();
        if escape.len() < 3 || !escape[1..].bytes().all(|c| c.is_ascii_hexdigit()) {
            return Some(format!("invalid URL escape {escape:?}"));
        }
        rest = &rest[at + 3..];
    }
    None
}

/// What may not stand in a path is escaped.
fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/%[]".contains(&byte);
        match plain {
            true => text.push(byte.into()),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Pairs that cannot be read are left out.
fn query<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut pairs: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url(args)?.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
            pairs.entry(Key::String(key.into())).or_default().push(Value::string(value));
        }
    }
    let lists = pairs.into_iter().map(|(key, values)| (key, Value::list(values))).collect();
    Ok(Value::Map(Map::Built(Rc::new(lists))))
}
