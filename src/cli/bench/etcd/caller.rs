//! A client of etcd's API that costs little: gRPC's calls of one message each, straight on HTTP/2. Both
//! that are compared share the machine with the client, so what it takes blurs how they differ.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use etcd_door::{
    proto::rpc::{PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse},
    unary::{framed, message},
};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Method, Request, header};
use prost::Message;
use tokio::net::TcpStream;

const WINDOW: u32 = 4 << 20;

/// A connection; clones share it.
#[derive(Clone)]
pub(super) struct Caller {
    streams: SendRequest<Bytes>,
    address: String,
}

impl Caller {
    pub(super) async fn connect(endpoint: &str) -> Result<Caller> {
        let address = endpoint.strip_prefix("http://").context("http only")?.to_string();
        let stream = TcpStream::connect(&address).await;
        let stream = stream.with_context(|| format!("cannot connect to {endpoint}"))?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (streams, connection) = builder.handshake(stream).await?;
        // It ends when the last caller and its last call do; an error is that of a call.
        tokio::spawn(connection);
        Ok(Caller { streams, address })
    }

    pub(super) async fn put(&self, request: &PutRequest) -> Result<PutResponse> {
        self.call("Put", request).await
    }

    pub(super) async fn range(&self, request: &RangeRequest) -> Result<RangeResponse> {
        self.call("Range", request).await
    }

    pub(super) async fn txn(&self, request: &TxnRequest) -> Result<TxnResponse> {
        self.call("Txn", request).await
    }

    async fn call<A: Message + Default>(&self, name: &str, request: &impl Message) -> Result<A> {
        let head = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}/etcdserverpb.KV/{name}", self.address))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())?;
        let mut streams = self.streams.clone().ready().await?;
        let (answer, mut body) = streams.send_request(head, false)?;
        body.send_data(framed(request), true)?;
        let (head, body) = answer.await?.into_parts();
        let answer = read(body, &head.headers).await.with_context(|| format!("{name} failed"))?;
        Ok(A::decode(answer)?)
    }
}

/// The message of an answer, unless its status says that there is none.
async fn read(mut body: RecvStream, head: &HeaderMap) -> Result<Bytes> {
    let mut whole = Bytes::new();
    while let Some(piece) = body.data().await.transpose()? {
        body.flow_control().release_capacity(piece.len())?;
        whole = match whole.is_empty() {
            true => piece,
            false => [whole, piece].concat().into(),
        };
    }
    let trailers = body.trailers().await?;
    // An answer that is an error from the beginning has its status in front.
    let status = trailers.as_ref().unwrap_or(head);
    let said = |name| status.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    match said("grpc-status").as_deref() {
        Some("0") => {}
        other => bail!("status {other:?}: {}", said("grpc-message").unwrap_or_default()),
    }
    Ok(message(whole)?)
}
