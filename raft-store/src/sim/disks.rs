//! Disks with a cache that a power cut empties: what was synced stays, of the rest a part that ends
//! somewhere. Writes can be slow, fail, or be torn by the cut. The log's and the state's are apart.

use super::scheduler::{self, Sleep, one_in, random};
use crate::{
    config::OpenError,
    mutants::{self, Mutant},
    raft::{
        LogId, Vote,
        log::{
            engine::{LogOp, RaftLogEngine, Recovered, verify},
            mark::Mark,
            writer::{Job, Writer, gather},
        },
    },
    state_engine::{Engines, Family, Reading, RowOp, Rows, StateEngine},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rand::Rng;
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::mpsc;

/// What a member's disks do at the moment. Clones are of the same disks.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Mutex<Ills>>);

#[derive(Clone, Copy, Debug, Default)]
struct Ills {
    slow_until_ms: u64,
    log_fails: bool,
    state_fails: bool,
}

impl Health {
    fn ills(&self) -> MutexGuard<'_, Ills> {
        self.0.lock().expect("only set and read")
    }

    pub(super) fn slow_for(&self, ms: u64) {
        self.ills().slow_until_ms = scheduler::now_ms() + ms;
    }

    /// The next write fails, and so does every other until the member starts anew.
    pub(super) fn fail(&self, log: bool) {
        let mut ills = self.ills();
        (ills.log_fails, ills.state_fails) = (log, !log);
    }

    pub(super) fn repaired(&self) {
        let mut ills = self.ills();
        (ills.log_fails, ills.state_fails) = (false, false);
    }

    fn sync_time(&self) -> Duration {
        let slow = self.ills().slow_until_ms > scheduler::now_ms();
        let micros = random(|random| match (slow, random.random_ratio(1, 200)) {
            (true, _) => random.random_range(50_000..400_000),
            (false, true) => random.random_range(10_000..100_000),
            (false, false) => random.random_range(200..4_000),
        });
        Duration::from_micros(micros)
    }
}

fn failing() -> io::Error {
    io::Error::from(io::ErrorKind::StorageFull)
}

#[derive(Clone, Default)]
struct LogData {
    records: BTreeMap<u64, Bytes>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

impl LogData {
    fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::Put { index, record } => drop(self.records.insert(*index, record.clone())),
            LogOp::Vote(vote) => self.vote = Some(*vote),
            LogOp::Committed(committed) => self.committed = *committed,
            LogOp::CutFrom(index) => drop(self.records.split_off(index)),
            // The entries themselves go when their file does.
            LogOp::PurgeTo(id) => self.purged = Some(*id),
        }
    }
}

type Ops = Vec<LogOp>;

#[derive(Default)]
struct LogInside {
    durable: LogData,
    cache: LogData,
    /// Written in this order since the last sync.
    unsynced: Vec<Ops>,
    /// Left so by a process before, in a file that only a start syncs.
    left: Vec<Ops>,
    /// On its way to the disk.
    staged: Option<Ops>,
    lost: u64,
}

impl LogInside {
    fn sync(&mut self) {
        let all = std::mem::take(&mut self.unsynced);
        all.iter().flatten().for_each(|op| self.durable.apply(op));
    }
}

/// The log of one member; it outlives its processes.
#[derive(Clone, Default)]
pub(super) struct LogDisk {
    inside: Arc<Mutex<LogInside>>,
    pub(super) health: Health,
}

impl LogDisk {
    fn inside(&self) -> MutexGuard<'_, LogInside> {
        self.inside.lock().expect("never held across a panic")
    }

    /// The process is gone; what it wrote is there for the next one, but still not on disk.
    pub(super) fn killed(&self) {
        let mut it = self.inside();
        let staged = it.staged.take().filter(|_| one_in(2));
        it.unsynced.extend(staged);
        // All of it, also of a write that failed.
        let mut cache = it.durable.clone();
        it.left.iter().chain(&it.unsynced).flatten().for_each(|op| cache.apply(op));
        it.cache = cache;
    }

    /// Of what was not synced, only a part that ends somewhere is there.
    pub(super) fn power_cut(&self) {
        let mut it = self.inside();
        let staged = it.staged.take();
        let all: Vec<Ops> = std::mem::take(&mut it.unsynced).into_iter().chain(staged).collect();
        it.left.clear();
        let kept = random(|random| random.random_range(0..=all.len()));
        all[..kept].iter().flatten().for_each(|op| it.durable.apply(op));
        it.lost += (all.len() - kept) as u64;
        it.cache = it.durable.clone();
    }

    /// Entries that were on disk are not any more: the disk lied, or its end is damaged. Only as far
    /// as somebody else knew that they were there (`marked`): what nobody knew nobody can miss.
    pub(super) fn lose_tail(&self, entries: usize, marked: u64) -> bool {
        let mut it = self.inside();
        let known = it.durable.records.last_key_value().is_some_and(|(last, _)| *last <= marked);
        let lost = known && it.durable.records.len() > entries;
        for _ in 0..if lost { entries } else { 0 } {
            it.durable.records.pop_last();
        }
        it.cache = it.durable.clone();
        lost
    }

    /// Writes lost in power cuts.
    pub(super) fn lost(&self) -> u64 {
        self.inside().lost
    }

    /// As a member finds it that starts.
    pub(super) fn recover(&self, mark: &Mark) -> Result<Recovered, OpenError> {
        let mut it = self.inside();
        if mutants::on(Mutant::StartUnsynced) {
            let left = std::mem::take(&mut it.unsynced);
            it.left.extend(left);
        } else if !mutants::on(Mutant::FsyncSkipped) {
            it.sync();
        }
        let purged = it.cache.purged;
        let first = purged.map_or(0, |id| id.index + 1);
        let records = it.cache.records.range(first..).map(|(n, bytes)| Ok((*n, bytes.clone())));
        let damaged = |detail| OpenError::Damaged { file: PathBuf::new(), offset: 0, detail };
        let last = verify(records, purged, mark, damaged)?;
        let (vote, committed) = (it.cache.vote, it.cache.committed);
        Ok(Recovered { vote, committed, purged, last })
    }
}

impl RaftLogEngine for LogDisk {
    fn write(&self, ops: &[LogOp], sync: bool) -> io::Result<()> {
        let mut it = self.inside();
        it.staged = None;
        if self.health.ills().log_fails {
            // What failed may be there all the same.
            it.unsynced.push(ops.to_vec());
            return Err(failing());
        }
        ops.iter().for_each(|op| it.cache.apply(op));
        it.unsynced.push(ops.to_vec());
        if sync && !mutants::on(Mutant::FsyncSkipped) {
            it.sync();
        }
        // Files go at once, whether or not it is on disk that they are not needed.
        let purged = ops.iter().rev().find_map(|op| match op {
            LogOp::PurgeTo(id) => Some(id.index + 1),
            _ => None,
        });
        if let Some(first) = purged.filter(|_| one_in(2)) {
            it.durable.records = it.durable.records.split_off(&first);
            it.cache.records = it.cache.records.split_off(&first);
        }
        Ok(())
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let it = self.inside();
        let mut bytes = 0;
        let records = it.cache.records.range(range).take_while(|(_, record)| {
            let first = bytes == 0;
            bytes += record.len();
            first || bytes <= bytes_max
        });
        Ok(records.map(|(index, record)| (*index, record.clone())).collect())
    }
}

/// The log's writer as a task: it takes its time, in which a power cut may come.
pub(super) async fn write_log(disk: LogDisk, mut writer: Writer, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.recv().await {
        let jobs = gather(first, &mut queue);
        if jobs.iter().any(|job| job.sync) {
            // Before a cut the mark is lowered: until then nothing of it is on its way.
            if jobs.iter().all(|job| job.cut.is_none()) {
                let ops = jobs.iter().flat_map(|job| job.ops.iter().cloned()).collect();
                disk.inside().staged = Some(ops);
            }
            Sleep::of(disk.health.sync_time()).await;
        }
        writer.turn(jobs);
    }
}

/// Where the states of one member lie; files hold what was flushed.
#[derive(Clone, Debug)]
pub(super) struct StateDisks(pub(super) Health);

type Table = BTreeMap<Vec<u8>, Bytes>;

#[derive(Clone, Debug, Default)]
struct Tables([Table; 2]);

impl Tables {
    fn table(&self, family: Family) -> &Table {
        &self.0[family as usize]
    }

    fn apply(&mut self, op: RowOp) {
        match op {
            RowOp::Put(family, key, value) => drop(self.0[family as usize].insert(key, value)),
            RowOp::Delete(family, key) => drop(self.0[family as usize].remove(&key)),
            RowOp::DeleteRange(family, from, to) => {
                let table = &mut self.0[family as usize];
                let mut rest = table.split_off(&from);
                table.append(&mut rest.split_off(&to));
            }
        }
    }

    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        for table in &self.0 {
            out.put_u64(table.len() as u64);
            for (key, value) in table {
                out.put_u32(key.len() as u32);
                out.put_slice(key);
                out.put_u32(value.len() as u32);
                out.put_slice(value);
            }
        }
        out
    }

    fn decode(mut bytes: Bytes) -> Tables {
        let mut tables = Tables::default();
        for table in &mut tables.0 {
            for _ in 0..bytes.get_u64() {
                let length = bytes.get_u32() as usize;
                let key = bytes.split_to(length);
                let length = bytes.get_u32() as usize;
                table.insert(key.to_vec(), bytes.split_to(length));
            }
        }
        tables
    }

    fn rows(&self, family: Family, from: &[u8]) -> Rows<'static> {
        let rows = self.table(family).range(from.to_vec()..);
        let rows: Vec<_> =
            rows.map(|(key, value)| Ok((key[..].into(), value[..].into()))).collect();
        Box::new(rows.into_iter())
    }
}

const FILE: &str = "rows";

struct StateRows {
    dir: PathBuf,
    health: Health,
    tables: Mutex<Tables>,
}

impl StateRows {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("never held across a panic")
    }
}

impl Engines for StateDisks {
    fn open(&self, dir: &Path) -> io::Result<Box<dyn StateEngine>> {
        let tables = match fs::read(dir.join(FILE)) {
            Ok(bytes) => Tables::decode(bytes.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dir)?;
                Tables::default()
            }
            Err(error) => return Err(error),
        };
        let (dir, health) = (dir.to_owned(), self.0.clone());
        Ok(Box::new(StateRows { dir, health, tables: Mutex::new(tables) }))
    }

    fn open_read_only(&self, dir: &Path) -> io::Result<Box<dyn StateEngine>> {
        self.open(dir)
    }
}

impl Reading for StateRows {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.tables().table(family).get(key).cloned())
    }

    fn rows(&self, family: Family, from: &[u8]) -> Rows<'_> {
        self.tables().rows(family, from)
    }
}

impl Reading for Tables {
    fn get(&self, family: Family, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.table(family).get(key).cloned())
    }

    fn rows(&self, family: Family, from: &[u8]) -> Rows<'_> {
        Tables::rows(self, family, from)
    }
}

impl StateEngine for StateRows {
    fn write(&self, ops: Vec<RowOp>) -> io::Result<()> {
        if self.health.ills().state_fails {
            return Err(failing());
        }
        {
            let mut tables = self.tables();
            ops.into_iter().for_each(|op| tables.apply(op));
        }
        // A buffer that is full is written out whether or not it was asked for.
        if one_in(100) { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        let new = self.dir.join("rows.new");
        fs::write(&new, self.tables().encode())?;
        fs::rename(new, self.dir.join(FILE))
    }

    fn checkpoint(&self, to: &Path) -> io::Result<()> {
        if self.health.ills().state_fails {
            return Err(failing());
        }
        self.flush()?;
        fs::create_dir_all(to)?;
        fs::copy(self.dir.join(FILE), to.join(FILE)).map(drop)
    }

    fn freeze(&self) -> Box<dyn Reading + '_> {
        Box::new(self.tables().clone())
    }
}

impl fmt::Debug for LogDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogDisk")
    }
}
