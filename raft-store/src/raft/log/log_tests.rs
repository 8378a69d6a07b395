use super::*;
use crate::raft::{Payload, log_id};
use openraft::{EntryPayload, storage::RaftLogStorageExt};

fn entry(term: u64, index: u64) -> Entry {
    let payload = Payload(format!("entry {index} of term {term}").into());
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(payload) }
}

fn metrics() -> Metrics {
    Metrics::new(&prometheus::Registry::new()).expect("a new registry")
}

fn open(dir: &Path) -> (Log, JoinHandle<()>) {
    Log::open(dir, &metrics(), Box::new(|error| panic!("{error}"))).expect("a sound log")
}

fn close((log, writer): (Log, JoinHandle<()>)) {
    drop(log);
    writer.join().expect("the writer ends with its queue");
}

async fn ids(log: &mut Log, range: std::ops::Range<u64>) -> Vec<(u64, u64)> {
    let entries = log.try_get_log_entries(range).await.expect("readable");
    entries.iter().map(|e| (e.log_id.leader_id.term, e.log_id.index)).collect()
}

/// An engine whose disk is full from the second write on.
#[derive(Default)]
struct FullDisk(AtomicU64);

impl RaftLogEngine for FullDisk {
    fn write(&self, _: &[LogOp], _: bool) -> io::Result<()> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(io::Error::from(io::ErrorKind::StorageFull)),
        }
    }

    fn read(&self, _: std::ops::Range<u64>, _: usize) -> io::Result<Vec<(u64, bytes::Bytes)>> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn a_log_survives_with_its_vote_and_after_cuts_and_purges() {
    let dir = tempfile::tempdir().expect("a directory");
    survives(dir.path()).await;
    assert!(!RocksLog::is_in(&dir.path().join("log")));
}

#[tokio::test]
async fn so_does_one_that_was_begun_in_rocksdb() {
    let dir = tempfile::tempdir().expect("a directory");
    let mark = Mark::open(&dir.path().join("log.flushed")).expect("a mark");
    RocksLog::open(&dir.path().join("log"), &mark).expect("a new log");
    survives(dir.path()).await;
    assert!(RocksLog::is_in(&dir.path().join("log")));
}

async fn survives(dir: &Path) {
    let (mut log, writer) = open(dir);
    let vote = Vote::new_committed(2, 1);
    log.save_vote(&vote).await.expect("saved");
    log.blocking_append((0..10).map(|index| entry(1, index))).await.expect("appended");
    // A new leader replaces what was not committed.
    log.truncate_after(Some(log_id(1, 6))).await.expect("cut");
    log.blocking_append((7..9).map(|index| entry(2, index))).await.expect("appended");
    log.save_committed(Some(log_id(2, 8))).await.expect("saved");
    log.purge(log_id(1, 3)).await.expect("purged");
    let expected = [(1, 4), (1, 5), (1, 6), (2, 7), (2, 8)];
    assert_eq!(ids(&mut log, 4..20).await, expected);
    close((log, writer));

    let (mut log, writer) = open(dir);
    assert_eq!(log.read_vote().await.expect("a vote"), Some(vote));
    assert_eq!(log.read_committed().await.expect("committed"), Some(log_id(2, 8)));
    let state = log.get_log_state().await.expect("a state");
    assert_eq!(state.last_purged_log_id, Some(log_id(1, 3)));
    assert_eq!(state.last_log_id, Some(log_id(2, 8)));
    assert_eq!(ids(&mut log, 4..20).await, expected, "from disk");
    log.blocking_append([entry(2, 9)]).await.expect("appended");
    assert_eq!(ids(&mut log, 7..20).await, [(2, 7), (2, 8), (2, 9)], "half from disk");
    // Cut back to what is only on disk, then to nothing.
    log.truncate_after(Some(log_id(1, 5))).await.expect("cut");
    log.blocking_append([entry(3, 6)]).await.expect("appended");
    log.purge(log_id(3, 6)).await.expect("purged");
    assert_eq!(ids(&mut log, 0..20).await, []);
    log.blocking_append([entry(3, 7)]).await.expect("appended");
    close((log, writer));

    let (mut log, writer) = open(dir);
    assert_eq!(ids(&mut log, 7..20).await, [(3, 7)]);
    close((log, writer));
}

/// A log of term 1 that knows of what term 2 committed in its place, opened again.
async fn superseded(dir: &Path) -> (Log, JoinHandle<()>) {
    let (mut log, writer) = open(dir);
    log.blocking_append((0..10).map(|index| entry(1, index))).await.expect("appended");
    log.save_committed(Some(log_id(2, 8))).await.expect("saved");
    close((log, writer));
    let (mut log, writer) = open(dir);
    let committed = log.read_committed().await.expect("committed");
    assert_eq!(committed, None, "what is here at its index was never committed");
    (log, writer)
}

/// The state was on disk, and what it had applied from the log was not.
#[tokio::test]
async fn a_log_that_ends_with_what_was_committed_otherwise_is_cut() {
    for (purged, applied) in [(None, 0), (None, 7), (None, 8), (None, 9), (Some(log_id(1, 7)), 8)] {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut log, writer) = superseded(dir.path()).await;
        if let Some(purged) = purged {
            log.purge(purged).await.expect("purged");
        }
        log.cut_superseded(Some(log_id(2, applied))).await.expect("cut");
        assert_eq!(ids(&mut log, 0..20).await, [], "applied {applied}");
        let state = log.get_log_state().await.expect("a state");
        assert_eq!(state.last_log_id, purged);
        // As openraft closes the gap to the state.
        log.purge(log_id(2, applied)).await.expect("purged");
        log.blocking_append([entry(2, applied + 1)]).await.expect("appended");
        close((log, writer));

        let (mut log, writer) = open(dir.path());
        assert_eq!(ids(&mut log, 0..20).await, [(2, applied + 1)], "it goes on from there");
        close((log, writer));
    }
}

#[tokio::test]
async fn any_other_log_stays() {
    let all: Vec<_> = (0..10).map(|index| (1, index)).collect();
    // Nothing applied; behind the log; its end; after a gap.
    for applied in [None, Some(log_id(1, 4)), Some(log_id(1, 9)), Some(log_id(2, 12))] {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut log, writer) = superseded(dir.path()).await;
        log.cut_superseded(applied).await.expect("not cut");
        assert_eq!(ids(&mut log, 0..20).await, all, "applied {applied:?}");
        close((log, writer));
    }
}

/// Votes and the like lay among the entries, in one family of keys.
#[tokio::test]
async fn a_log_of_an_earlier_version_is_carried_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let vote = Vote::new_committed(1, 1);
    {
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let db = rocksdb::DB::open(&options, dir.path().join("log")).expect("a database");
        let json = serde_json::to_vec(&vote).expect("plain data");
        db.put("m-vote", json).expect("put");
        db.put("m-purged", serde_json::to_vec(&log_id(1, 1)).expect("plain data")).expect("put");
        let mut before = Chain::default();
        for index in 0..4_u64 {
            let (record, chain) = record::encode(before, &entry(1, index));
            db.put([&b"e"[..], &index.to_be_bytes()].concat(), record).expect("put");
            before = chain;
        }
    }
    let (mut log, writer) = open(dir.path());
    assert_eq!(log.read_vote().await.expect("a vote"), Some(vote));
    assert_eq!(ids(&mut log, 0..9).await, [(1, 2), (1, 3)]);
    let next = Vote::new_committed(2, 1);
    log.save_vote(&next).await.expect("saved");
    log.blocking_append([entry(2, 4)]).await.expect("appended");
    log.purge(log_id(1, 2)).await.expect("purged");
    close((log, writer));
    let (mut log, writer) = open(dir.path());
    assert_eq!(log.read_vote().await.expect("a vote"), Some(next));
    assert_eq!(ids(&mut log, 0..9).await, [(1, 3), (2, 4)]);
    close((log, writer));
}

#[tokio::test]
async fn a_read_is_limited_by_bytes_but_never_empty() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut log, writer) = open(dir.path());
    let large = |index| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(Payload(vec![7; READ_BYTES_MAX].into())),
    };
    log.blocking_append((0..3).map(large)).await.expect("appended");
    let some = log.limited_get_log_entries(0, 3).await.expect("readable");
    assert_eq!(some.len(), 1);
    close((log, writer));
    let (mut log, writer) = open(dir.path());
    let some = log.limited_get_log_entries(1, 3).await.expect("readable");
    assert_eq!(some.iter().map(|e| e.log_id.index).collect::<Vec<_>>(), [1], "also from disk");
    close((log, writer));
}

#[tokio::test]
async fn after_the_first_failed_write_nothing_is_acknowledged_any_more() {
    let dir = tempfile::tempdir().expect("a directory");
    let mark = Mark::open(&dir.path().join("mark")).expect("a mark");
    let (failures, mut failed) = mpsc::channel(8);
    let tell = move |error: &io::Error| failures.try_send(error.kind()).expect("few failures");
    let (engine, nothing) = (Arc::new(FullDisk::default()), Recovered::default());
    let opened = Log::on(engine, nothing, mark, &metrics(), Box::new(tell));
    let (mut log, writer, jobs) = opened.expect("a log");
    let writer = std::thread::spawn(move || writer.run(jobs));
    log.blocking_append([entry(1, 0)]).await.expect("the first write works");
    for index in 1..4 {
        let refused = log.blocking_append([entry(1, index)]).await;
        assert!(refused.is_err(), "entry {index}");
    }
    assert!(log.save_vote(&Vote::new(2, 1)).await.is_err(), "no vote is promised either");
    close((log, writer));
    assert_eq!(failed.recv().await, Some(io::ErrorKind::StorageFull));
    assert_eq!(failed.recv().await, None, "told once");
}

/// Writes down what is to be on disk when it returns.
#[derive(Default)]
struct Synced(Mutex<Vec<(String, bool)>>);

impl RaftLogEngine for Synced {
    fn write(&self, ops: &[LogOp], sync: bool) -> io::Result<()> {
        let what =
            |op: &LogOp| format!("{op:?}").chars().take_while(|c| c.is_alphabetic()).collect();
        let mut written = self.0.lock().expect("whole");
        written.extend(ops.iter().map(|op| (what(op), sync)));
        Ok(())
    }

    fn read(&self, _: std::ops::Range<u64>, _: usize) -> io::Result<Vec<(u64, bytes::Bytes)>> {
        Ok(Vec::new())
    }
}

/// The files of purged entries go at once; a power cut must not bring back a log that misses them.
#[tokio::test]
async fn what_was_purged_is_on_disk_before_anything_else_is_done() {
    let dir = tempfile::tempdir().expect("a directory");
    let mark = Mark::open(&dir.path().join("mark")).expect("a mark");
    let engine = Arc::new(Synced::default());
    let failed = Box::new(|error: &io::Error| panic!("{error}"));
    let opened = Log::on(engine.clone(), Recovered::default(), mark, &metrics(), failed);
    let (mut log, writer, jobs) = opened.expect("a log");
    log.append((0..4).map(|index| entry(1, index)), IOFlushed::noop()).await.expect("queued");
    log.purge(log_id(1, 2)).await.expect("queued");
    close((log, std::thread::spawn(move || writer.run(jobs))));
    let purged = ("PurgeTo".to_owned(), true);
    assert!(engine.0.lock().expect("whole").contains(&purged));
}

/// That it must be: RocksDB removes the files whether or not what says so is on disk.
#[test]
fn a_purge_that_a_power_cut_forgets_leaves_a_gap() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, mark) =
        (dir.path().join("log"), Mark::open(&dir.path().join("mark")).expect("a mark"));
    let (log, _) = RocksLog::open(&path, &mark).expect("a new log");
    let mut before = Chain::default();
    for index in 0..10 {
        let (record, chain) = record::encode(before, &entry(1, index));
        before = chain;
        log.write(&[LogOp::Put { index, record }], true).expect("written");
        if index == 4 {
            log.flush();
        }
    }
    let synced = |path: &Path| -> Vec<(std::ffi::OsString, u64)> {
        let files = std::fs::read_dir(path).expect("files").map(|file| file.expect("a file"));
        let logs = files.filter(|file| file.path().extension().is_some_and(|it| it == "log"));
        logs.map(|it| (it.file_name(), it.metadata().expect("a size").len())).collect()
    };
    let lengths = synced(&path);
    log.write(&[LogOp::PurgeTo(log_id(1, 6))], false).expect("written");
    let after = dir.path().join("after");
    std::fs::create_dir(&after).expect("made");
    for file in std::fs::read_dir(&path).expect("files").map(|file| file.expect("a file")) {
        std::fs::copy(file.path(), after.join(file.file_name())).expect("copied");
    }
    for (name, length) in lengths {
        let file = std::fs::OpenOptions::new().write(true).open(after.join(name)).expect("open");
        file.set_len(length).expect("cut");
    }
    let refused = RocksLog::open(&after, &mark).map(|_| ()).expect_err("a gap");
    assert!(refused.to_string().contains("entry 0 is missing"), "{refused}");
}
