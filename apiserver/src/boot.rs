//! What must have happened, in the cluster and in this process, before a master counts as begun:
//! upstream's boot sequence under its own names, which its tests look for in `/livez?verbose`.

use crate::{
    Server, authn, authz, catalog, flow,
    pipeline::{self, Core},
};
use k8s::Object;
use raft_store::{Leadership, Revision};
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A leader makes what a cluster begins with in far less. What it has not made by then it does not know: it
/// is of an earlier version, and an upgrade that waits for each master to be ready is to go on.
const LEADER_MAKES_IT: Duration = Duration::from_secs(10);
/// How long nothing is looked at when nothing was written.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// True if the step's work is done, as far as this member has applied it.
type Proof = fn(&Core) -> bool;

/// In the order upstream lists them.
pub(crate) const STEPS: [(&str, Proof); 19] = [
    ("poststarthook/start-apiserver-admission-initializer", serves),
    ("poststarthook/generic-apiserver-start-informers", serves),
    ("poststarthook/priority-and-fairness-config-consumer", serves),
    ("poststarthook/start-apiextensions-informers", serves),
    ("poststarthook/start-apiextensions-controllers", serves),
    ("poststarthook/crd-informer-synced", serves),
    ("poststarthook/start-system-namespaces-controller", has_namespaces),
    ("poststarthook/start-cluster-authentication-info-controller", has_published),
    ("poststarthook/rbac/bootstrap-roles", has_roles),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", has_priority_classes),
    ("poststarthook/priority-and-fairness-config-producer", flow::has_objects),
    ("poststarthook/bootstrap-controller", has_own_service),
    ("poststarthook/start-kube-aggregator-informers", serves),
    ("poststarthook/apiservice-status-local-available-controller", has_local_services),
    ("poststarthook/apiservice-status-remote-available-controller", serves),
    ("poststarthook/apiservice-registration-controller", serves),
    ("poststarthook/kube-apiserver-autoregistration", has_local_services),
    ("autoregister-completion", has_local_services),
    ("poststarthook/apiservice-openapi-controller", serves),
];

/// The steps that are done. A step that was done stays so: what is deleted later is no reason to
/// start a master again.
pub(crate) struct Boot {
    done: [AtomicBool; STEPS.len()],
    /// When somebody first asked while another master led.
    follows: OnceLock<Instant>,
}

impl Default for Boot {
    fn default() -> Boot {
        let done = std::array::from_fn(|_| AtomicBool::new(false));
        Boot { done, follows: OnceLock::new() }
    }
}

/// Whether what is still to be made is the leader's, which had the time to make it.
fn is_overdue(leadership: Leadership, followed: impl FnOnce() -> Duration) -> bool {
    let follows = leadership.leader.is_some() && leadership.leading.is_none();
    follows && followed() >= LEADER_MAKES_IT
}

impl Boot {
    /// Each step and whether it is done.
    pub(crate) fn steps(&self, core: &Core) -> impl Iterator<Item = (&'static str, bool)> {
        let leadership = *core.store.leadership().borrow();
        let followed = || self.follows.get_or_init(Instant::now).elapsed();
        let overdue = is_overdue(leadership, followed);
        STEPS.iter().zip(&self.done).map(move |((name, proof), done)| {
            let now = done.load(Ordering::Relaxed) || overdue || proof(core);
            done.store(now, Ordering::Relaxed);
            (*name, now)
        })
    }
}

/// Parts that begin with the server: catalog, admission and flow control read the applied state.
fn serves(_: &Core) -> bool {
    true
}

fn has_namespaces(core: &Core) -> bool {
    crate::bootstrap::NAMESPACES.iter().all(|name| core.view.stored("namespaces", name).is_some())
}

fn has_published(core: &Core) -> bool {
    authn::published::config_map(&core.config).is_none_or(|wanted| has(core, &wanted))
}

fn has_roles(core: &Core) -> bool {
    authz::bootstrap().iter().all(|wanted| has(core, wanted))
}

fn has_priority_classes(core: &Core) -> bool {
    crate::bootstrap::priority_classes().iter().all(|wanted| has(core, wanted))
}

fn has_own_service(core: &Core) -> bool {
    core.view.stored("services", "default/kubernetes").is_some()
}

fn has_local_services(core: &Core) -> bool {
    crate::aggregator::has_local(core)
}

fn has(core: &Core, wanted: &Object) -> bool {
    // A kind that is not served is not made either.
    catalog::by_kind(wanted.api_version(), wanted.kind()).is_none_or(|kind| {
        let key = pipeline::key(kind, wanted.namespace(), wanted.name());
        core.store.get(&key).is_some()
    })
}

impl Server {
    /// Waits until this member has applied the roles and bindings that every cluster starts with:
    /// before that, nobody but the server itself may do anything. Returns at once on all but the
    /// first start of a cluster.
    pub async fn bootstrapped(&self) {
        loop {
            let next = Revision(self.core.store.revision().0 + 1);
            if has_roles(&self.core) {
                return;
            }
            // A store that has stopped ends the process; until then this is not to spin.
            let (look, _) = tokio::join!(
                self.core.store.wait_for(next, LOOK_AGAIN),
                tokio::time::sleep(Duration::from_millis(5)),
            );
            if let Err(error) = look {
                tracing::debug!(%error, "no roles to act by yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft_store::{MemberId, Term};

    #[test]
    fn a_follower_does_not_wait_for_ever_for_what_its_leader_does_not_know() {
        let alone = Leadership::default();
        let follows = Leadership { leader: Some(MemberId(2)), term: Term(3), ..alone };
        let leads = Leadership { leading: Some(Term(3)), ..follows };
        let (soon, late) = (LEADER_MAKES_IT / 2, LEADER_MAKES_IT);
        assert!(!is_overdue(follows, || soon));
        assert!(is_overdue(follows, || late));
        assert!(!is_overdue(leads, || late), "it makes them itself");
        assert!(!is_overdue(alone, || late), "nobody makes them");
    }
}
