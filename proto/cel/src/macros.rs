//! Calls that bind names: `all`, `exists`, `exists_one`, `map`, `filter`, their forms with two names
//! (`transformList` and friends), `optMap`, `optFlatMap` and `sortBy`.

use crate::{
    Error,
    ast::{Expr, ExprKind, Loop, LoopKind, Pos},
    parse::{Parser, depth},
};

/// `Err` gives back what is an ordinary call.
pub(crate) type Expanded = Result<Expr, (Expr, Vec<Expr>)>;

pub(crate) fn member(
    parser: &Parser<'_>,
    pos: Pos,
    target: Expr,
    function: &str,
    args: Vec<Expr>,
) -> Result<Expanded, Error> {
    use LoopKind::{
        All, Exists, ExistsOne, Filter, Map, OptFlatMap, OptMap, SortBy, TransformEntry,
        TransformMap,
    };
    // The kind, whether it binds two names, and whether a filter comes before the body.
    let (kind, two, filtered) = match (function, args.len()) {
        ("all", count @ (2 | 3)) => (All, count == 3, false),
        ("exists", count @ (2 | 3)) => (Exists, count == 3, false),
        ("exists_one" | "existsOne", count @ (2 | 3)) => (ExistsOne, count == 3, false),
        ("map", count @ (2 | 3)) => (Map, false, count == 3),
        ("filter", 2) => (Filter, false, false),
        ("transformList", count @ (3 | 4)) => (Map, true, count == 4),
        ("transformMap", count @ (3 | 4)) => (TransformMap, true, count == 4),
        ("transformMapEntry", count @ (3 | 4)) => (TransformEntry, true, count == 4),
        ("optMap", 2) => (OptMap, false, false),
        ("optFlatMap", 2) => (OptFlatMap, false, false),
        ("sortBy", 2) => (SortBy, false, false),
        _ => return Ok(Err((target, args))),
    };
    let below = depth(&args).max(target.depth);
    let mut args = args.into_iter();
    let mut name = || -> Result<String, Error> {
        match args.next() {
            Some(Expr { kind: ExprKind::Ident { name, .. }, .. }) => Ok(name),
            other => {
                parser.error(other.map_or(pos, |expr| expr.pos), "argument must be a simple name")
            }
        }
    };
    let first = name()?;
    let second = if two { Some(name()?) } else { None };
    if second.as_ref() == Some(&first) {
        return parser.error(pos, format!("duplicate iteration variable name: {first}"));
    }
    let filter = if filtered { args.next() } else { None };
    let Some(body) = args.next() else {
        return parser.error(pos, format!("{} needs a body", kind.name()));
    };
    let entry = matches!(&body.kind, ExprKind::Map(entries) if entries.len() == 1);
    if kind == TransformEntry && !entry {
        return parser.error(body.pos, "transformMapEntry requires a single map entry");
    }
    let all = Loop { kind, range: target, first, second, filter, body };
    parser.node(pos, below, ExprKind::Loop(Box::new(all))).map(Ok)
}
