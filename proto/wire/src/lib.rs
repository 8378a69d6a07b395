//! What our own processes say to each other: messages and gRPC services, no behaviour.

pub use prost::Message;

/// Between masters: which nodes they heard of.
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod heartbeats {
    tonic::include_proto!("coxswain.heartbeats.v1");
}

/// Between the members of the store: Raft, forwarding, snapshots.
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod peer {
    tonic::include_proto!("coxswain.peer.v1");
}
