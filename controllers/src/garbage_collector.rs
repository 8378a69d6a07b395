//! Garbage collector: deletes what has lost its owners, and carries out the foreground and orphan
//! ways of deleting an owner. Sees metadata only, of every kind.

use k8s::OwnerReference;
use reconcile::{
    Change, Context, Controller, Entry, Existing, Key, KindInfo, Meta, Plan, Root, World, Write,
};
use serde_json::{Value, json};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "garbage_collector",
    component: "garbage-collector-controller",
    root: Root::Every,
    wakes_any: Some(concerned),
    workers: 20, // As upstream: many small deletes, each waits for its commit.
    plan,
    ..Controller::BASE
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The object, if it has owners or is going; what it owns, when it goes; its owners, which may wait
/// for it to go.
fn concerned(world: &World, change: &Change) -> Vec<Key> {
    let mut keys = Vec::new();
    if let (Some(old), Some(new)) = (&change.old, &change.new) {
        let facts = |meta: &Meta| (meta.deleting, meta.finalizers.clone(), meta.owners.clone());
        if old.meta.uid == new.meta.uid && facts(&old.meta) == facts(&new.meta) {
            return keys;
        }
    }
    if let Some(new) = &change.new
        && (new.meta.deleting || !new.meta.owners.is_empty())
    {
        keys.push(Key::of_uid(&new.meta.uid));
    }
    let going = change.new.as_ref().is_none_or(|new| new.meta.deleting);
    if let Some(entry) = change.either()
        && going
    {
        let dependents = world.dependents(&entry.meta.uid);
        keys.extend(dependents.map(|(_, dependent)| Key::of_uid(&dependent.meta.uid)));
    }
    for entry in change.both() {
        let owners = entry.meta.owners.iter();
        let waiting = owners.filter(|owner| {
            world.by_uid(&owner.uid).is_some_and(|(_, owner)| owner.meta.deleting)
        });
        keys.extend(waiting.map(|owner| Key::of_uid(&owner.uid)));
    }
    keys
}

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some((kind, entry)) = world.by_uid(&key.name) else { return plan };
    if entry.meta.deleting && entry.meta.has_finalizer(ORPHAN) {
        orphan_dependents(world, *kind, entry, &mut plan);
    } else if entry.meta.deleting && entry.meta.has_finalizer(FOREGROUND) {
        let mut blocking = world.dependents(&entry.meta.uid).filter(|(_, dependent)| {
            owner_of(dependent, &entry.meta.uid).is_some_and(|owner| owner.block_owner_deletion)
        });
        if blocking.next().is_none() {
            plan.write(without_finalizer(*kind, entry, FOREGROUND));
        }
    } else if !entry.meta.deleting && !entry.meta.owners.is_empty() {
        collect(world, *kind, entry, &mut plan);
    }
    plan
}

fn owner_of<'a>(entry: &'a Entry, uid: &str) -> Option<&'a OwnerReference> {
    entry.meta.owners.iter().find(|owner| owner.uid == uid)
}

/// Lets every dependent live without this owner, then lets the owner go.
fn orphan_dependents(world: &World, kind: KindInfo, entry: &Entry, plan: &mut Plan) {
    let uid = &entry.meta.uid;
    let dependents = world.dependents(uid);
    let patches: Vec<Write> = dependents
        .map(|(kind, dependent)| without_owners(*kind, dependent, |owner| owner.uid == **uid))
        .collect();
    if patches.is_empty() {
        plan.write(without_finalizer(kind, entry, ORPHAN));
    } else {
        plan.together(patches);
    }
}

/// What an owner reference leads to.
enum Owner {
    /// The owner is there and stays.
    Solid,
    /// The owner is being deleted and waits for its dependents.
    Waiting,
    /// No such object in the cache; `None`: nobody can be asked whether there is one.
    Absent(Option<Existing>),
}

fn collect(world: &World, kind: KindInfo, entry: &Entry, plan: &mut Plan) {
    let owners: Vec<(&OwnerReference, Owner)> =
        entry.meta.owners.iter().map(|owner| (owner, look_up(world, entry, owner))).collect();
    let unknown = owners.iter().any(|(_, owner)| matches!(owner, Owner::Absent(None)));
    let solid = owners.iter().any(|(_, owner)| matches!(owner, Owner::Solid));
    let waiting = owners.iter().any(|(_, owner)| matches!(owner, Owner::Waiting));
    let absent = owners.iter().filter_map(|(_, owner)| match owner {
        Owner::Absent(asked) => asked.clone(),
        _ => None,
    });
    let absent: Vec<Existing> = absent.collect();
    if solid {
        if waiting || !absent.is_empty() {
            let loose = |owner: &OwnerReference| {
                let found = owners.iter().find(|(one, _)| one.uid == owner.uid);
                matches!(found, Some((_, Owner::Waiting | Owner::Absent(Some(_)))))
            };
            plan.write(without_owners(kind, entry, loose).unless(absent));
        }
        return;
    }
    if unknown {
        return;
    }
    let has_dependents = world.dependents(&entry.meta.uid).next().is_some();
    if waiting && in_a_circle(world, entry) {
        // Without blocking references the next look deletes it, and nobody waits for the other.
        plan.write(without_blocking(kind, entry));
        return;
    }
    let policy = if waiting && has_dependents {
        // Its own dependents go first, as its owner asked for.
        "Foreground"
    } else if entry.meta.has_finalizer(ORPHAN) {
        "Orphan"
    } else if entry.meta.has_finalizer(FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    let mut delete = Write::delete_entry(kind, entry);
    delete.request.options.propagation_policy = Some(policy.to_string());
    delete.request.options.precondition_revision = Some(entry.meta.revision);
    plan.write(delete.unless(absent));
}

/// True if it blocks an owner that may be waiting for it while one of its dependents waits for its own:
/// they may be waiting for each other. Upstream's test, which may suspect the innocent.
fn in_a_circle(world: &World, entry: &Entry) -> bool {
    let waits = |entry: &Entry| entry.meta.deleting && entry.meta.has_finalizer(FOREGROUND);
    entry.meta.owners.iter().any(|owner| owner.block_owner_deletion)
        && world.dependents(&entry.meta.uid).any(|(_, dependent)| waits(dependent))
}

fn without_blocking(kind: KindInfo, entry: &Entry) -> Write {
    let owners = entry.meta.owners.iter().cloned();
    let owners = owners.map(|owner| OwnerReference { block_owner_deletion: false, ..owner });
    guarded_patch(kind, entry, "ownerReferences", json!(owners.collect::<Vec<_>>()))
}

fn look_up(world: &World, dependent: &Entry, owner: &OwnerReference) -> Owner {
    let known = world.kind_named(&owner.api_version, &owner.kind);
    let Some(kind) = known.filter(|kind| world.complete(kind)) else {
        return Owner::Absent(None);
    };
    if kind.namespaced && dependent.key.namespace.is_empty() {
        // A reference no object can satisfy; upstream leaves such dependents alone.
        return Owner::Absent(None);
    }
    let namespace = if kind.namespaced { dependent.key.namespace.clone() } else { "".into() };
    let key = Key::new(namespace, owner.name.as_str());
    let found = world.entry(kind, &key).filter(|found| *found.meta.uid == *owner.uid);
    match found {
        None => Owner::Absent(Some(Existing { kind: *kind, key, uid: owner.uid.clone() })),
        Some(found) if found.meta.deleting && found.meta.has_finalizer(FOREGROUND) => {
            Owner::Waiting
        }
        Some(_) => Owner::Solid,
    }
}

fn without_owners(
    kind: KindInfo,
    entry: &Entry,
    loose: impl Fn(&OwnerReference) -> bool,
) -> Write {
    let kept: Vec<&OwnerReference> =
        entry.meta.owners.iter().filter(|owner| !loose(owner)).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    guarded_patch(kind, entry, "ownerReferences", kept)
}

fn without_finalizer(kind: KindInfo, entry: &Entry, name: &str) -> Write {
    let kept: Vec<&String> = entry.meta.finalizers.iter().filter(|one| *one != name).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    guarded_patch(kind, entry, "finalizers", kept)
}

fn guarded_patch(kind: KindInfo, entry: &Entry, field: &str, value: Value) -> Write {
    let revision = entry.meta.revision.to_string();
    let mut metadata = json!({"uid": &*entry.meta.uid, "resourceVersion": revision});
    metadata[field] = value;
    Write::patch_key(kind, &entry.key, json!({ "metadata": metadata }))
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::plan;
    use insta::assert_snapshot;

    fn set(more: &str) -> String {
        format!(
            "apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web
  namespace: default
{more}
---
"
        )
    }

    fn pod(owners: &[&str]) -> String {
        let owner = |name: &&str| {
            format!("{{apiVersion: apps/v1, kind: ReplicaSet, name: {name}, uid: uid-{name}, controller: true, blockOwnerDeletion: true}}")
        };
        let owners: Vec<String> = owners.iter().map(owner).collect();
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: pod, namespace: default, ownerReferences: [{}]}}
spec: {{containers: []}}
",
            owners.join(", ")
        )
    }

    const FOREGROUND: &str =
        "  deletionTimestamp: 2026-01-01T00:00:00Z\n  finalizers: [foregroundDeletion]";

    fn of(yaml: &[String], uid: &str) -> String {
        plan(CONTROLLER, &yaml.concat(), "", uid)
    }

    #[test]
    fn what_has_an_owner_stays() {
        assert_eq!(of(&[set(""), pod(&["web"])], "uid-pod"), "nothing\n");
    }

    #[test]
    fn what_lost_its_owners_goes_if_the_server_says_so_too() {
        assert_snapshot!(of(&[pod(&["web", "other"])], "uid-pod"));
    }

    #[test]
    fn an_owner_of_that_name_with_another_uid_is_none() {
        let other = set("  uid: another");
        let text = of(&[other, pod(&["web"])], "uid-pod");
        assert!(text.starts_with("delete pods default/pod"), "{text}");
    }

    #[test]
    fn one_remaining_owner_is_enough() {
        assert_snapshot!(of(&[set(""), pod(&["web", "gone"])], "uid-pod"));
    }

    #[test]
    fn nothing_is_deleted_for_an_owner_of_a_kind_nobody_knows() {
        let pod = pod(&["web"]).replace("apps/v1, kind: ReplicaSet", "example.com/v1, kind: Foo");
        assert_eq!(of(&[pod], "uid-pod"), "nothing\n");
    }

    #[test]
    fn foreground_deletes_dependents_before_the_owner() {
        let world = [set(FOREGROUND), pod(&["web"])];
        assert_snapshot!("foreground_dependent", of(&world, "uid-pod"));
        assert_eq!(of(&world, "uid-web"), "nothing\n", "it waits for its dependent");
        assert_snapshot!("foreground_owner", of(&[set(FOREGROUND)], "uid-web"));
    }

    /// `a` is deleted, `c` owns it, `b` owns that, and `a` that.
    #[test]
    fn what_waits_for_each_other_is_let_go() {
        let pod = |name: &str, owner: &str, more: &str| {
            format!(
                "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: default
  ownerReferences: [{{apiVersion: v1, kind: Pod, name: {owner}, uid: uid-{owner}, blockOwnerDeletion: {more}}}]
{FOREGROUND}
---
"
            )
        };
        let going = |name: &str, owner: &str| pod(name, owner, "true");
        let living = |name: &str, owner: &str, blocks: &str| {
            pod(name, owner, blocks).replace(FOREGROUND, "")
        };
        let world = [going("a", "c"), living("b", "a", "true"), living("c", "b", "true")];
        let text = of(&world, "uid-b");
        assert!(text.starts_with("delete pods default/b") && text.contains("Foreground"), "{text}");
        let world = [going("a", "c"), going("b", "a"), living("c", "b", "true")];
        let text = of(&world, "uid-c");
        assert!(text.starts_with("patch pods default/c"), "{text}");
        assert!(!text.contains("\"blockOwnerDeletion\":true"), "{text}");
        let world = [going("a", "c"), going("b", "a"), living("c", "b", "false")];
        let text = of(&world, "uid-c");
        assert!(text.starts_with("delete pods default/c") && text.contains("Foreground"), "{text}");
        assert!(of(&world, "uid-b").starts_with("patch pods default/b"), "nobody blocks it");
    }

    #[test]
    fn orphaning_takes_the_references_off_first() {
        let orphan = set("  deletionTimestamp: 2026-01-01T00:00:00Z\n  finalizers: [orphan, x]");
        let world = [orphan.clone(), pod(&["web"])];
        assert_snapshot!("orphan_dependents", of(&world, "uid-web"));
        assert_snapshot!("orphan_owner", of(&[orphan], "uid-web"));
    }
}
