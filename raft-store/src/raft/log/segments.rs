//! The log in files of its own, written from front to back: each write is one frame (see `frame`).
//!
//! A sync of a file that has grown makes the file system write down its size, and where its blocks are,
//! in a journal: twice the wait, or more. So small frames go where zeros have been written before.
//!
//! The last segment is written to; a start begins a new one. A segment begins with all there is besides
//! entries (vote, committed, purged), so those before it can go once none of their entries is needed,
//! and with where the one before it ends. What lies behind that end was never acknowledged.

use super::{
    engine::{LogOp, RaftLogEngine, Recovered, Verifier},
    frame::{self, Found, HEADER, Place},
    mark::Mark,
    record::Chain,
};
use crate::{
    config::OpenError,
    raft::{LogId, Vote},
};
use bytes::{Buf, BufMut, Bytes};
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

/// How large the parts are.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// A segment that has this much in it is followed by another.
    segment: u64,
    /// Zeros are written this far ahead of a frame.
    ahead: u64,
    /// A frame of this size takes longer to write than its file takes to grow.
    large: u64,
}

// One slow sync for about a thousand writes of a small cluster.
const SIZES: Sizes = Sizes { segment: 64 << 20, ahead: 1 << 20, large: 64 << 10 };

const EXTENSION: &str = "segment";
const UNFINISHED: &str = "unfinished";
const VERSION: u8 = 1;

/// What a frame's body is a list of.
mod kind {
    pub(super) const BEGIN: u8 = 0;
    pub(super) const PUT: u8 = 1;
    pub(super) const VOTE: u8 = 2;
    pub(super) const COMMITTED: u8 = 3;
    pub(super) const CUT_FROM: u8 = 4;
    pub(super) const PURGE_TO: u8 = 5;
}

/// An open file.
#[derive(Debug)]
struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
}

/// Where the record of an entry is.
#[derive(Clone, Debug)]
struct Location {
    segment: Arc<Segment>,
    offset: u64,
    length: usize,
}

/// Besides entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Meta {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

/// The entries there are, without gaps.
#[derive(Debug, Default)]
struct Index {
    first: u64,
    entries: VecDeque<Location>,
}

/// Where the next frame goes.
#[derive(Debug)]
struct Tail {
    sizes: Sizes,
    /// Oldest first; the last is written to.
    segments: VecDeque<Arc<Segment>>,
    meta: Meta,
    /// Offsets in the last segment: the end of its first frame, of what is written, of what is synced,
    /// and of the zeros.
    begun: u64,
    end: u64,
    durable: u64,
    prepared: u64,
    /// Kept for the next frame.
    frame: Vec<u8>,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    /// Held by the one who writes, while it writes.
    tail: Mutex<Tail>,
    /// Held for a moment.
    index: Mutex<Index>,
    /// Nobody else writes here meanwhile.
    _lock: File,
}

impl Segments {
    /// Opens the log in `dir` and verifies all of it. Refusing changes nothing on disk.
    pub(crate) fn open(dir: &Path, mark: &Mark) -> Result<(Segments, Recovered), OpenError> {
        Segments::with(dir, mark, SIZES)
    }

    fn with(dir: &Path, mark: &Mark, sizes: Sizes) -> Result<(Segments, Recovered), OpenError> {
        let failed = |source| OpenError::Disk { path: dir.into(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = lock(dir).map_err(failed)?;
        let (found, last) = Replay::of(dir, mark)?;
        let Meta { vote, committed, purged } = found.meta.clone();
        let recovered = Recovered { vote, committed, purged, last };
        let (tail, index) = Tail::after(dir, sizes, found).map_err(failed)?;
        let (tail, index) = (Mutex::new(tail), Mutex::new(index));
        Ok((Segments { dir: dir.into(), tail, index, _lock: lock }, recovered))
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().expect("only looked up and changed")
    }
}

impl RaftLogEngine for Segments {
    fn write(&self, ops: &[LogOp], sync: bool) -> io::Result<()> {
        let mut tail = self.tail.lock().expect("after an error nothing is written");
        let bytes: u64 = ops.iter().map(|op| op_bytes(op) as u64).sum();
        if tail.end + bytes > tail.sizes.segment && tail.end > tail.begun {
            tail.roll(&self.dir)?;
        }
        let records = tail.append(ops)?;
        if sync {
            tail.sync()?;
        }
        let purged = ops.iter().any(|op| matches!(op, LogOp::PurgeTo(_)));
        let needed = {
            let mut index = self.index();
            let mut records = records.into_iter();
            for op in ops {
                let segment = tail.last().clone();
                index.apply(op, || records.next().map(|at| Location::new(segment, at)));
            }
            index.entries.front().map_or(tail.last().number, |oldest| oldest.segment.number)
        };
        match purged {
            true => tail.drop_until(needed),
            false => Ok(()),
        }
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<(u64, Bytes)>> {
        let locations = self.index().first_of(range, bytes_max);
        let read = |(nth, location): (u64, Location)| Ok((nth, location.read()?));
        locations.into_iter().map(read).collect()
    }
}

impl Location {
    fn new(segment: Arc<Segment>, (offset, length): (u64, usize)) -> Location {
        Location { segment, offset, length }
    }

    fn read(&self) -> io::Result<Bytes> {
        let mut record = vec![0; self.length];
        self.segment.file.read_exact_at(&mut record, self.offset)?;
        Ok(record.into())
    }
}

impl Index {
    fn has_place_for(&self, op: &LogOp) -> bool {
        let next = self.first + self.entries.len() as u64;
        match op {
            LogOp::Put { index, .. } => self.entries.is_empty() || *index == next,
            _ => true,
        }
    }

    fn apply(&mut self, op: &LogOp, put: impl FnOnce() -> Option<Location>) {
        match op {
            LogOp::Put { index, .. } => {
                assert!(self.has_place_for(op), "the log has no gaps");
                if self.entries.is_empty() {
                    self.first = *index;
                }
                self.entries.push_back(put().expect("a place for each entry"));
            }
            LogOp::CutFrom(index) => {
                self.entries.truncate(index.saturating_sub(self.first) as usize);
            }
            LogOp::PurgeTo(id) => {
                while self.first <= id.index && self.entries.pop_front().is_some() {
                    self.first += 1;
                }
            }
            LogOp::Vote(_) | LogOp::Committed(_) => {}
        }
    }

    /// The last entry.
    fn newest(&self) -> Option<(u64, &Location)> {
        let last = self.entries.back()?;
        Some((self.first + self.entries.len() as u64 - 1, last))
    }

    /// The first entries of a range, of about so many bytes, but at least one if there is one.
    fn first_of(&self, range: Range<u64>, bytes_max: usize) -> Vec<(u64, Location)> {
        let end = self.first + self.entries.len() as u64;
        let (mut found, mut bytes) = (Vec::new(), 0);
        for nth in range.start.max(self.first)..range.end.min(end) {
            let location = &self.entries[(nth - self.first) as usize];
            bytes += location.length;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((nth, location.clone()));
        }
        found
    }
}

impl Meta {
    fn apply(&mut self, op: &LogOp) {
        match op {
            LogOp::Vote(vote) => self.vote = Some(*vote),
            LogOp::Committed(committed) => self.committed = *committed,
            LogOp::PurgeTo(id) => self.purged = Some(*id),
            LogOp::Put { .. } | LogOp::CutFrom(_) => {}
        }
    }

    fn ops(&self) -> Vec<LogOp> {
        let vote = self.vote.map(LogOp::Vote);
        let committed = self.committed.map(|id| LogOp::Committed(Some(id)));
        [vote, committed, self.purged.map(LogOp::PurgeTo)].into_iter().flatten().collect()
    }
}

impl Tail {
    /// A new segment behind those found.
    fn after(dir: &Path, sizes: Sizes, found: Replay) -> io::Result<(Tail, Index)> {
        let Replay { mut segments, meta, index, before, end, about_entries } = found;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        let (mut number, mut ends) = (0, 0);
        if let Some(last) = segments.back().cloned() {
            (number, ends) = (last.number + 1, end);
            match about_entries {
                // What was never acknowledged goes, and zeros that nothing will be written over. A process
                // that was killed may have written without syncing, and what is found counts as on disk.
                true => {
                    last.file.set_len(end)?;
                    last.file.sync_all()?;
                }
                // The new one says all that it says, and takes its place: starts leave no files
                // behind.
                false => {
                    (number, ends) = (last.number, before);
                    segments.pop_back();
                }
            }
        }
        let (segment, end) = begin(dir, number, ends, &meta, sizes.ahead)?;
        segments.push_back(Arc::new(segment));
        let (begun, durable, prepared) = (end, end, end + sizes.ahead);
        let frame = Vec::new();
        Ok((Tail { sizes, segments, meta, begun, end, durable, prepared, frame }, index))
    }

    fn last(&self) -> &Arc<Segment> {
        self.segments.back().expect("there is always one")
    }

    fn sync(&mut self) -> io::Result<()> {
        self.last().file.sync_data()?;
        self.durable = self.end;
        Ok(())
    }

    /// What comes next goes into a new segment.
    fn roll(&mut self, dir: &Path) -> io::Result<()> {
        self.sync()?;
        let (segment, end) =
            begin(dir, self.last().number + 1, self.end, &self.meta, self.sizes.ahead)?;
        self.segments.push_back(Arc::new(segment));
        (self.begun, self.end, self.durable) = (end, end, end);
        self.prepared = end + self.sizes.ahead;
        Ok(())
    }

    /// Writes one frame. For each entry in it, where its record lies and how long it is.
    fn append(&mut self, ops: &[LogOp]) -> io::Result<Vec<(u64, usize)>> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        frame.resize(HEADER, 0);
        let mut records = Vec::new();
        for op in ops {
            encode(op, &mut frame);
            if let LogOp::Put { record, .. } = op {
                let offset = self.end + (frame.len() - record.len()) as u64;
                records.push((offset, record.len()));
            }
        }
        let place = Place { segment: self.last().number, offset: self.end };
        frame::seal(&mut frame, place, self.durable);
        let end = self.end + frame.len() as u64;
        if end > self.prepared && (frame.len() as u64) < self.sizes.large {
            frame.resize(frame.len() + self.sizes.ahead as usize, 0);
        }
        self.last().file.write_all_at(&frame, self.end)?;
        self.prepared = self.prepared.max(self.end + frame.len() as u64);
        self.end = end;
        ops.iter().for_each(|op| self.meta.apply(op));
        if frame.capacity() as u64 <= 2 * self.sizes.ahead {
            self.frame = frame;
        }
        Ok(records)
    }

    /// Deletes the segments before `needed`.
    fn drop_until(&mut self, needed: u64) -> io::Result<()> {
        while self.segments.front().is_some_and(|oldest| oldest.number < needed) {
            if self.durable < self.end {
                // That they are not needed is on disk before they are gone.
                self.sync()?;
            }
            if let Some(oldest) = self.segments.pop_front() {
                fs::remove_file(&oldest.path)?;
            }
        }
        Ok(())
    }
}

fn lock(dir: &Path) -> io::Result<File> {
    let path = dir.join("LOCK");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// A new segment, on disk; where its first frame ends. `before`: where the one before it ends.
fn begin(
    dir: &Path,
    number: u64,
    before: u64,
    meta: &Meta,
    ahead: u64,
) -> io::Result<(Segment, u64)> {
    let mut bytes = vec![0; HEADER];
    bytes.extend(first_body(before, &meta.ops()));
    frame::seal(&mut bytes, Place { segment: number, offset: 0 }, 0);
    let end = bytes.len() as u64;
    bytes.resize(bytes.len() + ahead as usize, 0);
    let path = path_of(dir, number);
    let unfinished = path.with_extension(UNFINISHED);
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    File::open(dir)?.sync_all()?;
    Ok((Segment { number, path, file }, end))
}

/// What the first frame of a segment holds.
pub(super) fn first_body(before: u64, ops: &[LogOp]) -> Vec<u8> {
    let mut body = vec![kind::BEGIN, VERSION];
    body.put_u64(before);
    ops.iter().for_each(|op| encode(op, &mut body));
    body
}

/// About how much an operation takes in a frame.
fn op_bytes(op: &LogOp) -> usize {
    match op {
        LogOp::Put { record, .. } => 13 + record.len(),
        _ => 128,
    }
}

pub(super) fn encode(op: &LogOp, out: &mut Vec<u8>) {
    match op {
        LogOp::Put { index, record } => {
            out.put_u8(kind::PUT);
            out.put_u64(*index);
            out.put_u32(record.len() as u32);
            out.put_slice(record);
        }
        LogOp::Vote(vote) => encode_json(kind::VOTE, vote, out),
        LogOp::Committed(id) => encode_json(kind::COMMITTED, id, out),
        LogOp::CutFrom(index) => {
            out.put_u8(kind::CUT_FROM);
            out.put_u64(*index);
        }
        LogOp::PurgeTo(id) => encode_json(kind::PURGE_TO, id, out),
    }
}

fn encode_json(kind: u8, value: &impl Serialize, out: &mut Vec<u8>) {
    let json = serde_json::to_vec(value).expect("votes and log ids are plain data");
    out.put_u8(kind);
    out.put_u32(json.len() as u32);
    out.put_slice(&json);
}

/// The next operation of a frame.
fn decode(body: &mut &[u8]) -> Option<LogOp> {
    let op = match body.try_get_u8().ok()? {
        kind::PUT => {
            let index = body.try_get_u64().ok().filter(can_be_followed)?;
            LogOp::Put { index, record: Bytes::copy_from_slice(part(body)?) }
        }
        kind::VOTE => LogOp::Vote(serde_json::from_slice(part(body)?).ok()?),
        kind::COMMITTED => LogOp::Committed(serde_json::from_slice(part(body)?).ok()?),
        kind::CUT_FROM => LogOp::CutFrom(body.try_get_u64().ok()?),
        kind::PURGE_TO => {
            let id: LogId = serde_json::from_slice(part(body)?).ok()?;
            LogOp::PurgeTo(Some(id).filter(|id| can_be_followed(&id.index))?)
        }
        _ => return None,
    };
    Some(op)
}

fn can_be_followed(index: &u64) -> bool {
    *index < u64::MAX
}

/// Bytes with their length in front.
fn part<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = body.try_get_u32().ok()? as usize;
    let (part, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(part)
}

/// Where the segment before ends, as a segment's first frame says; the rest of that frame.
fn begin_in(body: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = body;
    let begins = (rest.try_get_u8().ok()?, rest.try_get_u8().ok()?) == (kind::BEGIN, VERSION);
    let before = rest.try_get_u64().ok()?;
    begins.then_some((before, rest))
}

/// What the segments in a directory come to.
#[derive(Debug, Default)]
struct Replay {
    segments: VecDeque<Arc<Segment>>,
    meta: Meta,
    index: Index,
    /// Of the last segment: where the one before it ends, where it ends, and whether it changed
    /// anything about entries.
    before: u64,
    end: u64,
    about_entries: bool,
}

impl Replay {
    /// Reads every segment once and verifies every entry that counts; the last of them.
    fn of(dir: &Path, mark: &Mark) -> Result<(Replay, Option<(LogId, Chain)>), OpenError> {
        let failed = |source| OpenError::Disk { path: dir.into(), source };
        let (mut replay, mut verifier) = (Replay::default(), Verifier::new(mark));
        let mut earlier: Option<(Arc<Segment>, Vec<u8>)> = None;
        // Fresh pages for each file would cost more than to read it.
        let mut spare = Vec::new();
        for (number, path) in listed(dir).map_err(failed)? {
            let expected = earlier.as_ref().map_or(number, |(earlier, _)| earlier.number + 1);
            if number != expected {
                let missing = path_of(dir, expected);
                return Err(damaged(&missing, 0, "it is missing"));
            }
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
            let mut bytes = std::mem::take(&mut spare);
            bytes.clear();
            (&file).read_to_end(&mut bytes).map_err(failed)?;
            let Found::Frame { body, .. } = frame::at(&bytes, Place { segment: number, offset: 0 })
            else {
                return Err(damaged(&path, 0, "it does not begin as a segment does"));
            };
            let (before, _) = begin_in(body).ok_or_else(|| of_another_version(&path))?;
            if let Some((earlier, bytes)) = earlier.take() {
                replay.take(earlier, &bytes, Some(before), &mut verifier)?;
                spare = bytes;
            }
            replay.before = before;
            earlier = Some((Arc::new(Segment { number, path, file }), bytes));
        }
        if let Some((last, bytes)) = earlier {
            replay.take(last, &bytes, None, &mut verifier)?;
        }
        let newest = replay.segments.back().map_or(dir, |segment| &segment.path);
        let last = verifier.end(replay.meta.purged, |why| damaged(newest, replay.end, &why))?;
        Ok((replay, last))
    }

    /// The next segment, which ends at `until`, or else where nothing more is.
    fn take(
        &mut self,
        segment: Arc<Segment>,
        bytes: &[u8],
        until: Option<u64>,
        verifier: &mut Verifier<'_>,
    ) -> Result<(), OpenError> {
        (self.end, self.about_entries) = (0, false);
        while until.is_none_or(|until| self.end < until) {
            let place = Place { segment: segment.number, offset: self.end };
            match frame::at(bytes, place) {
                Found::Frame { body, next, .. } => {
                    self.frame(&segment, body, verifier)?;
                    self.end = next as u64;
                }
                Found::End if until.is_none() => break,
                Found::End => return Err(damaged(&segment.path, self.end, "a frame is missing")),
                Found::Damaged => {
                    let detail = "a frame does not match its checksum";
                    return Err(damaged(&segment.path, self.end, detail));
                }
            }
        }
        let missed = match until {
            Some(until) => self.end != until,
            None => frame::is_missed(bytes, segment.number, self.end as usize),
        };
        if missed {
            return Err(damaged(&segment.path, self.end, "a frame that was on disk is missing"));
        }
        self.segments.push_back(segment);
        Ok(())
    }

    fn frame(
        &mut self,
        segment: &Arc<Segment>,
        body: &[u8],
        verifier: &mut Verifier<'_>,
    ) -> Result<(), OpenError> {
        let refused = |detail| Err(damaged(&segment.path, self.end, detail));
        let first = self.end == 0;
        let mut rest = if first { begin_in(body).map_or(body, |(_, rest)| rest) } else { body };
        while !rest.is_empty() {
            let Some(op) = decode(&mut rest) else {
                return Err(of_another_version(&segment.path));
            };
            if !self.index.has_place_for(&op) {
                return refused("entries are missing before the ones that are there");
            }
            let put = || match &op {
                LogOp::Put { record, .. } => {
                    let after = self.end + (HEADER + body.len() - rest.len()) as u64;
                    let offset = after - record.len() as u64;
                    Some(Location { segment: segment.clone(), offset, length: record.len() })
                }
                _ => None,
            };
            self.index.apply(&op, put);
            self.verify(&segment.path, &op, verifier)?;
            self.meta.apply(&op);
            self.about_entries |= matches!(op, LogOp::Put { .. } | LogOp::CutFrom(_));
        }
        Ok(())
    }

    /// What an operation that is applied already means for the entries that count.
    fn verify(
        &self,
        path: &Path,
        op: &LogOp,
        verifier: &mut Verifier<'_>,
    ) -> Result<(), OpenError> {
        let refused = |why: String| damaged(path, self.end, &why);
        match op {
            LogOp::Put { index, record } => verifier.put(*index, record.clone(), refused),
            LogOp::CutFrom(index) => {
                // Few and short.
                let newest = self.index.newest().map(|(nth, location)| Ok((nth, location.read()?)));
                let newest = newest.transpose();
                let newest =
                    newest.map_err(|source| OpenError::Disk { path: path.into(), source })?;
                verifier.cut(*index, newest, refused)
            }
            LogOp::PurgeTo(id) => {
                verifier.purge(*id);
                Ok(())
            }
            LogOp::Vote(_) | LogOp::Committed(_) => Ok(()),
        }
    }
}

fn damaged(file: &Path, offset: u64, detail: &str) -> OpenError {
    OpenError::Damaged { file: file.into(), offset, detail: detail.into() }
}

fn of_another_version(file: &Path) -> OpenError {
    OpenError::Unreadable { path: file.into(), why: "it was written by another version".into() }
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.{EXTENSION}"))
}

/// All segments there are, by their numbers.
fn listed(dir: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Ok(number) = u64::from_str_radix(stem, 16)
        {
            found.insert(number, path);
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "segments_tests.rs"]
mod tests;
