//! The messages and services of etcd's API that are served; `build.rs` makes them of `proto/`.

/// Keys and events.
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Requests and services.
#[allow(clippy::all, unreachable_pub, missing_docs, reason = "generated")]
pub mod rpc {
    tonic::include_proto!("etcdserverpb");
}
