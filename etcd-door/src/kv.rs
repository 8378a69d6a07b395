//! The keys: ranges, puts, deletions, transactions, compaction. A put and a deletion are transactions
//! of one operation.

use crate::{
    compaction, lease, maintenance,
    proto::rpc::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest,
        TxnResponse, kv_server::Kv, request_op, response_op::Response as Answer,
    },
    range, status, txn,
};
use raft_store::{Revision, Store};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What all services work on; clones share it.
#[derive(Clone)]
pub(crate) struct Door {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    leases: lease::Clocks,
    about: maintenance::About,
    /// Ends all streams.
    stopping: CancellationToken,
}

impl Door {
    pub(crate) fn new(
        store: Store,
        about: maintenance::About,
        stopping: CancellationToken,
    ) -> Door {
        let leases = lease::Clocks::default();
        Door { inner: Arc::new(Inner { store, leases, about, stopping }) }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    pub(crate) fn leases(&self) -> &lease::Clocks {
        &self.inner.leases
    }

    pub(crate) fn about(&self) -> &maintenance::About {
        &self.inner.about
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.inner.stopping
    }

    /// What every answer begins with.
    pub(crate) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        let store = self.store();
        Some(ResponseHeader {
            cluster_id: maintenance::CLUSTER_ID,
            member_id: store.member().0,
            revision: revision.0.cast_signed(),
            raft_term: store.leadership().borrow().term.0,
        })
    }
}

async fn one(door: &Door, request: request_op::Request) -> Result<Option<Answer>, Status> {
    let success = vec![RequestOp { request: Some(request) }];
    let request = TxnRequest { success, ..TxnRequest::default() };
    let (response, _) = txn::run(door, &request).await?;
    Ok(response.responses.into_iter().next().and_then(|op| op.response))
}

fn unexpected() -> Status {
    Status::internal("the transaction answered something else than it was asked")
}

#[tonic::async_trait]
impl Kv for Door {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let request = request.into_inner();
        range::check(&request)?;
        if !request.serializable {
            self.store().barrier().await.map_err(status::of)?;
        }
        let (found, revision) = range::find(self.store(), &request).await?;
        Ok(Response::new(range::answer(&request, found, self.header(revision))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let put = request_op::Request::RequestPut(request.into_inner());
        match one(self, put).await? {
            Some(Answer::ResponsePut(answer)) => Ok(Response::new(answer)),
            _ => Err(unexpected()),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let delete = request_op::Request::RequestDeleteRange(request.into_inner());
        match one(self, delete).await? {
            Some(Answer::ResponseDeleteRange(answer)) => Ok(Response::new(answer)),
            _ => Err(unexpected()),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (response, _) = txn::run(self, request.get_ref()).await?;
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let asked = u64::try_from(request.get_ref().revision).unwrap_or(0);
        let revision = compaction::ask(self.store(), Revision(asked)).await?;
        Ok(Response::new(CompactionResponse { header: self.header(revision) }))
    }
}
