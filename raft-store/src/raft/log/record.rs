//! One log entry on disk: its checksum covers the one before it, so that nothing can be missing,
//! exchanged or changed unnoticed.

use crate::raft::{Entry, Membership, Payload, log_id, term_of};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;

const VERSION: u8 = 1;
/// version, kind, term, chain of the entry before
const HEAD: usize = 1 + 1 + 8 + 4;
const TAIL: usize = 4;

/// The running checksum of the log up to an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) u32);

/// Why bytes are not the record of an index.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    #[error("entry {0} is cut short")]
    Short(u64),
    #[error("entry {0} has format {1}, written by a newer version")]
    Newer(u64, u8),
    #[error("entry {0} does not match its checksum")]
    Checksum(u64),
    #[error("entry {0} does not follow the entry before it")]
    Unlinked(u64),
    #[error("entry {0} holds what is no entry")]
    Content(u64),
}

/// The record of an entry and the chain up to it.
pub(crate) fn encode(before: Chain, entry: &Entry) -> (Bytes, Chain) {
    let (kind, body): (u8, Bytes) = match &entry.payload {
        EntryPayload::Blank => (0, Bytes::new()),
        EntryPayload::Normal(payload) => (1, payload.0.clone()),
        EntryPayload::Membership(membership) => {
            (2, serde_json::to_vec(&membership).expect("a membership is plain data").into())
        }
    };
    let mut out = BytesMut::with_capacity(HEAD + body.len() + TAIL);
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u64(term_of(&entry.log_id));
    out.put_u32(before.0);
    out.put_slice(&body);
    let chain = checksum(entry.log_id.index, &out);
    out.put_u32(chain.0);
    (out.freeze(), chain)
}

fn checksum(index: u64, record: &[u8]) -> Chain {
    Chain(crc32c::crc32c_append(crc32c::crc32c(&index.to_be_bytes()), record))
}

/// Bytes with the checksum behind them that they would have as a record.
#[cfg(any(test, fuzzing))]
pub(crate) fn summed(index: u64, bytes: &[u8]) -> Bytes {
    let mut record = BytesMut::from(bytes);
    record.put_u32(checksum(index, bytes).0);
    record.freeze()
}

/// The entry at `index`. `before` is what the entry before it ends with, if known.
pub(crate) fn decode(
    index: u64,
    before: Option<Chain>,
    record: Bytes,
) -> Result<(Entry, Chain), BadRecord> {
    if record.len() < HEAD + TAIL {
        return Err(BadRecord::Short(index));
    }
    let (covered, mut tail) = record.split_at(record.len() - TAIL);
    let chain = Chain(tail.get_u32());
    if checksum(index, covered) != chain {
        return Err(BadRecord::Checksum(index));
    }
    let mut head = covered;
    let (version, kind) = (head.get_u8(), head.get_u8());
    let (term, linked) = (head.get_u64(), Chain(head.get_u32()));
    if version != VERSION {
        return Err(BadRecord::Newer(index, version));
    }
    if before.is_some_and(|before| before != linked) {
        return Err(BadRecord::Unlinked(index));
    }
    let body = record.slice(HEAD..record.len() - TAIL);
    let payload = match kind {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Normal(Payload(body)),
        2 => {
            let membership: Result<Membership, _> = serde_json::from_slice(&body);
            EntryPayload::Membership(membership.map_err(|_| BadRecord::Content(index))?)
        }
        _ => return Err(BadRecord::Content(index)),
    };
    Ok((Entry { log_id: log_id(term, index), payload }, chain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(index: u64, body: Vec<u8>) -> Entry {
        Entry { log_id: log_id(3, index), payload: EntryPayload::Normal(Payload(body.into())) }
    }

    proptest! {
        /// Any bit changed anywhere in the record is noticed, and so is any cut.
        #[test]
        fn damage_is_noticed(
            body in prop::collection::vec(any::<u8>(), 0..40), before: u32, at: usize, bit in 0u8..8,
        ) {
            let (record, chain) = encode(Chain(before), &entry(7, body.clone()));
            let (read, again) = decode(7, Some(Chain(before)), record.clone()).expect("a record");
            prop_assert_eq!((read.log_id, again), (log_id(3, 7), chain));
            let mut damaged = record.to_vec();
            let at = at % damaged.len();
            damaged[at] ^= 1 << bit;
            prop_assert!(decode(7, Some(Chain(before)), damaged.into()).is_err());
            prop_assert!(decode(7, Some(Chain(before)), record.slice(..at)).is_err());
            prop_assert!(decode(8, Some(Chain(before)), record.clone()).is_err(), "at another index");
            let unlinked = decode(7, Some(Chain(before ^ 1)), record).err();
            prop_assert_eq!(unlinked, Some(BadRecord::Unlinked(7)));
        }
    }
}
