use super::*;
use crate::{
    Guard, Op, Term, Txn, Write,
    state::{Batch, Command, Request},
    state_engine::Rocks,
};
use rocksdb::{DB, Options};

/// A disk and the state that is on it.
struct Pair {
    _dir: tempfile::TempDir,
    disk: StateDisk,
    state: State,
    index: u64,
}

impl Pair {
    fn new() -> Pair {
        let dir = tempfile::tempdir().expect("a directory");
        let disk =
            StateDisk::open(&Rocks, &dir.path().join("state"), Arc::new(Plain)).expect("a disk");
        Pair { _dir: dir, disk, state: State::default(), index: 0 }
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let applied = self.state.apply(Term(1), LogIndex(self.index), &command);
        let mut batch = StateBatch::default();
        batch.add(&applied, self.state.sessions(), &Plain);
        self.disk.write(batch).expect("written");
    }

    fn txn(&mut self, one_revision: bool, writes: &[(&str, Op)]) {
        let write = |(path, op): &(&str, Op)| Write {
            key: Key::new("kv", *path),
            guard: Guard::Any,
            op: op.clone(),
        };
        let writes = writes.iter().map(write).collect();
        let txn = Txn { writes, one_revision, ..Txn::default() };
        let requests = vec![Request { serial: self.index, txn }];
        let batch = Batch { session: Session(1), settled: self.index, requests };
        self.apply(Command::Write(vec![batch]));
    }

    fn changes(&self, after: u64, until: u64, limit: usize) -> Vec<String> {
        let changes = self.disk.changes(Revision(after), Revision(until), limit);
        let side = |side: &Option<Arc<Stored>>| match side {
            None => "-".to_owned(),
            Some(it) => format!("{}.{} v{} c{}", it.revision, it.place, it.version, it.created),
        };
        let line = |change: &Arc<Change>| {
            let (at, path) = ((change.revision, change.place), &change.key().path);
            format!("{}.{} {path}: {} > {}", at.0, at.1, side(&change.old), side(&change.new))
        };
        changes.expect("read").iter().map(line).collect()
    }
}

fn put(body: &str) -> Op {
    Op::Put(body.to_owned().into())
}

fn describe(state: &State) -> Vec<(String, u64, u64, u64, u32, Bytes)> {
    let items = state.range("kv", "", None, None).items;
    let one = |it: &Arc<Stored>| {
        let (revision, created) = (it.revision.0, it.created.0);
        (it.key.path.to_string(), revision, created, it.version, it.place, it.body.clone())
    };
    items.iter().map(one).collect()
}

fn filled() -> Pair {
    let mut pair = Pair::new();
    pair.txn(true, &[("a", put("1")), ("b", put("1")), ("c", put("1"))]);
    pair.txn(false, &[("b", put("2")), ("a", put("2"))]);
    pair.txn(true, &[("d", put("1")), ("c", put("2")), ("a", Op::DeleteUntil(Some("c".into())))]);
    pair
}

#[test]
fn changes_of_one_revision_come_back_together() {
    let pair = filled();
    let all = pair.changes(0, 4, 100);
    assert_eq!(
        all,
        [
            "1.0 a: - > 1.0 v1 c1",
            "1.1 b: - > 1.1 v1 c1",
            "1.2 c: - > 1.2 v1 c1",
            "2.0 b: 1.1 v1 c1 > 2.0 v2 c1",
            "3.0 a: 1.0 v1 c1 > 3.0 v2 c1",
            "4.0 d: - > 4.0 v1 c4",
            "4.1 c: 1.2 v1 c1 > 4.1 v2 c1",
            "4.2 a: 3.0 v2 c1 > -",
            "4.3 b: 2.0 v2 c1 > -",
        ]
    );
    assert_eq!(pair.changes(0, 4, 1), all[..3], "a revision is not cut");
    assert_eq!(pair.changes(3, 4, 1), all[5..]);
    assert_eq!(pair.changes(1, 3, 100), all[3..5]);
}

#[test]
fn what_is_loaded_is_what_was_there() {
    let mut pair = filled();
    let loaded = |pair: &Pair| pair.disk.load().expect("whole");
    assert_eq!(describe(&loaded(&pair)), describe(&pair.state));
    for floor in 1..=4 {
        pair.apply(Command::Compact(Revision(floor)));
        assert_eq!(pair.disk.sweep(Revision(floor), 1).expect("swept"), 0);
        assert_eq!(describe(&loaded(&pair)), describe(&pair.state), "swept to {floor}");
    }
    let left: Vec<At> =
        pair.disk.history(At::first(Revision(0))).map(|it| it.expect("ok").0).collect();
    let at = |revision, place| At { revision: Revision(revision), place };
    assert_eq!(left, [at(4, 0), at(4, 1)], "only what is current");
}

#[test]
fn a_part_of_a_revision_that_is_missing_is_noticed() {
    let pair = filled();
    let mut batch = StateBatch::default();
    batch.drop_record(At { revision: Revision(4), place: 1 });
    pair.disk.write(batch).expect("deleted");
    let error = pair.disk.load().map(|_| ()).expect_err("a gap").to_string();
    assert!(error.contains("after 0 of revision 4"), "{error}");
}

#[test]
fn how_old_history_is_outlives_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || StateDisk::open(&Rocks, dir.path(), Arc::new(Plain)).expect("a disk");
    let mut ages = open().ages().expect("none yet");
    assert_eq!(ages, Ages::default());
    let keep = crate::Retention::default();
    for n in 1..=3 {
        assert!(ages.note(std::time::Duration::from_secs(n * 200), Revision(n), &keep));
        let disk = open();
        disk.note_ages(&ages).expect("noted");
        disk.flush().expect("flushed");
    }
    let ages = open().ages().expect("readable");
    assert_eq!(ages.until().as_secs(), 600);
    assert_eq!(ages.target(Revision(3), &keep), Some(Revision(1)), "400 s old");
}

/// Everything lay in one family of keys.
#[test]
fn a_state_of_an_earlier_version_is_carried_on() {
    let mut pair = Pair::new();
    pair.txn(false, &[("a", put("1")), ("b", put("2"))]);
    pair.txn(true, &[("a", put("3")), ("b", Op::Delete)]);
    let dir = tempfile::tempdir().expect("a directory");
    let old = dir.path().join("state");
    {
        let mut options = Options::default();
        options.create_if_missing(true);
        let db = DB::open(&options, &old).expect("a database");
        let history = pair.disk.engine().rows(Family::History, b"");
        for item in history.chain(pair.disk.books_from(b"")) {
            let (key, value) = item.expect("readable");
            db.put(key, value).expect("put");
        }
    }
    let revision = StateDisk::open_read_only(&Rocks, &old).expect("a disk").meta::<u64>(REVISION);
    assert_eq!(revision.expect("readable"), Some(pair.state.revision().0));
    for _ in 0..2 {
        let disk = StateDisk::open(&Rocks, &old, Arc::new(Plain)).expect("a disk");
        let state = disk.load().expect("sound");
        assert_eq!(state.revision(), pair.state.revision());
        assert_eq!(state.digest(), pair.state.digest());
        assert_eq!(state.sessions(), pair.state.sessions());
        let left = disk.engine().rows(Family::History, b"i");
        assert_eq!(left.count(), 0, "the books are not among the history any more");
        disk.flush().expect("flushed");
    }
}
