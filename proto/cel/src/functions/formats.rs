//! Named formats: `format.dns1123Label().validate(name)` (KEP-2876).

use super::{Declared, strings::text, url::Url};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
    value::Opaque,
};
use base64::Engine as _;
use k8s::names;

/// What a string may have to look like.
#[derive(Debug)]
pub struct Format {
    pub(crate) name: &'static str,
    /// As long as the pattern that upstream would match; what validating costs.
    pub(crate) regex_bytes: u64,
    /// What is wrong, if anything.
    validate: fn(&str) -> Vec<String>,
}

pub(super) const FUNCTIONS: &[Declared] = &[
    ("format.named", "(string) optional<NamedFormat>", |_, args| {
        let name = text(args, 0)?;
        let format = FORMATS.iter().find(|format| format.name == name);
        Ok(format.map_or(Value::NONE, |format| Value::some(value(format))))
    }),
    ("validate", "NamedFormat.(string) optional<list<string>>", validate),
    ("format.dns1123Label", "() NamedFormat", |_, _| Ok(value(&FORMATS[0]))),
    ("format.dns1123Subdomain", "() NamedFormat", |_, _| Ok(value(&FORMATS[1]))),
    ("format.dns1035Label", "() NamedFormat", |_, _| Ok(value(&FORMATS[2]))),
    ("format.qualifiedName", "() NamedFormat", |_, _| Ok(value(&FORMATS[3]))),
    ("format.dns1123LabelPrefix", "() NamedFormat", |_, _| Ok(value(&FORMATS[4]))),
    ("format.dns1123SubdomainPrefix", "() NamedFormat", |_, _| Ok(value(&FORMATS[5]))),
    ("format.dns1035LabelPrefix", "() NamedFormat", |_, _| Ok(value(&FORMATS[6]))),
    ("format.labelValue", "() NamedFormat", |_, _| Ok(value(&FORMATS[7]))),
    ("format.uri", "() NamedFormat", |_, _| Ok(value(&FORMATS[8]))),
    ("format.uuid", "() NamedFormat", |_, _| Ok(value(&FORMATS[9]))),
    ("format.byte", "() NamedFormat", |_, _| Ok(value(&FORMATS[10]))),
    ("format.date", "() NamedFormat", |_, _| Ok(value(&FORMATS[11]))),
    ("format.datetime", "() NamedFormat", |_, _| Ok(value(&FORMATS[12]))),
];

static FORMATS: [Format; 13] = [
    one("dns1123Label", 30, names::is_dns1123_label),
    one("dns1123Subdomain", 60, names::is_dns1123_subdomain),
    one("dns1035Label", 30, names::is_dns1035_label),
    one("qualifiedName", 60, names::is_qualified_name),
    one("dns1123LabelPrefix", 30, |text| names::is_dns1123_label(&prefix(text))),
    one("dns1123SubdomainPrefix", 60, |text| names::is_dns1123_subdomain(&prefix(text))),
    one("dns1035LabelPrefix", 30, |text| names::is_dns1035_label(&prefix(text))),
    one("labelValue", 40, names::is_label_value),
    // The patterns of the last five are those of govalidator and strfmt; their lengths are upstream's.
    one("uri", 1700, |text| Url::parse(text).err().into_iter().collect()),
    one("uuid", 94, |text| unless(uuid(text), "does not match the UUID format")),
    one("byte", 100, |text| unless(base64(text), "invalid base64")),
    one("date", 140, |text| unless(date(text), "invalid date")),
    one("datetime", 140, |text| unless(k8s::time::parse_rfc3339(text).is_ok(), "invalid datetime")),
];

const fn one(name: &'static str, regex_bytes: u64, validate: fn(&str) -> Vec<String>) -> Format {
    Format { name, regex_bytes, validate }
}

fn value<'a>(format: &'static Format) -> Value<'a> {
    Value::Opaque(Opaque::Format(format))
}

fn prefix(text: &str) -> String {
    names::mask_trailing_dash(text)
}

fn unless(fine: bool, why: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![why.into()] }
}

fn uuid(text: &str) -> bool {
    let digits = text.bytes().filter(|c| *c != b'-').count();
    let dashes = text.bytes().enumerate().all(|(at, c)| match c {
        b'-' => [8, 13, 18, 23].contains(&at),
        c => c.is_ascii_hexdigit(),
    });
    digits == 32 && dashes
}

fn base64(text: &str) -> bool {
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn validate<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::Opaque(Opaque::Format(format)) = &args[0] else {
        return Err(EvalError::no_such_overload());
    };
    let wrong = (format.validate)(text(args, 1)?);
    if wrong.is_empty() {
        return Ok(Value::NONE);
    }
    Ok(Value::some(Value::list(wrong.into_iter().map(Value::string).collect())))
}
