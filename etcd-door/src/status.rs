//! Refusals in the words that etcd's clients know: they compare the texts.

use raft_store::Error;
use tonic::Status;

pub(crate) fn empty_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

pub(crate) fn key_not_found() -> Status {
    Status::invalid_argument("etcdserver: key not found")
}

pub(crate) fn value_provided() -> Status {
    Status::invalid_argument("etcdserver: value is provided")
}

pub(crate) fn lease_provided() -> Status {
    Status::invalid_argument("etcdserver: lease is provided")
}

pub(crate) fn too_many_operations() -> Status {
    Status::invalid_argument("etcdserver: too many operations in txn request")
}

pub(crate) fn duplicate_key() -> Status {
    Status::invalid_argument("etcdserver: duplicate key given in txn request")
}

pub(crate) fn invalid_sort() -> Status {
    Status::invalid_argument("etcdserver: invalid sort option")
}

pub(crate) fn compacted() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision has been compacted")
}

pub(crate) fn future_revision() -> Status {
    Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
}

pub(crate) fn lease_not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

pub(crate) fn lease_exists() -> Status {
    Status::failed_precondition("etcdserver: lease already exists")
}

pub(crate) fn lease_ttl_too_large() -> Status {
    Status::out_of_range("etcdserver: too large lease TTL")
}

pub(crate) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

pub(crate) fn timeout() -> Status {
    Status::unavailable("etcdserver: request timed out")
}

/// What the store refused, for a client of etcd.
pub(crate) fn of(error: Error) -> Status {
    match error {
        Error::Compacted { .. } => compacted(),
        Error::Future { .. } => future_revision(),
        // What etcd says behind its quota.
        Error::DiskFull { .. } => {
            Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
        }
        Error::Overloaded { .. } => Status::resource_exhausted("etcdserver: too many requests"),
        Error::Unavailable { .. } => timeout(),
        // As etcd says it while its members are upgraded.
        Error::NotYet { .. } => Status::failed_precondition("etcdserver: not capable"),
        Error::TooLarge { .. } => too_large(),
        Error::Stopped(_) => Status::unavailable("etcdserver: server stopped"),
        error @ (Error::GuardFailed { .. } | Error::Fenced { .. }) => {
            Status::aborted(error.to_string())
        }
    }
}
