//! A client of etcd's API that costs little. Both that are compared share the machine with the client, so what it
//! takes blurs how they differ.

use anyhow::{Context as _, Result};
use etcd_door::proto::rpc::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use http::HeaderMap;
use prost::Message;
use raft_store::unary::Unary;
use std::time::Duration;
use tokio::net::TcpStream;

const WINDOW: u32 = 4 << 20;
/// Longer than anybody is measured for.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct Caller(Unary);

impl Caller {
    pub(super) async fn connect(endpoint: &str) -> Result<Caller> {
        let address = endpoint.strip_prefix("http://").context("http only")?;
        let stream = TcpStream::connect(address).await;
        let stream = stream.with_context(|| format!("cannot connect to {endpoint}"))?;
        stream.set_nodelay(true)?;
        Ok(Caller(Unary::over(stream, endpoint, WINDOW, KEEP_ALIVE).await?))
    }

    pub(super) async fn put(&self, request: &PutRequest) -> Result<PutResponse> {
        self.call("/etcdserverpb.KV/Put", request).await
    }

    pub(super) async fn range(&self, request: &RangeRequest) -> Result<RangeResponse> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    pub(super) async fn txn(&self, request: &TxnRequest) -> Result<TxnResponse> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    async fn call<A: Message + Default>(&self, method: &str, request: &impl Message) -> Result<A> {
        let answer = self.0.call(method, HeaderMap::new(), request).await;
        answer.with_context(|| format!("{method} failed"))
    }
}
