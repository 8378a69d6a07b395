//! The group's level: the newest version of commands that every member reads. Nothing newer is
//! proposed, so that members of an earlier program go on while others are upgraded, and can be gone
//! back to. When all have been upgraded the leader raises it, by an entry of the log; it never falls,
//! and a program that knows less is refused from then on.

use crate::{
    codec,
    members::Leadership,
    raft::{
        Payload, Raft,
        network::{self, Links},
    },
    shared::Shared,
    time::{sleep, timeout},
    types::{Error, MemberId},
};
use openraft::async_runtime::WatchReceiver as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often a leader looks whether the level may rise, while it may.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a transaction waits for it: a new group's first leader has yet to hear from everybody.
const PATIENCE: Duration = Duration::from_secs(2);

/// Raises the level while this member leads.
pub(crate) struct Raising {
    pub(crate) raft: Raft,
    pub(crate) links: Links,
    pub(crate) shared: Arc<Shared>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) own: MemberId,
}

impl Raising {
    pub(crate) async fn run(mut self) {
        loop {
            let leads = self.leadership.borrow_and_update().leading.is_some();
            let level = self.shared.read().state.level();
            if !leads || level >= self.shared.knows() {
                if self.leadership.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let others = read_by_others(&self.raft, &self.links, self.own).await;
            if let Some(level) = risen(level, self.shared.knows(), &others) {
                match self.raft.client_write(Payload(codec::encode_raise(level))).await {
                    Ok(_) => tracing::info!(level, "all members read commands of this version"),
                    Err(error) => tracing::debug!(%error, "the level was not raised"),
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The level that may be reached; `None` if it stays. One that is silent may be of an earlier version.
fn risen(level: u32, own: u32, others: &[Option<u32>]) -> Option<u32> {
    let read = others.iter().copied().chain([Some(own)]).collect::<Option<Vec<u32>>>()?;
    let all = read.into_iter().min()?;
    // The entry that says so has to be read as well.
    (all > level && all >= codec::RAISES).then_some(all)
}

/// Of each other member the newest version of commands that it reads; `None`: it is silent.
pub(crate) async fn read_by_others(raft: &Raft, links: &Links, own: MemberId) -> Vec<Option<u32>> {
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    let others = membership.nodes().map(|(id, _)| *id).filter(|id| *id != own.0);
    let asked = others.map(|id| async move {
        let link = links.to_member(raft, id)?;
        Some(network::status(&link, LOOK_EVERY).await?.reads)
    });
    futures::future::join_all(asked).await
}

/// Whether a state of a group at `level` is for a program that `knows` so much; if not, why.
pub(crate) fn known(level: u32, knows: u32) -> Result<(), String> {
    match level <= knows {
        true => Ok(()),
        false => Err(format!(
            "all masters of its group read commands of version {level}, and from then on it is for programs that \
             do; this one reads up to {knows}"
        )),
    }
}

/// Returns when every member reads what needs `version`, as far as this one knows.
pub(crate) async fn reached(shared: &Shared, version: u32) -> Result<(), Error> {
    let level = || shared.read().state.level();
    if version <= codec::WRITES || level() >= version {
        return Ok(());
    }
    let mut applied = shared.applied();
    let raised = async { while level() < version && applied.changed().await.is_ok() {} };
    tokio::select! {
        biased;
        error = shared.until_stopped() => return Err(error),
        _ = timeout(PATIENCE, raised) => {}
    }
    match level() {
        level if level < version => Err(Error::NotYet { version, level: level.max(codec::WRITES) }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_what_all_members_read() {
        let (before, raises) = (codec::RAISES - 1, codec::RAISES);
        assert_eq!(risen(0, raises, &[]), Some(raises), "one member");
        assert_eq!(risen(0, raises, &[Some(raises), Some(raises)]), Some(raises));
        assert_eq!(risen(0, raises, &[Some(raises), Some(before)]), None, "it could not read it");
        assert_eq!(risen(0, raises, &[Some(raises), None]), None, "nobody knows what it reads");
        assert_eq!(risen(raises, raises, &[Some(raises)]), None, "it is there");
        let later = raises + 1;
        assert_eq!(risen(raises, later, &[Some(later), Some(later)]), Some(later));
        assert_eq!(risen(raises, later, &[Some(raises), Some(later)]), None);
        assert_eq!(risen(raises, later, &[Some(later + 1)]), Some(later));
    }
}
