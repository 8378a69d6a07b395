//! Literals: a pattern, duration or time that does not read is refused when the expression is compiled
//! (cel-go's AST validators); patterns that do are kept with it.

use super::{regex, time};
use crate::{
    Error,
    ast::{Expr, ExprKind, Literal},
};
use ::regex::Regex;
use std::sync::Arc;

/// Patterns kept with an expression: each may be as large as [`regex::SMALL_BYTES_MAX`].
const KEPT_MAX: usize = 16;

/// The patterns of an expression, compiled.
pub(crate) type Kept = Vec<(Box<str>, Arc<Regex>)>;

pub(crate) fn check(source: &str, root: &Expr) -> Result<Kept, Vec<Error>> {
    let (mut errors, mut kept) = (Vec::new(), Kept::new());
    walk(source, root, &mut errors, &mut kept);
    if errors.is_empty() { Ok(kept) } else { Err(errors) }
}

fn walk(source: &str, expr: &Expr, errors: &mut Vec<Error>, kept: &mut Kept) {
    if let ExprKind::Call(call) = &expr.kind {
        let argument = match call.function.as_str() {
            "matches" | "find" | "findAll" => call.args.get(1),
            "duration" | "timestamp" => call.args.first(),
            _ => None,
        };
        if let Some(Expr { pos, kind: ExprKind::Literal(Literal::String(text)), .. }) = argument
            && wrong(&call.function, text, kept)
        {
            let why = format!("invalid {} argument", call.function);
            errors.push(Error::at(source, *pos, why));
        }
    }
    for child in expr.children() {
        walk(source, child, errors, kept);
    }
}

fn wrong(function: &str, text: &str, kept: &mut Kept) -> bool {
    match function {
        "duration" => time::read_duration(text).is_err(),
        "timestamp" => time::read_timestamp(text).is_err(),
        _ if kept.iter().any(|(known, _)| **known == *text) => false,
        _ => match regex::small(text) {
            Ok(pattern) => {
                if kept.len() < KEPT_MAX {
                    kept.push((text.into(), Arc::new(pattern)));
                }
                false
            }
            Err(_) => regex::compile(text).is_err(),
        },
    }
}
