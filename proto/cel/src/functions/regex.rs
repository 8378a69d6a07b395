//! `matches`, `find`, `findAll`: RE2's syntax, in time linear in the text.

use super::{Declared, strings::number, strings::text};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
};
use regex::{Regex, RegexBuilder};
use std::{collections::HashMap, rc::Rc};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("matches", "(string,string) bool | string.(string) bool", |cx, args| {
        let regex = cx.patterns.get(text(args, 1)?)?;
        Ok(Value::Bool(regex.is_match(text(args, 0)?)))
    }),
    ("find", "string.(string) string", |cx, args| {
        let regex = cx.patterns.get(text(args, 1)?)?;
        let found = regex.find(text(args, 0)?).map_or("", |found| found.as_str());
        Ok(Value::string(found))
    }),
    ("findAll", "string.(string) list<string> | string.(string,int) list<string>", find_all),
];

/// Bytes of a compiled pattern: a megabyte, as much as nested repetitions may ask for.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Patterns kept while one expression is evaluated.
const KEPT_MAX: usize = 64;

/// Patterns that were compiled for one evaluation.
#[derive(Default)]
pub(crate) struct Patterns {
    kept: HashMap<String, Rc<Regex>>,
}

impl Patterns {
    fn get(&mut self, pattern: &str) -> Result<Rc<Regex>, EvalError> {
        if let Some(regex) = self.kept.get(pattern) {
            return Ok(regex.clone());
        }
        let regex = Rc::new(compile(pattern).map_err(EvalError::new)?);
        if self.kept.len() < KEPT_MAX {
            self.kept.insert(pattern.into(), regex.clone());
        }
        Ok(regex)
    }
}

/// RE2 knows `\pN` without braces and `\Q…\E`; both are rare, and the latter is an error here.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(100)
        .build();
    built.map_err(|_| format!("error parsing regexp: {pattern:?}"))
}

fn find_all<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let regex = cx.patterns.get(text(args, 1)?)?;
    let limit = number(args, 2)?.filter(|limit| *limit >= 0).map_or(usize::MAX, |n| n as usize);
    let found = regex.find_iter(text(args, 0)?).take(limit);
    Ok(Value::list(found.map(|found| Value::string(found.as_str())).collect()))
}
