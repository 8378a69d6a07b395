//! Heartbeats of nodes: renewals of their Leases are remembered by the master that answers them and
//! told to the others, and cost the log nothing.
//!
//! Only a change of nothing but `spec.renewTime`, of a Lease in `kube-node-lease`, is a heartbeat;
//! everything else is written. It keeps the Lease's resource version and is seen by who gets or lists
//! the Lease, not by who watches it. After all masters have stopped the times before are forgotten,
//! and nodes are as old as the lead.

mod table;

use crate::{encode, memo, metrics, pipeline::Core};
use bytes::Bytes;
use futures::future::join_all;
use k8s::Object;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use raft_store::{Key, MemberId, Store, Stored};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use table::Table;
use tokio::{sync::watch, time::MissedTickBehavior};
use wire::{
    Message as _,
    heartbeats::{Digest, Since},
};

/// Where Leases are stored.
const SPACE: &str = "coordination.k8s.io/leases";
const NAMESPACE: &str = "kube-node-lease";
const TOPIC: &str = "heartbeats";
/// How often masters ask each other.
// A new leader's ages are off by as much; a node is silent for 40 s before anybody acts on it.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long after its last contact with the cluster a master still answers for it, and keeps those who
/// watch what no longer changes there.
// A node whose master is cut off must notice it and go to another, well within its 40 s.
const CONTACT_MAX: Duration = Duration::from_secs(5);
/// How often nodes that are no more are forgotten, in rounds of asking.
const FORGET_EVERY: u32 = 60;

/// Heartbeats known to one master.
pub(crate) struct Heartbeats {
    table: Mutex<Table>,
    /// When this master last knew that a quorum followed the leader it knows.
    contact: Mutex<Option<Instant>>,
    /// How often all other masters have been asked.
    rounds: watch::Sender<u32>,
    beats: IntCounterVec,
    nodes: IntGauge,
}

impl Heartbeats {
    pub(crate) fn new(registry: &Registry) -> Heartbeats {
        let help = "Heartbeats of nodes, by who heard them: this master or a peer.";
        let options = Opts::new("coxswain_node_heartbeats_total", help);
        let beats = metrics::registered(registry, IntCounterVec::new(options, &["heard_by"]));
        let help = "Nodes that any master has heard of.";
        let nodes =
            IntGauge::new("coxswain_node_heartbeats_known_nodes", help).expect("valid metric");
        // A second server over the same registry counts for itself.
        let _ = registry.register(Box::new(beats.clone()));
        let _ = registry.register(Box::new(nodes.clone()));
        Heartbeats {
            table: Mutex::new(Table::new(rand::random())),
            contact: Mutex::new(None),
            rounds: watch::Sender::new(0),
            beats,
            nodes,
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long ago any master heard of the node, as far as this one knows.
    pub(crate) fn age(&self, node: &str) -> Option<Duration> {
        self.table().heard(node).map(|heard| heard.elapsed())
    }

    /// Waits until what the other masters know now is known here.
    pub(crate) async fn heard_out(&self) {
        let mut rounds = self.rounds.subscribe();
        // The one under way may have asked before now.
        let wanted = *rounds.borrow_and_update() + 2;
        // Only fails when the server is gone, and with it who waits.
        let _ = rounds.wait_for(|round| *round >= wanted).await;
    }

    fn in_contact(&self) -> bool {
        let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
        contact.is_some_and(|contact| contact.elapsed() < CONTACT_MAX)
    }

    fn touch(&self) {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Waits until this master has had no contact for that long, after it had some; if it has none already,
    /// until that is so for as long again.
    pub(crate) async fn cut_off(&self) {
        loop {
            let contact = *self.contact.lock().unwrap_or_else(PoisonError::into_inner);
            tokio::time::sleep(next_look(contact.map(|contact| contact.elapsed()))).await;
            if contact.is_some() && !self.in_contact() {
                return;
            }
        }
    }

    /// What is stored, with the time of the last heartbeat.
    pub(crate) fn shown(&self, stored: Arc<Stored>) -> Arc<Stored> {
        let Some(name) = lease_of_node(&stored.key) else { return stored };
        let time = self.table().renew_time(name, stored.revision.0).map(str::to_string);
        let Some(time) = time else { return stored };
        let mut lease = memo::parse(&stored);
        lease.0.entry("spec").or_insert_with(|| Value::Object(Default::default()))["renewTime"] =
            time.into();
        encode::strip(&mut lease);
        let body = encode::body(&lease);
        Arc::new(Stored::new(stored.key.clone(), stored.revision, stored.created, body))
    }

    /// What another master wants to know. A question nobody can read asks for everything.
    fn answer(&self, question: &[u8]) -> Bytes {
        let since = Since::decode(question).unwrap_or_default();
        let digest = self.table().digest(&since, Instant::now());
        digest.encode_to_vec().into()
    }

    /// All that is new of one master; where to go on next time.
    async fn ask(&self, store: &Store, of: MemberId, mut since: Since) -> Since {
        loop {
            let question = since.encode_to_vec().into();
            let Some(answer) = store.ask(of, TOPIC, question).await else { return since };
            let Ok(digest) = Digest::decode(answer) else {
                tracing::warn!(member = %of, "a digest of heartbeats that cannot be read");
                return since;
            };
            self.table().merge(&digest.beats, Instant::now());
            self.beats.with_label_values(&["peer"]).inc_by(digest.beats.len() as u64);
            since = Since { life: digest.life, number: digest.number };
            if !digest.more {
                return since;
            }
        }
    }
}

/// When to look whether contact was lost, by how long ago it was.
fn next_look(contact: Option<Duration>) -> Duration {
    match contact.map(|age| CONTACT_MAX.saturating_sub(age)) {
        Some(left) if !left.is_zero() => left,
        _ => CONTACT_MAX,
    }
}

/// The node whose Lease lives under `key`.
fn lease_of_node(key: &Key) -> Option<&str> {
    let path = Some(&key.path).filter(|_| &*key.space == SPACE)?;
    path.strip_prefix(NAMESPACE)?.strip_prefix('/')
}

/// True if the two differ in nothing but when the Lease was renewed.
fn only_renewed(old: &Object, new: &Object) -> bool {
    let timeless = |lease: &Object| {
        let mut lease = lease.clone();
        encode::strip(&mut lease);
        if let Some(spec) = lease.0.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("renewTime")?;
        }
        for entry in lease.metadata_mut().get_mut("managedFields")?.as_array_mut()? {
            entry.as_object_mut()?.remove("time");
        }
        Some(lease)
    };
    match (timeless(old), timeless(new)) {
        (Some(old), Some(new)) => old == new,
        _ => false,
    }
}

impl Core {
    /// True if the change of `shown` to `new` is a heartbeat: it is remembered, and not to be written.
    pub(crate) fn heartbeat(&self, shown: &Stored, new: &Object) -> bool {
        let Some(name) = lease_of_node(&shown.key) else { return false };
        if !self.heartbeats.in_contact() || !only_renewed(&memo::parse(shown), new) {
            return false;
        }
        let now = Instant::now();
        let time = new.str_at("/spec/renewTime");
        self.heartbeats.table().record(name, shown.revision.0, time, now);
        self.heartbeats.beats.with_label_values(&["self"]).inc();
        true
    }

    /// Tells the other masters of heartbeats and hears of theirs. Runs until dropped; once a process.
    pub(crate) async fn share_heartbeats(self: &Arc<Core>) {
        let answering = Arc::downgrade(self);
        self.store.answer(
            TOPIC,
            Arc::new(move |question| match answering.upgrade() {
                Some(core) => core.heartbeats.answer(question),
                None => Bytes::new(),
            }),
        );
        let mut known: BTreeMap<MemberId, Since> = BTreeMap::new();
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 1_u32.. {
            tick.tick().await;
            let mut others = self.store.members();
            others.retain(|member| member.id != self.store.member());
            let asked = others.iter().map(|member| {
                let since = known.get(&member.id).copied().unwrap_or_default();
                async move { (member.id, self.heartbeats.ask(&self.store, member.id, since).await) }
            });
            let contact = async {
                if self.store.barrier().await.is_ok() {
                    self.heartbeats.touch();
                }
            };
            let (asked, ()) = tokio::join!(join_all(asked), contact);
            known = asked.into_iter().collect();
            if round % FORGET_EVERY == 0 {
                let exists = |name: &str| {
                    let key = Key::new(SPACE, format!("{NAMESPACE}/{name}"));
                    self.store.get(&key).is_some()
                };
                self.heartbeats.table().retain(exists);
            }
            self.heartbeats.nodes.set(self.heartbeats.table().len() as i64);
            self.heartbeats.rounds.send_replace(round);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lease(time: &str, more: Value) -> Object {
        let mut lease = json!({
            "metadata": {"name": "n1", "uid": "u", "resourceVersion": "5", "managedFields": [
                {"manager": "kubelet", "operation": "Update", "time": time},
            ]},
            "spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40, "renewTime": time},
        });
        k8s::patch::merge(lease.take(), &more).ok().and_then(Object::from_value).expect("an object")
    }

    #[test]
    fn contact_is_looked_at_when_it_may_have_been_lost() {
        let seconds = Duration::from_secs;
        assert_eq!(next_look(Some(seconds(2))), seconds(3));
        for (since, why) in
            [(None, "never had any"), (Some(5), "lost"), (Some(60), "lost long ago")]
        {
            assert_eq!(next_look(since.map(seconds)), CONTACT_MAX, "{why}");
        }
    }

    #[test]
    fn only_a_later_renewal_is_a_heartbeat() {
        let old = lease("2026-01-01T00:00:00.000000Z", json!({}));
        let later = "2026-01-01T00:00:10.000000Z";
        assert!(only_renewed(&old, &lease(later, json!({}))));
        assert!(!only_renewed(&old, &lease(later, json!({"spec": {"holderIdentity": "n2"}}))));
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        assert!(!only_renewed(&old, &lease(later, label)));
        let owner = json!({"metadata": {"managedFields": [{"manager": "other"}]}});
        assert!(!only_renewed(&old, &lease(later, owner)), "a new owner is written");
        assert!(!only_renewed(&old, &lease(later, json!({"spec": {"renewTime": null}}))));
    }
}
