//! APIServices of the groups this server serves itself: made and kept by the leading master
//! (upstream's autoregistration), so that `kubectl get apiservices` shows all there is.

use super::{SPACE, availability, metrics_api};
use crate::{
    memo,
    pipeline::{Body, Call, Core},
};
use futures::StreamExt;
use k8s::{Status, Verb};
use raft_store::{Key, Term};
use serde_json::json;
use std::collections::BTreeMap;

/// Upstream's label: who made the object and when it is put right again.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Upstream's priorities of groups and versions (kube-apiserver's `aggregator.go`).
const PRIORITIES: &[(&str, i64, i64)] = &[
    ("", 18000, 1),
    ("admissionregistration.k8s.io", 16700, 15),
    ("apiextensions.k8s.io", 16700, 15),
    ("apps", 17800, 15),
    ("authentication.k8s.io", 17700, 15),
    ("authorization.k8s.io", 17600, 15),
    ("autoscaling", 17500, 15),
    ("batch", 17400, 15),
    ("certificates.k8s.io", 17300, 15),
    ("coordination.k8s.io", 16500, 15),
    ("discovery.k8s.io", 16200, 15),
    ("events.k8s.io", 17750, 15),
    ("flowcontrol.apiserver.k8s.io", 16100, 21),
    ("networking.k8s.io", 17200, 15),
    ("node.k8s.io", 16300, 15),
    ("policy", 17100, 15),
    ("rbac.authorization.k8s.io", 17000, 15),
    ("resource.k8s.io", 15200, 15),
    ("scheduling.k8s.io", 16600, 15),
    ("storage.k8s.io", 16800, 15),
];

/// As many as one log entry groups without delaying others.
const AT_ONCE: usize = 32;

/// What a local APIService says.
#[derive(Debug, PartialEq)]
struct Local {
    group: String,
    version: String,
    group_priority: i64,
    version_priority: i64,
    /// Of a group that can go again: a CustomResourceDefinition's.
    passing: bool,
}

impl Local {
    fn name(&self) -> String {
        format!("{}.{}", self.version, self.group)
    }
}

fn wanted(core: &Core) -> BTreeMap<String, Local> {
    let mut all = BTreeMap::new();
    for (group, version) in group_versions(core) {
        // The registry of registrations registers everything but itself.
        if group == "apiregistration.k8s.io" {
            continue;
        }
        let known = PRIORITIES.iter().find(|known| known.0 == group);
        let (group_priority, version_priority) = match known {
            Some((_, group, _)) if version == "v2" => (*group, 30),
            Some((_, group, version)) => (*group, *version),
            None => (1000, 100),
        };
        let passing = known.is_none();
        let local = Local { group, version, group_priority, version_priority, passing };
        all.insert(local.name(), local);
    }
    let metrics = Local {
        group: metrics_api::GROUP.into(),
        version: metrics_api::VERSION.into(),
        // As metrics-server registers itself.
        group_priority: 100,
        version_priority: 100,
        passing: false,
    };
    all.insert(metrics.name(), metrics);
    all
}

fn group_versions(core: &Core) -> Vec<(String, String)> {
    let catalog = core.catalog();
    let groups = catalog.groups().iter();
    let versions = groups.flat_map(|group| group.versions.iter().map(move |one| (group.name, one)));
    versions.map(|(group, version)| (group.to_string(), (*version).to_string())).collect()
}

/// True if the groups that this server has from the start are registered.
pub(crate) fn has_all(core: &Core) -> bool {
    wanted(core)
        .iter()
        .filter(|(_, local)| !local.passing)
        .all(|(name, _)| core.view.stored(SPACE, name).is_some())
}

/// Makes what is missing, removes what is served no more. Reads only, when all is well.
pub(super) async fn keep(core: &Core, term: Term) {
    let wanted = wanted(core);
    let ensure = async |(name, local): (&String, &Local)| {
        if let Err(error) = ensure(core, term, name, local).await {
            tracing::debug!(name, %error, "a local APIService is not there yet");
        }
    };
    futures::stream::iter(&wanted).for_each_concurrent(AT_ONCE, ensure).await;
    for stored in core.store.range(SPACE, "", None, None).items {
        let object = memo::object(&stored);
        let ours = object.label(AUTOMANAGED) == Some("true");
        if ours && !wanted.contains_key(object.name()) {
            let call = call(Verb::Delete, object.name(), Body::None, term);
            if let Some(call) = call
                && let Err(error) = core.call(call).await
            {
                tracing::debug!(name = object.name(), %error, "an APIService is not removed yet");
            }
        }
    }
}

async fn ensure(core: &Core, term: Term, name: &str, local: &Local) -> Result<(), Status> {
    let Some(stored) = core.view.stored(SPACE, name) else {
        return create(core, term, local).await;
    };
    // With a service it is somebody else's now.
    if memo::object(&stored).at("/spec/service").is_some_and(|service| service.is_object()) {
        return Ok(());
    }
    mark_available(core, term, name).await
}

async fn create(core: &Core, term: Term, local: &Local) -> Result<(), Status> {
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {
            "name": local.name(),
            "labels": { AUTOMANAGED: if local.passing { "true" } else { "onstart" } },
        },
        "spec": {
            "group": local.group,
            "version": local.version,
            "groupPriorityMinimum": local.group_priority,
            "versionPriority": local.version_priority,
        },
    });
    let Some(call) = call(Verb::Create, "", Body::Value(object), term) else { return Ok(()) };
    core.call(call).await?;
    mark_available(core, term, &local.name()).await
}

async fn mark_available(core: &Core, term: Term, name: &str) -> Result<(), Status> {
    let message = "Local APIServices are always available";
    availability::set(core, term, name, "True", "Local", message).await
}

fn call(verb: Verb, name: &str, body: Body, term: Term) -> Option<Call> {
    let kind = crate::catalog::by_kind("apiregistration.k8s.io/v1", "APIService")?;
    Some(Call { name: name.to_string(), ..Call::own(kind.into(), verb, body, term) })
}

/// True if somebody else serves the group in this version.
pub(super) fn is_remote(core: &Core, group: &str, version: &str) -> bool {
    let stored = core.store.get(&Key::new(SPACE, format!("{version}.{group}")));
    stored.is_some_and(|stored| super::remote::of_stored(core, &stored).is_some())
}
