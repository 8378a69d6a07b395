//! Optional values (cel-go's OptionalTypes). `or` and `orValue` are evaluated where calls are, for their
//! second argument may not be.

use super::Declared;
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
};

pub(super) const FUNCTIONS: &[Declared] = &[
    ("optional.of", "(A) optional<A>", |_, args| Ok(Value::some(args[0].clone()))),
    ("optional.none", "() optional<A>", |_, _| Ok(Value::NONE)),
    ("optional.ofNonZeroValue", "(A) optional<A>", |_, args| {
        let zero = is_zero(&args[0]);
        Ok(if zero { Value::NONE } else { Value::some(args[0].clone()) })
    }),
    ("optional.unwrap", "(list<optional<A>>) list<A>", unwrap),
    ("unwrapOpt", "list<optional<A>>.() list<A>", unwrap),
    ("hasValue", "optional<A>.() bool", |_, args| match &args[0] {
        Value::Optional(inner) => Ok(Value::Bool(inner.is_some())),
        _ => Err(EvalError::no_such_overload()),
    }),
    ("value", "optional<A>.() A", |_, args| match &args[0] {
        Value::Optional(Some(inner)) => Ok((**inner).clone()),
        Value::Optional(None) => Err(EvalError::new("optional.none() dereference")),
        _ => Err(EvalError::no_such_overload()),
    }),
    ("or", "optional<A>.(optional<A>) optional<A>", |_, _| Err(EvalError::no_such_overload())),
    ("orValue", "optional<A>.(A) A", |_, _| Err(EvalError::no_such_overload())),
];

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(value) => !value,
        Value::Int(number) => *number == 0,
        Value::Uint(number) => *number == 0,
        Value::Double(number) => *number == 0.0,
        Value::String(text) => text.as_str().is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Duration(nanos) => *nanos == 0,
        _ => false,
    }
}

fn unwrap<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut found = Vec::new();
    for item in crate::eval::list_of(&args[0])?.iter() {
        match item? {
            Value::Optional(inner) => found.extend(inner.map(|inner| (*inner).clone())),
            _ => return Err(EvalError::no_such_overload()),
        }
    }
    Ok(Value::list(found))
}
