//! `quantity("1Gi")` and its arithmetic (KEP-2876).

use super::{Declared, strings::text};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
    value::Opaque,
};
use k8s::quantity::{Format, Quantity};
use std::cmp::Ordering;

pub(super) const FUNCTIONS: &[Declared] = &[
    ("quantity", "(string) Quantity", |_, args| {
        let read = Quantity::parse(text(args, 0)?);
        read.map(value).map_err(|error| EvalError::new(error.to_string()))
    }),
    ("isQuantity", "(string) bool", |_, args| {
        Ok(Value::Bool(Quantity::parse(text(args, 0)?).is_ok()))
    }),
    ("sign", "Quantity.() int", |_, args| Ok(Value::Int(quantity(args, 0)?.sign().into()))),
    ("isInteger", "Quantity.() bool", |_, args| {
        Ok(Value::Bool(integer(quantity(args, 0)?).is_some()))
    }),
    ("asInteger", "Quantity.() int", |_, args| {
        let whole = integer(quantity(args, 0)?).map(Value::Int);
        whole.ok_or_else(|| EvalError::new("cannot convert value to integer"))
    }),
    ("asApproximateFloat", "Quantity.() double", |_, args| {
        Ok(Value::Double(quantity(args, 0)?.approximate()))
    }),
    ("add", "Quantity.(Quantity) Quantity | Quantity.(int) Quantity", |_, args| {
        Ok(value(quantity(args, 0)?.add(quantity(args, 1)?)))
    }),
    ("sub", "Quantity.(Quantity) Quantity | Quantity.(int) Quantity", |_, args| {
        Ok(value(quantity(args, 0)?.sub(quantity(args, 1)?)))
    }),
    ("isGreaterThan", "Quantity.(Quantity) bool | Semver.(Semver) bool", |_, args| {
        Ok(Value::Bool(compare(args)?.is_gt()))
    }),
    ("isLessThan", "Quantity.(Quantity) bool | Semver.(Semver) bool", |_, args| {
        Ok(Value::Bool(compare(args)?.is_lt()))
    }),
    ("compareTo", "Quantity.(Quantity) int | Semver.(Semver) int", compare_to),
];

fn value<'a>(quantity: Quantity) -> Value<'a> {
    Value::Opaque(Opaque::Quantity(quantity))
}

/// A quantity, or an integer as one.
fn quantity(args: &[Value<'_>], index: usize) -> Result<Quantity, EvalError> {
    match args.get(index) {
        Some(Value::Opaque(Opaque::Quantity(quantity))) => Ok(*quantity),
        Some(Value::Int(number)) if index > 0 => Ok(Quantity::new(*number, Format::DecimalSI)),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The integer a quantity is exactly, if 64 bits hold it.
fn integer(quantity: Quantity) -> Option<i64> {
    let whole = quantity.value();
    (Quantity::new(whole, quantity.format()).cmp(&quantity) == Ordering::Equal).then_some(whole)
}

fn compare(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    match args {
        [Value::Opaque(Opaque::Quantity(a)), Value::Opaque(Opaque::Quantity(b))] => Ok(a.cmp(b)),
        [Value::Opaque(Opaque::Semver(a)), Value::Opaque(Opaque::Semver(b))] => Ok(a.compare(b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn compare_to<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    Ok(Value::Int(compare(args)? as i64))
}
