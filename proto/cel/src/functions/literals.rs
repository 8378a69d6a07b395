//! Literals that cannot be right: a pattern, duration or time that does not read is refused when the
//! expression is compiled (cel-go's AST validators).

use super::{regex, time};
use crate::{
    Error,
    ast::{Expr, ExprKind, Literal},
};

pub(crate) fn check(source: &str, root: &Expr) -> Result<(), Vec<Error>> {
    let mut errors = Vec::new();
    walk(source, root, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn walk(source: &str, expr: &Expr, errors: &mut Vec<Error>) {
    if let ExprKind::Call(call) = &expr.kind {
        let argument = match call.function.as_str() {
            "matches" | "find" | "findAll" => call.args.get(1),
            "duration" | "timestamp" => call.args.first(),
            _ => None,
        };
        if let Some(Expr { pos, kind: ExprKind::Literal(Literal::String(text)), .. }) = argument
            && wrong(&call.function, text)
        {
            let why = format!("invalid {} argument", call.function);
            errors.push(Error::at(source, *pos, why));
        }
    }
    for child in expr.children() {
        walk(source, child, errors);
    }
}

fn wrong(function: &str, text: &str) -> bool {
    match function {
        "duration" => time::read_duration(text).is_err(),
        "timestamp" => time::read_timestamp(text).is_err(),
        _ => regex::compile(text).is_err(),
    }
}
