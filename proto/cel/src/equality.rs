//! When two values are equal, as cel-go has it for values of any type, with the lists of Kubernetes:
//! sets and maps have no order.

use crate::{
    EvalError, Identity, Value,
    eval::{Cx, KEEP},
    value::{List, Map, Opaque, Text, compare_numbers},
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
    let others = Elements::of(cx, b)?;
    for one in a.iter() {
        if !others.contain(cx, &one?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The elements of a list, to be asked about one by one. Nearly all sets are of strings, which are
/// found at once; others are compared with each, which the budget bounds.
enum Elements<'a> {
    /// Sorted.
    Texts(Vec<Text<'a>>),
    Any(Vec<Value<'a>>),
}

impl<'a> Elements<'a> {
    fn of(cx: &mut Cx<'a, '_>, list: &List<'a>) -> Result<Self, EvalError> {
        cx.work(KEEP * list.len() as u64)?;
        let all = list.iter().collect::<Result<Vec<_>, _>>()?;
        let mut texts = Vec::with_capacity(all.len());
        for one in &all {
            let Value::String(text) = one else { return Ok(Elements::Any(all)) };
            cx.work(text.as_str().len() as u64 / 64)?;
            texts.push(text.clone());
        }
        cx.work(texts.len() as u64)?;
        texts.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(Elements::Texts(texts))
    }

    fn contain(&self, cx: &mut Cx<'a, '_>, wanted: &Value<'a>) -> Result<bool, EvalError> {
        match self {
            Elements::Texts(texts) => {
                cx.work(2)?;
                let Value::String(wanted) = wanted else { return Ok(false) };
                cx.work(wanted.as_str().len() as u64 / 64)?;
                let found = texts.binary_search_by(|text| text.as_str().cmp(wanted.as_str()));
                Ok(found.is_ok())
            }
            Elements::Any(all) => {
                for one in all {
                    if equal(cx, one, wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
    }
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
            let own = Elements::of(cx, a)?;
            for one in b.iter() {
                let one = one?;
                if !own.contain(cx, &one)? {
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
