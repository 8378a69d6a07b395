//! Commands as bytes: what is in a log entry, versioned.

use crate::{
    raft::convert,
    seal::{Seal, Unopened},
    state::{Batch, Command, Request, Session},
    types::{Cluster, Guard, Key, Op, Revision, SpanCheck, Term, Txn, Write},
};
use bytes::Bytes;
use prost::Message;
use wire::peer;

/// The newest format known here; older ones are read, newer ones refused. A command says the version
/// that first had what is in it, so that members of an older one go on until it is used.
pub(crate) const VERSION: u32 = 4;
/// Everybody reads these.
pub(crate) const WRITES: u32 = 1;
const SPANS_AND_SHARED_REVISIONS: u32 = 2;
/// Who names the cluster waits for members that cannot read it.
pub(crate) const FOUNDS: u32 = 3;
/// What nobody proposes before all can read it waits for the level since then (`levels`).
pub(crate) const RAISES: u32 = 4;

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
    let version = batches.iter().map(version_of).max().unwrap_or(WRITES);
    peer::Command { version, batches, ..Default::default() }.encode_to_vec().into()
}

/// The version that first had everything in a batch.
pub(crate) fn version_of(batch: &peer::Batch) -> u32 {
    first_with(batch.requests.iter().any(is_new))
}

fn first_with(spans_or_shared_revisions: bool) -> u32 {
    match spans_or_shared_revisions {
        true => SPANS_AND_SHARED_REVISIONS,
        false => WRITES,
    }
}

/// The version that first had everything in a transaction.
pub(crate) fn version_for(txn: &Txn) -> u32 {
    first_with(txn.one_revision || txn.writes.iter().any(|write| write.op.is_of_span()))
}

fn is_new(request: &peer::Request) -> bool {
    use peer::write::Op::{CheckUntil, DeleteUntil};
    let span = |write: &peer::Write| matches!(write.op, Some(DeleteUntil(_) | CheckUntil(_)));
    request.one_revision || request.writes.iter().any(span)
}

pub(crate) fn encode_compact(to: Revision) -> Bytes {
    let command = peer::Command { version: WRITES, compact: Some(to.0), ..Default::default() };
    command.encode_to_vec().into()
}

pub(crate) fn encode_found(cluster: &Cluster) -> Bytes {
    let found = Some(convert::to_cluster(cluster));
    let command = peer::Command { version: FOUNDS, found, ..Default::default() };
    command.encode_to_vec().into()
}

pub(crate) fn encode_raise(level: u32) -> Bytes {
    let command = peer::Command { version: RAISES, raise: Some(level), ..Default::default() };
    command.encode_to_vec().into()
}

/// The command in an entry, with its bodies open, if it is of a version up to `known`.
pub(crate) fn decode(bytes: Bytes, seal: &dyn Seal, known: u32) -> Result<Command, DecodeError> {
    let command = peer::Command::decode(bytes)?;
    if command.version > known {
        return Err(DecodeError::Newer(command.version));
    }
    if let Some(to) = command.compact {
        return Ok(Command::Compact(Revision(to)));
    }
    if let Some(cluster) = command.found {
        return Ok(Command::Found(convert::from_cluster(cluster)));
    }
    if let Some(level) = command.raise {
        return Ok(Command::Raise(level));
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
    let (fence, one_revision) = (request.fence.map(Term), request.one_revision);
    Ok(Request { serial: request.serial, txn: Txn { writes, fence, one_revision } })
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
        Some(peer::write::Op::DeleteUntil(span)) => Op::DeleteUntil(span.until.map(Into::into)),
        Some(peer::write::Op::CheckUntil(check)) => Op::CheckUntil(SpanCheck {
            until: check.until.map(Into::into),
            keys: check.keys,
            newest: Revision(check.newest),
        }),
    };
    Ok(Write { key, guard, op })
}

/// A request with its bodies sealed.
pub(crate) fn encode_request(serial: u64, txn: Txn, seal: &dyn Seal) -> peer::Request {
    let writes = txn.writes.into_iter().map(|write| encode_write(write, seal)).collect();
    let (fence, one_revision) = (txn.fence.map(|term| term.0), txn.one_revision);
    peer::Request { serial, fence, writes, one_revision }
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
        Op::DeleteUntil(until) => {
            let until = until.map(|until| until.to_string());
            Some(peer::write::Op::DeleteUntil(peer::Span { until }))
        }
        Op::CheckUntil(SpanCheck { until, keys, newest }) => {
            let until = until.map(|until| until.to_string());
            Some(peer::write::Op::CheckUntil(peer::SpanCheck { until, keys, newest: newest.0 }))
        }
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
        let until = prop::option::of("[a-z/]{0,9}");
        let check =
            (until.clone(), any::<u64>(), any::<u64>()).prop_map(|(until, keys, newest)| {
                let (until, newest) = (until.map(Into::into), Revision(newest));
                Op::CheckUntil(SpanCheck { until, keys, newest })
            });
        prop_oneof![
            Just(Op::Check),
            Just(Op::Delete),
            body.prop_map(|body| Op::Put(body.into())),
            until.prop_map(|until| Op::DeleteUntil(until.map(Into::into))),
            check,
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            writes in prop::collection::vec(("[a-z]{0,5}", "[a-z/]{0,9}", guards(), ops()), 0..5),
            fence in prop::option::of(any::<u64>()), one_revision: bool,
            session: u64, settled: u64, serial: u64,
        ) {
            let writes = writes.into_iter().map(|(space, path, guard, op)| {
                Write { key: Key::new(space, path), guard, op }
            });
            let txn = Txn { writes: writes.collect(), fence: fence.map(Term), one_revision };
            let requests = vec![encode_request(serial, txn.clone(), &Plain)];
            let bytes = encode_batches(vec![peer::Batch { session, settled, requests }]);
            let requests = vec![Request { serial, txn }];
            let batch = Batch { session: Session(session), settled, requests };
            prop_assert_eq!(decode(bytes, &Plain, VERSION).expect("a command"), Command::Write(vec![batch]));
        }

        /// Whatever bytes come: a command or an error, never a panic.
        #[test]
        fn any_bytes_are_refused_or_applied(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(command) = decode(bytes.into(), &Plain, VERSION) {
                crate::state::State::default().apply(Term(1), crate::LogIndex(1), &command);
            }
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let newer = peer::Command { version: 5, ..Default::default() };
        let refused = decode(newer.encode_to_vec().into(), &Plain, 4).expect_err("version 5");
        assert!(refused.to_string().contains("version 5"), "{refused}");
    }

    #[test]
    fn older_versions_are_read() {
        let requests = vec![encode_request(1, Txn::default(), &Plain)];
        let batch = peer::Batch { session: 1, settled: 1, requests };
        for version in 1..=VERSION {
            let batches = vec![batch.clone()];
            let command = peer::Command { version, batches, ..Default::default() };
            let read = decode(command.encode_to_vec().into(), &Plain, VERSION);
            let read = read.expect("a command");
            assert!(matches!(read, Command::Write(batches) if batches.len() == 1), "{version}");
        }
    }

    #[test]
    fn a_command_says_the_version_it_needs() {
        let version = |txn: Txn| {
            let alike = version_for(&txn);
            let requests = vec![encode_request(1, txn, &Plain)];
            let bytes = encode_batches(vec![peer::Batch { session: 1, settled: 1, requests }]);
            let said = peer::Command::decode(bytes).expect("a command").version;
            assert_eq!(said, alike, "what is waited for is what is proposed");
            said
        };
        let one = |op| Txn::one(Key::new("a", "b"), Guard::Any, op);
        assert_eq!(version(one(Op::Delete)), 1);
        assert_eq!(version(one(Op::DeleteUntil(None))), 2);
        assert_eq!(version(Txn { one_revision: true, ..one(Op::Delete) }), 2);
        let named = encode_found(&Cluster { id: "c".into(), epoch: 1 });
        assert_eq!(peer::Command::decode(named).expect("a command").version, 3);
        let raised = peer::Command::decode(encode_raise(4)).expect("a command");
        assert_eq!(raised.version, 4);
    }

    #[test]
    fn compaction_founding_and_raising_too() {
        let read = |bytes| decode(bytes, &Plain, VERSION).expect("a command");
        assert_eq!(read(encode_compact(Revision(7))), Command::Compact(Revision(7)));
        let cluster = Cluster { id: "c".into(), epoch: 3 };
        assert_eq!(read(encode_found(&cluster)), Command::Found(cluster));
        assert_eq!(read(encode_raise(4)), Command::Raise(4));
    }
}
