//! Ranges: what a request finds in the keys now or at an older revision, and how it wants it shown.

use crate::{
    compaction,
    keys::Span,
    proto::rpc::{
        RangeRequest, RangeResponse, ResponseHeader,
        range_request::{SortOrder, SortTarget},
    },
    record::{KEYS, key_at, key_value, open},
    status,
};
use raft_store::{Revision, Store, Stored, View};
use std::{cmp::Ordering, sync::Arc};
use tonic::Status;

/// Keys in a range, in order: all of them, or the first ones.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) items: Vec<Arc<Stored>>,
    /// In the whole range.
    pub(crate) count: usize,
}

impl Found {
    pub(crate) fn all(items: Vec<Arc<Stored>>) -> Found {
        Found { count: items.len(), items }
    }
}

pub(crate) fn check(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(status::invalid_sort());
    }
    Ok(())
}

pub(crate) fn span(request: &RangeRequest) -> Span {
    Span::new(&request.key, &request.range_end)
}

/// How many of the first keys are enough to answer; `None`: all.
fn enough(request: &RangeRequest) -> Option<usize> {
    if request.count_only {
        return Some(0);
    }
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0)?;
    let first = match (request.sort_target(), request.sort_order()) {
        (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => limit,
        // Without an order, etcd sorts the first keys of the range and one more, not the range.
        (_, SortOrder::None) => limit.saturating_add(1),
        _ => return None,
    };
    (!filters(request)).then_some(first)
}

fn filters(request: &RangeRequest) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    bounds.iter().any(|bound| *bound != 0)
}

/// What the request finds at the revision of the view.
pub(crate) fn now(view: &View<'_>, request: &RangeRequest) -> Found {
    match span(request) {
        Span::One(path) => {
            let item = view.get(&key_at(&path)).cloned();
            let count = usize::from(item.is_some());
            Found { items: item.into_iter().take(enough(request).unwrap_or(1)).collect(), count }
        }
        Span::Many(from, until) => {
            let mut between = view.between(KEYS, &from, until.as_deref());
            let first = enough(request).unwrap_or(usize::MAX);
            let items: Vec<_> = between.by_ref().take(first).cloned().collect();
            let count = items.len() + between.count();
            Found { items, count }
        }
    }
}

/// The revision a request asks for; `None`: the newest.
pub(crate) fn asked(request: &RangeRequest) -> Option<Revision> {
    u64::try_from(request.revision).ok().filter(|revision| *revision > 0).map(Revision)
}

/// Whether what was at a revision can be read.
pub(crate) fn readable(view: &View<'_>, at: Revision) -> Result<(), Status> {
    if at > view.revision() {
        return Err(status::future_revision());
    }
    if at < view.floor().max(compaction::asked(view)) {
        return Err(status::compacted());
    }
    Ok(())
}

/// What the request finds, and the revision of the state it was read from.
pub(crate) async fn find(
    store: &Store,
    request: &RangeRequest,
) -> Result<(Found, Revision), Status> {
    let asked = asked(request);
    let looked = store.look(|view| {
        let revision = view.revision();
        match asked.filter(|asked| *asked != revision) {
            None => Ok((Some(now(view, request)), revision)),
            Some(older) => readable(view, older).map(|()| (None, revision)),
        }
    })?;
    match looked {
        (Some(found), revision) => Ok((found, revision)),
        (None, revision) => {
            let at = asked.unwrap_or(revision);
            Ok((at_revision(store, &span(request), enough(request), at).await?, revision))
        }
    }
}

/// The first keys of a span (`None`: all) as they were at a revision.
pub(crate) async fn at_revision(
    store: &Store,
    span: &Span,
    first: Option<usize>,
    at: Revision,
) -> Result<Found, Status> {
    if let Span::One(path) = span {
        // The key itself is the first with itself as prefix.
        let page = store.range_at(KEYS, path, None, Some(1), at).await.map_err(status::of)?;
        return Ok(Found::all(
            page.items.into_iter().filter(|item| item.key.path == *path).collect(),
        ));
    }
    if let Some((prefix, after)) = span.page() {
        let page = store.range_at(KEYS, &prefix, after, first, at).await.map_err(status::of)?;
        let count = page.items.len() + page.remaining as usize;
        return Ok(Found { items: page.items, count });
    }
    let page = store.range_at(KEYS, span.prefix(), None, None, at).await.map_err(status::of)?;
    let mut items = page.items;
    items.retain(|item| span.contains(&item.key.path));
    Ok(Found::all(items))
}

/// What was found as the request wants it: filtered, sorted, cut.
pub(crate) fn answer(
    request: &RangeRequest,
    found: Found,
    header: Option<ResponseHeader>,
) -> RangeResponse {
    let Found { mut items, count } = found;
    let mut response = RangeResponse { header, count: count as i64, ..RangeResponse::default() };
    if request.count_only {
        return response;
    }
    items.truncate(enough(request).unwrap_or(usize::MAX));
    let missing = items.len() < count;
    items.retain(|item| passes(request, item));
    sort(request, &mut items);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let limit = limit.unwrap_or(usize::MAX);
    response.more = missing || items.len() > limit;
    items.truncate(limit);
    response.kvs = items.iter().map(|item| key_value(item, request.keys_only)).collect();
    response
}

fn passes(request: &RangeRequest, item: &Stored) -> bool {
    let (changed, created) = (item.revision.0.cast_signed(), item.created.0.cast_signed());
    let from = |bound: i64, value: i64| bound == 0 || value >= bound;
    let to = |bound: i64, value: i64| bound == 0 || value <= bound;
    from(request.min_mod_revision, changed)
        && to(request.max_mod_revision, changed)
        && from(request.min_create_revision, created)
        && to(request.max_create_revision, created)
}

fn sort(request: &RangeRequest, items: &mut [Arc<Stored>]) {
    let compare: fn(&Arc<Stored>, &Arc<Stored>) -> Ordering = match request.sort_target() {
        SortTarget::Key => |a, b| a.key.path.cmp(&b.key.path),
        SortTarget::Version => |a, b| a.version.cmp(&b.version),
        SortTarget::Create => |a, b| a.created.cmp(&b.created),
        SortTarget::Mod => |a, b| a.revision.cmp(&b.revision),
        SortTarget::Value => |a, b| open(&a.body).1.cmp(&open(&b.body).1),
    };
    match (request.sort_order(), request.sort_target()) {
        // As it comes.
        (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => {}
        (SortOrder::None | SortOrder::Ascend, _) => items.sort_by(compare),
        (SortOrder::Descend, _) => items.sort_by(|a, b| compare(b, a)),
    }
}
