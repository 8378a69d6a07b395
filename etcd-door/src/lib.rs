//! etcd's door: the v3 gRPC API of etcd over the same store and the same revisions, so that `etcdctl`
//! and programs built on etcd work. It sees the keys its clients wrote and no object of the cluster.

mod cluster;
mod compaction;
mod keys;
mod kv;
mod lease;
mod maintenance;
pub mod proto;
mod range;
mod record;
mod serve;
mod status;
mod txn;
mod unary;
mod watch;

pub use serve::{Config, Door, OpenError, ROLE};

#[cfg(test)]
mod tests;
