//! Commands as bytes: what is in a log entry, versioned.

use crate::{
    state::{Batch, Command, Request, Session},
    types::{Guard, Key, Op, Revision, Term, Txn, Write},
};
use bytes::Bytes;
use prost::Message;
use wire::peer;

/// The format written here; older ones are read, newer ones refused.
const VERSION: u32 = 1;

/// Why bytes are not a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("log entry of version {0}: this member must be upgraded to read it")]
    Newer(u32),
    #[error("log entry")]
    Malformed(#[from] prost::DecodeError),
}

/// Batches that are encoded already, as one command.
pub(crate) fn encode_batches(batches: Vec<peer::Batch>) -> Bytes {
    peer::Command { version: VERSION, batches, compact: None }.encode_to_vec().into()
}

pub(crate) fn encode_compact(to: Revision) -> Bytes {
    peer::Command { version: VERSION, batches: Vec::new(), compact: Some(to.0) }
        .encode_to_vec()
        .into()
}

pub(crate) fn decode(bytes: Bytes) -> Result<Command, DecodeError> {
    let command = peer::Command::decode(bytes)?;
    if command.version > VERSION {
        return Err(DecodeError::Newer(command.version));
    }
    if let Some(to) = command.compact {
        return Ok(Command::Compact(Revision(to)));
    }
    Ok(Command::Write(command.batches.into_iter().map(batch).collect()))
}

fn batch(batch: peer::Batch) -> Batch {
    Batch {
        session: Session(batch.session),
        settled: batch.settled,
        requests: batch.requests.into_iter().map(request).collect(),
    }
}

fn request(request: peer::Request) -> Request {
    let writes = request.writes.into_iter().map(write).collect();
    Request { serial: request.serial, txn: Txn { writes, fence: request.fence.map(Term) } }
}

fn write(write: peer::Write) -> Write {
    let guard = match write.guard {
        None => Guard::Any,
        Some(peer::write::Guard::Absent(_)) => Guard::Absent,
        Some(peer::write::Guard::Exists(_)) => Guard::Exists,
        Some(peer::write::Guard::At(revision)) => Guard::At(Revision(revision)),
    };
    let op = match write.op {
        None => Op::Check,
        // Copied, so that an object does not keep the whole entry it came in alive.
        Some(peer::write::Op::Put(body)) => Op::Put(Bytes::copy_from_slice(&body)),
        Some(peer::write::Op::Delete(_)) => Op::Delete,
    };
    Write { key: Key::new(write.space, write.path), guard, op }
}

pub(crate) fn encode_request(serial: u64, txn: Txn) -> peer::Request {
    let writes = txn.writes.into_iter().map(encode_write).collect();
    peer::Request { serial, fence: txn.fence.map(|term| term.0), writes }
}

fn encode_write(write: Write) -> peer::Write {
    let guard = match write.guard {
        Guard::Any => None,
        Guard::Absent => Some(peer::write::Guard::Absent(true)),
        Guard::Exists => Some(peer::write::Guard::Exists(true)),
        Guard::At(revision) => Some(peer::write::Guard::At(revision.0)),
    };
    let op = match write.op {
        Op::Check => None,
        Op::Put(body) => Some(peer::write::Op::Put(body)),
        Op::Delete => Some(peer::write::Op::Delete(true)),
    };
    let (space, path) = (write.key.space.to_string(), write.key.path.to_string());
    peer::Write { space, path, guard, op }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guards() -> impl Strategy<Value = Guard> {
        prop_oneof![
            Just(Guard::Any),
            Just(Guard::Absent),
            Just(Guard::Exists),
            any::<u64>().prop_map(|revision| Guard::At(Revision(revision))),
        ]
    }

    fn ops() -> impl Strategy<Value = Op> {
        let body = prop::collection::vec(any::<u8>(), 0..20);
        prop_oneof![Just(Op::Check), Just(Op::Delete), body.prop_map(|body| Op::Put(body.into()))]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            writes in prop::collection::vec(("[a-z]{0,5}", "[a-z/]{0,9}", guards(), ops()), 0..5),
            fence in prop::option::of(any::<u64>()), session: u64, settled: u64, serial: u64,
        ) {
            let writes = writes.into_iter().map(|(space, path, guard, op)| {
                Write { key: Key::new(space, path), guard, op }
            });
            let txn = Txn { writes: writes.collect(), fence: fence.map(Term) };
            let requests = vec![encode_request(serial, txn.clone())];
            let bytes = encode_batches(vec![peer::Batch { session, settled, requests }]);
            let requests = vec![Request { serial, txn }];
            let batch = Batch { session: Session(session), settled, requests };
            prop_assert_eq!(decode(bytes).expect("a command"), Command::Write(vec![batch]));
        }

        /// Whatever bytes come: a command or an error, never a panic.
        #[test]
        fn any_bytes_are_refused_or_applied(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(command) = decode(bytes.into()) {
                crate::state::State::default().apply(Term(1), crate::LogIndex(1), &command);
            }
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let newer = peer::Command { version: 2, batches: Vec::new(), compact: None };
        let refused = decode(newer.encode_to_vec().into()).expect_err("version 2");
        assert!(refused.to_string().contains("version 2"), "{refused}");
    }

    #[test]
    fn compaction_too() {
        let decoded = decode(encode_compact(Revision(7))).expect("a command");
        assert_eq!(decoded, Command::Compact(Revision(7)));
    }
}
