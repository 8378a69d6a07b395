//! Watch: the present state as events if asked for, then every change, then bookmarks.
//!
//! A feed holds a cursor into the store's history and no queue: whoever does not read costs no
//! memory, and is told `410 Expired` when it comes back later than history reaches.

use super::{Core, Selection, convert, read};
use crate::{
    catalog::Catalog,
    custom::Converter,
    encode, errors,
    kind::Kind,
    kinds::{Foreign, KindDef},
    memo,
};
use k8s::{FieldError, Object, Options, Revision, Status, WatchEvent};
use raft_store::{Change, Error, Stored, Watch};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

/// Upstream's bookmark frequency.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark is sent this long before the end, so that a resumed watch starts late.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How long a watch waits for the revision it resumes after, on a member that is behind.
// Longer than a lagging member needs to catch up after a failover: a refusal makes clients list again.
const RESUME_WAIT: Duration = Duration::from_secs(30);
/// How many initial objects become one batch.
// As many as one call of the store's watch returns.
const BATCH: usize = 512;

/// What a watch asks for.
pub(crate) struct WatchCall {
    pub(crate) kind: Kind,
    /// The version the events go out in.
    pub(crate) version: String,
    pub(crate) namespace: String,
    /// Selectors, resource version and match.
    pub(crate) options: Options,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) bookmarks: bool,
    /// `None`: until the client leaves.
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

impl EventKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            EventKind::Added => "ADDED",
            EventKind::Modified => "MODIFIED",
            EventKind::Deleted => "DELETED",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// `revision` is the object's own, or that of its deletion (or of leaving the selection).
    Object {
        kind: EventKind,
        stored: Arc<Stored>,
        revision: Revision,
    },
    Bookmark {
        revision: Revision,
        initial_events_end: bool,
    },
}

/// One watch under way.
pub(crate) struct Feed {
    selection: Selection,
    /// How the objects look in the version asked for, if not as they are stored.
    foreign: Option<&'static Foreign>,
    converter: Arc<Converter>,
    /// How custom kinds come, change and go.
    catalogs: watch::Receiver<Arc<Catalog>>,
    initial: std::vec::IntoIter<Arc<Stored>>,
    /// The bookmark that ends the initial events, if asked for, until it was sent.
    initial_end: Option<Revision>,
    watch: Watch,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Option<Instant>,
    ended: bool,
}

impl Core {
    /// Starts a watch. An `Err` belongs into the stream as an `ERROR` event if it is of the
    /// history (410, 504), as upstream's watch cache does it.
    pub(crate) async fn watch(&self, call: WatchCall) -> Result<Feed, Status> {
        validate_watch_options(&call)?;
        let selection = Selection::new(&call.kind, &call.options)?;
        let asked = read::revision_asked(call.options.resource_version.as_deref())?;
        let listed = match (asked, call.send_initial_events) {
            (None | Some(Revision(0)), None) | (_, Some(true)) => true,
            (Some(_), None) | (_, Some(false)) => false,
        };
        match asked {
            None => self.barrier().await?,
            Some(Revision(0)) => {}
            Some(revision) if listed => self.wait_for(revision).await?,
            Some(revision) => self.catch_up(revision).await?,
        }
        let (space, prefix) = (call.kind.space(), read::prefix(&call.kind, &call.namespace));
        let (initial, after) = if listed {
            let page = self.store.range(&space, &prefix, None, None);
            (page.items, page.revision)
        } else {
            let from = asked.filter(|revision| revision.0 != 0);
            (Vec::new(), from.map_or(self.store.revision(), |from| raft_store::Revision(from.0)))
        };
        let watch =
            self.store.watch(&space, &prefix, after).map_err(|error| too_old(error, after))?;
        let ends = listed && call.send_initial_events == Some(true) && call.bookmarks;
        let now = Instant::now();
        Ok(Feed {
            selection,
            foreign: call.kind.foreign(&call.version),
            converter: self.converter.clone(),
            catalogs: self.catalogs.changes(),
            initial: initial.into_iter(),
            initial_end: ends.then(|| encode::revision(after)),
            watch,
            bookmarks: call.bookmarks,
            next_bookmark: now + BOOKMARK_EVERY,
            end: call.timeout.map(|timeout| now + timeout),
            ended: false,
        })
    }
}

impl Core {
    /// Waits for what the client has seen on another member. `Err` is a 429: clients then ask for the
    /// same watch again, where any other refusal would make them list.
    async fn catch_up(&self, revision: Revision) -> Result<(), Status> {
        match self.store.wait_for(raft_store::Revision(revision.0), RESUME_WAIT).await {
            Err(Error::Unavailable { .. } | Error::Future { .. }) => {
                let why = format!("this master has not reached revision {revision} yet");
                Err(Status::too_many_requests(why, 1))
            }
            result => result.map_err(errors::status),
        }
    }
}

impl Feed {
    /// The next events, at least one; `None` when the time is up, or when this member cannot go on:
    /// the client resumes elsewhere; or when the kind is no more. Once cancelled, a feed is of no more
    /// use: it may have lost what it was converting.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<Event>, Status>> {
        loop {
            if self.ended {
                return None;
            }
            match self.initial_events().await {
                Ok(None) => {}
                Ok(Some(events)) => return Some(Ok(events)),
                Err(status) => {
                    self.ended = true;
                    return Some(Err(status));
                }
            }
            let bookmark_at = self.bookmark_at();
            tokio::select! {
                biased;
                changes = self.watch.next() => match changes {
                    Ok(changes) => match self.select(changes).await {
                        Ok(events) if events.is_empty() => {}
                        Ok(events) => return Some(Ok(events)),
                        Err(status) => {
                            self.ended = true;
                            return Some(Err(status));
                        }
                    },
                    Err(error @ Error::Compacted { .. }) => {
                        self.ended = true;
                        return Some(Err(too_old(error, self.watch.position())));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a watch ends for its client to resume elsewhere");
                        self.ended = true;
                        return None;
                    }
                },
                changed = self.catalogs.changed(), if self.selection.kind.is_custom() => {
                    if changed.is_err() || !self.renew() {
                        self.ended = true;
                        return None;
                    }
                }
                () = sleep_until(bookmark_at) => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    return Some(Ok(vec![self.bookmark()]));
                }
                () = sleep_until(self.end) => {
                    self.ended = true;
                    return None;
                }
            }
        }
    }

    async fn initial_events(&mut self) -> Result<Option<Vec<Event>>, Status> {
        loop {
            let batch: Vec<Arc<Stored>> = self.initial.by_ref().take(BATCH).collect();
            let batch = self.converter.served(&self.selection.kind, batch).await?;
            let matching = batch.into_iter().filter(|stored| self.selection.matches(stored));
            let mut events: Vec<Event> = matching
                .map(|stored| {
                    let revision = encode::revision(stored.revision);
                    self.foreign_form(Event::Object { kind: EventKind::Added, stored, revision })
                })
                .collect();
            if self.initial.len() == 0
                && let Some(revision) = self.initial_end.take()
            {
                events.push(Event::Bookmark { revision, initial_events_end: true });
            }
            if !events.is_empty() || self.initial.len() == 0 {
                return Ok((!events.is_empty()).then_some(events));
            }
        }
    }

    /// The changes as this selection sees them: entering it is `ADDED`, leaving it `DELETED`.
    async fn select(&self, changes: Vec<Arc<Change>>) -> Result<Vec<Event>, Status> {
        let changes = self.shown(changes).await?;
        let events = changes.iter().filter_map(|change| select(&self.selection, change));
        Ok(events.map(|event| self.foreign_form(event)).collect())
    }

    /// The event in the version asked for, once it is selected by what is stored.
    fn foreign_form(&self, event: Event) -> Event {
        match (event, self.foreign) {
            (Event::Object { kind, stored, revision }, Some(foreign)) => {
                Event::Object { kind, stored: convert::shown(foreign, &stored), revision }
            }
            (event, _) => event,
        }
    }

    /// Changes of a custom kind in the version that is watched.
    async fn shown(&self, changes: Vec<Arc<Change>>) -> Result<Vec<Arc<Change>>, Status> {
        let kind = &self.selection.kind;
        if !kind.is_custom() {
            return Ok(changes);
        }
        let sides = changes.iter().flat_map(|change| [&change.old, &change.new]).flatten();
        let shown = self.converter.served(kind, sides.cloned().collect()).await?;
        let mut shown = shown.into_iter();
        let shown = changes.iter().map(|change| {
            let mut next = |side: &Option<Arc<Stored>>| side.as_ref().and_then(|_| shown.next());
            let (old, new) = (next(&change.old), next(&change.new));
            Arc::new(Change { revision: change.revision, place: change.place, old, new })
        });
        Ok(shown.collect())
    }

    /// Goes on with the kind as it is defined now; false if it is no more.
    fn renew(&mut self) -> bool {
        let kind = &self.selection.kind;
        let now = self.catalogs.borrow_and_update().find(kind.group, kind.versions[0], kind.plural);
        let Some(now) = now else { return false };
        self.selection.kind = now;
        true
    }

    /// When the next bookmark is due: each minute, and shortly before the end.
    fn bookmark_at(&self) -> Option<Instant> {
        if !self.bookmarks {
            return None;
        }
        let last = self.end.and_then(|end| end.checked_sub(BOOKMARK_BEFORE_END));
        let last = last.filter(|last| *last > self.next_bookmark - BOOKMARK_EVERY);
        Some(last.map_or(self.next_bookmark, |last| last.min(self.next_bookmark)))
    }

    fn bookmark(&self) -> Event {
        let revision = encode::revision(self.watch.position());
        Event::Bookmark { revision, initial_events_end: false }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn select(selection: &Selection, change: &Change) -> Option<Event> {
    let matching = |side: &Option<Arc<Stored>>| {
        side.as_ref().filter(|stored| selection.matches(stored)).cloned()
    };
    let (kind, stored) = match (matching(&change.old), matching(&change.new)) {
        (None, None) => return None,
        (None, Some(new)) => (EventKind::Added, new),
        (Some(_), Some(new)) => (EventKind::Modified, new),
        // The last state that matched, at the revision at which it ceased to.
        (Some(old), None) => (EventKind::Deleted, old),
    };
    Some(Event::Object { kind, stored, revision: encode::revision(change.revision) })
}

/// Upstream's `ValidateListOptions` for a watch.
fn validate_watch_options(call: &WatchCall) -> Result<(), Status> {
    let field = "resourceVersionMatch";
    let matching = call.options.resource_version_match.as_deref().unwrap_or_default();
    let mut errors = Vec::new();
    if call.send_initial_events.is_some() && matching != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(FieldError::forbidden(field, why));
    }
    if !matching.is_empty() {
        if call.send_initial_events.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                       provided";
            errors.push(FieldError::forbidden(field, why));
        }
        if matching != "NotOlderThan" {
            errors.push(FieldError::not_supported(field, matching.into(), &["NotOlderThan"]));
        }
        if call.options.continue_token.as_deref().is_some_and(|token| !token.is_empty()) {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(field, why));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(read::list_options_invalid(&errors)) }
}

fn too_old(error: Error, asked: raft_store::Revision) -> Status {
    match error {
        Error::Compacted { oldest } => {
            Status::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        error => errors::status(error),
    }
}

/// A bookmark as an object: its kind, its revision and, at the end of the initial events, the
/// annotation of KEP-3157.
pub(crate) fn bookmark_object(
    kind: &KindDef,
    version: &str,
    revision: Revision,
    initial_events_end: bool,
) -> Object {
    let mut object = Object::default();
    encode::stamp(&mut object, kind, version);
    encode::stamp_revision(&mut object, revision);
    if initial_events_end {
        let annotations = json!({ "k8s.io/initial-events-end": "true" });
        object.metadata_mut().insert("annotations".into(), annotations);
    }
    object
}

/// The event as a value for a watcher in the process; the tree is shared among all of them.
pub(crate) fn typed(event: Event) -> WatchEvent {
    match event {
        Event::Bookmark { revision, initial_events_end } => {
            WatchEvent::Bookmark { revision, initial_events_end }
        }
        Event::Object { kind: EventKind::Added, stored, .. } => {
            WatchEvent::Added(memo::object(&stored))
        }
        Event::Object { kind: EventKind::Modified, stored, .. } => {
            WatchEvent::Modified(memo::object(&stored))
        }
        Event::Object { kind: EventKind::Deleted, stored, revision } => {
            let mut object = memo::parse(&stored);
            encode::stamp_revision(&mut object, revision);
            WatchEvent::Deleted(Arc::new(object))
        }
    }
}
