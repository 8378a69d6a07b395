//! Segments against a model of them: random writes, restarts, power cuts, flipped bits.

use super::*;
use crate::raft::{
    Entry, Payload,
    log::{
        mark::Flushed,
        record::{self, Chain},
    },
    log_id,
};
use openraft::EntryPayload;
use proptest::prelude::*;

/// So small that few writes fill many segments.
const SMALL: Sizes = Sizes { segment: 6000, ahead: 2048, large: 1500 };

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    meta: Meta,
    entries: BTreeMap<u64, Bytes>,
}

impl Model {
    fn apply(&mut self, op: &LogOp) {
        self.meta.apply(op);
        match op {
            LogOp::Put { index, record } => drop(self.entries.insert(*index, record.clone())),
            LogOp::CutFrom(index) => drop(self.entries.split_off(index)),
            LogOp::PurgeTo(id) => self.entries = self.entries.split_off(&(id.index + 1)),
            LogOp::Vote(_) | LogOp::Committed(_) => {}
        }
    }

    fn next(&self) -> u64 {
        let purged = self.meta.purged.map_or(0, |purged| purged.index + 1);
        self.entries.last_key_value().map_or(purged, |(last, _)| last + 1)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        bodies: Vec<usize>,
        sync: bool,
    },
    /// Back by so many entries, and one put in their place.
    Replace {
        back: u64,
    },
    /// So many of those there are, in parts of 8.
    Purge {
        eighths: u64,
        sync: bool,
    },
    Vote,
    Committed,
    Restart,
    /// Sectors that were not synced are lost or not, deleted files are back or not, by these bits.
    PowerCut {
        luck: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (prop::collection::vec(0_usize..1800, 1..4), any::<bool>());
    let step = prop_oneof![
        6 => append.prop_map(|(bodies, sync)| Step::Append { bodies, sync }),
        1 => (1_u64..5).prop_map(|back| Step::Replace { back }),
        2 => (0_u64..=8, any::<bool>()).prop_map(|(eighths, sync)| Step::Purge { eighths, sync }),
        1 => Just(Step::Vote),
        2 => Just(Step::Committed),
        1 => Just(Step::Restart),
        2 => any::<u64>().prop_map(|luck| Step::PowerCut { luck }),
    ];
    prop::collection::vec(step, 1..40)
}

/// A log, and what it may come to if the power goes now: the first is what is on disk for certain.
struct Lab {
    dir: tempfile::TempDir,
    mark: Mark,
    segments: Segments,
    possible: Vec<Model>,
    /// Of every entry, also of purged ones.
    chains: BTreeMap<u64, Chain>,
    term: u64,
    deleted: Vec<(PathBuf, Vec<u8>)>,
}

fn opened(dir: &Path, mark: &Mark) -> Result<(Segments, Model), OpenError> {
    let (segments, Recovered { vote, committed, purged, .. }) =
        Segments::with(&dir.join("log"), mark, SMALL)?;
    let entries = segments.read(0..u64::MAX, usize::MAX).expect("readable");
    let meta = Meta { vote, committed, purged };
    Ok((segments, Model { meta, entries: entries.into_iter().collect() }))
}

impl Lab {
    fn new() -> Lab {
        let dir = tempfile::tempdir().expect("a directory");
        let mark = Mark::open(&dir.path().join("mark")).expect("a mark");
        let (segments, empty) = opened(dir.path(), &mark).expect("a new log");
        assert_eq!(empty, Model::default());
        let (possible, chains, deleted) = (vec![empty], BTreeMap::new(), Vec::new());
        Lab { dir, mark, segments, possible, chains, term: 1, deleted }
    }

    fn now(&self) -> &Model {
        self.possible.last().expect("at least what is on disk")
    }

    fn before(&self, index: u64) -> Chain {
        index
            .checked_sub(1)
            .and_then(|before| self.chains.get(&before))
            .copied()
            .unwrap_or_default()
    }

    fn put(&mut self, index: u64, bytes: usize) -> LogOp {
        let payload = Payload(vec![index as u8 | 1; bytes].into());
        let log_id = log_id(self.term, index);
        let entry = Entry { log_id, payload: EntryPayload::Normal(payload) };
        let (record, chain) = record::encode(self.before(index), &entry);
        self.chains.insert(index, chain);
        LogOp::Put { index, record }
    }

    fn write(&mut self, ops: &[LogOp], sync: bool) {
        let before: Vec<_> =
            listed(&self.dir.path().join("log")).expect("listed").into_iter().collect();
        let contents: Vec<_> =
            before.iter().map(|(_, path)| (path.clone(), fs::read(path).expect("read"))).collect();
        self.segments.write(ops, sync).expect("written");
        self.deleted.extend(contents.into_iter().filter(|(path, _)| !path.exists()));
        let mut model = self.now().clone();
        let begun = self.segments.tail.lock().expect("no panic").last().number;
        if before.last().is_some_and(|(last, _)| *last != begun) {
            // A new segment begins when all before it is on disk.
            self.possible = vec![model.clone()];
        }
        ops.iter().for_each(|op| model.apply(op));
        self.possible.push(model);
        let tail = self.segments.tail.lock().expect("no panic");
        if tail.durable == tail.end {
            self.possible.drain(..self.possible.len() - 1);
        }
    }

    /// As the writer does after a sync that moved the log's end.
    fn raise(&mut self) {
        if let Some(index) = self.now().next().checked_sub(1) {
            let chain = self.chains[&index];
            self.mark.raise(Flushed { index, chain }).expect("raised");
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { bodies, sync } => {
                let first = self.now().next();
                let puts = bodies.iter().zip(first..).map(|(bytes, nth)| self.put(nth, *bytes));
                let puts: Vec<LogOp> = puts.collect();
                self.write(&puts, *sync);
                if *sync {
                    self.raise();
                }
            }
            Step::Replace { back } => self.replace(*back),
            Step::Purge { eighths, sync } => {
                let entries = &self.now().entries;
                let count = entries.len() as u64 * eighths / 8;
                let last = count.checked_sub(1).and_then(|nth| entries.keys().nth(nth as usize));
                if let Some(last) = last.copied() {
                    self.write(&[LogOp::PurgeTo(log_id(1, last))], *sync);
                }
            }
            Step::Vote => {
                self.term += 1;
                self.write(&[LogOp::Vote(Vote::new(self.term, 1))], true);
            }
            Step::Committed => {
                let last = self.now().next().checked_sub(1).map(|last| log_id(1, last));
                self.write(&[LogOp::Committed(last)], false);
            }
            Step::Restart => self.reopen(),
            Step::PowerCut { luck } => self.power_cut(*luck),
        }
    }

    fn replace(&mut self, back: u64) {
        let (next, first) = (self.now().next(), self.now().entries.keys().next().copied());
        let Some(first) = first else { return };
        let from = next.saturating_sub(back).max(first);
        let mark = from
            .checked_sub(1)
            .map_or(Flushed::default(), |index| Flushed { index, chain: self.chains[&index] });
        self.mark.lower(mark).expect("lowered");
        self.term += 1;
        let put = self.put(from, 100);
        self.write(&[LogOp::CutFrom(from), put], true);
        self.raise();
    }

    /// Lets go of the files, as the end of a process does.
    fn close(&mut self) {
        self.segments._lock.unlock().expect("unlocked");
    }

    /// What is written is there, synced or not.
    fn reopen(&mut self) {
        self.close();
        let (segments, found) = opened(self.dir.path(), &self.mark).expect("a sound log");
        assert_eq!(&found, self.now());
        (self.segments, self.possible) = (segments, vec![found]);
    }

    fn power_cut(&mut self, mut luck: u64) {
        let mut toss = || {
            luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            luck >> 63 == 1
        };
        let (path, durable) = {
            let tail = self.segments.tail.lock().expect("no panic");
            (tail.last().path.clone(), tail.durable as usize)
        };
        let mut bytes = fs::read(&path).expect("the last segment");
        let sectors = (durable - durable % 512..bytes.len()).step_by(512);
        for sector in sectors {
            let end = (sector + 512).min(bytes.len());
            if toss() {
                bytes[sector.max(durable)..end].fill(0);
            }
        }
        if toss() {
            // What the file grew by may be lost too.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used.max(durable));
        }
        fs::write(&path, bytes).expect("written");
        while let Some((path, bytes)) = self.deleted.pop().filter(|_| toss()) {
            fs::write(path, bytes).expect("it is back");
        }
        self.deleted.clear();
        self.close();
        let (segments, found) = opened(self.dir.path(), &self.mark).expect("a sound log");
        assert!(self.possible.contains(&found), "{found:?} is none of {:?}", self.possible);
        (self.segments, self.possible) = (segments, vec![found]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_survives_and_what_was_cut_does_not_come_back(steps in steps()) {
        let mut lab = Lab::new();
        steps.iter().for_each(|step| lab.step(step));
        lab.reopen();
    }

    #[test]
    fn a_flipped_bit_is_never_served(steps in steps(), nth: usize, bit: usize) {
        let mut lab = Lab::new();
        steps.iter().for_each(|step| lab.step(step));
        lab.write(&[LogOp::Vote(Vote::new(99, 1))], true);
        let files: Vec<_> = listed(&lab.dir.path().join("log")).expect("listed").into_values().collect();
        let file = &files[nth % files.len()];
        let mut bytes = fs::read(file).expect("a segment");
        let last = &files[files.len() - 1] == file;
        let used = match last {
            true => lab.segments.tail.lock().expect("no panic").end as usize,
            false => bytes.len(),
        };
        let at = bit % (used * 8);
        bytes[at / 8] ^= 1 << (at % 8);
        fs::write(file, &bytes).expect("damaged");
        lab.close();
        match opened(lab.dir.path(), &lab.mark) {
            Err(OpenError::Damaged { file: named, offset, .. }) => {
                prop_assert_eq!((&named, offset as usize <= at / 8), (file, true));
            }
            Err(other) => prop_assert!(false, "not recognised as damage: {}", other),
            // A whole segment may end in zeros that nothing was written over.
            Ok((_, found)) => prop_assert_eq!(&found, lab.now()),
        }
    }
}

#[test]
fn starts_leave_no_files_behind_and_a_missing_one_is_noticed() {
    let mut lab = Lab::new();
    let files = |lab: &Lab| listed(&lab.dir.path().join("log")).expect("listed");
    for _ in 0..5 {
        lab.reopen();
        lab.write(&[LogOp::Vote(Vote::new(7, 1))], true);
    }
    assert_eq!(files(&lab).len(), 1);
    for _ in 0..3 {
        lab.step(&Step::Append { bodies: vec![4000], sync: true });
    }
    let all = files(&lab);
    assert_eq!(all.len(), 3, "each in a segment of its own");
    let second = &all[&1];
    let whole = fs::read(second).expect("a segment");
    fs::remove_file(second).expect("removed");
    let open_twice = opened(lab.dir.path(), &lab.mark).map(|_| ());
    assert!(matches!(open_twice, Err(OpenError::Disk { .. })), "{open_twice:?}");
    lab.close();
    match opened(lab.dir.path(), &lab.mark) {
        Err(OpenError::Damaged { file, .. }) => assert_eq!(&file, second),
        other => panic!("a missing segment is damage: {:?}", other.map(|_| ())),
    }
    fs::write(second, whole).expect("repaired");
    lab.reopen();
    // Purged entries take their segments along.
    lab.step(&Step::Purge { eighths: 8, sync: false });
    assert_eq!(files(&lab).len(), 1);
    lab.reopen();
}

#[test]
fn an_entry_may_be_larger_than_a_segment() {
    let mut lab = Lab::new();
    for _ in 0..3 {
        lab.step(&Step::Append { bodies: vec![20_000, 30_000], sync: true });
        lab.step(&Step::PowerCut { luck: u64::MAX });
    }
    assert_eq!(lab.now().entries.len(), 6);
}
