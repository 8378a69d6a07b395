//! Which objects a controller's root owns: adopts matching ones that nobody owns, lets go of its own
//! that match no longer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};
use reconcile::{Cached, Change, Key, Plan, World, Write, key_of, matches, owner_reference};

/// What a root owns, and what it takes to make that so.
pub(crate) struct Claim<'a, K> {
    /// Controlled by the root and matching its selector.
    pub(crate) owned: Vec<&'a K>,
    /// Adoptions and releases still to be written; what is to be adopted is not in `owned` yet.
    pub(crate) changes: Vec<Write>,
}

/// The `K`s of `owner`, whose selector is `selector`.
pub(crate) fn claim<'a, O: Cached, K: Cached>(
    world: &'a World,
    owner: &'a O,
    selector: &'a LabelSelector,
    adoptable: impl Fn(&K) -> bool,
) -> Claim<'a, K> {
    let meta = owner.metadata();
    let uid = meta.uid.as_deref().unwrap_or_default();
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let matching = |object: &K| matches(selector, object.metadata().labels.as_ref());
    let (owned, strays): (Vec<&K>, Vec<&K>) =
        world.controlled_by::<K>(uid).partition(|object| matching(object));
    let mut changes = Vec::new();
    if meta.deletion_timestamp.is_none() {
        let strays = strays.into_iter().filter(|stray| alive(*stray));
        changes.extend(strays.filter_map(|stray| release(stray, uid)));
        let orphans = world.orphans::<K>(namespace);
        let orphans = orphans.filter(|one| alive(*one) && matching(one) && adoptable(one));
        changes.extend(orphans.filter_map(|orphan| adopt(orphan, owner_reference(owner))));
    }
    Claim { owned, changes }
}

impl<K> Claim<'_, K> {
    /// Writes the adoptions and releases first: the world is planned for again once they show.
    pub(crate) fn settle(&mut self, plan: &mut Plan) -> bool {
        let changes = std::mem::take(&mut self.changes);
        let pending = !changes.is_empty();
        plan.together(changes);
        pending
    }
}

fn alive<K: Cached>(object: &K) -> bool {
    object.metadata().deletion_timestamp.is_none()
}

fn adopt<K: Cached>(orphan: &K, owner: OwnerReference) -> Option<Write> {
    let mut adopted = orphan.clone();
    let owners = adopted.metadata_mut().owner_references.get_or_insert_default();
    owners.retain(|one| one.uid != owner.uid);
    owners.push(owner);
    Write::patch_metadata(orphan, &adopted)
}

fn release<K: Cached>(stray: &K, uid: &str) -> Option<Write> {
    let mut released = stray.clone();
    let meta = released.metadata_mut();
    let owners = meta.owner_references.as_mut()?;
    owners.retain(|one| one.uid != uid);
    if owners.is_empty() {
        meta.owner_references = None;
    }
    Write::patch_metadata(stray, &released)
}

/// The `O`s whose selector matches a changed object that nobody controls, before or after the
/// change: it may be theirs to adopt. Also its controllers of kind `O`.
pub(crate) fn owners_of<O: Cached>(
    world: &World,
    change: &Change,
    selects: impl Fn(&O, &Labels) -> bool,
) -> Vec<Key> {
    let mut keys = Vec::new();
    for entry in change.both() {
        if let Some(owner) = entry.meta.controller() {
            let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
            if owner.kind == O::INFO.kind && group == O::INFO.group {
                keys.push(Key::new(entry.key.namespace.clone(), owner.name.as_str()));
            }
        }
    }
    let orphan = change.new.as_ref().filter(|entry| entry.meta.controller().is_none());
    if let Some(labels) = orphan.and_then(labels) {
        let owners = world.in_namespace::<O>(&change.key().namespace);
        keys.extend(owners.filter(|owner| selects(owner, labels)).map(key_of));
    }
    keys
}

pub(crate) type Labels = std::collections::BTreeMap<String, String>;

fn labels(entry: &reconcile::Entry) -> Option<&Labels> {
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use reconcile::Pod;
    let pod = entry.typed::<Pod>().and_then(|pod| pod.metadata.labels.as_ref());
    pod.or_else(|| entry.typed::<ReplicaSet>().and_then(|set| set.metadata.labels.as_ref()))
}
