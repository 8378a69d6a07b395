//! What the network and the disk feed the store, as functions of any bytes: what is accepted is understood again,
//! the rest is refused with an error. The fuzzer calls them, and the tests on stable with damaged inputs.
//!
//! Most inputs are parts, each behind two bytes that say how long it is. Checksums are put right here:
//! they are what keeps damage out, not what is looked for.

use crate::{
    backup, codec,
    disk::record_head,
    membership,
    raft::{
        Types,
        convert::{self, Malformed},
        log::hostile as log,
    },
    seal::Plain,
    snapshot_stream::Receiver,
    state::State,
    types::{LogIndex, Term},
};
use bytes::Bytes;
use openraft::raft::TransferLeaderRequest;
use prost::Message;
use wire::peer;

#[cfg(test)]
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;

/// A name, and what runs under it.
pub type Target = (&'static str, fn(&[u8]));

/// Sorted; adding one is one word here, one `[[bin]]` in `fuzz/Cargo.toml` and a corpus.
pub const TARGETS: &[Target] = &[
    ("backup", backup::hostile::read),
    ("command", command),
    ("log_record", log::record),
    ("log_segments", log::segments),
    ("raft_message", raft_message),
    ("snapshot", snapshot),
    ("state_record", state_record),
];

/// The parts of an input; the last may be shorter than it says.
pub(crate) fn parts(mut data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let [high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (part, rest) = rest.split_at(length);
        parts.push(part);
        data = rest;
    }
    parts
}

/// An input of such parts.
#[cfg(test)]
pub(crate) fn joined<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut joined = Vec::new();
    for part in parts {
        joined.extend((part.len() as u16).to_be_bytes());
        joined.extend(part);
    }
    joined
}

/// A message of a peer: the first byte says which, the rest is the message.
fn raft_message(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 9 {
        0 => twice(data, convert::from_append, convert::to_append),
        1 => twice(data, convert::from_append_response, convert::to_append_response),
        2 => twice(data, convert::from_stream_result, convert::to_stream_result),
        3 => twice(data, convert::from_vote_request, convert::to_vote_request),
        4 => twice(data, convert::from_vote_response, convert::to_vote_response),
        5 => drop(serde_json::from_slice::<membership::Request>(data)),
        6 => drop(serde_json::from_slice::<TransferLeaderRequest<Types>>(data)),
        7 => drop(convert::from_membership(data)),
        _ => drop(
            peer::StatusResponse::decode(data)
                .map(|status| status.cluster.map(convert::from_cluster)),
        ),
    }
}

/// What was understood once is said again as it was understood.
fn twice<M: Message + Default + Clone + PartialEq + std::fmt::Debug, T>(
    data: &[u8],
    from: fn(M) -> Result<T, Malformed>,
    to: fn(&T) -> M,
) {
    let Ok(message) = M::decode(data) else { return };
    let Ok(value) = from(message) else { return };
    let said = to(&value);
    let again = from(said.clone()).expect("it was understood once");
    assert_eq!(to(&again), said);
}

/// Entries of the log, applied one after the other, each as the leader of term 1 would have written it.
fn command(data: &[u8]) {
    let mut state = State::default();
    for (index, entry) in parts(data).into_iter().enumerate() {
        let Ok(command) = codec::decode(Bytes::copy_from_slice(entry), &Plain, codec::VERSION)
        else {
            continue;
        };
        let (before, floor) = (state.revision(), state.floor());
        let applied = state.apply(Term(1), LogIndex(index as u64), &command);
        assert!(state.revision() >= before, "revisions never go back");
        assert!(floor <= state.floor() && state.floor() <= state.revision());
        let news = applied.changes.iter().map(|change| change.revision);
        assert!(news.clone().all(|revision| revision > before && revision <= state.revision()));
        assert!(news.is_sorted(), "changes are in the order of their revisions");
    }
}

/// Pieces of a snapshot that another member sends.
fn snapshot(data: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let to = dir.path().join("incoming");
    let Ok(mut receiver) = Receiver::new(to.clone()) else { return };
    for part in parts(data) {
        let Ok(piece) = peer::SnapshotPiece::decode(part) else { return };
        if receiver.take(piece).is_err() {
            drop(receiver);
            assert!(!to.exists(), "nothing of what was refused stays");
            break;
        }
    }
    let outside = std::fs::read_dir(dir.path()).expect("a directory").filter_map(Result::ok);
    assert!(outside.into_iter().all(|entry| entry.path() == to), "nothing is written elsewhere");
}

/// A version in history, as the disk has it.
fn state_record(data: &[u8]) {
    record_head(&Bytes::copy_from_slice(data));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Guard, Key, Op, Txn,
        raft::{Entry, Payload, Vote, log_id},
    };
    use openraft::{
        EntryPayload,
        raft::{AppendEntriesRequest, VoteRequest},
    };
    use std::{fs, path::PathBuf};

    // About two seconds for all of them together in a debug build.
    const CASES: usize = 1000;

    fn corpus() -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"))
    }

    #[test]
    fn nothing_from_outside_breaks_the_store() {
        for (name, target) in TARGETS {
            mutate::run(name, *target, &corpus(), CASES);
        }
    }

    fn entries() -> Vec<Entry> {
        let put = |n: u8| {
            let key = Key::new("configmaps", format!("default/{n}"));
            let txn = Txn::one(key, Guard::Absent, Op::Put(Bytes::from(vec![n; 20])));
            let requests = vec![codec::encode_request(n.into(), txn, &Plain)];
            codec::encode_batches(vec![peer::Batch { session: 7, settled: 1, requests }])
        };
        let span = Txn::one(
            Key::new("configmaps", "default/1"),
            Guard::Any,
            Op::DeleteUntil(Some("default/2".into())),
        );
        let requests = vec![codec::encode_request(9, Txn { one_revision: true, ..span }, &Plain)];
        let span = codec::encode_batches(vec![peer::Batch { session: 8, settled: 9, requests }]);
        let compact = codec::encode_compact(crate::Revision(2));
        let found = codec::encode_found(&crate::Cluster { id: "c".into(), epoch: 1 });
        let raise = codec::encode_raise(codec::VERSION);
        let commands = [put(1), put(2), span, compact, found, raise];
        let payloads = commands.map(|bytes| EntryPayload::Normal(Payload(bytes)));
        let entries = [EntryPayload::Blank].into_iter().chain(payloads).enumerate();
        entries.map(|(at, payload)| Entry { log_id: log_id(2, 5 + at as u64), payload }).collect()
    }

    /// Writes the inputs that the fuzzer begins with: run it after a format has changed.
    #[test]
    #[ignore = "changes the tree"]
    fn write_corpus() {
        let write = |target: &str, name: &str, bytes: &[u8]| {
            fs::create_dir_all(corpus().join(target)).expect("a directory");
            fs::write(corpus().join(target).join(name), bytes).expect("written");
        };
        let commands: Vec<Bytes> = entries()
            .into_iter()
            .filter_map(|entry| match entry.payload {
                EntryPayload::Normal(payload) => Some(payload.0),
                _ => None,
            })
            .collect();
        write("command", "each", &joined(commands.iter().map(|bytes| &bytes[..])));
        let vote = Vote::new_committed(2, 1);
        let append = AppendEntriesRequest::<Types> {
            vote,
            prev_log_id: Some(log_id(1, 4)),
            leader_commit: Some(log_id(2, 6)),
            entries: entries(),
        };
        let asking = VoteRequest::<Types>::new(Vote::new(3, 2), Some(log_id(2, 9)));
        let membership = r#"{"log_id":null,"membership":{"configs":[[1,2,3]],"nodes":{}}}"#;
        let messages: [(u8, &str, Vec<u8>); 6] = [
            (0, "append", convert::to_append(&append).encode_to_vec()),
            (1, "answer", peer::AppendResponse::default().encode_to_vec()),
            (3, "vote", convert::to_vote_request(&asking).encode_to_vec()),
            (5, "remove", br#"{"remove":{"id":3,"force":false}}"#.to_vec()),
            (7, "membership", membership.into()),
            (8, "status", peer::StatusResponse { member: 2, ..Default::default() }.encode_to_vec()),
        ];
        for (kind, name, message) in messages {
            write("raft_message", name, &[&[kind][..], &message].concat());
        }
        for (name, bytes) in log::corpus(&entries()) {
            let (target, name) = name.split_once('/').expect("a target and a name");
            write(target, name, &bytes);
        }
        write("snapshot", "one_file", &crate::snapshot_stream::hostile_corpus());
        write("backup", "small", &backup::hostile::corpus());
        write("state_record", "put", &crate::disk::hostile_corpus());
    }
}
