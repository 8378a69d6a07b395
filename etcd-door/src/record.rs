//! What is in the store for etcd's clients: their keys, and leases in spaces of their own, so that no
//! object of the cluster is ever in the way.

use crate::{keys, proto::mvccpb::KeyValue};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use raft_store::{Guard, Key, Op, Stored, Write};
use std::{fmt, sync::Arc};

/// The keys. A body is a format byte, the lease if there is one, and the value.
pub(crate) const KEYS: &str = "etcd/keys";
/// Leases that live: granted seconds by id. Whoever attaches a key depends on its being there.
pub(crate) const LEASES: &str = "etcd/leases";
/// Leases that end: nothing can be attached to them any more, their keys are about to go.
pub(crate) const ENDING: &str = "etcd/ending";
/// `ID/key` for each key that was attached to a lease. The key may have another lease by now.
pub(crate) const ATTACHED: &str = "etcd/attached";
/// What clients asked to be compacted, for the leader to do.
pub(crate) const COMPACTED: &str = "etcd/compacted";

const WITHOUT_LEASE: u8 = 0;
const WITH_LEASE: u8 = 1;

/// A lease's id; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseId(pub(crate) i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl LeaseId {
    /// `None` for 0, which means no lease.
    pub(crate) fn new(id: i64) -> Option<LeaseId> {
        (id != 0).then_some(LeaseId(id))
    }

    pub(crate) fn parse(path: &str) -> Option<LeaseId> {
        u64::from_str_radix(path, 16).ok().map(|id| LeaseId(id.cast_signed()))
    }

    pub(crate) fn record(self) -> Key {
        Key::new(LEASES, self.to_string())
    }

    pub(crate) fn ending(self) -> Key {
        Key::new(ENDING, self.to_string())
    }

    /// What the paths of its attachments begin with.
    pub(crate) fn attachments(self) -> String {
        format!("{self}/")
    }

    pub(crate) fn attachment(self, path: &str) -> Key {
        Key::new(ATTACHED, format!("{self}/{path}"))
    }
}

/// Granted seconds.
pub(crate) fn lease_body(ttl: i64) -> Bytes {
    ttl.to_be_bytes().to_vec().into()
}

/// 0 if it is damaged, so that it ends.
pub(crate) fn granted(stored: &Stored) -> i64 {
    (&stored.body[..]).try_get_i64().unwrap_or(0)
}

/// The version of a key in the store.
pub(crate) fn body(lease: Option<LeaseId>, value: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(9 + value.len());
    match lease {
        None => body.put_u8(WITHOUT_LEASE),
        Some(LeaseId(id)) => {
            body.put_u8(WITH_LEASE);
            body.put_i64(id);
        }
    }
    body.put_slice(value);
    body.freeze()
}

/// Lease and value of a version.
pub(crate) fn open(body: &Bytes) -> (Option<LeaseId>, Bytes) {
    let mut rest = body.clone();
    match rest.try_get_u8() {
        Ok(WITH_LEASE) => {
            let id = rest.try_get_i64().unwrap_or(0);
            (LeaseId::new(id), rest)
        }
        // Nothing else is written.
        _ => (None, rest),
    }
}

pub(crate) fn lease_of(stored: &Stored) -> Option<LeaseId> {
    open(&stored.body).0
}

/// As clients see it.
pub(crate) fn key_value(stored: &Stored, keys_only: bool) -> KeyValue {
    let (lease, value) = open(&stored.body);
    KeyValue {
        key: keys::key(&stored.key.path),
        create_revision: stored.created.0.cast_signed(),
        mod_revision: stored.revision.0.cast_signed(),
        version: stored.version.cast_signed(),
        value: if keys_only { Bytes::new() } else { value },
        lease: lease.map_or(0, |lease| lease.0),
    }
}

pub(crate) fn key_at(path: &Arc<str>) -> Key {
    Key { space: KEYS.into(), path: path.clone() }
}

/// A write that depends on a lease's being alive.
pub(crate) fn needs(lease: LeaseId) -> Write {
    Write { key: lease.record(), guard: Guard::Exists, op: Op::Check }
}
