//! ResourceQuota, exact: what a request uses is added to the quotas' `status.used` in the same
//! transaction as its object, guarded on the quotas' versions, so that both happen or neither, on
//! whichever masters the requests arrive. What is used no more is found by [`keeper`].

mod evaluate;
mod keeper;
mod quota;
mod usage;

use super::{Cx, Operation};
use k8s::{Object, Status};
use raft_store::Write;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) const NAME: &str = "ResourceQuota";
const SPACE: &str = "resourcequotas";
/// As long as upstream lets an evaluation take.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle turns are forgotten when there are this many.
const TURNS_MAX: usize = 1024;

/// What a request adds to quotas: written with its object or not at all.
#[derive(Debug, Default)]
pub(crate) struct Charge {
    writes: Vec<Write>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Charge {
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn writes(&self) -> impl Iterator<Item = Write> {
        self.writes.iter().cloned()
    }

    /// After somebody else was faster: on the quotas as they are now.
    pub(crate) fn again(&mut self, cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
        if !self.writes.is_empty() {
            self.writes = evaluate::charge(cx, object)?;
        }
        Ok(())
    }
}

/// The last step of admission. Requests of one namespace that has quotas take turns, because only
/// one of them can be the next to write those; nobody else waits.
pub(super) async fn charge(cx: &Cx<'_>, object: &Object) -> Result<Charge, Status> {
    if !handles(cx) || cx.view.range(SPACE, &format!("{}/", cx.namespace)).is_empty() {
        return Ok(Charge::default());
    }
    if cx.dry_run {
        // Told whether it would fit; charged nothing.
        return evaluate::charge(cx, object).map(|_| Charge::default());
    }
    let turn = cx.machine.turns.take(cx.namespace).await?;
    let writes = evaluate::charge(cx, object)?;
    let turn = Some(turn).filter(|_| !writes.is_empty());
    Ok(Charge { writes, _turn: turn })
}

/// What can change what a namespace uses.
fn handles(cx: &Cx<'_>) -> bool {
    // Made by many and counted by none (upstream's `ignoredResources`).
    if cx.namespace.is_empty() || !cx.kind.namespaced || cx.kind.plural == "events" {
        return false;
    }
    matches!(
        (cx.kind.group, cx.kind.plural, cx.operation, cx.subresource),
        (_, _, Operation::Create, "")
            | ("", "pods", Operation::Update, "resize")
            | ("", "services" | "persistentvolumeclaims", Operation::Update, "")
            | ("", "persistentvolumeclaims", Operation::Update, "status")
    )
}

/// Whose turn it is in each namespace.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<String, Weak<Semaphore>>>);

impl Turns {
    async fn take(&self, namespace: &str) -> Result<OwnedSemaphorePermit, Status> {
        let taking = self.of(namespace).acquire_owned();
        match tokio::time::timeout(TURN_TIMEOUT, taking).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Status::internal("resource quota evaluation timed out")),
        }
    }

    fn of(&self, namespace: &str) -> Arc<Semaphore> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(semaphore) = all.get(namespace).and_then(Weak::upgrade) {
            return semaphore;
        }
        if all.len() >= TURNS_MAX {
            all.retain(|_, semaphore| semaphore.strong_count() > 0);
        }
        let semaphore = Arc::new(Semaphore::new(1));
        all.insert(namespace.to_string(), Arc::downgrade(&semaphore));
        semaphore
    }
}
