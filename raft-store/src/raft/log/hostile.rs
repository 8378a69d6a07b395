//! The log's files as functions of any bytes (see `crate::hostile`).

use super::{
    engine::RaftLogEngine as _,
    frame::{self, HEADER, Place},
    mark::Mark,
    record,
    segments::{self, Segments},
};
use crate::{config::OpenError, hostile::parts};
use std::fs;

const INDEX: u64 = 7;

/// One record without its checksum.
pub(crate) fn record(data: &[u8]) {
    let Ok((entry, before)) = record::decode(INDEX, None, record::summed(INDEX, data)) else {
        return;
    };
    let (again, _) = record::encode(before, &entry);
    let (entry_again, _) = record::decode(INDEX, Some(before), again).expect("our own record");
    assert_eq!(entry_again, entry);
}

/// The bodies of frames, which lie one after the other in a segment; an empty one begins the next segment. What
/// opens is read, and opens again with the same in it.
pub(crate) fn segments(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let log = dir.path().join("log");
    fs::create_dir(&log).expect("made");
    let (mut number, mut bytes) = (0, Vec::new());
    for body in parts(data) {
        if body.is_empty() {
            fs::write(segments::path_of(&log, number), &bytes).expect("written");
            (number, bytes) = (number + 1, Vec::new());
            continue;
        }
        let mut frame = vec![0; HEADER];
        frame.extend(body);
        frame::seal(&mut frame, Place { segment: number, offset: bytes.len() as u64 }, 0);
        bytes.extend(frame);
    }
    fs::write(segments::path_of(&log, number), &bytes).expect("written");
    let open = || -> Result<_, OpenError> {
        let mark = Mark::open(&dir.path().join("mark")).expect("a mark of our own");
        let (segments, recovered) = Segments::open(&log, &mark)?;
        let records = segments.read(0..u64::MAX, usize::MAX).expect("it was verified");
        Ok((format!("{recovered:?}"), records))
    };
    if let Ok(once) = open() {
        assert_eq!(open().expect("it opened once"), once);
    }
}

/// Inputs of both.
#[cfg(test)]
pub(crate) fn corpus(entries: &[crate::raft::Entry]) -> Vec<(&'static str, Vec<u8>)> {
    use super::engine::LogOp;
    use crate::{hostile::joined, raft::Vote};
    let mut before = record::Chain::default();
    let mut puts = Vec::new();
    for entry in entries {
        let (record, chain) = record::encode(before, entry);
        puts.push(LogOp::Put { index: entry.log_id.index, record });
        before = chain;
    }
    let first = entries[0].log_id;
    let purged = crate::raft::log_id(1, first.index - 1);
    let vote = LogOp::Vote(Vote::new_committed(2, 1));
    let head = segments::first_body(0, &[LogOp::PurgeTo(purged), vote]);
    let body = |ops: &[LogOp]| {
        let mut body = Vec::new();
        ops.iter().for_each(|op| segments::encode(op, &mut body));
        body
    };
    let bodies: Vec<Vec<u8>> = puts.chunks(2).map(body).collect();
    let committed = body(&[LogOp::Committed(Some(first))]);
    let cut = body(&[LogOp::CutFrom(first.index + 3)]);
    let all = [&head, &bodies[0], &committed, &bodies[1], &cut].map(|body| &body[..]);
    let length = |body: &[u8]| (HEADER + body.len()).next_multiple_of(frame::ALIGN);
    let ended: usize = all.iter().map(|body| length(body)).sum();
    let next = segments::first_body(ended as u64, &[LogOp::PurgeTo(purged)]);
    let two = joined(all.into_iter().chain([&[][..], &next[..]]));
    let record = record::encode(record::Chain(3), &entries[1]).0;
    vec![
        ("log_record/command", record[..record.len() - 4].to_vec()),
        ("log_segments/one", joined(all)),
        ("log_segments/two", two),
    ]
}
