//! Definitions through their life: on every master the catalog follows them; the leader accepts their
//! names, establishes them, and removes the instances of those that go. Each of its writes is fenced
//! by its term.

use super::{
    CLEANUP, SPACE,
    definition::condition,
    names::{self, Taken},
};
use crate::{
    Server,
    catalog::Catalog,
    kind::Kind,
    kinds::own_space,
    memo,
    pipeline::{Body, Call, Core},
};
use futures::StreamExt;
use k8s::{Object, Status, Verb};
use raft_store::{Stored, Term};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How soon after a failure, and how often while instances of a dying kind wait for their finalizers.
const AGAIN: Duration = Duration::from_millis(500);
/// Deletions under way at once: as many as the log writes together without delaying others.
const AT_ONCE: usize = 64;

impl Server {
    /// Keeps the kinds that CustomResourceDefinitions define. To be run on every master; ends only
    /// when it is dropped.
    pub async fn keep_definitions(&self) {
        let core = &self.core;
        let mut leadership = core.store.leadership();
        loop {
            // From before the look, so that nothing comes between.
            let Ok(mut watch) = core.store.watch(SPACE, "", core.store.revision()) else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            loop {
                core.catalogs.current();
                let leading = leadership.borrow_and_update().leading;
                let settled = match leading {
                    Some(term) => Box::pin(keep_all(core, term)).await,
                    None => true,
                };
                let again = async {
                    match settled {
                        true => std::future::pending().await,
                        false => tokio::time::sleep(AGAIN).await,
                    }
                };
                tokio::select! {
                    changes = watch.next() => if changes.is_err() { break },
                    changed = leadership.changed() => if changed.is_err() { return },
                    () = again => {}
                }
            }
        }
    }
}

/// Which kinds users define, each time that changes.
pub struct CustomKinds {
    changes: watch::Receiver<Arc<Catalog>>,
}

impl CustomKinds {
    /// The kinds now, each in one version; at first those there are. `None` when the server is gone.
    pub async fn next(&mut self) -> Option<Vec<Kind>> {
        self.changes.changed().await.ok()?;
        Some(self.changes.borrow_and_update().custom_kinds())
    }
}

impl Server {
    /// Known while [`Server::keep_definitions`] runs.
    pub fn custom_kinds(&self) -> CustomKinds {
        let mut changes = self.core.catalogs.changes();
        changes.mark_changed();
        CustomKinds { changes }
    }
}

/// True if nothing is left to do until something changes.
async fn keep_all(core: &Arc<Core>, term: Term) -> bool {
    let mut settled = true;
    for stored in definitions(core) {
        match keep(core, &stored, term).await {
            Ok(done) => settled &= done,
            // Changed in between: the watch brings it back.
            Err(status) if status.is_conflict() || status.is_not_found() => {}
            Err(error) => {
                tracing::debug!(definition = %stored.key.path, %error, "not settled yet");
                settled = false;
            }
        }
    }
    settled
}

fn definitions(core: &Core) -> Vec<Arc<Stored>> {
    core.store.range(SPACE, "", None, None).items
}

async fn keep(core: &Arc<Core>, stored: &Arc<Stored>, term: Term) -> Result<bool, Status> {
    let definition = memo::object(stored);
    if definition.deletion_timestamp().is_some() {
        return end(core, &definition, term).await;
    }
    let others: Vec<Arc<Object>> =
        definitions(core).iter().map(|stored| memo::object(stored)).collect();
    let taken = Taken::by(others.iter().map(|other| &**other), &definition);
    if let Some(new) = names::settled(&definition, &taken) {
        write(core, new, term).await?;
    }
    Ok(true)
}

/// Removes the instances of a dying kind, then lets its definition go.
async fn end(core: &Arc<Core>, definition: &Object, term: Term) -> Result<bool, Status> {
    if !definition.finalizers().any(|finalizer| finalizer == CLEANUP) {
        return Ok(true);
    }
    let terminating = |definition: &mut Object, status, reason, message| {
        names::set(definition, "Terminating", status, reason, message);
    };
    let mut new = definition.clone();
    if condition(definition, "Established") != Some("True") {
        terminating(&mut new, false, "NeverEstablished", "resource was never established");
    } else if remove_instances(core, definition, term).await? {
        terminating(&mut new, false, "InstanceDeletionCompleted", "removed all instances");
    } else {
        let message = "CustomResource deletion is in progress";
        terminating(&mut new, true, "InstanceDeletionInProgress", message);
        if new != *definition {
            write(core, new, term).await?;
        }
        return Ok(false);
    }
    let kept: Vec<&str> = definition.finalizers().filter(|name| *name != CLEANUP).collect();
    let kept = if kept.is_empty() { serde_json::Value::Null } else { json!(kept) };
    new.metadata_mut().insert("finalizers".into(), kept);
    write(core, new, term).await.map(|()| true)
}

/// True if none is left.
async fn remove_instances(
    core: &Arc<Core>,
    definition: &Object,
    term: Term,
) -> Result<bool, Status> {
    let (group, plural) =
        (definition.str_at("/spec/group"), definition.str_at("/spec/names/plural"));
    let catalog = core.catalogs.current();
    let space = own_space(group, plural);
    let instances = core.store.range(&space, "", None, None).items;
    if instances.is_empty() {
        return Ok(true);
    }
    let Some(kind) = catalog.any_version(group, plural) else {
        // No version is served: nobody can be asked to delete them one by one.
        return Err(Status::internal(format!("{plural}.{group} is served in no version")));
    };
    let deletions = instances.iter().filter_map(|stored| {
        let object = memo::object(stored);
        if object.deletion_timestamp().is_some() {
            return None;
        }
        let call = Call {
            version: kind.versions[0].to_string(),
            kind: kind.clone(),
            namespace: object.namespace().to_string(),
            name: object.name().to_string(),
            ..Call::own(kind.clone(), Verb::Delete, Body::None, term)
        };
        Some(async move { core.call(call).await.map(|_| ()) })
    });
    let deletions: Vec<_> = deletions.collect();
    let mut results = futures::stream::iter(deletions).buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        match result {
            Err(status) if !status.is_not_found() && !status.is_conflict() => return Err(status),
            _ => {}
        }
    }
    Ok(core.store.range(&space, "", None, Some(1)).items.is_empty())
}

async fn write(core: &Arc<Core>, new: Object, term: Term) -> Result<(), Status> {
    let kind = crate::kinds::find("apiextensions.k8s.io", "customresourcedefinitions")
        .ok_or_else(|| Status::internal("definitions are not served"))?;
    let call = Call {
        name: new.name().to_string(),
        subresource: "status".to_string(),
        ..Call::own(kind.into(), Verb::Update, Body::Value(new.into_value()), term)
    };
    core.call(call).await.map(|_| ())
}
