//! Which cluster this is: said once, by its first leader or by a restore, and by every member to
//! every other with each call. Members of different clusters refuse each other, so that what was
//! restored from a backup never mixes with the members it was taken from.

use crate::{
    codec,
    config::Peer,
    levels,
    members::Leadership,
    raft::{
        Payload, Raft, convert,
        network::{self, Links},
    },
    shared::Shared,
    time::{Instant, sleep},
    types::{Cluster, MemberId},
};
use http::HeaderMap;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::watch;
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

const HEADER: &str = "coxswain-cluster";

/// How often a leader looks whether it may name the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For this long members that do not answer are waited for: they may be of a version that cannot
/// read the name. Later they are not worth a cluster without a name, and would say what is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// Has the first leader say which cluster this is.
pub(crate) struct Founder {
    pub(crate) raft: Raft,
    pub(crate) links: Links,
    pub(crate) shared: Arc<Shared>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) own: MemberId,
    /// What the cluster is called if this member names it.
    pub(crate) name: Cluster,
}

impl Founder {
    /// Ends when it is known here, or the member ends.
    pub(crate) async fn run(mut self) {
        let mut leads_since = None;
        while self.shared.cluster().get().is_none() {
            if self.leadership.borrow_and_update().leading.is_none() {
                leads_since = None;
                if self.leadership.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let since = *leads_since.get_or_insert_with(Instant::now);
            let others = levels::read_by_others(&self.raft, &self.links, self.own).await;
            if self.shared.knows() >= codec::FOUNDS && may_name(&others, since.elapsed()) {
                let payload = Payload(codec::encode_found(&self.name));
                match self.raft.client_write(payload).await {
                    // Applied here; if another was faster, that one's counts.
                    Ok(_) => continue,
                    Err(error) => tracing::debug!(%error, "which cluster this is was not written"),
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

fn may_name(others: &[Option<u32>], leading_for: Duration) -> bool {
    others.iter().all(|reads| match reads {
        Some(version) => *version >= codec::FOUNDS,
        None => leading_for >= PATIENCE,
    })
}

/// The cluster that one of these peers belongs to already, and which peer: then no group is to be
/// started with them.
pub(crate) async fn known_to(
    links: &Links,
    peers: &[(MemberId, Peer)],
    deadline: Duration,
) -> Option<(String, Cluster)> {
    let asked = peers.iter().map(|(_, peer)| async move {
        let link = links.link(peer.clone()).ok()?;
        let cluster = network::status(&link, deadline).await?.cluster?;
        Some((peer.name.clone(), convert::from_cluster(cluster)))
    });
    futures::future::join_all(asked).await.into_iter().flatten().next()
}

/// Tells peers which cluster this member belongs to, as soon as it knows.
#[derive(Clone, Default)]
pub(crate) struct Introduce(Arc<OnceLock<Cluster>>);

impl Introduce {
    pub(crate) fn new(shared: &Shared) -> Introduce {
        Introduce(shared.cluster().clone())
    }

    /// The same for a call that is not tonic's.
    pub(crate) fn headers(&self) -> Result<HeaderMap, Status> {
        let introduced = self.clone().call(Request::new(()))?;
        Ok(introduced.into_parts().0.into_headers())
    }
}

impl Interceptor for Introduce {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(cluster) = self.0.get() {
            let value = MetadataValue::try_from(format!("{} {}", cluster.id, cluster.epoch));
            let value = value.map_err(|error| Status::internal(error.to_string()))?;
            request.metadata_mut().insert(HEADER, value);
        }
        Ok(request)
    }
}

/// Lets in members of this cluster, and those that do not yet know theirs.
#[derive(Clone)]
pub(crate) struct Doorkeeper {
    own: Arc<OnceLock<Cluster>>,
    name: String,
}

impl Doorkeeper {
    pub(crate) fn new(shared: &Shared, name: &str) -> Doorkeeper {
        Doorkeeper { own: shared.cluster().clone(), name: name.into() }
    }
}

impl Interceptor for Doorkeeper {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let theirs = request.metadata().get(HEADER);
        let theirs = match theirs.map(|value| value.to_str().ok().and_then(parse)) {
            None => return Ok(request),
            Some(None) => return Err(Status::invalid_argument(format!("{HEADER}: unreadable"))),
            Some(Some(theirs)) => theirs,
        };
        match self.own.get().and_then(|own| refusal(&self.name, own, &theirs)) {
            None => Ok(request),
            Some(why) => Err(Status::failed_precondition(why)),
        }
    }
}

fn parse(text: &str) -> Option<Cluster> {
    let (id, epoch) = text.split_once(' ')?;
    Some(Cluster { id: id.into(), epoch: epoch.parse().ok()? })
}

/// Why a member of `theirs` is not let in by `name` of `own`.
fn refusal(name: &str, own: &Cluster, theirs: &Cluster) -> Option<String> {
    if own.id == theirs.id {
        return None;
    }
    let advice = match theirs.epoch.cmp(&own.epoch) {
        std::cmp::Ordering::Less => {
            "this cluster was restored from a backup: remove the data directory of the caller and \
             let it join anew"
        }
        std::cmp::Ordering::Greater => {
            "the caller's cluster was restored from a backup: stop this member, it is of the past"
        }
        std::cmp::Ordering::Equal => "correct the address, or the certificates of the peers",
    };
    Some(format!("{name} belongs to cluster {own}, the caller to cluster {theirs}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(id: &str, epoch: u64) -> Cluster {
        Cluster { id: id.into(), epoch }
    }

    #[test]
    fn members_that_could_not_read_the_name_are_waited_for() {
        let (now, later) = (Duration::ZERO, PATIENCE);
        assert!(may_name(&[], now), "it is alone");
        assert!(may_name(&[Some(3), Some(4)], now));
        assert!(!may_name(&[Some(3), Some(0)], later), "an older one that is up would stop");
        assert!(!may_name(&[Some(3), None], now), "one that is down may be older");
        assert!(may_name(&[Some(3), None], later), "but is not waited for without end");
    }

    #[test]
    fn another_cluster_is_refused_with_what_to_do() {
        let own = cluster("b", 2);
        assert_eq!(refusal("m1", &own, &cluster("b", 2)), None);
        let older = refusal("m1", &own, &cluster("a", 1)).expect("refused");
        assert!(older.contains("remove the data directory of the caller"), "{older}");
        let newer = refusal("m1", &own, &cluster("c", 3)).expect("refused");
        assert!(newer.contains("it is of the past"), "{newer}");
        assert!(refusal("m1", &own, &cluster("x", 2)).expect("refused").contains("address"));
    }

    #[test]
    fn the_caller_is_asked_with_every_call() {
        let own = Arc::new(OnceLock::new());
        let mut door = Doorkeeper { own: own.clone(), name: "m1".into() };
        let introduced = |cluster: Cluster| {
            let mut introduce = Introduce(Arc::new(OnceLock::from(cluster)));
            introduce.call(Request::new(())).expect("introduced")
        };
        assert!(door.call(introduced(cluster("a", 1))).is_ok(), "not known here yet");
        own.set(cluster("b", 1)).expect("set once");
        assert!(door.call(introduced(cluster("a", 1))).is_err());
        assert!(door.call(introduced(cluster("b", 1))).is_ok());
        assert!(door.call(Request::new(())).is_ok(), "the caller does not know yet");
        let mut odd = Request::new(());
        odd.metadata_mut().insert(HEADER, "odd".parse().expect("ASCII"));
        assert!(door.call(odd).is_err());
    }
}
