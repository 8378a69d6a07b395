//! A new leader plans from all that leaders before it wrote. Its state holds that when it begins to lead; the
//! cache of its controllers and scheduler may be behind, and what it does not show yet would be made again.

use k8s::Revision;
use reconcile::{Cache, Gate, KindInfo, World};
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// A cache is milliseconds behind. One whose watch is broken must not keep everything from going on.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the state of this master says of its changes.
pub trait History: Send + Sync {
    /// Of the newest change.
    fn revision(&self) -> Revision;

    /// Up to which revision no object of the kind changed after `after`.
    fn quiet_until(&self, kind: &KindInfo, after: Revision) -> Revision;
}

/// Opens when `gate` is open and the cache shows everything that there was then; closes with `gate`.
pub(crate) fn behind(
    gate: Gate,
    cache: Arc<Cache>,
    history: Arc<dyn History>,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) -> Gate {
    let (opens, opened) = watch::channel(None);
    let stop = shutdown.clone();
    tasks.spawn(async move {
        let caught_up = || catch_up(cache.clone(), history.clone());
        stop.run_until_cancelled(follow(gate, &opens, caught_up)).await;
    });
    Gate::new(opened)
}

async fn catch_up(cache: Arc<Cache>, history: Arc<dyn History>) {
    let wanted = history.revision();
    if !cache.wait_until(PATIENCE, |world| shows(world, &*history, wanted)).await {
        tracing::warn!(%wanted, "the cache is behind: planning from what it shows");
    }
}

async fn follow<F: Future<Output = ()>>(
    mut gate: Gate,
    opens: &watch::Sender<Option<u64>>,
    caught_up: impl Fn() -> F,
) {
    loop {
        opens.send_replace(None);
        if let Some(term) = gate.observe() {
            tokio::select! {
                biased;
                () = gate.changed() => continue,
                () = caught_up() => drop(opens.send_replace(Some(term))),
            }
        }
        gate.changed().await;
    }
}

/// Kinds that users define may take their time.
fn shows(world: &World, history: &dyn History, wanted: Revision) -> bool {
    let shown = |kind: &KindInfo| {
        !world.complete(kind) || history.quiet_until(kind, world.progress(kind)) >= wanted
    };
    world.all_complete() && world.kinds().all(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::sync::Notify;

    const PODS: KindInfo =
        KindInfo { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true };

    /// Kinds changed last at that revision; the state is at 9.
    struct Changed(u64);

    impl History for Changed {
        fn revision(&self) -> Revision {
            Revision(9)
        }

        fn quiet_until(&self, _: &KindInfo, after: Revision) -> Revision {
            if after.0 < self.0 { Revision(self.0 - 1) } else { self.revision() }
        }
    }

    #[test]
    fn what_changed_before_the_lead_is_shown() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
                         "metadata": {"name": "a", "namespace": "b", "resourceVersion": "5"}});
        let pod = k8s::Object::from_value(pod).expect("an object");
        let world = World::of([PODS], &[pod]);
        assert_eq!(world.progress(&PODS), Revision(5));
        assert!(shows(&world, &Changed(5), Revision(9)), "nothing is newer");
        assert!(!shows(&world, &Changed(7), Revision(9)), "a change is not shown yet");
        assert!(shows(&world, &Changed(7), Revision(6)), "it came later");
    }

    #[tokio::test]
    async fn nothing_is_planned_before_the_cache_has_caught_up() {
        let (lead, leads) = watch::channel(Some(1));
        let (opens, mut opened) = watch::channel(None);
        let (begins, ready) = (Notify::new(), Notify::new());
        let caught_up = || async {
            begins.notify_one();
            ready.notified().await;
        };
        let story = async {
            begins.notified().await;
            assert_eq!(*opened.borrow(), None);
            // The lead moves away and comes back before it had.
            lead.send_replace(None);
            lead.send_replace(Some(3));
            begins.notified().await;
            assert_eq!(*opened.borrow(), None);
            ready.notify_one();
            opened.wait_for(|term| *term == Some(3)).await.expect("open");
            lead.send_replace(None);
            opened.wait_for(Option::is_none).await.expect("closed");
        };
        tokio::select! {
            () = follow(Gate::new(leads), &opens, caught_up) => unreachable!("it goes on for ever"),
            () = story => {}
        }
    }
}
