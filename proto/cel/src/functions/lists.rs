//! Lists: Kubernetes' own (`isSorted`, `sum`, `min`, `max`) and cel-go's ext.Lists (version 3).

use super::{
    Declared,
    operators::{add, compare},
    strings::number,
};
use crate::{
    EvalError, Kind, Value, equality,
    eval::{Cx, Evaluated, KEEP, list_of},
    value::List,
};
use std::cmp::Ordering;

const EACH_COMPARABLE: &str = "list<int>.() int | list<uint>.() uint | list<double>.() double | \
    list<bool>.() bool | list<duration>.() duration | list<timestamp>.() timestamp | \
    list<string>.() string | list<bytes>.() bytes";

pub(super) const FUNCTIONS: &[Declared] = &[
    (
        "isSorted",
        "list<int>.() bool | list<uint>.() bool | list<double>.() bool | list<bool>.() bool | \
         list<duration>.() bool | list<timestamp>.() bool | list<string>.() bool | \
         list<bytes>.() bool",
        is_sorted,
    ),
    (
        "sum",
        "list<int>.() int | list<uint>.() uint | list<double>.() double | \
         list<duration>.() duration",
        sum,
    ),
    ("min", EACH_COMPARABLE, |_, args| extreme(args, "min", Ordering::Less)),
    ("max", EACH_COMPARABLE, |_, args| extreme(args, "max", Ordering::Greater)),
    ("slice", "list<A>.(int,int) list<A>", slice),
    ("flatten", "list<list<A>>.() list<A> | list<dyn>.(int) list<dyn>", flatten),
    (
        "sort",
        "list<int>.() list<int> | list<uint>.() list<uint> | list<double>.() list<double> | \
         list<bool>.() list<bool> | list<duration>.() list<duration> | \
         list<timestamp>.() list<timestamp> | list<string>.() list<string> | \
         list<bytes>.() list<bytes>",
        |cx, args| {
            let items = list_of(&args[0])?.iter().collect::<Result<Vec<_>, _>>()?;
            sorted_by(cx, &items, &items)
        },
    ),
    ("reverse", "list<A>.() list<A>", |_, args| {
        Ok(Value::list(list_of(&args[0])?.iter().rev().collect::<Result<Vec<_>, _>>()?))
    }),
    ("distinct", "list<A>.() list<A>", distinct),
    ("first", "list<A>.() optional<A>", |_, args| {
        let first = list_of(&args[0])?.get(0).transpose()?;
        Ok(first.map_or(Value::NONE, Value::some))
    }),
    ("last", "list<A>.() optional<A>", |_, args| {
        let last = list_of(&args[0])?.iter().next_back().transpose()?;
        Ok(last.map_or(Value::NONE, Value::some))
    }),
    ("lists.range", "(int) list<int>", |cx, args| {
        let count = number(args, 0)?.unwrap_or(0).max(0);
        cx.work((count as u64).saturating_mul(KEEP))?;
        Ok(Value::list((0..count).map(Value::Int).collect()))
    }),
];

fn is_sorted<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut before: Option<Value<'a>> = None;
    for item in list_of(&args[0])?.iter() {
        let item = item?;
        if let Some(before) = &before
            && compare(before, &item)? == Some(Ordering::Greater)
        {
            return Ok(Value::Bool(false));
        }
        before = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let list = list_of(&args[0])?;
    let mut total: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        total = Some(match total {
            None => item,
            Some(total) => add(cx, &[total, item])?,
        });
    }
    Ok(total.unwrap_or_else(|| zero(list)))
}

/// The sum of nothing, by the declared element where there is one.
fn zero<'a>(list: &List<'a>) -> Value<'a> {
    match list {
        List::Json(_, list) => match list.element.kind {
            Kind::Double => Value::Double(0.0),
            Kind::Uint => Value::Uint(0),
            Kind::Duration => Value::Duration(0),
            _ => Value::Int(0),
        },
        List::Built(_) => Value::Int(0),
    }
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Evaluated<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list_of(&args[0])?.iter() {
        let item = item?;
        let better = match &best {
            None => true,
            Some(best) => compare(&item, best)? == Some(wanted),
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

fn slice<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let list = list_of(&args[0])?;
    let (start, end) = (number(args, 1)?.unwrap_or(0), number(args, 2)?.unwrap_or(0));
    let refuse = |why: &str| EvalError::new(format!("cannot slice({start}, {end}), {why}"));
    if start < 0 || end < 0 {
        return Err(refuse("negative indexes not supported"));
    }
    if start > end {
        return Err(refuse("start index must be less than or equal to end index"));
    }
    if end > list.len() as i64 {
        return Err(refuse(&format!("list is length {}", list.len())));
    }
    let items = list.iter().skip(start as usize).take((end - start) as usize);
    Ok(Value::list(items.collect::<Result<Vec<_>, _>>()?))
}

fn flatten<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let depth = number(args, 1)?.unwrap_or(1);
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut flat = Vec::new();
    flatten_into(cx, list_of(&args[0])?, depth, &mut flat)?;
    cx.charge(flat.len() as u64)?;
    Ok(Value::list(flat))
}

fn flatten_into<'a>(
    cx: &mut Cx<'a, '_>,
    list: &List<'a>,
    depth: i64,
    into: &mut Vec<Value<'a>>,
) -> Result<(), EvalError> {
    for item in list.iter() {
        cx.work(KEEP)?;
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(cx, &inner, depth - 1, into)?,
            item => into.push(item),
        }
    }
    Ok(())
}

/// The items in the order of their keys; equal keys keep theirs.
pub(crate) fn sorted_by<'a>(
    cx: &mut Cx<'a, '_>,
    items: &[Value<'a>],
    keys: &[Value<'a>],
) -> Evaluated<'a> {
    // Each is compared so often; long texts that begin alike are walked each time.
    let rounds = u64::from(usize::BITS - keys.len().leading_zeros());
    let blocks = |key: &Value<'_>| match key {
        Value::String(text) => 1 + text.as_str().len() as u64 / 64,
        Value::Bytes(bytes) => 1 + bytes.len() as u64 / 64,
        _ => 1,
    };
    cx.work(keys.iter().map(blocks).sum::<u64>().saturating_mul(rounds))?;
    // All keys compare with the first, or none is sorted.
    for key in keys {
        if key.type_name() != keys[0].type_name() {
            return Err(EvalError::new("list elements must have the same type"));
        }
        compare(&keys[0], key).map_err(|_| EvalError::new("list elements must be comparable"))?;
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|a, b| compare(&keys[*a], &keys[*b]).ok().flatten().unwrap_or(Ordering::Equal));
    Ok(Value::list(order.into_iter().map(|index| items[index].clone()).collect()))
}

fn distinct<'a>(cx: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut kept: Vec<Value<'a>> = Vec::new();
    for item in list_of(&args[0])?.iter() {
        let item = item?;
        let mut known = false;
        for one in &kept {
            known = known || equality::equal(cx, one, &item)?;
        }
        if !known {
            kept.push(item);
        }
    }
    Ok(Value::list(kept))
}
