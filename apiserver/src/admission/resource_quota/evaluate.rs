//! One request against the quotas of its namespace, in upstream's order and words.

use super::{
    Cx, Operation, SPACE,
    quota::Quota,
    usage::{self, increase, masked, pretty, sum},
};
use crate::{
    admission::resources::{List, to_value},
    encode, memo,
};
use k8s::{Object, Status};
use raft_store::{Guard, Op, Stored, Write};
use std::{collections::BTreeSet, sync::Arc};

/// The quotas after the request, each guarded on the version it was computed from.
pub(super) fn charge(cx: &Cx<'_>, object: &Object) -> Result<Vec<Write>, Status> {
    let space = cx.kind.space();
    let now = jiff::Timestamp::now();
    let asked = usage::of(&space, object, now);
    let old = cx.old.filter(|_| cx.operation == Operation::Update);
    let mut writes = Vec::new();
    for stored in cx.view.range(SPACE, &format!("{}/", cx.namespace)) {
        let quota = memo::derived(&stored, Quota::of);
        let restricted = Quota::tracked(&quota.hard, &space);
        if restricted.is_empty() || !quota.covers(&space, object) {
            continue;
        }
        refuse_unknown(cx, object, &quota, &restricted)?;
        let negative: BTreeSet<&str> = asked
            .iter()
            .filter(|(_, amount)| amount.sign() < 0)
            .map(|(name, _)| name.as_str())
            .collect();
        if !negative.is_empty() {
            let names: Vec<&str> = negative.into_iter().collect();
            let why = format!("quota usage is negative for resource(s): {}", names.join(","));
            return Err(cx.forbidden(object, why));
        }
        let before = old.filter(|old| quota.covers(&space, old));
        let before = before.map(|old| usage::of(&space, old, now)).unwrap_or_default();
        let more = masked(&increase(&asked, &before), &restricted);
        if more.is_empty() {
            continue;
        }
        let used = sum(&quota.used, &more);
        refuse_excess(cx, object, &quota, &more, &used)?;
        writes.push(put(&stored, &used));
    }
    Ok(writes)
}

/// A pod must say how much it wants of what is limited, and a quota must have been counted.
fn refuse_unknown(
    cx: &Cx<'_>,
    object: &Object,
    quota: &Quota,
    restricted: &BTreeSet<&str>,
) -> Result<(), Status> {
    if (cx.kind.group, cx.kind.plural) == ("", "pods")
        && let Some(missing) = usage::unnamed(object, restricted)
    {
        return Err(cx.forbidden(object, format!("failed quota: {}: {missing}", quota.name)));
    }
    if restricted.iter().all(|name| quota.used.contains_key(*name)) {
        return Ok(());
    }
    let names: Vec<&str> = restricted.iter().copied().collect();
    let why = format!("status unknown for quota: {}, resources: {}", quota.name, names.join(","));
    Err(cx.forbidden(object, why))
}

fn refuse_excess(
    cx: &Cx<'_>,
    object: &Object,
    quota: &Quota,
    more: &List,
    used: &List,
) -> Result<(), Status> {
    // Status only tells what has happened already.
    if cx.subresource == "status" {
        return Ok(());
    }
    let over = more.keys().filter(|name| used[*name] > quota.hard[*name]);
    let over: BTreeSet<&str> = over.map(String::as_str).collect();
    if over.is_empty() {
        return Ok(());
    }
    let why = format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        quota.name,
        pretty(&masked(more, &over)),
        pretty(&masked(&quota.used, &over)),
        pretty(&masked(&quota.hard, &over)),
    );
    Err(cx.forbidden(object, why))
}

fn put(stored: &Arc<Stored>, used: &List) -> Write {
    let mut object = memo::parse(stored);
    encode::strip(&mut object);
    object.map_mut("status").insert("used".into(), to_value(used));
    Write {
        key: stored.key.clone(),
        guard: Guard::At(stored.revision),
        op: Op::Put(encode::body(&object)),
    }
}
