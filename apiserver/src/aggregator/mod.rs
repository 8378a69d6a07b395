//! API groups that are served elsewhere (APIService objects with a service): which they are, whether
//! they answer, and what they serve. Each master asks for itself; the leading one writes the
//! `Available` condition.

mod availability;
mod listing;
mod local;
pub(crate) mod metrics_api;
mod remote;

/// The group this server makes from its nodes.
pub(crate) const METRICS: (&str, &str) = (metrics_api::GROUP, metrics_api::VERSION);

pub(crate) use listing::{discovery_group, discovery_items, openapi_paths, resource_list};
pub(crate) use local::has_all as has_local;
pub(crate) use remote::{Remote, proxy, remote};

use crate::{Server, flow, pipeline::Core};
use futures::{FutureExt, future::BoxFuture};
use raft_store::{Revision, Term};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// Where APIServices are in the store.
pub(crate) const SPACE: &str = "apiregistration.k8s.io/apiservices";
/// How often the list is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often a server that did not change is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What is known of the servers behind APIServices.
#[derive(Default)]
pub(crate) struct Aggregator {
    seen: RwLock<BTreeMap<String, Seen>>,
}

/// One server as it answered last.
#[derive(Clone)]
struct Seen {
    /// Of the APIService.
    revision: Revision,
    asked: Instant,
    /// Reason and message of why it does not serve, as the condition has them.
    trouble: Option<(String, String)>,
    /// The last `APIResourceList` it gave.
    list: Option<Arc<Value>>,
}

impl Aggregator {
    fn get(&self, name: &str) -> Option<Seen> {
        self.seen.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn put(&self, name: String, seen: Seen) {
        self.seen.write().unwrap_or_else(PoisonError::into_inner).insert(name, seen);
    }

    fn retain(&self, names: &[String]) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|name, _| names.contains(name));
    }
}

/// The server of a path that is no resource: `/apis/GROUP/VERSION` and its OpenAPI document.
pub(crate) fn elsewhere(core: &Core, path: &str) -> Option<Arc<Remote>> {
    let path = path.trim_matches('/');
    let path = path.strip_prefix("openapi/v3/").unwrap_or(path);
    match path.split('/').collect::<Vec<_>>()[..] {
        ["apis", group, version] => remote(core, group, version),
        _ => None,
    }
}

/// Every APIService with a server of its own.
fn remotes(core: &Core) -> Vec<(Revision, Arc<Remote>)> {
    let all = core.store.range(SPACE, "", None, None).items;
    let remote = |stored: &Arc<raft_store::Stored>| {
        Some((stored.revision, remote::of_stored(core, stored)?))
    };
    all.iter().filter_map(remote).collect()
}

impl Server {
    /// Asks the servers behind APIServices, so that discovery shows what they serve and requests find
    /// them; and while this member leads, keeps the objects of aggregation and flow control as they
    /// must be. Runs until dropped; once a process.
    pub async fn tend(&self) {
        Box::pin(run(&self.core)).await;
    }

    /// From now on this master says that it is not ready; it still answers.
    pub fn announce_end(&self) {
        self.core.stopping.store(true, Ordering::Relaxed);
    }
}

async fn run(core: &Core) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut leadership = core.store.leadership();
    loop {
        // A new leader looks at once: its readiness waits for what it makes.
        tokio::select! {
            _ = ticks.tick() => {}
            changed = leadership.changed() => if changed.is_err() { return },
        }
        let leads = core.store.leadership().borrow().leading;
        if let Some(term) = leads {
            local::keep(core, term).await;
            flow::keep(core, term).await;
        }
        let all = remotes(core);
        let names: Vec<String> = all.iter().map(|(_, remote)| remote.object.clone()).collect();
        core.aggregator.retain(&names);
        let due = all.into_iter().filter(|(revision, remote)| {
            core.aggregator
                .get(&remote.object)
                .is_none_or(|seen| seen.revision != *revision || seen.asked.elapsed() >= ASK_EVERY)
        });
        let asks: Vec<BoxFuture<'_, ()>> =
            due.map(|(revision, remote)| ask(core, revision, remote, leads).boxed()).collect();
        futures::future::join_all(asks).await;
    }
}

/// Asks one server, and publishes its answer if this member leads.
async fn ask(core: &Core, revision: Revision, remote: Arc<Remote>, leads: Option<Term>) {
    let seen = availability::ask(core, revision, &remote).await;
    let trouble = seen.trouble.clone();
    core.aggregator.put(remote.object.clone(), seen);
    if let Some(term) = leads {
        availability::publish(core, term, &remote.object, trouble).await;
    }
}
