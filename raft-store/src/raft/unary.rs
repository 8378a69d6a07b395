//! Calls of one message each, straight on HTTP/2: what tonic does for any call is done here with less. A call
//! is one write, and its answer wakes one task.
//!
//! Format: gRPC over HTTP/2, "Length-Prefixed-Message": a flag, four bytes of length, the message.

use super::wire::MESSAGE_BYTES_MAX;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use h2::{PingPong, RecvStream, client::SendRequest};
use http::{HeaderMap, Method, Request, header};
use prost::Message;
use std::{
    sync::{Arc, Mutex},
    task::{Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{Code, Status};

/// A flag (compressed or not) and a length.
const PREFIX: usize = 5;

/// A connection; clones share it. It ends with the last of them, or when the other side does.
#[derive(Clone)]
pub struct Unary {
    streams: SendRequest<Bytes>,
    origin: String,
    /// What was left of the last call. Letting go of it wakes what drives the connection, which has nothing to
    /// do for that: the next call does it, which has something.
    spent: Arc<Mutex<Option<RecvStream>>>,
}

impl Unary {
    /// Begins HTTP/2 on a connection to `origin`, as in `https://name`. What drives it is spawned. Without an
    /// answer to a ping in `keep_alive`, one of which is sent that often, it is given up.
    pub async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        origin: &str,
        window: u32,
        keep_alive: Duration,
    ) -> Result<Unary, Status> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window);
        let (streams, mut connection) = builder.handshake(io).await.map_err(broken)?;
        let pings = connection.ping_pong().expect("taken once");
        tokio::spawn(async move {
            tokio::select! {
                // An error is that of a call.
                _ = connection => {}
                () = until_silent(pings, keep_alive) => {}
            }
        });
        Ok(Unary { streams, origin: origin.into(), spent: Arc::default() })
    }

    /// No call can be made any more.
    pub fn is_over(&self) -> bool {
        matches!(self.streams.clone().ready().now_or_never(), Some(Err(_)))
    }

    /// Calls a method, as in `/package.Service/Method`.
    pub async fn call<A: Message + Default>(
        &self,
        method: &str,
        metadata: HeaderMap,
        request: &impl Message,
    ) -> Result<A, Status> {
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        let uri = format!("{}{method}", self.origin).parse();
        *head.uri_mut() = uri.map_err(|_| Status::internal(format!("{}: no URI", self.origin)))?;
        *head.headers_mut() = metadata;
        let grpc = header::HeaderValue::from_static("application/grpc");
        head.headers_mut().insert(header::CONTENT_TYPE, grpc);
        head.headers_mut().insert(header::TE, header::HeaderValue::from_static("trailers"));
        let mut streams = self.streams.clone().ready().await.map_err(broken)?;
        self.spend(None);
        let (answer, mut body) = streams.send_request(head, false).map_err(broken)?;
        body.send_data(framed(request), true).map_err(broken)?;
        let (head, mut body) = answer.await.map_err(broken)?.into_parts();
        let (whole, trailers) = read(&mut body).await?;
        self.spend(Some(body));
        // An answer that is an error from the beginning has its status in front.
        let status = Status::from_header_map(trailers.as_ref().unwrap_or(&head.headers));
        match status {
            Some(status) if status.code() == Code::Ok => {}
            Some(refused) => return Err(refused),
            None => return Err(Status::internal("the answer has no status")),
        }
        A::decode(message(whole)?).map_err(|error| Status::internal(error.to_string()))
    }

    fn spend(&self, rest: Option<RecvStream>) {
        let before = std::mem::replace(&mut *self.spent.lock().expect("only replaced"), rest);
        drop(before);
    }
}

fn broken(error: h2::Error) -> Status {
    Status::from_error(Box::new(error))
}

async fn until_silent(mut pings: PingPong, keep_alive: Duration) {
    loop {
        tokio::time::sleep(keep_alive).await;
        let answer = tokio::time::timeout(keep_alive, pings.ping(h2::Ping::opaque())).await;
        if !matches!(answer, Ok(Ok(_))) {
            return;
        }
    }
}

async fn read(body: &mut RecvStream) -> Result<(Bytes, Option<HeaderMap>), Status> {
    let pieces = stream::poll_fn(|cx| {
        let piece = ready!(body.poll_data(cx)).map(|piece| {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            Ok(piece)
        });
        Poll::Ready(piece.map(|piece| piece.map_err(broken)))
    });
    let too_large = || Status::out_of_range(format!("more than {MESSAGE_BYTES_MAX} bytes"));
    let whole = gather(pieces, MESSAGE_BYTES_MAX, too_large).await?;
    Ok((whole, body.trailers().await.map_err(broken)?))
}

/// All of a body with a message of at most so many bytes; without a copy if it came in one piece.
pub async fn gather(
    mut pieces: impl Stream<Item = Result<Bytes, Status>> + Unpin,
    message_max: usize,
    too_large: impl FnOnce() -> Status,
) -> Result<Bytes, Status> {
    let Some(first) = pieces.next().await.transpose()? else { return Ok(Bytes::new()) };
    let Some(second) = pieces.next().await.transpose()? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(2 * (first.len() + second.len()));
    whole.put(first);
    whole.put(second);
    while let Some(piece) = pieces.next().await.transpose()? {
        whole.put(piece);
        if whole.len() > PREFIX + message_max {
            return Err(too_large());
        }
    }
    Ok(whole.freeze())
}

/// The one message of a body, a request's or an answer's.
pub fn message(mut body: Bytes) -> Result<Bytes, Status> {
    let cut_short = || Status::internal("a message ends too early");
    let compressed = body.try_get_u8().map_err(|_| cut_short())?;
    let length = body.try_get_u32().map_err(|_| cut_short())? as usize;
    if compressed != 0 {
        return Err(Status::unimplemented("compressed messages are not accepted"));
    }
    match body.len() {
        there if there < length => Err(cut_short()),
        there if there > length => Err(Status::internal("there is more than one message")),
        _ => Ok(body),
    }
}

/// A message as a body has it.
pub fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(length as u32);
    message.encode(&mut framed).expect("there is room for all of it");
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::connection::Http2;
    use http::Response;
    use std::convert::Infallible;
    use tokio::io::{DuplexStream, duplex};
    use tokio_util::sync::CancellationToken;
    use wire::peer::{AskRequest, AskResponse};

    const KEEP_ALIVE: Duration = Duration::from_secs(10);

    async fn connected(near: DuplexStream) -> Unary {
        Unary::over(near, "http://peer", 1 << 20, KEEP_ALIVE).await.expect("HTTP/2")
    }

    /// What becomes of a call to who answers this.
    async fn asked(
        answer: impl Fn() -> Response<String> + Clone + Send + 'static,
    ) -> Result<AskResponse, Status> {
        let (near, far) = duplex(4096);
        let (http2, stopping) = (
            Http2 { stream_window: 1 << 20, connection_window: 1 << 20, keep_alive: KEEP_ALIVE },
            CancellationToken::new(),
        );
        let incoming = futures::stream::once(async { Ok(far) }).boxed();
        let greet = move |_: &DuplexStream| {
            let answer = answer.clone();
            move |_| std::future::ready(Ok::<_, Infallible>(answer()))
        };
        let serving = tokio::spawn(http2.serve(incoming, greet, stopping));
        let unary = connected(near).await;
        let answer = unary.call("/a.Service/Ask", HeaderMap::new(), &AskRequest::default()).await;
        drop(unary);
        serving.await.expect("it ends when nobody can call any more");
        answer
    }

    fn answer(status: &str, body: Bytes) -> Response<String> {
        let body = String::from_utf8(body.into()).expect("a body that is text, too");
        Response::builder().header("grpc-status", status).body(body).expect("a response")
    }

    #[tokio::test]
    async fn an_answer_is_one_message_or_a_refusal() {
        let told = AskResponse { answer: "so".into() };
        let body = framed(&told);
        let good = body.clone();
        assert_eq!(asked(move || answer("0", good.clone())).await.expect("an answer"), told);
        let refusal = asked(|| answer("9", Bytes::new())).await.expect_err("refused");
        assert_eq!(refusal.code(), Code::FailedPrecondition);
        let cut = body.slice(..body.len() - 1);
        let refusal = asked(move || answer("0", cut.clone())).await.expect_err("cut short");
        assert_eq!(refusal.message(), "a message ends too early");
        let refusal = asked(|| Response::new(String::new())).await.expect_err("no gRPC");
        assert_eq!(refusal.message(), "the answer has no status");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_given_up() {
        let (near, far) = duplex(4096);
        let handshake = tokio::spawn(h2::server::handshake(far));
        let unary = connected(near).await;
        let _silent = handshake.await.expect("no panic").expect("HTTP/2");
        let begun = tokio::time::Instant::now();
        let asked = AskRequest::default();
        let answer: Result<AskResponse, _> =
            unary.call("/a.Service/Ask", HeaderMap::new(), &asked).await;
        answer.expect_err("nobody answers");
        assert!(begun.elapsed() >= KEEP_ALIVE * 2);
        assert!(unary.is_over());
    }

    #[tokio::test]
    async fn no_more_of_a_body_is_taken_than_may_be() {
        let pieces = |count| stream::iter((0..count).map(|_| Ok(Bytes::from_static(b"12345"))));
        let too_large = || Status::out_of_range("too large");
        let whole = gather(pieces(4), 15, too_large).await.expect("the prefix and 15 bytes");
        assert_eq!(whole.len(), 20);
        let refused = gather(pieces(5), 15, too_large).await.expect_err("too large");
        assert_eq!(refused.code(), Code::OutOfRange);
    }

    #[test]
    fn a_body_is_one_whole_message() {
        let framed = |flag: u8, length: u32, message: &[u8]| {
            let mut body = BytesMut::new();
            body.put_u8(flag);
            body.put_u32(length);
            body.put_slice(message);
            body.freeze()
        };
        let refused = |body: Bytes| message(body).expect_err("refused").message().to_owned();
        assert_eq!(message(framed(0, 3, b"abc")).expect("a message"), "abc");
        assert_eq!(refused(Bytes::new()), "a message ends too early");
        assert_eq!(refused(framed(0, 4, b"abc")), "a message ends too early");
        assert_eq!(refused(framed(0, 2, b"abc")), "there is more than one message");
        assert_eq!(refused(framed(1, 3, b"abc")), "compressed messages are not accepted");
    }
}
