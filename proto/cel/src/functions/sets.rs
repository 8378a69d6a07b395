//! Lists as sets (cel-go's ext.Sets).

use super::Declared;
use crate::{
    EvalError, Value, equality,
    eval::{Cx, Evaluated, list_of},
};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("sets.contains", "(list<A>,list<A>) bool", |cx, args| {
        Ok(Value::Bool(contains(cx, &args[0], &args[1])?))
    }),
    ("sets.equivalent", "(list<A>,list<A>) bool", |cx, args| {
        let both = contains(cx, &args[0], &args[1])? && contains(cx, &args[1], &args[0])?;
        Ok(Value::Bool(both))
    }),
    ("sets.intersects", "(list<A>,list<A>) bool", intersects),
];

/// Every element of the second is in the first.
fn contains<'a>(cx: &mut Cx<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Result<bool, EvalError> {
    let (a, b) = (list_of(a)?, list_of(b)?);
    for one in b.iter() {
        if !equality::contains(cx, a, &one?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (a, b) = (list_of(&args[0])?, list_of(&args[1])?);
    for one in a.iter() {
        if equality::contains(cx, b, &one?)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}
