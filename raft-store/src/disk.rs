//! The state on disk: every version that is current or in the history window, the compaction
//! floor, the applied log id and what is remembered of proposers, always written together.
//!
//! There is no write-ahead file: what was not flushed is applied again from the Raft log, which
//! is purged only behind a flush.

#[cfg(test)]
use crate::mutants::{self, Mutant};
use crate::{
    ages::Ages,
    config::Peer,
    raft::{LogId, Membership, StoredMembership, log_id},
    roster::Roster,
    seal::{Plain, Seal},
    shared::History,
    state::{Applied, Loader, Outcome, Session, SessionState, State},
    state_engine::{Engines, Family, Reading, RowOp, Rows, StateEngine},
    types::{Change, Cluster, Error, Key, LogIndex, MemberId, Revision, Stored},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

const APPLIED: &[u8] = b"m-applied";
const MEMBERSHIP: &[u8] = b"m-membership";
const CLUSTER: &[u8] = b"m-cluster";
const ROSTER: &[u8] = b"m-roster";
const LEVEL: &[u8] = b"m-level";
const REVISION: &[u8] = b"m-revision";
const FLOOR: &[u8] = b"m-floor";
/// History is physically gone up to here; `<= floor`.
const SWEPT: &[u8] = b"m-swept";
/// Of this member's own: how old history is.
const AGES: &[u8] = b"m-ages";

/// The state in one directory, which goes with the value if `delete_when_dropped` was called.
pub(crate) struct StateDisk {
    engine: Option<Box<dyn StateEngine>>,
    dir: PathBuf,
    seal: Arc<dyn Seal>,
    delete: std::sync::atomic::AtomicBool,
    /// Goes last, when the files are closed.
    open: Arc<()>,
}

/// What the disk knew about the log when it was flushed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AppliedTo {
    pub(crate) log_id: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// As of the same entry.
    pub(crate) roster: Roster,
}

/// Where a change is in history. Only those after the first of their revision say their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) revision: Revision,
    pub(crate) place: u32,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revision {} (place {})", self.revision, self.place)
    }
}

impl At {
    pub(crate) fn first(revision: Revision) -> At {
        At { revision, place: 0 }
    }

    fn key(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(13);
        key.push(b'h');
        key.extend(self.revision.0.to_be_bytes());
        if self.place > 0 {
            key.extend(self.place.to_be_bytes());
        }
        key
    }

    /// `None` for the key of something else.
    fn parse(key: &[u8]) -> Option<At> {
        let key = key.strip_prefix(b"h")?;
        let place = match key.len() {
            8 => 0,
            _ => key.get(8..)?.try_into().map(u32::from_be_bytes).ok()?,
        };
        Some(At { revision: Revision(number(key, 0)?), place })
    }
}

fn outcome_key(session: Session, serial: u64) -> [u8; 17] {
    let mut key = [b'q'; 17];
    key[1..9].copy_from_slice(&session.0.to_be_bytes());
    key[9..].copy_from_slice(&serial.to_be_bytes());
    key
}

fn session_key(session: Session) -> [u8; 9] {
    let mut key = [b's'; 9];
    key[1..].copy_from_slice(&session.0.to_be_bytes());
    key
}

fn number(key: &[u8], at: usize) -> Option<u64> {
    key.get(at..at + 8)?.try_into().map(u64::from_be_bytes).ok()
}

/// One version or deletion in history. The version it replaced stays in history as long as this.
struct Record {
    key: Key,
    /// `None`: a deletion.
    put: Option<Put>,
    old: Option<At>,
}

struct Put {
    created: Revision,
    version: u64,
    body: Bytes,
}

// What a record begins with: bits that say what is in it.
const IS_PUT: u8 = 1;
/// The version comes after the other numbers. Records without it were written before it was counted.
const HAS_VERSION: u8 = 2;
/// The old one's place comes after that; it is not the first of its revision.
const HAS_OLD_PLACE: u8 = 4;

fn encode(change: &Change, seal: &dyn Seal) -> BytesMut {
    let key = change.key();
    let (created, body) = match &change.new {
        Some(new) => (new.created.0, seal.seal(key, &new.body)),
        None => (0, Bytes::new()),
    };
    let strings = key.space.len() + key.path.len();
    let mut out = BytesMut::with_capacity(1 + 8 + 8 + 8 + 4 + 8 + strings + body.len());
    let old_place = change.old.as_ref().map_or(0, |old| old.place);
    let put = if change.new.is_some() { IS_PUT | HAS_VERSION } else { 0 };
    out.put_u8(put | if old_place > 0 { HAS_OLD_PLACE } else { 0 });
    out.put_u64(created);
    out.put_u64(change.old.as_ref().map_or(0, |old| old.revision.0));
    if let Some(new) = &change.new {
        out.put_u64(new.version);
    }
    if old_place > 0 {
        out.put_u32(old_place);
    }
    for string in [&key.space, &key.path] {
        out.put_u32(string.len() as u32);
        out.put_slice(string.as_bytes());
    }
    out.put_slice(&body);
    out
}

/// With the body as it lies there.
fn decode(mut bytes: Bytes) -> Option<Record> {
    let flags = bytes.try_get_u8().ok()?;
    if flags > IS_PUT | HAS_VERSION | HAS_OLD_PLACE {
        return None;
    }
    let created = Revision(bytes.try_get_u64().ok()?);
    let old = Some(bytes.try_get_u64().ok()?).filter(|old| *old > 0).map(Revision);
    let version = if flags & HAS_VERSION > 0 { bytes.try_get_u64().ok()? } else { 1 };
    let place = if flags & HAS_OLD_PLACE > 0 { bytes.try_get_u32().ok()? } else { 0 };
    let old = old.map(|revision| At { revision, place });
    let mut string = || {
        let length = bytes.try_get_u32().ok()? as usize;
        let string = (length <= bytes.len()).then(|| bytes.split_to(length))?;
        Some(Arc::<str>::from(std::str::from_utf8(&string).ok()?))
    };
    let (space, path) = (string()?, string()?);
    let put = (flags & IS_PUT > 0).then_some(Put { created, version, body: bytes });
    Some(Record { key: Key { space, path }, put, old })
}

/// What a record says of itself; its body may be sealed.
pub(crate) struct RecordHead {
    pub(crate) key: Key,
    /// False: a deletion.
    pub(crate) put: bool,
    /// The version it replaced.
    pub(crate) old: Option<At>,
}

/// `None` if it is no record.
pub(crate) fn record_head(record: &Bytes) -> Option<RecordHead> {
    let Record { key, put, old } = decode(record.clone())?;
    Some(RecordHead { key, put: put.is_some(), old })
}

/// The record of a replaced version.
#[cfg(test)]
pub(crate) fn hostile_corpus() -> Vec<u8> {
    let stored = |revision| {
        let revision = Revision(revision);
        let body = Bytes::from_static(b"{}");
        Arc::new(
            Stored::new(Key::new("pods", "default/a"), revision, revision, body).numbered(1, 1),
        )
    };
    let (old, new) = (Some(stored(3)), Some(stored(4)));
    encode(&Change { revision: Revision(4), place: 0, old, new }, &Plain).to_vec()
}

impl Record {
    /// With the body as it is in memory.
    fn opened(mut self, seal: &dyn Seal) -> io::Result<Record> {
        if let Some(put) = &mut self.put {
            put.body = seal.open(&self.key, put.body.clone()).map_err(io::Error::other)?;
            seal.learn(&self.key, &put.body);
        }
        Ok(self)
    }

    fn stored(&self, at: At) -> Option<Arc<Stored>> {
        let put = self.put.as_ref()?;
        let stored = Stored::new(self.key.clone(), at.revision, put.created, put.body.clone());
        Some(Arc::new(stored.numbered(put.version, at.place)))
    }
}

fn corrupt(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

fn damaged(at: At) -> io::Error {
    corrupt(format!("the version at {at} is damaged"))
}

/// History above the floor has every revision, and every place of each.
pub(crate) fn follows(last: At, at: At) -> bool {
    match at.place {
        0 => at.revision.0 == last.revision.0 + 1,
        place => at.revision == last.revision && place == last.place + 1,
    }
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data")
}

impl StateDisk {
    /// Counts one for as long as the files are open, also while they are being closed.
    pub(crate) fn while_open(&self) -> Weak<()> {
        Arc::downgrade(&self.open)
    }

    pub(crate) fn open(
        engines: &dyn Engines,
        dir: &Path,
        seal: Arc<dyn Seal>,
    ) -> io::Result<StateDisk> {
        Ok(StateDisk::over(engines.open(dir)?, dir, seal))
    }

    /// To look at a checkpoint without changing it; nothing sealed is opened.
    pub(crate) fn open_read_only(engines: &dyn Engines, dir: &Path) -> io::Result<StateDisk> {
        Ok(StateDisk::over(engines.open_read_only(dir)?, dir, Arc::new(Plain)))
    }

    fn over(engine: Box<dyn StateEngine>, dir: &Path, seal: Arc<dyn Seal>) -> StateDisk {
        let (engine, delete, open) = (Some(engine), false.into(), Arc::new(()));
        StateDisk { engine, dir: dir.into(), seal, delete, open }
    }

    pub(crate) fn seal(&self) -> &Arc<dyn Seal> {
        &self.seal
    }

    fn engine(&self) -> &dyn StateEngine {
        &**self.engine.as_ref().expect("closed only when dropped")
    }

    /// The directory goes when the last user has dropped this.
    pub(crate) fn delete_when_dropped(&self) {
        self.delete.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    fn meta<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> io::Result<Option<T>> {
        let value = self.engine().get(Family::Books, key)?;
        value.map(|value| serde_json::from_slice(&value).map_err(io::Error::other)).transpose()
    }

    /// How old history was when that was last noted.
    pub(crate) fn ages(&self) -> io::Result<Ages> {
        Ok(self.meta(AGES)?.unwrap_or_default())
    }

    pub(crate) fn note_ages(&self, ages: &Ages) -> io::Result<()> {
        let mut batch = StateBatch::default();
        batch.note(AGES, json(ages));
        self.write(batch)
    }

    /// How far the log has been applied to what is on disk.
    pub(crate) fn applied(&self) -> io::Result<AppliedTo> {
        let log_id = self.meta(APPLIED)?;
        let membership: StoredMembership = self.meta(MEMBERSHIP)?.unwrap_or_default();
        let mut roster: Roster = self.meta(ROSTER)?.unwrap_or_default();
        if roster.is_empty()
            && let Some(index) = membership.log_id().as_ref().map(|id| LogIndex(id.index))
        {
            // Written by a version that kept none.
            roster.apply(index, membership.membership());
        }
        Ok(AppliedTo { log_id, membership, roster })
    }

    /// Reads everything. Fails if any version that must be there is not.
    pub(crate) fn load(&self) -> io::Result<State> {
        let revision = Revision(self.meta(REVISION)?.unwrap_or(0));
        let floor = Revision(self.meta(FLOOR)?.unwrap_or(0));
        let mut loader = Loader::new(revision, floor);
        let mut last = At::first(floor);
        for item in self.history(At::first(Revision(0))) {
            let (at, record) = item?;
            let record = record.opened(&*self.seal)?;
            if at.revision > floor {
                if !follows(last, at) {
                    let At { revision, place } = last;
                    let detail =
                        format!("after {place} of revision {revision} something is missing");
                    return Err(corrupt(detail));
                }
                last = at;
            }
            match record.stored(at) {
                Some(stored) => loader.insert(stored),
                None => loader.remove(&record.key),
            }
        }
        if last.revision != revision {
            let last = last.revision;
            return Err(corrupt(format!("history ends at revision {last}, not at {revision}")));
        }
        loader.cluster(self.meta(CLUSTER)?);
        loader.level(self.meta(LEVEL)?.unwrap_or(0));
        for (session, state) in self.sessions()? {
            loader.session(session, state);
        }
        Ok(loader.finish())
    }

    fn books_from(&self, key: &[u8]) -> Rows<'_> {
        self.engine().rows(Family::Books, key)
    }

    fn sessions(&self) -> io::Result<BTreeMap<Session, SessionState>> {
        let mut sessions = BTreeMap::new();
        for item in self.books_from(b"s") {
            let (key, value) = item?;
            let Some(id) = key.strip_prefix(b"s").and_then(|key| number(key, 0)) else { break };
            let (settled, last_used): (u64, LogIndex) =
                serde_json::from_slice(&value).map_err(io::Error::other)?;
            let state = SessionState { settled, last_used, outcomes: BTreeMap::new() };
            sessions.insert(Session(id), state);
        }
        for item in self.books_from(b"q") {
            let (key, value) = item?;
            let Some(key) = key.strip_prefix(b"q") else { break };
            let (Some(id), Some(serial)) = (number(key, 0), number(key, 8)) else { break };
            let outcome: Outcome = serde_json::from_slice(&value).map_err(io::Error::other)?;
            let Some(session) = sessions.get_mut(&Session(id)) else {
                return Err(corrupt(format!("an outcome of the unknown session {id}")));
            };
            session.outcomes.insert(serial, outcome);
        }
        Ok(sessions)
    }

    /// Writes the effects of commands; readers see them at once, a restart after `flush`.
    pub(crate) fn write(&self, batch: StateBatch) -> io::Result<()> {
        self.engine().write(batch.ops)
    }

    /// Puts everything written so far where a restart finds it.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.engine().flush()
    }

    /// The disk as it is now. What is deleted meanwhile takes its room until the value goes.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { rows: self.engine().freeze() }
    }

    /// A copy as of some moment after the call began, all on disk.
    pub(crate) fn checkpoint(&self, to: &Path) -> io::Result<()> {
        self.engine().checkpoint(to)
    }

    /// What is in history from a place on, in order, with the bodies as they lie there.
    fn history(&self, from: At) -> impl Iterator<Item = io::Result<(At, Record)>> {
        let parsed = self.engine().rows(Family::History, &from.key()).map(|item| {
            let (key, value) = item?;
            let Some(at) = At::parse(&key) else { return Ok(None) };
            let record = decode(value.into_vec().into()).ok_or_else(|| damaged(at))?;
            Ok(Some((at, record)))
        });
        parsed.map_while(io::Result::transpose)
    }

    fn record(&self, at: At) -> io::Result<Option<Record>> {
        let Some(value) = self.engine().get(Family::History, &at.key())? else { return Ok(None) };
        decode(value).ok_or_else(|| damaged(at))?.opened(&*self.seal).map(Some)
    }

    /// Removes up to `limit` revisions of history at or below `floor`; how many are left to do.
    pub(crate) fn sweep(&self, floor: Revision, limit: u64) -> io::Result<u64> {
        let swept: u64 = self.meta(SWEPT)?.unwrap_or(0);
        let end = floor.0.min(swept + limit);
        let mut batch = StateBatch::default();
        for item in self.history(At::first(Revision(swept + 1))) {
            let (at, record) = item?;
            if at.revision.0 > end {
                break;
            }
            if let Some(old) = record.old {
                batch.drop_record(old);
            }
            if record.put.is_none() {
                batch.drop_record(at);
            }
        }
        batch.note(SWEPT, json(&end));
        self.write(batch)?;
        Ok(floor.0.saturating_sub(end))
    }
}

/// A disk as it was at one moment, while the disk itself goes on.
pub(crate) struct Frozen<'a> {
    rows: Box<dyn Reading + 'a>,
}

impl Frozen<'_> {
    /// The revision, and the floor of history.
    pub(crate) fn extent(&self) -> io::Result<(Revision, Revision)> {
        let number = |key: &[u8]| -> io::Result<u64> {
            let value = self.rows.get(Family::Books, key)?;
            let number = value.map(|value| serde_json::from_slice(&value)).transpose();
            Ok(number.map_err(io::Error::other)?.unwrap_or(0))
        };
        Ok((Revision(number(REVISION)?), Revision(number(FLOOR)?)))
    }

    /// What is in history after a revision, in order, as it lies there.
    pub(crate) fn records(
        &self,
        after: Revision,
    ) -> impl Iterator<Item = io::Result<(At, Bytes)>> + use<'_> {
        let start = At::first(Revision(after.0 + 1)).key();
        let parsed = self.rows.rows(Family::History, &start).map(|item| {
            let (key, value) = item?;
            Ok(At::parse(&key).map(|at| (at, Bytes::from(value.into_vec()))))
        });
        parsed.map_while(io::Result::transpose)
    }
}

impl Drop for StateDisk {
    fn drop(&mut self) {
        self.engine = None;
        if *self.delete.get_mut()
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(%error, dir = %self.dir.display(), "an old state is left behind");
        }
    }
}

impl History for StateDisk {
    fn changes(
        &self,
        after: Revision,
        until: Revision,
        limit: usize,
    ) -> Result<Vec<Arc<Change>>, Error> {
        let stopped = |error: io::Error| Error::Stopped(error.to_string());
        let until = Revision(until.0.min(after.0.saturating_add(limit as u64)));
        let mut changes: Vec<Arc<Change>> = Vec::new();
        for item in self.history(At::first(Revision(after.0 + 1))) {
            let (at, record) = item.map_err(stopped)?;
            if at.revision > until {
                break;
            }
            let record = record.opened(&*self.seal).map_err(stopped)?;
            let old = match record.old {
                None => None,
                Some(old) => match self.record(old).map_err(stopped)? {
                    // Swept meanwhile: the caller finds the floor above it, and no part of a revision.
                    None => {
                        changes.retain(|change| change.revision < at.revision);
                        break;
                    }
                    Some(record) => record.stored(old),
                },
            };
            let (revision, place) = (at.revision, at.place);
            changes.push(Arc::new(Change { revision, place, old, new: record.stored(at) }));
        }
        Ok(changes)
    }
}

/// The effects of some commands, to be written as one.
#[derive(Default)]
pub(crate) struct StateBatch {
    ops: Vec<RowOp>,
}

impl StateBatch {
    fn note(&mut self, key: &[u8], value: Vec<u8>) {
        self.ops.push(RowOp::Put(Family::Books, key.to_vec(), value.into()));
    }

    fn strike(&mut self, key: &[u8]) {
        self.ops.push(RowOp::Delete(Family::Books, key.to_vec()));
    }

    pub(crate) fn add(
        &mut self,
        applied: &Applied,
        sessions: &BTreeMap<Session, SessionState>,
        seal: &dyn Seal,
    ) {
        for change in &applied.changes {
            let at = At { revision: change.revision, place: change.place };
            let record = encode(change, seal).freeze();
            self.ops.push(RowOp::Put(Family::History, at.key(), record));
        }
        if let Some(last) = applied.changes.last() {
            self.note(REVISION, json(&last.revision.0));
        }
        for (session, serial) in &applied.forgotten {
            self.strike(&outcome_key(*session, *serial));
        }
        for (session, serial, outcome) in &applied.outcomes {
            #[cfg(test)]
            if mutants::on(Mutant::SnapshotWithoutSessions) {
                continue;
            }
            self.note(&outcome_key(*session, *serial), json(outcome));
        }
        for session in &applied.touched {
            if let Some(state) = sessions.get(session) {
                let row = json(&(state.settled, state.last_used));
                self.note(&session_key(*session), row);
            }
        }
        for session in &applied.evicted {
            self.strike(&session_key(*session));
            let (from, to) = (outcome_key(*session, 0), outcome_key(*session, u64::MAX));
            self.ops.push(RowOp::DeleteRange(Family::Books, from.into(), to.into()));
        }
        if let Some(floor) = applied.floor {
            self.note(FLOOR, json(&floor.0));
        }
        if let Some(level) = applied.level {
            self.note(LEVEL, json(&level));
        }
        if let Some(cluster) = &applied.founded {
            self.note(CLUSTER, json(cluster));
        }
    }

    /// A record as it lay on another disk.
    pub(crate) fn put_record(&mut self, at: At, record: &Bytes) {
        self.ops.push(RowOp::Put(Family::History, at.key(), record.clone()));
    }

    pub(crate) fn drop_record(&mut self, at: At) {
        self.ops.push(RowOp::Delete(Family::History, at.key()));
    }

    /// What a new cluster of this one member begins with, besides its records: no history, and a
    /// log that is as if the membership were its first entry and gone already.
    pub(crate) fn begin(
        &mut self,
        cluster: &Cluster,
        revision: Revision,
        member: MemberId,
        peer: &Peer,
    ) {
        for key in [REVISION, FLOOR, SWEPT] {
            self.note(key, json(&revision.0));
        }
        self.note(CLUSTER, json(cluster));
        let first = Some(log_id(0, 0));
        let membership = Membership::from(BTreeMap::from([(member.0, peer.clone())]));
        let mut roster = Roster::default();
        roster.apply(LogIndex(0), &membership);
        let membership = StoredMembership::new(first, membership);
        self.applied(&AppliedTo { log_id: first, membership, roster });
    }

    pub(crate) fn applied(&mut self, to: &AppliedTo) {
        self.note(APPLIED, json(&to.log_id));
        #[cfg(test)]
        if mutants::on(Mutant::SnapshotWithoutMembership) {
            return;
        }
        self.note(MEMBERSHIP, json(&to.membership));
        self.note(ROSTER, json(&to.roster));
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
