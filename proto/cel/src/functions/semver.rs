//! Semantic versions (semver.org 2.0.0), as github.com/blang/semver reads them.

use super::{Declared, strings::text};
use crate::{EvalError, Value, eval::Evaluated, value::Opaque};
use std::{cmp::Ordering, rc::Rc};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("semver", "(string) Semver | (string,bool) Semver", |_, args| {
        let version = read(args)?.map_err(EvalError::new)?;
        Ok(Value::Opaque(Opaque::Semver(Rc::new(version))))
    }),
    ("isSemver", "(string) bool | (string,bool) bool", |_, args| {
        Ok(Value::Bool(read(args)?.is_ok()))
    }),
    ("major", "Semver.() int", |_, args| part(args, |version| version.core[0])),
    ("minor", "Semver.() int", |_, args| part(args, |version| version.core[1])),
    ("patch", "Semver.() int", |_, args| part(args, |version| version.core[2])),
];

#[derive(Debug)]
pub struct Semver {
    core: [u64; 3],
    pre_release: Vec<Identifier>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

fn read(args: &[Value<'_>]) -> Result<Result<Semver, String>, EvalError> {
    let given = text(args, 0)?;
    match args.get(1) {
        None | Some(Value::Bool(false)) => Ok(Semver::parse(given)),
        Some(Value::Bool(true)) => Ok(normalized(given).and_then(|text| Semver::parse(&text))),
        Some(_) => Err(EvalError::no_such_overload()),
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Semver) -> u64) -> Evaluated<'a> {
    match args {
        [Value::Opaque(Opaque::Semver(version))] => Ok(Value::Int(of(version) as i64)),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Without `v`, with all three numbers, without leading zeros.
fn normalized(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(str::to_string).collect();
    for part in parts.iter_mut().filter(|part| part.len() > 1) {
        let trimmed = part.trim_start_matches('0');
        let digits = trimmed.starts_with(|c: char| c.is_ascii_digit());
        *part = if digits { trimmed.into() } else { format!("0{trimmed}") };
    }
    if parts.len() < 3 {
        if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".into());
        }
        parts.resize(3, "0".into());
    }
    Ok(parts.join("."))
}

impl Semver {
    fn parse(text: &str) -> Result<Semver, String> {
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let parts: Vec<&str> = text.splitn(3, '.').collect();
        let [major, minor, rest] = parts[..] else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (rest, None),
        };
        let (patch, pre_release) = match rest.split_once('-') {
            Some((patch, pre_release)) => (patch, Some(pre_release)),
            None => (rest, None),
        };
        let core = [number("major", major)?, number("minor", minor)?, number("patch", patch)?];
        let pre_release =
            pre_release.map_or(Ok(Vec::new()), |text| text.split('.').map(identifier).collect())?;
        let plain = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".into());
            }
            if !plain(part) {
                return Err(format!("Invalid character(s) found in build meta data {part:?}"));
            }
        }
        Ok(Semver { core, pre_release })
    }

    /// Build metadata plays no part.
    pub(crate) fn compare(&self, other: &Semver) -> Ordering {
        self.core.cmp(&other.core).then_with(|| {
            match (self.pre_release.is_empty(), other.pre_release.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => self.pre_release.cmp(&other.pre_release),
            }
        })
    }
}

fn number(what: &str, text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number {text:?}"));
    }
    let title = format!("{}{}", what[..1].to_uppercase(), &what[1..]);
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{title} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("{title} number is too large {text:?}"))
}

fn identifier(text: &str) -> Result<Identifier, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".into());
    }
    if text.bytes().all(|c| c.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            let why = "Numeric PreRelease version must not contain leading zeroes";
            return Err(format!("{why} {text:?}"));
        }
        return text.parse().map(Identifier::Number).map_err(|_| format!("too large: {text:?}"));
    }
    if text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Ok(Identifier::Text(text.into()));
    }
    Err(format!("Invalid character(s) found in prerelease {text:?}"))
}
