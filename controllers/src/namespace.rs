//! Namespace: empties a namespace that is being deleted, pods first, and then lets it go.

use k8s::{Request, Verb};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{
    Change, Context, Controller, Key, KindInfo, Plan, Root, Wake, Whole, World, Write, kinds,
};
use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) const CONTROLLER: Controller = Controller {
    name: "namespace",
    component: "namespace-controller",
    root: Root::Each(kinds::NAMESPACES),
    wakes: &[(kinds::NAMESPACES, Wake::Itself)],
    wakes_any: Some(emptied),
    plan,
    ..Controller::BASE
};

const FINALIZER: &str = "kubernetes";

/// Written by many and read by none of our controllers, so not in the cache; deleted all the same.
const EVENTS: KindInfo =
    KindInfo { group: "", version: "v1", plural: "events", kind: "Event", namespaced: true };

/// There from the first look on, as clients of upstream's expect; its reason tells whether every kind
/// has been swept.
const CONTENT_FAILURE: &str = "NamespaceDeletionContentFailure";
const PODS_FIRST: &str = "PodsAreDeletedFirst";

/// Every look at a namespace that does not get emptier, in case a change went unseen.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Something has gone from a namespace that is going.
fn emptied(world: &World, change: &Change) -> Vec<Key> {
    let key = Key::new("", change.key().namespace.clone());
    let namespace = world.entry(&kinds::NAMESPACES, &key);
    let going = namespace.is_some_and(|namespace| namespace.meta.deleting);
    if going { vec![key] } else { Vec::new() }
}

fn plan(world: &World, key: &Key, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(namespace) = world.get::<Namespace>(key) else { return plan };
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref());
    let ours = finalizers.unwrap_or_default().iter().any(|one| one == FINALIZER);
    if namespace.metadata.deletion_timestamp.is_none() || !ours {
        return plan;
    }
    let content = Content::of(world, &key.name);
    let swept = condition(namespace, CONTENT_FAILURE).is_some_and(|condition| {
        condition.reason.as_deref().is_some_and(|reason| reason != PODS_FIRST)
    });
    if swept && content.is_empty() {
        // Of a kind that was defined a moment ago nobody knows yet what there is.
        if !world.kinds().all(|kind| world.complete(kind)) {
            plan.again_after(LOOK_AGAIN);
            return plan;
        }
        plan.write(finalize(namespace));
        return plan;
    }
    let pods_left = content.counts.contains_key(&kinds::PODS);
    let first = condition(namespace, "NamespaceDeletionDiscoveryFailure").is_none();
    let targets: Vec<KindInfo> = if first {
        vec![kinds::PODS]
    } else if pods_left {
        content.untouched.iter().copied().filter(|kind| *kind == kinds::PODS).collect()
    } else if !swept {
        // Of every kind, seen in the cache or not: the server looks for itself.
        let all = world.kinds().filter(|kind| kind.namespaced).copied();
        all.chain([EVENTS]).collect()
    } else {
        content.untouched.clone()
    };
    let sweeping_all = !first && !pods_left;
    plan.together(targets.iter().map(|kind| delete_all(*kind, &key.name)).collect());
    let mut changed = namespace.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some("Terminating".to_string());
    let conditions = status.conditions.get_or_insert_default();
    for (kind, positive, reason, message) in content.report(sweeping_all || swept) {
        set_condition(conditions, kind, positive, reason, message, context);
    }
    plan.write(Write::patch_status(namespace, &changed));
    plan.again_after(LOOK_AGAIN);
    plan
}

fn delete_all(kind: KindInfo, namespace: &str) -> Write {
    let mut request = Request::new(Verb::DeleteCollection, kind.resource(), namespace, "");
    request.options.propagation_policy = Some("Background".to_string());
    Write::request(kind, request)
}

/// `PUT …/finalize` without our finalizer; the server deletes the namespace with the last one.
fn finalize(namespace: &Namespace) -> Write {
    let mut released = namespace.clone();
    if let Some(finalizers) = released.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|one| one != FINALIZER);
    }
    let request = Request::update(kinds::NAMESPACES.resource(), released.encode());
    Write::request(kinds::NAMESPACES, request.subresource("finalize"))
}

fn condition<'n>(namespace: &'n Namespace, kind: &str) -> Option<&'n NamespaceCondition> {
    let status = namespace.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    conditions.find(|condition| condition.type_ == kind)
}

/// What the cache still has of a namespace.
struct Content {
    counts: BTreeMap<KindInfo, usize>,
    finalizers: BTreeMap<String, usize>,
    /// Kinds of which something is not being deleted yet.
    untouched: Vec<KindInfo>,
}

impl Content {
    fn of(world: &World, namespace: &str) -> Content {
        let (mut counts, mut finalizers) = (BTreeMap::new(), BTreeMap::new());
        let mut untouched = Vec::new();
        for kind in world.kinds().filter(|kind| kind.namespaced) {
            let mut alive = false;
            for entry in world.entries_in(kind, namespace) {
                *counts.entry(*kind).or_default() += 1;
                alive |= !entry.meta.deleting;
                for finalizer in &entry.meta.finalizers {
                    *finalizers.entry(finalizer.clone()).or_default() += 1;
                }
            }
            if alive {
                untouched.push(*kind);
            }
        }
        Content { counts, finalizers, untouched }
    }

    fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The conditions, in upstream's words; `swept`: every kind has been swept once.
    fn report(&self, swept: bool) -> Vec<(&'static str, bool, &'static str, String)> {
        let list = |texts: Vec<String>| texts.join(", ");
        let counts = self.counts.iter();
        let counts = counts.map(|(kind, count)| {
            let group = kind.group;
            format!("{}.{group} has {count} resource instances", kind.plural)
        });
        let finalizers = self.finalizers.iter();
        let finalizers =
            finalizers.map(|(name, count)| format!("{name} in {count} resource instances"));
        let (counts, finalizers) = (list(counts.collect()), list(finalizers.collect()));
        let remaining = if counts.is_empty() {
            ("ContentRemoved", "All content successfully removed".to_string())
        } else {
            ("SomeResourcesRemain", format!("Some resources are remaining: {counts}"))
        };
        let finalizing = if finalizers.is_empty() {
            let text = "All content-preserving finalizers finished";
            ("ContentHasNoFinalizers", text.to_string())
        } else {
            let text = format!("Some content in the namespace has finalizers remaining: {finalizers}");
            ("SomeFinalizersRemain", text)
        };
        let (reason, text) = match swept {
            true => {
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization")
            }
            false => (PODS_FIRST, "Pods are being deleted, all other content is after them"),
        };
        vec![
            (
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered".to_string(),
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".to_string(),
            ),
            (CONTENT_FAILURE, false, reason, text.to_string()),
            ("NamespaceContentRemaining", !counts.is_empty(), remaining.0, remaining.1),
            ("NamespaceFinalizersRemaining", !finalizers.is_empty(), finalizing.0, finalizing.1),
        ]
    }
}

fn set_condition(
    conditions: &mut Vec<NamespaceCondition>,
    kind: &str,
    positive: bool,
    reason: &str,
    message: String,
    context: &Context,
) {
    let status = if positive { "True" } else { "False" };
    let now = NamespaceCondition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason: Some(reason.to_string()),
        message: Some(message),
        last_transition_time: Some(Time(context.now)),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        None => conditions.push(now),
        Some(current) => {
            let since = current.last_transition_time.clone().filter(|_| current.status == status);
            *current = now;
            current.last_transition_time = since.or(current.last_transition_time.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::plan;

    const SWEPT: &str = "
    - {type: NamespaceDeletionDiscoveryFailure, status: 'False'}
    - {type: NamespaceDeletionContentFailure, status: 'False', reason: ContentDeleted}";

    fn namespace(conditions: &str) -> String {
        format!(
            "apiVersion: v1
kind: Namespace
metadata: {{name: dev, deletionTimestamp: 2026-01-01T00:00:00Z}}
spec: {{finalizers: [kubernetes]}}
status:
  phase: Terminating
  conditions: {conditions}
---
"
        )
    }

    const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: pod, namespace: dev}
spec: {containers: []}
---
";

    const SECRET: &str = "apiVersion: v1
kind: Secret
metadata: {name: s, namespace: dev, deletionTimestamp: 2026-01-01T00:00:00Z, finalizers: [x/y]}
";

    fn of(yaml: &[&str]) -> String {
        plan(CONTROLLER, &yaml.concat(), "", "dev")
    }

    #[test]
    fn pods_go_first() {
        let text = of(&[&namespace("[]"), POD, SECRET]);
        assert_eq!(text.matches("deletecollection").count(), 1, "{text}");
        assert!(text.starts_with("together deletecollection pods dev/"), "{text}");
        let waits = POD.replace("namespace: dev", "namespace: dev, deletionTimestamp: 2026-01-01T00:00:00Z");
        let text = of(&[&namespace("[{type: NamespaceDeletionDiscoveryFailure, status: 'False'}]"), &waits]);
        assert!(!text.contains("deletecollection"), "{text}");
    }

    /// Upstream's conformance waits for this before it looks at what is left.
    #[test]
    fn every_condition_is_there_while_pods_are() {
        let text = of(&[&namespace("[]"), POD, SECRET]);
        for kind in [
            "NamespaceDeletionDiscoveryFailure",
            "NamespaceDeletionGroupVersionParsingFailure",
            "NamespaceDeletionContentFailure",
            "NamespaceContentRemaining",
            "NamespaceFinalizersRemaining",
        ] {
            assert!(text.contains(&format!("\"type\":\"{kind}\"")), "{kind}: {text}");
        }
        let pods_gone = "
    - {type: NamespaceDeletionDiscoveryFailure, status: 'False'}
    - {type: NamespaceDeletionContentFailure, status: 'False', reason: PodsAreDeletedFirst}";
        let text = of(&[&namespace(pods_gone), SECRET]);
        assert!(text.contains("together deletecollection secrets dev/"), "{text}");
        assert!(text.contains("\"reason\":\"ContentDeleted\""), "{text}");
    }

    #[test]
    fn then_everything_seen_or_not() {
        let text = of(&[&namespace("[{type: NamespaceDeletionDiscoveryFailure, status: 'False'}]")]);
        for kind in ["secrets", "events", "deployments.apps", "pods"] {
            assert!(text.contains(&format!("together deletecollection {kind} dev/")), "{text}");
        }
        assert!(!text.contains("nodes"), "cluster-scoped kinds stay: {text}");
        assert!(text.contains("NamespaceDeletionContentFailure"), "{text}");
    }

    #[test]
    fn finalizers_of_content_are_waited_for_and_told() {
        let text = of(&[&namespace(SWEPT), SECRET]);
        assert!(!text.contains("deletecollection") && !text.contains("finalize "), "{text}");
        assert!(text.contains("Some resources are remaining: secrets. has 1 resource instances"));
        assert!(text.contains("finalizers remaining: x/y in 1 resource instances"), "{text}");
        assert!(text.ends_with("again after 5s\n"), "{text}");
    }

    #[test]
    fn an_empty_namespace_is_let_go() {
        let text = of(&[&namespace(SWEPT)]);
        assert!(text.starts_with("update namespaces/finalize dev "), "{text}");
        assert!(text.contains("\"finalizers\":[]"), "{text}");
    }

    #[test]
    fn a_living_namespace_is_left_alone() {
        let living = "apiVersion: v1\nkind: Namespace\nmetadata: {name: dev}\nspec: {finalizers: [kubernetes]}";
        assert_eq!(of(&[living]), "nothing\n");
    }
}
