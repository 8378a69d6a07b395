//! One watch per kind for the whole process: keeps the world up to date and tells listeners what
//! changed. Survives disconnects by resuming at its revision, and lost history by starting over.

use crate::world::{Entry, decode};
use crate::{Backoff, Change, Controller, Derived, Key, KindInfo, Metrics, View, World};
use futures::StreamExt;
use k8s::{Api, Object, Revision, Status, WatchEvent, WatchRequest};
use prometheus::Registry;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Called for every change with the world after it, under the world's lock: it must only note what
/// to do.
pub type Listener = Arc<dyn Fn(&World, &Change) + Send + Sync>;

/// Makes of an object what a view wants to hear of it; `None`: nothing.
pub type Derive = fn(&Object) -> Option<Derived>;

/// Collects what a cache is to watch.
pub struct CacheBuilder {
    api: Arc<dyn Api>,
    kinds: Vec<KindInfo>,
    world: World,
    derives: BTreeMap<KindInfo, Derive>,
    metrics: Arc<Metrics>,
    passing: Option<watch::Receiver<Vec<KindInfo>>>,
}

impl CacheBuilder {
    pub fn new(api: Arc<dyn Api>, registry: &Registry) -> CacheBuilder {
        let metrics = Arc::new(Metrics::new(registry));
        CacheBuilder {
            api,
            kinds: Vec::new(),
            world: World::default(),
            derives: BTreeMap::new(),
            metrics,
            passing: None,
        }
    }

    /// Watches everything the controllers look at.
    pub fn controllers(self, controllers: &[Controller]) -> CacheBuilder {
        let needs: Vec<KindInfo> = controllers.iter().flat_map(Controller::needs).collect();
        self.kinds(needs)
    }

    pub fn kinds(mut self, kinds: impl IntoIterator<Item = KindInfo>) -> CacheBuilder {
        self.kinds.extend(kinds);
        self
    }

    /// Watches these too, as they come and go.
    pub fn passing(mut self, kinds: watch::Receiver<Vec<KindInfo>>) -> CacheBuilder {
        self.passing = Some(kinds);
        self
    }

    pub fn view(mut self, view: impl View) -> CacheBuilder {
        self.world.set_view(view);
        self
    }

    /// Has `derive` look at every whole object of `kind`, of which the cache may keep a part. Views
    /// find what it made in [`Entry::into_derived`].
    pub fn derive(mut self, kind: KindInfo, derive: Derive) -> CacheBuilder {
        self.derives.insert(kind, derive);
        self
    }

    pub fn fact(mut self, fact: impl Any + Send + Sync) -> CacheBuilder {
        self.world.set_fact(fact);
        self
    }

    pub fn build(mut self) -> Arc<Cache> {
        for kind in self.kinds {
            self.world.add_kind(kind);
        }
        Arc::new(Cache {
            api: self.api,
            world: RwLock::new(self.world),
            derives: self.derives,
            listeners: RwLock::default(),
            progress: watch::Sender::new(0),
            started: Instant::now(),
            metrics: self.metrics,
            passing: self.passing,
        })
    }
}

/// The world behind a lock, and the watches that feed it. Its promise is written at [`World`].
pub struct Cache {
    api: Arc<dyn Api>,
    world: RwLock<World>,
    derives: BTreeMap<KindInfo, Derive>,
    listeners: RwLock<Vec<Listener>>,
    /// Counts changes of the world, for those who wait for one.
    progress: watch::Sender<u64>,
    started: Instant,
    metrics: Arc<Metrics>,
    passing: Option<watch::Receiver<Vec<KindInfo>>>,
}

/// The watches of kinds that come and go.
type Passing = BTreeMap<KindInfo, (usize, AbortHandle)>;

/// Why following a watch ended.
enum End {
    /// Resume after the last revision seen.
    Closed,
    /// History is gone: start over.
    Expired,
}

impl Cache {
    /// The world now. Not to be held across an await.
    pub fn read(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().expect("nothing panics while it changes the world")
    }

    /// Replaces a fact; controllers that depend on it are to be woken by whoever changes it.
    pub fn set_fact(&self, fact: impl Any + Send + Sync) {
        self.write().set_fact(fact);
        self.progress.send_modify(|count| *count += 1);
    }

    /// Since the cache was built, on the monotonic clock.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Changes whenever the world does.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Waits until `holds` says so of the world; false if it does not within `bound`.
    pub async fn wait_until(&self, bound: Duration, holds: impl Fn(&World) -> bool) -> bool {
        let mut progress = self.progress();
        let waiting = async {
            loop {
                progress.borrow_and_update();
                if holds(&self.read()) {
                    return;
                }
                if progress.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(bound, waiting).await.is_ok()
    }

    /// Adds a listener; it hears of changes from now on. Add it before [`Cache::run`] to hear all.
    pub fn listen(&self, listener: Listener) {
        let mut listeners = self.listeners.write().expect("nothing panics while it adds one");
        listeners.push(listener);
    }

    /// Watches until `shutdown`. Each watch is a task of this call and ends with it.
    pub async fn run(self: &Arc<Self>, shutdown: CancellationToken) {
        let kinds: Vec<KindInfo> = self.read().kinds().copied().collect();
        let mut tasks = JoinSet::new();
        for (index, kind) in kinds.into_iter().enumerate() {
            let cache = self.clone();
            tasks.spawn(async move { cache.watch_kind(index, kind).await });
        }
        let mut wanted = self.passing.clone();
        let mut watched = Passing::new();
        if let Some(wanted) = &mut wanted {
            wanted.mark_changed();
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => match ended {
                    Err(error) if error.is_panic() => {
                        std::panic::resume_unwind(error.into_panic());
                    }
                    // A watch ends when its kind does.
                    _ => {}
                },
                now = changed(&mut wanted) => self.follow_kinds(&now, &mut watched, &mut tasks),
            }
        }
        tasks.shutdown().await;
    }

    /// Ends the watches of kinds that are no more, and begins those of new ones.
    fn follow_kinds(
        self: &Arc<Self>,
        wanted: &[KindInfo],
        watched: &mut Passing,
        tasks: &mut JoinSet<()>,
    ) {
        let gone: Vec<KindInfo> =
            watched.keys().filter(|kind| !wanted.contains(kind)).copied().collect();
        for kind in gone {
            let Some((index, task)) = watched.remove(&kind) else { continue };
            task.abort();
            let listeners =
                self.listeners.read().expect("nothing panics while it adds one").clone();
            let mut world = self.write();
            for change in world.retire(index) {
                listeners.iter().for_each(|listener| listener(&world, &change));
            }
            self.metrics.cache_objects.with_label_values(&[&kind.to_string()]).set(0);
        }
        for kind in wanted {
            if watched.contains_key(kind) {
                continue;
            }
            let Some(index) = self.write().add_passing(*kind) else { continue };
            let (cache, kind) = (self.clone(), *kind);
            let task = tasks.spawn(async move { cache.watch_kind(index, kind).await });
            watched.insert(kind, (index, task));
        }
        self.progress.send_modify(|count| *count += 1);
    }

    async fn watch_kind(self: Arc<Self>, index: usize, kind: KindInfo) {
        let mut failures = 0;
        // Until the whole state has been received once, and again after history was lost.
        let mut listing = true;
        loop {
            if listing {
                self.metrics.cache_relists.with_label_values(&[&kind.to_string()]).inc();
            }
            match self.follow(index, kind, &mut listing, &mut failures).await {
                Ok(End::Closed) => (),
                Ok(End::Expired) => listing = true,
                Err(status) => {
                    tracing::warn!(%kind, %status, failures, "watch failed; trying again");
                    failures += 1;
                }
            }
            let jitter = rand::random();
            tokio::time::sleep(Backoff::CONNECT.delay(failures, jitter)).await;
        }
    }

    async fn follow(
        &self,
        index: usize,
        kind: KindInfo,
        listing: &mut bool,
        failures: &mut u32,
    ) -> Result<End, Status> {
        let after = (!*listing).then(|| self.read().progress(&kind));
        let request = WatchRequest {
            resource: kind.resource(),
            namespace: String::new(),
            label_selector: None,
            field_selector: None,
            after,
        };
        let events = match self.api.watch(request).await {
            Ok(events) => events,
            Err(status) if status.is_expired() => return Ok(End::Expired),
            Err(status) => return Err(status),
        };
        // As many as are ready are applied under one lock; 256 keeps readers from waiting long.
        let mut events = events.ready_chunks(256);
        let mut listed = listing.then(BTreeSet::new);
        while let Some(chunk) = events.next().await {
            *failures = 0;
            let mut decoded = Vec::with_capacity(chunk.len());
            let mut end = None;
            for event in chunk {
                match event {
                    Ok(event) => decoded.push(self.decode(&kind, event)),
                    Err(status) if status.is_expired() => end = Some(Ok(End::Expired)),
                    Err(status) => end = Some(Err(status)),
                }
            }
            self.apply(index, &kind, decoded, &mut listed);
            *listing = listed.is_some();
            if let Some(end) = end {
                return end;
            }
        }
        Ok(End::Closed)
    }

    fn decode(&self, kind: &KindInfo, event: WatchEvent) -> Decoded {
        let seen = self.uptime();
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let derived = self.derives.get(kind).and_then(|derive| derive(&object));
                Decoded::Put(Entry { derived, ..decode(kind, &object, seen) })
            }
            WatchEvent::Deleted(object) => {
                Decoded::Gone(Key::new(object.namespace(), object.name()), revision(&object))
            }
            WatchEvent::Bookmark { revision, initial_events_end } => {
                Decoded::Upto(revision, initial_events_end)
            }
        }
    }

    fn apply(
        &self,
        index: usize,
        kind: &KindInfo,
        events: Vec<Decoded>,
        listed: &mut Option<BTreeSet<Key>>,
    ) {
        let listeners = self.listeners.read().expect("nothing panics while it adds one").clone();
        let label = kind.to_string();
        let mut world = self.write();
        let mut count = 0;
        for event in events {
            for change in apply_one(&mut world, index, event, listed) {
                count += 1;
                for listener in &listeners {
                    listener(&world, &change);
                }
            }
        }
        let objects = world.entries(kind).count() as i64;
        drop(world);
        self.metrics.cache_objects.with_label_values(&[&label]).set(objects);
        self.metrics.cache_events.with_label_values(&[&label]).inc_by(count);
        self.progress.send_modify(|count| *count += 1);
    }

    fn write(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().expect("nothing panics while it changes the world")
    }
}

/// The kinds that come and go, when they have; never, if there are none.
async fn changed(kinds: &mut Option<watch::Receiver<Vec<KindInfo>>>) -> Vec<KindInfo> {
    if let Some(receiver) = kinds
        && receiver.changed().await.is_ok()
    {
        return receiver.borrow_and_update().clone();
    }
    // Whoever told of them is gone: they stay as they are.
    std::future::pending().await
}

/// An event after the expensive part, which needs no lock.
enum Decoded {
    Put(Entry),
    Gone(Key, Revision),
    Upto(Revision, bool),
}

fn revision(object: &Object) -> Revision {
    object.revision().unwrap_or_default()
}

fn apply_one(
    world: &mut World,
    index: usize,
    event: Decoded,
    listed: &mut Option<BTreeSet<Key>>,
) -> Vec<Change> {
    match event {
        Decoded::Put(entry) => {
            if let Some(listed) = listed {
                listed.insert(entry.key.clone());
            }
            world.put(index, entry, listed.is_none()).into_iter().collect()
        }
        Decoded::Gone(key, revision) => {
            if let Some(listed) = listed {
                listed.remove(&key);
            }
            world.remove(index, &key, revision).into_iter().collect()
        }
        Decoded::Upto(_, false) if listed.is_some() => Vec::new(),
        Decoded::Upto(revision, false) => {
            world.advance(index, revision);
            Vec::new()
        }
        Decoded::Upto(revision, true) => {
            world.advance(index, revision);
            world.set_complete(index);
            let Some(listed) = listed.take() else { return Vec::new() };
            // What the whole state has not got was deleted while nobody watched.
            let gone = world.keys(index).into_iter().filter(|key| !listed.contains(key));
            let gone: Vec<Key> = gone.collect();
            gone.iter().filter_map(|key| world.remove(index, key, revision)).collect()
        }
    }
}
