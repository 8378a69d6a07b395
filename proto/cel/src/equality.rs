//! When two values are equal, as cel-go has it for values of any type, with the lists of Kubernetes:
//! sets and maps have no order.

use crate::{
    EvalError, Identity, Value,
    eval::{Cx, KEEP},
    value::{List, Map, Opaque, compare_numbers},
};
use std::cmp::Ordering;

/// Never an error but when too much is compared.
pub(crate) fn equal<'a>(
    cx: &mut Cx<'a, '_>,
    a: &Value<'a>,
    b: &Value<'a>,
) -> Result<bool, EvalError> {
    cx.work(2)?;
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(a), Value::String(b)) => {
            cx.work(a.as_str().len().min(b.as_str().len()) as u64 / 64)?;
            a.as_str() == b.as_str()
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            cx.work(a.len().min(b.len()) as u64 / 64)?;
            a == b
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Optional(None), Value::Optional(None)) => true,
        (Value::Optional(Some(a)), Value::Optional(Some(b))) => equal(cx, a, b)?,
        (Value::List(a), Value::List(b)) => lists(cx, a, b)?,
        (Value::Map(a), Value::Map(b)) => maps(cx, a, b)?,
        (Value::Opaque(a), Value::Opaque(b)) => opaque(a, b),
        _ => compare_numbers(a, b) == Some(Ordering::Equal),
    })
}

fn opaque(a: &Opaque<'_>, b: &Opaque<'_>) -> bool {
    match (a, b) {
        (Opaque::Ip(a), Opaque::Ip(b)) => a == b,
        (Opaque::Cidr(a), Opaque::Cidr(b)) => a == b,
        (Opaque::Quantity(a), Opaque::Quantity(b)) => a.cmp(b) == Ordering::Equal,
        (Opaque::Url(a), Opaque::Url(b)) => a == b,
        (Opaque::Semver(a), Opaque::Semver(b)) => a.compare(b) == Ordering::Equal,
        (Opaque::Format(a), Opaque::Format(b)) => a.name == b.name,
        (Opaque::Check(a), Opaque::Check(b)) => a == b,
        _ => false,
    }
}

fn lists<'a>(cx: &mut Cx<'a, '_>, a: &List<'a>, b: &List<'a>) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let ordered = a.identity() == &Identity::Atomic && b.identity() == &Identity::Atomic;
    if ordered {
        for (a, b) in a.iter().zip(b.iter()) {
            let (a, b) = (a?, b?);
            if !equal(cx, &a, &b)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    // Each of one has its like in the other; elements of a set or map are there once.
    for one in a.iter() {
        if !contains(cx, b, &one?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(crate) fn contains<'a>(
    cx: &mut Cx<'a, '_>,
    list: &List<'a>,
    wanted: &Value<'a>,
) -> Result<bool, EvalError> {
    Ok(position(cx, list, wanted)?.is_some())
}

pub(crate) fn position<'a>(
    cx: &mut Cx<'a, '_>,
    list: &List<'a>,
    wanted: &Value<'a>,
) -> Result<Option<usize>, EvalError> {
    for (index, one) in list.iter().enumerate() {
        if equal(cx, &one?, wanted)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn maps<'a>(cx: &mut Cx<'a, '_>, a: &Map<'a>, b: &Map<'a>) -> Result<bool, EvalError> {
    if let (Map::Object(a, _), Map::Object(b, _)) = (a, b)
        && a != b
    {
        return Ok(false);
    }
    cx.work((a.len() + b.len()) as u64)?;
    let keys = a.keys();
    if keys.len() != b.keys().len() {
        return Ok(false);
    }
    for key in keys {
        let (one, other) = (a.get(&key, cx.budget), b.get(&key, cx.budget));
        let (Some(one), Some(other)) = (one, other) else { return Ok(false) };
        if !equal(cx, &one?, &other?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The sum of two lists: behind each other, or by the identity of the first: a set takes what it lacks,
/// a map replaces in place what has the same key (KEP-2876, "list type").
pub(crate) fn concat<'a>(
    cx: &mut Cx<'a, '_>,
    a: &List<'a>,
    b: &List<'a>,
) -> Result<Value<'a>, EvalError> {
    cx.work(KEEP / 2 * (a.len() + b.len()) as u64)?;
    let mut sum = a.iter().collect::<Result<Vec<_>, _>>()?;
    match a.identity() {
        Identity::Atomic => sum.extend(b.iter().collect::<Result<Vec<_>, _>>()?),
        Identity::Set => {
            for one in b.iter() {
                let one = one?;
                if !contains(cx, a, &one)? {
                    sum.push(one);
                }
            }
        }
        Identity::Map(keys) => {
            for one in b.iter() {
                let one = one?;
                let mut place = None;
                for (index, own) in sum.iter().enumerate() {
                    if same_keys(cx, keys, own, &one)? {
                        place = Some(index);
                        break;
                    }
                }
                match place {
                    Some(index) => sum[index] = one,
                    None => sum.push(one),
                }
            }
        }
    }
    Ok(Value::list(sum))
}

fn same_keys<'a>(
    cx: &mut Cx<'a, '_>,
    keys: &[Box<str>],
    a: &Value<'a>,
    b: &Value<'a>,
) -> Result<bool, EvalError> {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return Ok(false) };
    for key in keys {
        let name = crate::escape(key).unwrap_or_default();
        let same = match (a.member(&name, cx.budget), b.member(&name, cx.budget)) {
            (Some(a), Some(b)) => equal(cx, &a?, &b?)?,
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}
