//! What our own processes say to each other: messages and gRPC services, no behaviour.

/// Between the members of the store: Raft, forwarding, snapshots.
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod peer {
    tonic::include_proto!("coxswain.peer.v1");
}
