//! `matches`, `find`, `findAll`: RE2's syntax, in time linear in the text.

use super::{Declared, strings::number, strings::text};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated, KEEP},
};
use regex::{Regex, RegexBuilder};
use std::{collections::HashMap, sync::Arc};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("matches", "(string,string) bool | string.(string) bool", |cx, args| {
        let regex = pattern(cx, text(args, 1)?)?;
        Ok(Value::Bool(regex.is_match(text(args, 0)?)))
    }),
    ("find", "string.(string) string", |cx, args| {
        let regex = pattern(cx, text(args, 1)?)?;
        let found = regex.find(text(args, 0)?).map_or("", |found| found.as_str());
        Ok(Value::string(found))
    }),
    ("findAll", "string.(string) list<string> | string.(string,int) list<string>", find_all),
];

/// Bytes of a compiled pattern: a megabyte, as much as nested repetitions may ask for.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Most patterns need less than this, and compiling is as long as what it makes.
const SMALL_BYTES_MAX: usize = 1 << 16;
/// The work of compiling a small pattern (half a millisecond), and one that is not.
const SMALL_WORK: u64 = 6_000;
const LARGE_WORK: u64 = 120_000;
/// Patterns kept while one expression is evaluated.
const KEPT_MAX: usize = 64;

/// Patterns that were compiled for one evaluation.
#[derive(Default)]
pub(crate) struct Patterns {
    kept: HashMap<String, Arc<Regex>>,
}

fn pattern(cx: &mut Cx<'_, '_>, pattern: &str) -> Result<Arc<Regex>, EvalError> {
    if let Some((_, regex)) = cx.known.iter().find(|(known, _)| **known == *pattern) {
        return Ok(regex.clone());
    }
    if let Some(regex) = cx.patterns.kept.get(pattern) {
        return Ok(regex.clone());
    }
    cx.work(SMALL_WORK)?;
    let regex = match small(pattern) {
        Err(regex::Error::CompiledTooBig(_)) => {
            cx.work(LARGE_WORK)?;
            compile(pattern).map_err(EvalError::new)?
        }
        built => built.map_err(|_| EvalError::new(unreadable(pattern)))?,
    };
    let regex = Arc::new(regex);
    if cx.patterns.kept.len() < KEPT_MAX {
        cx.patterns.kept.insert(pattern.into(), regex.clone());
    }
    Ok(regex)
}

/// RE2 knows `\pN` without braces and `\Q…\E`; both are rare, and the latter is an error here.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    built(pattern, COMPILED_BYTES_MAX).map_err(|_| unreadable(pattern))
}

/// A pattern that needs little.
pub(super) fn small(pattern: &str) -> Result<Regex, regex::Error> {
    built(pattern, SMALL_BYTES_MAX)
}

fn built(pattern: &str, bytes_max: usize) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(bytes_max).dfa_size_limit(COMPILED_BYTES_MAX).nest_limit(100).build()
}

fn unreadable(pattern: &str) -> String {
    format!("error parsing regexp: {pattern:?}")
}

fn find_all<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let regex = pattern(cx, text(args, 1)?)?;
    let limit = number(args, 2)?.filter(|limit| *limit >= 0).map_or(usize::MAX, |n| n as usize);
    let mut found = Vec::new();
    for one in regex.find_iter(text(args, 0)?).take(limit) {
        cx.work(KEEP)?;
        found.push(Value::string(one.as_str()));
    }
    Ok(Value::list(found))
}
