//! A place in an object while it is validated: the value there and, once something is wrong with
//! it, its path as upstream prints it.

use k8s::{FieldError, Object, names, quantity::Quantity};
use serde_json::{Map, Value};
use std::{fmt, net::IpAddr};

/// A value and where it stands. The path is a chain on the stack; it costs nothing until printed.
#[derive(Clone, Copy)]
pub(crate) struct At<'p, 'v> {
    parent: Option<&'p At<'p, 'v>>,
    step: Step<'v>,
    value: Option<&'v Value>,
}

#[derive(Clone, Copy)]
enum Step<'v> {
    Field(&'static str),
    Index(usize),
    Key(&'v str),
}

impl<'v> At<'_, 'v> {
    /// A top-level field of an object.
    pub(crate) fn top(object: &'v Object, field: &'static str) -> At<'v, 'v> {
        At {
            parent: None,
            step: Step::Field(field),
            value: object.0.get(field).filter(|v| !v.is_null()),
        }
    }

    pub(crate) fn field<'q>(&'q self, field: &'static str) -> At<'q, 'v> {
        let value = self.value.and_then(|value| value.get(field)).filter(|value| !value.is_null());
        At { parent: Some(self), step: Step::Field(field), value }
    }

    /// The entry of a map, printed `path[key]`.
    pub(crate) fn key<'q>(&'q self, key: &'v str) -> At<'q, 'v> {
        let value = self.value.and_then(|value| value.get(key)).filter(|value| !value.is_null());
        At { parent: Some(self), step: Step::Key(key), value }
    }

    /// The same value under another name, where upstream's errors call the field otherwise.
    pub(crate) fn renamed(self, name: &'static str) -> Self {
        At { step: Step::Field(name), ..self }
    }

    /// One entry of a list.
    pub(crate) fn index<'q>(&'q self, index: usize) -> At<'q, 'v> {
        let value = self.value.and_then(|value| value.get(index));
        At { parent: Some(self), step: Step::Index(index), value }
    }

    /// The texts of a list.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &'v str> + use<'v> {
        let list = self.value.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str)
    }

    /// True if a list or a map has this text, as an entry or as a key.
    pub(crate) fn has(&self, text: &str) -> bool {
        match self.value {
            Some(Value::Array(list)) => list.iter().any(|entry| entry.as_str() == Some(text)),
            Some(Value::Object(map)) => map.contains_key(text),
            _ => false,
        }
    }

    /// The quantity there, which may be text or a number.
    pub(crate) fn quantity(&self) -> Option<Quantity> {
        match self.value? {
            Value::String(text) => Quantity::parse(text).ok(),
            Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
            _ => None,
        }
    }

    /// The entries of a list; none if it is absent.
    pub(crate) fn items<'q>(&'q self) -> impl Iterator<Item = At<'q, 'v>> + use<'q, 'v> {
        let list = self.value.and_then(Value::as_array).into_iter().flatten();
        list.enumerate().map(|(at, value)| At {
            parent: Some(self),
            step: Step::Index(at),
            value: Some(value),
        })
    }

    /// The entries of a map, by key.
    pub(crate) fn entries<'q>(
        &'q self,
    ) -> impl Iterator<Item = (&'v str, At<'q, 'v>)> + use<'q, 'v> {
        let map = self.value.and_then(Value::as_object).into_iter().flatten();
        map.map(|(key, value)| {
            (key.as_str(), At { parent: Some(self), step: Step::Key(key), value: Some(value) })
        })
    }

    pub(crate) fn value(&self) -> Option<&'v Value> {
        self.value
    }

    pub(crate) fn exists(&self) -> bool {
        self.value.is_some()
    }

    /// A copy for an error: null if absent.
    pub(crate) fn owned(&self) -> Value {
        self.value.cloned().unwrap_or(Value::Null)
    }

    /// Empty if absent or not text.
    pub(crate) fn text(&self) -> &'v str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn int(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    pub(crate) fn flag(&self) -> bool {
        self.value.and_then(Value::as_bool).unwrap_or(false)
    }

    /// How many entries the list or map has.
    pub(crate) fn count(&self) -> usize {
        match self.value {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }
}

impl fmt::Display for At<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(field) if self.parent.is_some() => write!(f, ".{field}"),
            Step::Field(field) => f.write_str(field),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong so far.
#[derive(Default)]
pub(crate) struct Errors(pub(crate) Vec<FieldError>);

impl Errors {
    /// What was found below `from`, told as if it were below `to`: upstream's paths are not always
    /// where the value is.
    pub(crate) fn adopt(
        &mut self,
        within: Errors,
        from: &impl fmt::Display,
        to: &impl fmt::Display,
    ) {
        let (from, to) = (from.to_string(), to.to_string());
        self.0.extend(
            within
                .0
                .into_iter()
                .map(|error| FieldError { path: error.path.replacen(&from, &to, 1), ..error }),
        );
    }

    pub(crate) fn required(&mut self, at: &At<'_, '_>, detail: &str) {
        self.0.push(FieldError::required(at.to_string(), detail));
    }

    /// The value that is there is wrong.
    pub(crate) fn invalid(&mut self, at: &At<'_, '_>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(at.to_string(), at.owned(), detail));
    }

    /// The same with one error for each text, as the name rules give them.
    pub(crate) fn invalid_each(&mut self, at: &At<'_, '_>, details: Vec<String>) {
        for detail in details {
            self.invalid(at, detail);
        }
    }

    pub(crate) fn invalid_value(
        &mut self,
        at: &At<'_, '_>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError::invalid(at.to_string(), value.into(), detail));
    }

    pub(crate) fn forbidden(&mut self, at: &At<'_, '_>, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(at.to_string(), detail));
    }

    pub(crate) fn duplicate(&mut self, at: &At<'_, '_>) {
        self.0.push(FieldError::duplicate(at.to_string(), at.owned()));
    }

    pub(crate) fn duplicate_value(&mut self, at: &At<'_, '_>, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(at.to_string(), value.into()));
    }

    pub(crate) fn not_found(&mut self, at: &At<'_, '_>) {
        self.0.push(FieldError::not_found(at.to_string(), at.owned()));
    }

    /// The same with a value and a text of its own.
    pub(crate) fn not_found_value(
        &mut self,
        at: &At<'_, '_>,
        value: impl Into<Value>,
        detail: String,
    ) {
        let error = FieldError::not_found(at.to_string(), value.into());
        self.0.push(FieldError { detail, ..error });
    }

    pub(crate) fn too_long(&mut self, at: &At<'_, '_>, max_bytes: usize) {
        self.0.push(FieldError::too_long(at.to_string(), max_bytes));
    }

    pub(crate) fn not_supported(&mut self, at: &At<'_, '_>, valid: &[&str]) {
        self.0.push(FieldError::not_supported(at.to_string(), at.owned(), valid));
    }

    pub(crate) fn not_supported_value(
        &mut self,
        at: &At<'_, '_>,
        value: impl Into<Value>,
        valid: &[&str],
    ) {
        self.0.push(FieldError::not_supported(at.to_string(), value.into(), valid));
    }

    /// Refuses text that is not one of `valid`, and absent text if `needed`.
    pub(crate) fn one_of(&mut self, at: &At<'_, '_>, valid: &[&str], needed: bool) {
        match at.text() {
            "" if needed => self.required(at, ""),
            "" => (),
            text if valid.contains(&text) => (),
            _ => self.not_supported(at, valid),
        }
    }

    /// Refuses absent or empty text; true if there is some.
    pub(crate) fn needs_text(&mut self, at: &At<'_, '_>) -> bool {
        if at.text().is_empty() {
            self.required(at, "");
        }
        !at.text().is_empty()
    }

    pub(crate) fn not_negative(&mut self, at: &At<'_, '_>) {
        if at.int().is_some_and(|value| value < 0) {
            self.invalid(at, NOT_NEGATIVE);
        }
    }

    /// Refuses zero, what is below it, and nothing.
    pub(crate) fn positive(&mut self, at: &At<'_, '_>) {
        if at.int().unwrap_or(0) <= 0 {
            self.invalid_value(at, at.int().unwrap_or(0), "must be greater than zero");
        }
    }

    /// A number that is there must be within both ends.
    pub(crate) fn in_range(&mut self, at: &At<'_, '_>, low: i64, high: i64) {
        if at.int().is_some_and(|value| !(low..=high).contains(&value)) {
            self.invalid(at, format!("must be between {low} and {high}, inclusive"));
        }
    }

    /// Refuses more entries than `max`.
    pub(crate) fn too_many(&mut self, at: &At<'_, '_>, max: usize) {
        if at.count() > max {
            self.0.push(FieldError::too_many(at.to_string(), at.count(), max));
        }
    }

    /// Refuses a change from `old`.
    pub(crate) fn immutable(&mut self, new: &At<'_, '_>, old: &At<'_, '_>) {
        if !same(new.value, old.value) {
            self.invalid(new, IMMUTABLE);
        }
    }

    /// Text that is an RFC 1123 subdomain: most names.
    pub(crate) fn subdomain(&mut self, at: &At<'_, '_>) {
        self.invalid_each(at, names::is_dns1123_subdomain(at.text()));
    }

    /// Text that is an RFC 1123 label.
    pub(crate) fn label(&mut self, at: &At<'_, '_>) {
        self.invalid_each(at, names::is_dns1123_label(at.text()));
    }

    /// Text that is a qualified name: `name` or `prefix/name`.
    pub(crate) fn qualified_name(&mut self, at: &At<'_, '_>) {
        self.invalid_each(at, names::is_qualified_name(at.text()));
    }

    /// Text that is there and an RFC 1123 subdomain.
    pub(crate) fn needs_subdomain(&mut self, at: &At<'_, '_>) {
        if self.needs_text(at) {
            self.subdomain(at);
        }
    }

    /// Text that is there and an RFC 1123 label.
    pub(crate) fn needs_label(&mut self, at: &At<'_, '_>) {
        if self.needs_text(at) {
            self.label(at);
        }
    }

    /// An IP address in a field that older releases checked loosely: it need not be in canonical
    /// form, but has to mean one address (upstream's `IsValidIPForLegacyField`). One of `kept`,
    /// which the old version had, is good whatever it is.
    pub(crate) fn legacy_ip(&mut self, at: &At<'_, '_>, kept: &[&str]) {
        let text = at.text();
        if kept.contains(&text) {
            return;
        }
        match parse_ip(text) {
            Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                self.invalid_value(at, text, "must not be an IPv4-mapped IPv6 address");
            }
            Ok(_) => (),
            Err(detail) => self.invalid_value(at, text, detail),
        }
    }

    /// The same for a network.
    pub(crate) fn legacy_cidr(&mut self, at: &At<'_, '_>, kept: &[&str]) {
        let text = at.text().trim();
        if kept.contains(&text) {
            return;
        }
        if let Err(detail) = check_cidr(text) {
            self.invalid_value(at, text, detail);
        }
    }

    /// The same for one of several in a text.
    pub(crate) fn legacy_cidr_text(&mut self, at: &At<'_, '_>, text: &str) {
        if let Err(detail) = check_cidr(text) {
            self.invalid_value(at, text, detail);
        }
    }

    /// An address that others can send to.
    pub(crate) fn endpoint_ip(&mut self, at: &At<'_, '_>) {
        let Ok(ip) = at.text().parse::<IpAddr>() else {
            return self.invalid(at, "must be a valid IP address");
        };
        let (link_local, link_local_group) = match ip {
            IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
            IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] == 0xff02),
        };
        if ip.is_unspecified() {
            self.invalid(at, format!("may not be unspecified ({})", at.text()));
        }
        if ip.is_loopback() {
            self.invalid(at, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
        }
        if link_local {
            self.invalid(at, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
        }
        if link_local_group {
            let detail = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)";
            self.invalid(at, detail);
        }
    }

    /// `example.com/path`: a name that belongs to a domain.
    pub(crate) fn domain_path(&mut self, at: &At<'_, '_>) {
        let bad = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        match at.text().split_once('/') {
            _ if at.text().is_empty() => self.required(at, ""),
            Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
                for detail in names::is_dns1123_subdomain(domain) {
                    self.invalid_value(at, domain, detail);
                }
                let good =
                    |c: char| c.is_ascii_alphanumeric() || r"/\-._~%!$&'()*+,;=:".contains(c);
                if !path.chars().all(good) {
                    let detail = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
                    self.invalid_value(at, path, detail);
                }
            }
            _ => self.invalid(at, bad),
        }
    }

    /// Text that is there and one segment of a URL path.
    pub(crate) fn needs_segment(&mut self, at: &At<'_, '_>) {
        if self.needs_text(at) {
            self.invalid_each(at, names::is_path_segment_name(at.text()));
        }
    }

    /// A network in canonical form.
    pub(crate) fn cidr(&mut self, at: &At<'_, '_>) {
        let before = self.0.len();
        self.legacy_cidr(at, &[]);
        let canonical = at
            .text()
            .split_once('/')
            .and_then(|(ip, bits)| Some(format!("{}/{bits}", ip.parse::<IpAddr>().ok()?)));
        if let (true, Some(canonical)) = (self.0.len() == before, canonical)
            && canonical != at.text()
        {
            self.invalid(at, format!("must be in canonical form (\"{canonical}\")"));
        }
    }

    /// Text without white space around it.
    pub(crate) fn unpadded(&mut self, at: &At<'_, '_>) {
        if at.text().trim() != at.text() {
            self.invalid(at, "must not have leading or trailing whitespace");
        }
    }

    /// A port number that is there must be one.
    pub(crate) fn port_number(&mut self, at: &At<'_, '_>) {
        if at.int().is_some_and(|port| !(1..=65535).contains(&port)) {
            self.invalid(at, PORT_RANGE);
        }
    }

    /// A port by number or by name.
    pub(crate) fn port(&mut self, at: &At<'_, '_>) {
        match at.value() {
            Some(Value::String(name)) => {
                let wrong = k8s::names::is_port_name(name);
                self.invalid_each(at, wrong);
            }
            Some(value) if value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) => (),
            Some(_) => self.invalid(at, PORT_RANGE),
            None => self.invalid_value(at, 0, PORT_RANGE),
        }
    }
}

/// True if both mean the same: null, nothing and what is empty are one, as upstream's
/// `Semantic.DeepEqual` has it.
pub(crate) fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let fields = |map: &Map<String, Value>, other: &Map<String, Value>| {
                map.iter().all(|(key, value)| same(Some(value), other.get(key)))
            };
            fields(a, b) && fields(b, a)
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (None, None) => true,
        (Some(a), Some(b)) => a == b || (is_nothing(a) && is_nothing(b)),
        (Some(one), None) | (None, Some(one)) => is_nothing(one),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_nothing),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

const BAD_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const BAD_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address; leading zeros of an octet are told apart from what is no address at all.
fn parse_ip(text: &str) -> Result<IpAddr, &'static str> {
    text.parse().map_err(|_| match without_zeros(text).parse::<IpAddr>() {
        Ok(_) => "must not have leading 0s",
        Err(_) => BAD_IP,
    })
}

fn without_zeros(text: &str) -> String {
    let octet = |octet: &str| match octet.trim_start_matches('0') {
        "" if !octet.is_empty() => "0".to_string(),
        rest => rest.to_string(),
    };
    text.split('.').map(octet).collect::<Vec<_>>().join(".")
}

fn check_cidr(text: &str) -> Result<(), &'static str> {
    let (address, length) = text.split_once('/').ok_or(BAD_CIDR)?;
    let bits: u32 = length.parse().map_err(|_| BAD_CIDR)?;
    let ip = parse_ip(address);
    let parsed = ip.or_else(|_| without_zeros(address).parse()).map_err(|_| BAD_CIDR)?;
    let width = if parsed.is_ipv4() { 32 } else { 128 };
    let digits = length.bytes().all(|c| c.is_ascii_digit());
    if bits > width || !digits {
        return Err(BAD_CIDR);
    }
    if ip.is_err() || (length.len() > 1 && length.starts_with('0')) {
        return Err("must not have leading 0s in IP or prefix length");
    }
    let (number, mapped) = match parsed {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), false),
        IpAddr::V6(ip) => (u128::from(ip), ip.to_ipv4_mapped().is_some()),
    };
    if mapped {
        return Err("must not have an IPv4-mapped IPv6 address");
    }
    let free = width - bits;
    let mask = if free == 128 { u128::MAX } else { (1u128 << free) - 1 };
    if number & mask != 0 {
        return Err("must not have bits set beyond the prefix length");
    }
    Ok(())
}

pub(crate) const IMMUTABLE: &str = "field is immutable";
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
