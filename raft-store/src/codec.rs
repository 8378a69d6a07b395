//! Commands as bytes: what is in a log entry, versioned.

use crate::{
    seal::{Seal, Unopened},
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
    #[error(transparent)]
    Sealed(#[from] Unopened),
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

/// The command in an entry, with its bodies open.
pub(crate) fn decode(bytes: Bytes, seal: &dyn Seal) -> Result<Command, DecodeError> {
    let command = peer::Command::decode(bytes)?;
    if command.version > VERSION {
        return Err(DecodeError::Newer(command.version));
    }
    if let Some(to) = command.compact {
        return Ok(Command::Compact(Revision(to)));
    }
    let batches = command.batches.into_iter().map(|it| batch(it, seal));
    Ok(Command::Write(batches.collect::<Result<_, _>>()?))
}

fn batch(batch: peer::Batch, seal: &dyn Seal) -> Result<Batch, Unopened> {
    let requests = batch.requests.into_iter().map(|it| request(it, seal));
    Ok(Batch {
        session: Session(batch.session),
        settled: batch.settled,
        requests: requests.collect::<Result<_, _>>()?,
    })
}

fn request(request: peer::Request, seal: &dyn Seal) -> Result<Request, Unopened> {
    let writes = request.writes.into_iter().map(|it| write(it, seal));
    let writes = writes.collect::<Result<_, _>>()?;
    Ok(Request { serial: request.serial, txn: Txn { writes, fence: request.fence.map(Term) } })
}

fn write(write: peer::Write, seal: &dyn Seal) -> Result<Write, Unopened> {
    let key = Key::new(write.space, write.path);
    let guard = match write.guard {
        None => Guard::Any,
        Some(peer::write::Guard::Absent(_)) => Guard::Absent,
        Some(peer::write::Guard::Exists(_)) => Guard::Exists,
        Some(peer::write::Guard::At(revision)) => Guard::At(Revision(revision)),
    };
    let op = match write.op {
        None => Op::Check,
        // Copied, so that an object does not keep the whole entry it came in alive.
        Some(peer::write::Op::Put(body)) => {
            Op::Put(seal.open(&key, Bytes::copy_from_slice(&body))?)
        }
        Some(peer::write::Op::Delete(_)) => Op::Delete,
    };
    Ok(Write { key, guard, op })
}

/// A request with its bodies sealed.
pub(crate) fn encode_request(serial: u64, txn: Txn, seal: &dyn Seal) -> peer::Request {
    let writes = txn.writes.into_iter().map(|write| encode_write(write, seal)).collect();
    peer::Request { serial, fence: txn.fence.map(|term| term.0), writes }
}

fn encode_write(write: Write, seal: &dyn Seal) -> peer::Write {
    let guard = match write.guard {
        Guard::Any => None,
        Guard::Absent => Some(peer::write::Guard::Absent(true)),
        Guard::Exists => Some(peer::write::Guard::Exists(true)),
        Guard::At(revision) => Some(peer::write::Guard::At(revision.0)),
    };
    let op = match write.op {
        Op::Check => None,
        Op::Put(body) => Some(peer::write::Op::Put(seal.seal(&write.key, &body))),
        Op::Delete => Some(peer::write::Op::Delete(true)),
    };
    let (space, path) = (write.key.space.to_string(), write.key.path.to_string());
    peer::Write { space, path, guard, op }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Plain;
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
            let requests = vec![encode_request(serial, txn.clone(), &Plain)];
            let bytes = encode_batches(vec![peer::Batch { session, settled, requests }]);
            let requests = vec![Request { serial, txn }];
            let batch = Batch { session: Session(session), settled, requests };
            prop_assert_eq!(decode(bytes, &Plain).expect("a command"), Command::Write(vec![batch]));
        }

        /// Whatever bytes come: a command or an error, never a panic.
        #[test]
        fn any_bytes_are_refused_or_applied(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(command) = decode(bytes.into(), &Plain) {
                crate::state::State::default().apply(Term(1), crate::LogIndex(1), &command);
            }
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let newer = peer::Command { version: 2, batches: Vec::new(), compact: None };
        let refused = decode(newer.encode_to_vec().into(), &Plain).expect_err("version 2");
        assert!(refused.to_string().contains("version 2"), "{refused}");
    }

    #[test]
    fn compaction_too() {
        let decoded = decode(encode_compact(Revision(7)), &Plain).expect("a command");
        assert_eq!(decoded, Command::Compact(Revision(7)));
    }
}
