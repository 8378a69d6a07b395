//! Every object this process watches, with the indexes plans need. A value: it is told of changes
//! and never asks anybody.

use crate::kind::{Typed, decoder};
use crate::{Cached, Derived, Key, KindInfo, Pod, kinds, matches};
use k8s::{Object, OwnerReference, Revision};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::{sync::Arc, time::Duration};

/// What is known of every object, whatever its kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    pub uid: Arc<str>,
    pub revision: Revision,
    pub deleting: bool,
    pub finalizers: Vec<String>,
    pub owners: Vec<OwnerReference>,
}

impl Meta {
    pub fn of(object: &Object) -> Meta {
        Meta {
            uid: object.uid().into(),
            revision: object.revision().unwrap_or_default(),
            deleting: object.deletion_timestamp().is_some(),
            finalizers: object.finalizers().map(str::to_string).collect(),
            owners: object.owner_references(),
        }
    }

    /// The owner reference with `controller: true`.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owners.iter().find(|owner| owner.controller)
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == name)
    }
}

/// One version of one object.
#[derive(Clone)]
pub struct Entry {
    pub key: Key,
    pub meta: Arc<Meta>,
    /// When this version reached the cache, on the scale of [`crate::Context::uptime`].
    pub seen: Duration,
    pub(crate) typed: Option<Typed>,
    /// Only in the news of a change; the world does not keep it.
    pub(crate) derived: Option<Derived>,
}

impl Entry {
    /// The typed object; `None` for a kind kept as metadata, and for one that did not decode.
    pub fn typed<K: Cached>(&self) -> Option<&K> {
        self.typed.as_ref()?.downcast_ref()
    }

    fn shared<K: Cached>(&self) -> Option<Arc<K>> {
        self.typed.clone()?.downcast().ok()
    }

    /// What [`crate::CacheBuilder::derive`] made of this version, in the news of its change; `None`
    /// in the world and in what a change replaces.
    pub fn into_derived<T: Any + Send + Sync>(self) -> Option<Arc<T>> {
        self.derived?.downcast().ok()
    }
}

/// One change of one object: made (`old` is `None`), changed, or gone (`new` is `None`).
#[derive(Clone)]
pub struct Change {
    pub kind: KindInfo,
    pub old: Option<Entry>,
    pub new: Option<Entry>,
}

impl Change {
    pub fn key(&self) -> &Key {
        &self.either().expect("a change has an old or a new version").key
    }

    pub fn is<K: Cached>(&self) -> bool {
        self.kind == K::INFO
    }

    /// The newest version there is: after the change, or the last before it was deleted.
    pub fn either(&self) -> Option<&Entry> {
        self.new.as_ref().or(self.old.as_ref())
    }

    pub fn both(&self) -> impl Iterator<Item = &Entry> {
        self.old.iter().chain(&self.new)
    }

    pub fn old_as<K: Cached>(&self) -> Option<&K> {
        self.old.as_ref()?.typed()
    }

    pub fn new_as<K: Cached>(&self) -> Option<&K> {
        self.new.as_ref()?.typed()
    }
}

/// Something derived from the world and kept up to date with it, such as the scheduler's node
/// summaries: told of every change of every kind, in order, before anybody can read the world after it.
pub trait View: Any + Send + Sync {
    fn observe(&mut self, change: &Change);
}

struct Table {
    info: KindInfo,
    entries: BTreeMap<Key, Entry>,
    progress: Revision,
    complete: bool,
    stay: Stay,
}

/// For how long a kind is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    /// As long as the process runs.
    Lasting,
    /// While somebody defines it: it may come and go.
    Passing,
    /// It was and is no more: empty, and nothing more is to be seen of it.
    Gone,
}

/// The cache's promise. For every watched kind and every object of it: if the object stays
/// unchanged, then eventually the world has exactly its last version, or, if it was deleted, has not
/// got it. For every two versions of one object the older is never seen after the newer. Every
/// version with a revision `<= progress(kind)` has been seen. Two kinds may be at different
/// revisions at the same time.
#[derive(Default)]
pub struct World {
    tables: Vec<Table>,
    by_resource: BTreeMap<(&'static str, &'static str), usize>,
    by_uid: HashMap<Arc<str>, (usize, Key)>,
    /// Owner uid to everything that names it in an owner reference.
    dependents: HashMap<Arc<str>, BTreeSet<(usize, Key)>>,
    /// Objects without a controlling owner.
    orphans: BTreeSet<(usize, Key)>,
    pods_by_node: HashMap<String, BTreeSet<Key>>,
    views: HashMap<TypeId, Box<dyn View>>,
    facts: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl World {
    pub fn new(kinds: impl IntoIterator<Item = KindInfo>) -> World {
        let mut world = World::default();
        for kind in kinds {
            world.add_kind(kind);
        }
        world
    }

    /// A complete world of `objects`, for tests of plans.
    pub fn of(kinds: impl IntoIterator<Item = KindInfo>, objects: &[Object]) -> World {
        let mut world = World::new(kinds);
        for object in objects {
            let api_version = object.api_version();
            let found = world.tables.iter().position(|table| {
                table.info.kind == object.kind() && table.info.api_version() == api_version
            });
            let index = found.unwrap_or_else(|| panic!("{} is not watched", object.kind()));
            let entry = world.decode(index, object, Duration::ZERO);
            world.put(index, entry, true);
        }
        for index in 0..world.tables.len() {
            world.tables[index].complete = true;
        }
        world
    }

    pub fn get<K: Cached>(&self, key: &Key) -> Option<&K> {
        self.entry(&K::INFO, key)?.typed()
    }

    /// The object, to be kept beyond the read lock.
    pub fn shared<K: Cached>(&self, key: &Key) -> Option<Arc<K>> {
        self.entry(&K::INFO, key)?.shared()
    }

    pub fn list<K: Cached>(&self) -> impl Iterator<Item = &K> {
        self.entries(&K::INFO).filter_map(Entry::typed)
    }

    pub fn in_namespace<'a, K: Cached>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a K> {
        self.entries_in(&K::INFO, namespace).filter_map(Entry::typed)
    }

    /// Objects of a namespace whose labels match.
    pub fn select<'a, K: Cached>(
        &'a self,
        namespace: &'a str,
        selector: &'a LabelSelector,
    ) -> impl Iterator<Item = &'a K> {
        self.in_namespace::<K>(namespace)
            .filter(|object| matches(selector, object.metadata().labels.as_ref()))
    }

    /// Objects whose controlling owner has `uid`, by name.
    pub fn controlled_by<'a, K: Cached>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a K> {
        let dependents = self.dependents(uid).filter(|(kind, _)| **kind == K::INFO);
        let controlled = dependents.filter(move |(_, entry)| {
            entry.meta.controller().is_some_and(|owner| owner.uid == uid)
        });
        controlled.filter_map(|(_, entry)| entry.typed())
    }

    /// Objects of a namespace that have no controlling owner.
    pub fn orphans<'a, K: Cached>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a K> {
        let index = self.index_of(K::INFO.group, K::INFO.plural);
        let from = index.map(|index| (index, Key::new(namespace, "")));
        let ours = from.into_iter().flat_map(move |from| {
            let index = from.0;
            let range = self.orphans.range(from..);
            range.take_while(move |(at, key)| *at == index && &*key.namespace == namespace)
        });
        ours.filter_map(|(_, key)| self.get::<K>(key))
    }

    /// Pods bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        let keys = self.pods_by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.get::<Pod>(key))
    }

    pub fn entry(&self, kind: &KindInfo, key: &Key) -> Option<&Entry> {
        self.table(kind).entries.get(key)
    }

    pub fn entries(&self, kind: &KindInfo) -> impl Iterator<Item = &Entry> {
        self.table(kind).entries.values()
    }

    pub fn entries_in<'a>(
        &'a self,
        kind: &KindInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Entry> {
        let from = Key::new(namespace, "");
        let entries = self.table(kind).entries.range(from..);
        entries.map(|(_, entry)| entry).take_while(move |e| &*e.key.namespace == namespace)
    }

    /// Every object of every kind.
    pub fn everything(&self) -> impl Iterator<Item = (&KindInfo, &Entry)> {
        let tables = self.tables.iter();
        tables.flat_map(|table| table.entries.values().map(move |entry| (&table.info, entry)))
    }

    pub fn kinds(&self) -> impl Iterator<Item = &KindInfo> {
        self.tables.iter().filter(|table| table.stay != Stay::Gone).map(|table| &table.info)
    }

    /// The watched kind with this group (of any version) and Kind.
    pub fn kind_named(&self, api_version: &str, kind: &str) -> Option<&KindInfo> {
        let group = crate::controller::group_of(api_version);
        self.kinds().find(|info| info.kind == kind && info.group == group)
    }

    pub fn by_uid(&self, uid: &str) -> Option<(&KindInfo, &Entry)> {
        let (index, key) = self.by_uid.get(uid)?;
        let table = &self.tables[*index];
        Some((&table.info, table.entries.get(key)?))
    }

    /// Everything that names `uid` in an owner reference, controlling or not.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = (&KindInfo, &Entry)> {
        let keys = self.dependents.get(uid).into_iter().flatten();
        keys.filter_map(|(index, key)| {
            let table = &self.tables[*index];
            Some((&table.info, table.entries.get(key)?))
        })
    }

    /// What [`World::set_view`] put there.
    pub fn view<V: View>(&self) -> Option<&V> {
        let view: &dyn Any = &**self.views.get(&TypeId::of::<V>())?;
        view.downcast_ref()
    }

    /// Adds a view and tells it of everything already there.
    pub fn set_view<V: View>(&mut self, mut view: V) {
        for table in &self.tables {
            for entry in table.entries.values() {
                view.observe(&Change { kind: table.info, old: None, new: Some(entry.clone()) });
            }
        }
        self.views.insert(TypeId::of::<V>(), Box::new(view));
    }

    /// A fact that is no object, such as a controller's configuration.
    pub fn fact<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.facts.get(&TypeId::of::<T>())?.downcast_ref()
    }

    pub fn set_fact<T: Any + Send + Sync>(&mut self, fact: T) {
        self.facts.insert(TypeId::of::<T>(), Arc::new(fact));
    }

    /// Whether the kind has been listed once, so that absence means something.
    pub fn complete(&self, kind: &KindInfo) -> bool {
        self.table(kind).complete
    }

    /// Whether every kind that stays is complete. Those that come and go may take their time: whoever
    /// acts on their absence asks for them by name.
    pub fn all_complete(&self) -> bool {
        self.tables.iter().all(|table| table.complete || table.stay != Stay::Lasting)
    }

    /// Every version of the kind up to here has been seen.
    pub fn progress(&self, kind: &KindInfo) -> Revision {
        self.table(kind).progress
    }

    pub fn watches(&self, kind: &KindInfo) -> bool {
        self.index_of(kind.group, kind.plural).is_some()
    }

    /// Panics where a controller reads a kind that it did not declare: it would otherwise act on
    /// the absence of what nobody watches.
    fn table(&self, kind: &KindInfo) -> &Table {
        match self.index_of(kind.group, kind.plural) {
            Some(index) => &self.tables[index],
            None => panic!("{kind} is read but not among the kinds watched"),
        }
    }

    pub(crate) fn index_of(&self, group: &str, plural: &str) -> Option<usize> {
        self.by_resource.get(&(group, plural)).copied()
    }
}

/// How changes get in.
impl World {
    pub(crate) fn add_kind(&mut self, info: KindInfo) {
        if self.by_resource.contains_key(&(info.group, info.plural)) {
            return;
        }
        self.by_resource.insert((info.group, info.plural), self.tables.len());
        self.push(info, Stay::Lasting);
    }

    fn push(&mut self, info: KindInfo, stay: Stay) {
        let entries = BTreeMap::new();
        self.tables.push(Table { info, entries, progress: Revision(0), complete: false, stay });
    }

    /// Adds a kind that may go again; `None` if it is watched for good.
    pub(crate) fn add_passing(&mut self, info: KindInfo) -> Option<usize> {
        let Some(index) = self.index_of(info.group, info.plural) else {
            let index = self.tables.len();
            self.by_resource.insert((info.group, info.plural), index);
            self.push(info, Stay::Passing);
            return Some(index);
        };
        let table = &mut self.tables[index];
        if table.stay == Stay::Lasting {
            return None;
        }
        (table.info, table.stay) = (info, Stay::Passing);
        (table.progress, table.complete) = (Revision(0), false);
        Some(index)
    }

    /// Forgets a kind that is no more, with all of it.
    pub(crate) fn retire(&mut self, index: usize) -> Vec<Change> {
        let keys = self.keys(index);
        // Nobody is to wait for what will never be seen.
        let last = Revision(u64::MAX);
        let gone = keys.iter().filter_map(|key| self.remove(index, key, last)).collect();
        let table = &mut self.tables[index];
        (table.stay, table.complete, table.progress) = (Stay::Gone, true, last);
        gone
    }

    /// Applies a version. `None`: it is the one already there, or older. A version `in_order` tells
    /// that all before it have been seen; one from a list of the whole state does not.
    pub(crate) fn put(&mut self, index: usize, entry: Entry, in_order: bool) -> Option<Change> {
        let table = &mut self.tables[index];
        if in_order {
            table.progress = table.progress.max(entry.meta.revision);
        }
        let old = table.entries.get(&entry.key);
        if old
            .is_some_and(|old| entry.meta.revision <= old.meta.revision && old.meta.revision.0 > 0)
        {
            return None;
        }
        let kept = Entry { derived: None, ..entry.clone() };
        let old = table.entries.insert(entry.key.clone(), kept);
        let change = Change { kind: table.info, old, new: Some(entry) };
        self.index(index, &change);
        Some(change)
    }

    /// Applies a deletion at `revision`.
    pub(crate) fn remove(&mut self, index: usize, key: &Key, revision: Revision) -> Option<Change> {
        let table = &mut self.tables[index];
        table.progress = table.progress.max(revision);
        let old = table.entries.remove(key)?;
        let change = Change { kind: table.info, old: Some(old), new: None };
        self.index(index, &change);
        Some(change)
    }

    pub(crate) fn advance(&mut self, index: usize, revision: Revision) {
        let table = &mut self.tables[index];
        table.progress = table.progress.max(revision);
    }

    pub(crate) fn set_complete(&mut self, index: usize) {
        self.tables[index].complete = true;
    }

    pub(crate) fn keys(&self, index: usize) -> Vec<Key> {
        self.tables[index].entries.keys().cloned().collect()
    }

    /// Tests: the entry an object becomes.
    fn decode(&self, index: usize, object: &Object, seen: Duration) -> Entry {
        decode(&self.tables[index].info, object, seen)
    }

    fn index(&mut self, index: usize, change: &Change) {
        if let Some(old) = &change.old {
            self.unindex_entry(index, old);
        }
        if let Some(new) = &change.new {
            if new.meta.controller().is_none() {
                self.orphans.insert((index, new.key.clone()));
            }
            self.by_uid.insert(new.meta.uid.clone(), (index, new.key.clone()));
            for owner in &new.meta.owners {
                let entry = self.dependents.entry(owner.uid.as_str().into()).or_default();
                entry.insert((index, new.key.clone()));
            }
        }
        if change.kind == kinds::PODS {
            self.index_pod(change);
        }
        for view in self.views.values_mut() {
            view.observe(change);
        }
    }

    fn unindex_entry(&mut self, index: usize, old: &Entry) {
        self.orphans.remove(&(index, old.key.clone()));
        if self.by_uid.get(&old.meta.uid).is_some_and(|(at, key)| *at == index && *key == old.key) {
            self.by_uid.remove(&old.meta.uid);
        }
        for owner in &old.meta.owners {
            if let Some(set) = self.dependents.get_mut(owner.uid.as_str()) {
                set.remove(&(index, old.key.clone()));
                if set.is_empty() {
                    self.dependents.remove(owner.uid.as_str());
                }
            }
        }
    }

    fn index_pod(&mut self, change: &Change) {
        let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if let Some(node) = change.old_as::<Pod>().and_then(node)
            && let Some(set) = self.pods_by_node.get_mut(&node)
        {
            set.remove(change.key());
            if set.is_empty() {
                self.pods_by_node.remove(&node);
            }
        }
        if let Some(node) = change.new_as::<Pod>().and_then(node) {
            self.pods_by_node.entry(node).or_default().insert(change.key().clone());
        }
    }
}

/// The entry an object becomes. One that does not decode is kept as metadata, and said so.
pub(crate) fn decode(info: &KindInfo, object: &Object, seen: Duration) -> Entry {
    let key = Key::new(object.namespace(), object.name());
    let typed = match decoder(info).map(|decode| decode(object)) {
        Some(Ok(typed)) => typed,
        None => None,
        Some(Err(error)) => {
            tracing::error!(kind = %info, %key, %error, "object does not decode; kept as metadata");
            None
        }
    };
    Entry { key, meta: Arc::new(Meta::of(object)), seen, typed, derived: None }
}
