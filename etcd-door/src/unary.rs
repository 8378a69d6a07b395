//! The calls that everybody makes all the time: one message in, one out, about keys. What tonic does for
//! them is done here with less: no router, no buffers for streams, no copy of the message.

use crate::{
    kv::Door,
    proto::rpc::{RangeRequest, kv_server::Kv as _},
    status::too_large,
};
use futures::TryStreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;
use raft_store::unary::{framed, gather, message};
use std::future::ready;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Status, body::Body};

/// Requests may be this large; the store has the last word.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The answer to a call that is made here; else the request again.
pub(crate) async fn answer(
    door: &Door,
    request: Request<Incoming>,
) -> Result<Response<Body>, Request<Incoming>> {
    let answer = match request.uri().path() {
        "/etcdserverpb.KV/Range" => range(door, request.into_body()).await,
        "/etcdserverpb.KV/Put" => call(request.into_body(), |message| door.put(message)).await,
        "/etcdserverpb.KV/Txn" => call(request.into_body(), |message| door.txn(message)).await,
        _ => return Err(request),
    };
    Ok(answer.unwrap_or_else(Status::into_http))
}

async fn call<Q, A, F>(
    body: Incoming,
    call: impl FnOnce(tonic::Request<Q>) -> F,
) -> Result<Response<Body>, Status>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<tonic::Response<A>, Status>>,
{
    let answer = call(tonic::Request::new(read(body).await?)).await?;
    Ok(response(answer.get_ref()))
}

/// One key is found at once. Many may take long, to find and to write down, and the other calls of the
/// connection do not wait for that.
async fn range(door: &Door, body: Incoming) -> Result<Response<Body>, Status> {
    let message: RangeRequest = read(body).await?;
    let many = !message.range_end.is_empty();
    let door = door.clone();
    let answer = async move {
        let answer = door.range(tonic::Request::new(message)).await?;
        Ok(response(answer.get_ref()))
    };
    if !many {
        return answer.await;
    }
    let answered = AbortOnDropHandle::new(tokio::spawn(answer)).await;
    answered.unwrap_or_else(|broken| Err(Status::internal(broken.to_string())))
}

async fn read<Q: Message + Default>(body: Incoming) -> Result<Q, Status> {
    let pieces = body.into_data_stream().map_err(|error| Status::from_error(error.into()));
    let message = message(gather(pieces, MESSAGE_BYTES_MAX, too_large).await?)?;
    Q::decode(message).map_err(|error| Status::internal(error.to_string()))
}

fn response(answer: &impl Message) -> Response<Body> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed(answer)).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rpc::PutRequest;
    use bytes::Bytes;

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together() {
        let put =
            PutRequest { key: "a".into(), value: vec![7; 5000].into(), ..PutRequest::default() };
        let body = framed(&put);
        for size in [1, 700, 2600, 10_000] {
            let pieces = body.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece)));
            let pieces = futures::stream::iter(pieces);
            let read = gather(pieces, MESSAGE_BYTES_MAX, too_large).await.expect("read");
            let read = PutRequest::decode(message(read).expect("a message")).expect("decoded");
            assert_eq!(read, put, "{size}");
        }
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_status() {
        let answer = RangeRequest { key: "a".into(), ..RangeRequest::default() };
        let body = response(&answer).into_body().collect().await.expect("a body");
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        assert_eq!(status, Some(HeaderValue::from_static("0")));
        let read = message(body.to_bytes()).expect("a message");
        assert_eq!(RangeRequest::decode(read).expect("decoded"), answer);
    }
}
