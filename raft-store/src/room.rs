//! Room on the disk. A group that could fill one refuses to grow while there is still enough left for
//! deletions, elections and the log's end, so that it reads, watches and elects on, and takes writes
//! again when there is room, without anybody's help.
//!
//! Two marks below which little room has its effect: at the reserve, the leader's group takes nothing
//! that grows; at a quarter of it, a member takes no entries either, for a write that fails would stop
//! it. Room counts as back a quarter above the reserve, so that a group at the mark does not flap. A
//! leader at the reserve hands over to a member that has room (`membership::chore`).

use crate::{
    metrics::Metrics,
    steward::Steward,
    time::{Ticks, blocking},
    types::{Error, MemberId, Op, Txn},
};
use openraft::async_runtime::WatchReceiver as _;
use std::{
    collections::BTreeMap,
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// How often room is measured; a reserve is more than what can be written meanwhile.
const MEASURE_EVERY: Duration = Duration::from_millis(500);

/// What a member keeps free, and who says how much there is.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Bytes; the group stops growing when less is left.
    pub reserve: u64,
    pub free_space: Arc<dyn FreeSpace>,
}

impl Default for Disk {
    /// 512 MiB on the file system of the data.
    fn default() -> Disk {
        Disk { reserve: 512 << 20, free_space: Arc::new(FileSystem) }
    }
}

/// How much room there is where a member keeps its data.
pub trait FreeSpace: fmt::Debug + Send + Sync {
    /// Bytes that may still be written below `dir`. May block for as long as the disk does.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// What the file system says (`statvfs`): what is free for processes without privileges.
#[derive(Clone, Copy, Debug)]
pub struct FileSystem;

impl FreeSpace for FileSystem {
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let volume = nix::sys::statvfs::statvfs(dir)?;
        Ok(volume.blocks_available() * volume.fragment_size())
    }
}

/// One member's room, as last measured, and what follows from everybody's.
#[derive(Debug)]
pub(crate) struct Room {
    reserve: u64,
    free: AtomicU64,
    full: AtomicBool,
    /// Who lacks room, if that keeps the group from growing.
    lacking: Mutex<Option<String>>,
}

impl Room {
    pub(crate) fn new(reserve: u64) -> Room {
        let (free, full) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        Room { reserve, free, full, lacking: Mutex::default() }
    }

    /// Takes a measurement; whether fullness changed with it.
    fn measured(&self, free: u64) -> bool {
        self.free.store(free, Ordering::Relaxed);
        let mark = match self.full() {
            true => self.reserve.saturating_add(self.reserve / 4),
            false => self.reserve,
        };
        let full = free < mark;
        self.full.swap(full, Ordering::Relaxed) != full
    }

    pub(crate) fn full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// So little that not even what the others hold may be taken.
    pub(crate) fn spent(&self) -> bool {
        self.free.load(Ordering::Relaxed) < self.reserve / 4
    }

    /// `DiskFull` for what would make the group grow while it must not. What takes no more room than
    /// before is let through, so that room can be made.
    pub(crate) fn admit(&self, txn: &Txn) -> Result<(), Error> {
        let lacking = self.lacking.lock().expect("only replaced");
        match &*lacking {
            Some(members) if grows(txn) => Err(Error::DiskFull { members: members.clone() }),
            _ => Ok(()),
        }
    }
}

/// The task that measures.
pub(crate) struct Measuring {
    pub(crate) disk: Disk,
    pub(crate) steward: Steward,
    pub(crate) metrics: Metrics,
}

impl Measuring {
    pub(crate) async fn run(self) {
        let mut tick = Ticks::every(MEASURE_EVERY);
        loop {
            tick.tick().await;
            self.measure().await;
            let lacking = self.lacking();
            *self.steward.room.lacking.lock().expect("only replaced") = lacking;
        }
    }

    async fn measure(&self) {
        let (free_space, dir) = (self.disk.free_space.clone(), self.steward.data_dir.clone());
        let measured = blocking(move || free_space.free_bytes(&dir)).await;
        let free = match measured {
            Ok(Ok(free)) => free,
            Ok(Err(error)) => return tracing::warn!(%error, "free space is not known"),
            Err(_) => return,
        };
        self.metrics.disk_free.set(free as i64);
        let room = &self.steward.room;
        if room.measured(free) {
            let (full, reserve) = (room.full(), room.reserve);
            self.metrics.disk_full.set(i64::from(full));
            match full {
                true => tracing::error!(
                    free,
                    reserve,
                    "the disk is full: less than the reserve is left"
                ),
                false => tracing::info!(free, reserve, "there is room on the disk again"),
            }
        }
    }

    /// The names of those that lack room, if the group must not grow for it.
    fn lacking(&self) -> Option<String> {
        let raft = self.steward.raft.metrics().borrow_watched().clone();
        let mut full = BTreeMap::new();
        for id in raft.membership_config.voter_ids() {
            let is = match MemberId(id) == self.steward.id {
                true => self.steward.room.full(),
                false => self.steward.statuses.of(id).is_some_and(|status| status.disk_full),
            };
            full.insert(MemberId(id), is);
        }
        let who = who_is_full(raft.current_leader.map(MemberId), &full);
        let nodes = raft.membership_config.nodes();
        let names: BTreeMap<u64, &str> = nodes.map(|(id, peer)| (*id, &*peer.name)).collect();
        let names: Vec<&str> = who.iter().filter_map(|id| names.get(&id.0).copied()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// Why a group may not grow; `None` if it may: `leader` and a quorum of the voters have room. `full`
/// has all of them that were heard of and whether they are full; others are no reason, they count
/// where it matters, in the quorum that an entry needs.
fn who_is_full(leader: Option<MemberId>, full: &BTreeMap<MemberId, bool>) -> Vec<MemberId> {
    let those: Vec<MemberId> = full.iter().filter(|(_, full)| **full).map(|(id, _)| *id).collect();
    let leader_is = leader.is_some_and(|leader| those.contains(&leader));
    let quorum_is = those.len() * 2 >= full.len().max(1);
    match leader_is || quorum_is {
        true => those,
        false => Vec::new(),
    }
}

fn grows(txn: &Txn) -> bool {
    txn.writes.iter().any(|write| matches!(write.op, Op::Put(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Guard, Key, Write};

    #[test]
    fn a_full_disk_has_room_again_only_well_above_the_reserve() {
        let room = Room::new(1000);
        assert!(!room.full() && !room.spent(), "not measured yet");
        let steps = [(1000, false), (999, true), (1100, true), (1250, false), (1001, false)];
        for (free, full) in steps {
            let before = room.full();
            assert_eq!(room.measured(free), before != full, "{free}");
            assert_eq!(room.full(), full, "{free}");
        }
        room.measured(249);
        assert!(room.spent());
    }

    #[test]
    fn a_group_grows_while_its_leader_and_a_quorum_have_room() {
        let members = |full: [bool; 3]| (1..).map(MemberId).zip(full).collect();
        let who = |leader, full| {
            let who = who_is_full(leader, &members(full));
            who.into_iter().map(|id| id.0).collect::<Vec<_>>()
        };
        let leader = Some(MemberId(1));
        assert!(who(leader, [false, false, false]).is_empty());
        assert!(who(leader, [false, false, true]).is_empty(), "two of three hold what is written");
        assert_eq!(who(leader, [true, false, false]), [1], "the leader's log is the first to grow");
        assert_eq!(who(leader, [false, true, true]), [2, 3]);
        assert_eq!(who(None, [false, true, true]), [2, 3]);
        assert!(who_is_full(None, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn room_can_be_made_when_there_is_none() {
        let key = || Key::new("pods", "a");
        let txn = |ops: Vec<Op>| Txn {
            writes: ops.into_iter().map(|op| Write { key: key(), guard: Guard::Any, op }).collect(),
            ..Txn::default()
        };
        assert!(!grows(&txn(vec![Op::Check, Op::Delete])));
        assert!(grows(&txn(vec![Op::Delete, Op::Put("body".into())])));
    }
}
