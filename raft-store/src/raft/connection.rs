//! Connections that others have opened, each with all the calls on it in one task: what can be answered at the
//! same moment is written together, and nobody else has to be woken for it.

use super::{bell::House, corked::Corked};
use futures::{
    FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream::FuturesUnordered,
};
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    rt::Executor,
    server::conn::http2::Builder,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Where one cannot be met, as when this process has no file left, the next one is not either.
const MEET_AGAIN: Duration = Duration::from_millis(100);

/// Serves HTTP/2. A call that takes long to compute holds up the others on its connection: it has to be given a
/// task of its own by who answers it.
#[derive(Clone, Copy, Debug)]
pub struct Http2 {
    /// Bytes that one call may be sent ahead of what was read of it.
    pub stream_window: u32,
    /// The same for all calls of a connection together.
    pub connection_window: u32,
    /// Who has been silent for so long is asked whether it is there.
    pub keep_alive: Duration,
}

impl Http2 {
    /// Meets everybody who connects, until `stopping` or until nobody can come any more, and then stays until all
    /// that was asked is answered. `greet` looks at a connection and makes what answers the calls on it.
    pub async fn serve<IO, A, F, B>(
        self,
        incoming: impl Stream<Item = io::Result<IO>>,
        greet: impl Fn(&IO) -> A,
        stopping: CancellationToken,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        A: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Error>> + Send + 'static,
    {
        let (mut incoming, mut open) = (pin!(incoming), JoinSet::new());
        while let Some(Some(met)) = stopping.run_until_cancelled(incoming.next()).await {
            while open.try_join_next().is_some() {}
            let io = match met {
                Ok(io) => io,
                Err(error) => {
                    tracing::warn!(%error, "somebody who connects cannot be met");
                    tokio::time::sleep(MEET_AGAIN).await;
                    continue;
                }
            };
            let answer = greet(&io);
            let connection = self.converse(io, answer, stopping.clone());
            open.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error, "a connection broke");
                }
            });
        }
        while open.join_next().await.is_some() {}
    }

    /// Until the other side ends it; once `stopping`, until its calls have ended. What is under way when it
    /// breaks is given up, as when a call is taken back.
    async fn converse<IO, A, F, B>(
        self,
        io: IO,
        answer: A,
        stopping: CancellationToken,
    ) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
        A: Fn(Request<Incoming>) -> F,
        F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
        B: Body<Data: Send, Error: Into<Error>> + Send + 'static,
    {
        let begun = Begun::default();
        let mut builder = Builder::new(begun.clone());
        builder
            .timer(TokioTimer::new())
            // A client that has hundreds of calls on one connection waits for none of them to begin.
            .max_concurrent_streams(None)
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .keep_alive_interval(self.keep_alive);
        let corked = Corked::new(io);
        let connection = builder.serve_connection(TokioIo::new(corked.clone()), service_fn(answer));
        let (mut connection, mut calls) = (pin!(connection), FuturesUnordered::new());
        let mut stopped = pin!(stopping.cancelled().fuse());
        let house = Arc::new(House::default());
        let (of_connection, of_calls) = (house.bell(), house.bell());
        let mut round = || {
            let mut within = of_connection.context();
            if of_connection.has_rung() {
                if stopped.as_mut().poll(&mut within).is_ready() {
                    connection.as_mut().graceful_shutdown();
                }
                if let Poll::Ready(ended) = connection.as_mut().poll(&mut within) {
                    return Poll::Ready(ended.map_err(Error::from));
                }
            }
            let new = begun.take();
            if of_calls.has_rung() || !new.is_empty() {
                calls.extend(new);
                while let Poll::Ready(Some(())) = calls.poll_next_unpin(&mut of_calls.context()) {}
            }
            match corked.poll_let_go(&mut within) {
                Poll::Ready(Err(broken)) => Poll::Ready(Err(broken.into())),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        };
        poll_fn(|cx| house.poll(cx, &mut round)).await
    }
}

type Call = BoxFuture<'static, ()>;

/// Calls that have begun since the connection last looked. Clones share it.
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<Vec<Call>>>);

impl Begun {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().expect("only pushed and taken"))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, call: F) {
        // One that panics takes nobody with it: dropped, it is reset.
        let call = AssertUnwindSafe(call).catch_unwind().map(drop);
        self.0.lock().expect("only pushed and taken").push(call.boxed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::client::conn::http2::{SendRequest, handshake};
    use hyper_util::rt::TokioExecutor;
    use tokio::{io::duplex, sync::Semaphore};
    use tonic::body::Body;

    const HTTP2: Http2 = Http2 {
        stream_window: 1 << 20,
        connection_window: 1 << 20,
        keep_alive: Duration::from_secs(60),
    };

    /// More than hyper allows unless it is told.
    const MANY: usize = 500;

    /// A client on the only connection that comes, and what is told of calls of `/wait`: a permit for each.
    struct Conversation {
        client: SendRequest<Body>,
        stopping: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
        /// They may go on.
        gate: Arc<Semaphore>,
        begun: Arc<Semaphore>,
        /// Answered or given up.
        over: Arc<Semaphore>,
    }

    struct Over(Arc<Semaphore>);

    impl Drop for Over {
        fn drop(&mut self) {
            self.0.add_permits(1);
        }
    }

    async fn one_of(signs: &Semaphore) {
        signs.acquire().await.expect("never closed").forget();
    }

    impl Conversation {
        async fn new() -> Conversation {
            let (near, far) = duplex(4096);
            let stopping = CancellationToken::new();
            let signs = || Arc::new(Semaphore::new(0));
            let (gate, begun, over) = (signs(), signs(), signs());
            let (passed, begin, end) = (gate.clone(), begun.clone(), over.clone());
            let answer = move |request: Request<Incoming>| {
                let (passed, begin, end) = (passed.clone(), begin.clone(), end.clone());
                async move {
                    match request.uri().path() {
                        "/panic" => panic!("as it was asked to"),
                        "/wait" => {
                            let _over = Over(end);
                            begin.add_permits(1);
                            one_of(&passed).await;
                        }
                        _ => {}
                    }
                    Ok(Response::new(Body::empty()))
                }
            };
            let incoming =
                futures::stream::once(async { Ok(far) }).chain(futures::stream::pending());
            let serve = HTTP2.serve(incoming.boxed(), move |_| answer.clone(), stopping.clone());
            let serving = tokio::spawn(serve);
            let handshake = handshake(TokioExecutor::new(), TokioIo::new(near)).await;
            let (client, connection) = handshake.expect("HTTP/2");
            tokio::spawn(connection);
            Conversation { client, stopping, serving, gate, begun, over }
        }

        fn call(&mut self, path: &str) -> impl Future<Output = hyper::Result<u16>> + use<> {
            let uri = format!("http://peer{path}");
            let request = Request::builder().uri(uri).body(Body::empty()).expect("a request");
            let answer = self.client.send_request(request);
            async { Ok(answer.await?.status().as_u16()) }
        }
    }

    #[tokio::test]
    async fn a_call_that_waits_holds_up_nobody() {
        let mut with = Conversation::new().await;
        let waiting = with.call("/wait");
        one_of(&with.begun).await;
        assert_eq!(with.call("/").await.expect("answered"), 200);
        with.gate.add_permits(1);
        assert_eq!(waiting.await.expect("answered"), 200);
    }

    #[tokio::test]
    async fn any_number_of_calls_wait_at_the_same_time() {
        let mut with = Conversation::new().await;
        let waiting: Vec<_> = (0..MANY).map(|_| with.call("/wait")).collect();
        for _ in 0..MANY {
            one_of(&with.begun).await;
        }
        with.gate.add_permits(MANY);
        for answer in waiting {
            assert_eq!(answer.await.expect("answered"), 200);
        }
    }

    #[tokio::test]
    async fn a_call_that_panics_takes_nobody_with_it() {
        let mut with = Conversation::new().await;
        let waiting = with.call("/wait");
        one_of(&with.begun).await;
        with.call("/panic").await.expect_err("reset");
        with.gate.add_permits(1);
        assert_eq!(waiting.await.expect("answered"), 200);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_given_up() {
        let mut with = Conversation::new().await;
        let waiting = with.call("/wait");
        one_of(&with.begun).await;
        drop(waiting);
        one_of(&with.over).await;
        assert_eq!(with.call("/").await.expect("answered"), 200);
    }

    #[tokio::test]
    async fn what_was_asked_before_the_stop_is_answered() {
        let mut with = Conversation::new().await;
        let waiting = with.call("/wait");
        one_of(&with.begun).await;
        with.stopping.cancel();
        with.gate.add_permits(1);
        assert_eq!(waiting.await.expect("answered"), 200);
        (&mut with.serving).await.expect("nothing is left to do");
        with.call("/").await.expect_err("nobody is there");
    }
}
