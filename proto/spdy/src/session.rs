//! Streams over one connection: a task reads frames and hands them to the streams, a task writes.
//! Both end with the [`Session`].

use crate::{
    Error, Headers,
    frame::{self, CANCEL, DATA_BYTES_MAX, Frame, HEAD_BYTES, Head, REFUSED_STREAM},
    header::{Packer, Unpacker},
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Streams open at once; kubectl's largest use is two per forwarded connection.
const STREAMS_MAX: usize = 512;
/// Frames that wait to be written: half a megabyte of data.
const FRAMES_QUEUED_MAX: usize = 16;
/// Pieces of data that wait for one stream's reader. When they are full the whole connection waits,
/// as it does with every SPDY peer that has no flow control.
const PIECES_QUEUED_MAX: usize = 8;
/// Streams the peer opened and nobody accepted yet.
const STREAMS_QUEUED_MAX: usize = 16;
/// How long a peer may take to answer our goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

/// One end of a connection.
pub struct Session {
    accepted: mpsc::Receiver<Stream>,
    shared: Arc<Shared>,
    frames: mpsc::Sender<Frame>,
    next_id: AtomicU32,
    reads: AbortOnDropHandle<()>,
    writes: AbortOnDropHandle<()>,
}

struct Shared {
    streams: Mutex<BTreeMap<u32, Entry>>,
    /// The connection is over.
    closed: CancellationToken,
}

/// What the reading task knows of an open stream.
struct Entry {
    /// `None` once the peer has said its last word.
    pieces: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
}

/// A stream; its halves live apart.
pub struct Stream {
    pub headers: Headers,
    pub reader: Reader,
    pub writer: Writer,
}

/// What the peer says on a stream.
pub struct Reader {
    pieces: mpsc::Receiver<Bytes>,
    _place: Arc<Place>,
}

/// A stream's place among the open ones, kept while either half lives.
struct Place {
    id: u32,
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.remove(self.id);
    }
}

/// What is said to the peer on a stream. Dropping it says nothing: [`Writer::finish`] does.
pub struct Writer {
    frames: mpsc::Sender<Frame>,
    reset: CancellationToken,
    place: Arc<Place>,
}

impl Session {
    /// The end that answers: the peer opens streams.
    pub fn server(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Session {
        Session::new(io, 2)
    }

    /// The end that asks.
    pub fn client(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Session {
        Session::new(io, 1)
    }

    fn new(io: impl AsyncRead + AsyncWrite + Send + 'static, first_id: u32) -> Session {
        let (read, write) = tokio::io::split(io);
        let (frames, queue) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (accepting, accepted) = mpsc::channel(STREAMS_QUEUED_MAX);
        let shared = Arc::new(Shared {
            streams: Mutex::new(BTreeMap::new()),
            closed: CancellationToken::new(),
        });
        let reading = Reading { shared: shared.clone(), frames: frames.downgrade(), accepting };
        let (reads_over, writes_over) = (shared.clone(), shared.clone());
        let reads = tokio::spawn(async move {
            if let Err(error) = reading.run(read).await {
                tracing::debug!(%error, "a SPDY connection ended");
            }
            reads_over.close();
        });
        let writes = tokio::spawn(async move {
            if let Err(error) = write_all(write, queue).await {
                tracing::debug!(%error, "a SPDY connection cannot be written to");
                writes_over.close();
            }
        });
        Session {
            accepted,
            shared,
            frames,
            next_id: AtomicU32::new(first_id),
            reads: AbortOnDropHandle::new(reads),
            writes: AbortOnDropHandle::new(writes),
        }
    }

    /// The next stream the peer opens; `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }

    /// Opens a stream.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Error> {
        let id = self.next_id.fetch_add(2, Ordering::Relaxed);
        let stream = self.shared.add(id, headers.clone(), &self.frames);
        let stream = stream.ok_or(Error::Protocol("too many streams"))?;
        let frame = Frame::SynStream { id, fin: false, headers };
        self.frames.send(frame).await.map_err(|_| closed())?;
        Ok(stream)
    }

    /// Resolves when the peer is gone.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Says goodbye, writes what is queued, and ends. Streams that are still held end with it.
    pub async fn close(self) {
        let Session { accepted, shared, frames, reads, writes, .. } = self;
        drop(accepted);
        let goodbye = async {
            let _ = frames.send(Frame::GoAway { last: 0, status: 0 }).await;
            shared.close();
            drop(frames);
            // Ends when the last stream's writer is dropped, or with the connection.
            let _ = writes.await;
            // Until the peer has left too: closing a connection with something unread in it resets
            // it, and the peer would lose our last words.
            let _ = reads.await;
        };
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await;
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl Shared {
    fn streams(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: there are too many.
    fn add(
        self: &Arc<Shared>,
        id: u32,
        headers: Headers,
        frames: &mpsc::Sender<Frame>,
    ) -> Option<Stream> {
        let (sender, pieces) = mpsc::channel(PIECES_QUEUED_MAX);
        let reset = self.closed.child_token();
        let mut streams = self.streams();
        if streams.len() >= STREAMS_MAX {
            return None;
        }
        streams.insert(id, Entry { pieces: Some(sender), reset: reset.clone() });
        let place = Arc::new(Place { id, shared: self.clone() });
        let reader = Reader { pieces, _place: place.clone() };
        Some(Stream { headers, reader, writer: Writer { frames: frames.clone(), reset, place } })
    }

    fn pieces(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        self.streams().get(&id)?.pieces.clone()
    }

    /// The peer will say no more on this stream.
    fn half_close(&self, id: u32) {
        if let Some(entry) = self.streams().get_mut(&id) {
            entry.pieces = None;
        }
    }

    fn remove(&self, id: u32) -> Option<Entry> {
        self.streams().remove(&id)
    }

    fn close(&self) {
        self.closed.cancel();
        self.streams().clear();
    }
}

/// The task that reads.
struct Reading {
    shared: Arc<Shared>,
    /// Weak: reading goes on for a while after the last word was said.
    frames: mpsc::WeakSender<Frame>,
    accepting: mpsc::Sender<Stream>,
}

impl Reading {
    async fn run(self, mut io: impl AsyncRead + Unpin) -> Result<(), Error> {
        let mut unpacker = Unpacker::default();
        let mut head = [0; HEAD_BYTES];
        loop {
            match io.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            };
            match Head::parse(&head)? {
                Head::Control { kind, flags, length } => {
                    let mut payload = vec![0; length];
                    io.read_exact(&mut payload).await?;
                    let frame = frame::control(kind, flags, &payload, &mut unpacker)?;
                    self.control(frame).await?;
                }
                Head::Data { id, fin, length } => self.data(&mut io, id, fin, length).await?,
            }
        }
    }

    async fn control(&self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let Some(frames) = self.frames.upgrade() else { return Ok(()) };
                let Some(stream) = self.shared.add(id, headers, &frames) else {
                    let refusal = Frame::RstStream { id, status: REFUSED_STREAM };
                    return self.send(refusal).await;
                };
                if fin {
                    self.shared.half_close(id);
                }
                self.send(Frame::SynReply { id, fin: false, headers: Headers::new() }).await?;
                // Nobody accepts any more: the session is being closed.
                let _ = self.accepting.send(stream).await;
            }
            Frame::SynReply { id, fin: true, .. } | Frame::Headers { id, fin: true, .. } => {
                self.shared.half_close(id);
            }
            Frame::RstStream { id, .. } => {
                if let Some(entry) = self.shared.remove(id) {
                    entry.reset.cancel();
                }
            }
            Frame::Ping(id) => self.send(Frame::Ping(id)).await?,
            _ => {}
        }
        Ok(())
    }

    async fn data(
        &self,
        io: &mut (impl AsyncRead + Unpin),
        id: u32,
        fin: bool,
        length: usize,
    ) -> Result<(), Error> {
        let pieces = self.shared.pieces(id);
        let mut left = length;
        while left > 0 {
            let mut piece = BytesMut::zeroed(left.min(DATA_BYTES_MAX));
            io.read_exact(&mut piece).await?;
            left -= piece.len();
            if let Some(pieces) = &pieces {
                // A stream whose reader is gone reads past what comes.
                let _ = pieces.send(piece.freeze()).await;
            }
        }
        if fin {
            self.shared.half_close(id);
        }
        Ok(())
    }

    /// Nothing once our last word is said.
    async fn send(&self, frame: Frame) -> Result<(), Error> {
        match self.frames.upgrade() {
            Some(frames) => Ok(frames.send(frame).await.map_err(|_| closed())?),
            None => Ok(()),
        }
    }
}

async fn write_all(
    mut io: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Frame>,
) -> io::Result<()> {
    let mut packer = Packer::default();
    let mut out = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        out.clear();
        frame.encode(&mut packer, &mut out);
        while let Ok(frame) = queue.try_recv() {
            frame.encode(&mut packer, &mut out);
        }
        io.write_all(&out).await?;
        io.flush().await?;
    }
    io.shutdown().await
}

impl Reader {
    /// The next piece; `None` at the peer's last word, or when the stream or connection is gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }
}

impl Writer {
    /// Sends `bytes` in as many frames as it takes.
    pub async fn send(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(DATA_BYTES_MAX));
            self.frame(Frame::Data { id: self.place.id, fin: false, bytes: piece }).await?;
        }
        Ok(())
    }

    /// The last word on this side.
    pub async fn finish(&self) -> io::Result<()> {
        self.frame(Frame::Data { id: self.place.id, fin: true, bytes: Bytes::new() }).await
    }

    /// Ends both directions at once.
    pub async fn reset(&self) {
        self.place.shared.remove(self.place.id);
        let _ = self.frame(Frame::RstStream { id: self.place.id, status: CANCEL }).await;
    }

    /// Resolves when the peer reset the stream or is gone.
    pub async fn gone(&self) {
        self.reset.cancelled().await;
    }

    /// Cancelled when the peer reset the stream or is gone.
    pub fn lost(&self) -> CancellationToken {
        self.reset.clone()
    }

    async fn frame(&self, frame: Frame) -> io::Result<()> {
        if self.reset.is_cancelled() && !self.place.shared.closed.is_cancelled() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.frames.send(frame).await.map_err(|_| closed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Session, Session) {
        let (near, far) = tokio::io::duplex(4096);
        (Session::client(near), Session::server(far))
    }

    async fn all(reader: &mut Reader) -> Vec<u8> {
        let mut heard = Vec::new();
        while let Some(piece) = reader.next().await {
            heard.extend_from_slice(&piece);
        }
        heard
    }

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_end_by_halves() {
        let (client, mut server) = pair();
        let mut asked = client.open(vec![("port".into(), "80".into())]).await.expect("open");
        let mut stream = server.accept().await.expect("a stream");
        assert_eq!(stream.headers, [("port".to_string(), "80".to_string())]);
        let long = vec![7; 3 * DATA_BYTES_MAX + 5];
        let (said, heard) = tokio::join!(
            async {
                asked.writer.send(long.clone().into()).await.expect("sent");
                asked.writer.finish().await.expect("finished");
            },
            all(&mut stream.reader)
        );
        assert_eq!((said, heard.len()), ((), long.len()));
        stream.writer.send(Bytes::from_static(b"thanks")).await.expect("sent");
        stream.writer.finish().await.expect("finished");
        assert_eq!(all(&mut asked.reader).await, b"thanks");
    }

    #[tokio::test]
    async fn a_reset_reaches_the_other_side() {
        let (client, mut server) = pair();
        let asked = client.open(Headers::new()).await.expect("open");
        let mut stream = server.accept().await.expect("a stream");
        asked.writer.reset().await;
        stream.writer.gone().await;
        assert_eq!(stream.reader.next().await, None);
        let refused = stream.writer.send(Bytes::from_static(b"x")).await.expect_err("reset");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_was_queued_before_the_close_arrives() {
        let (client, mut server) = pair();
        let mut asked = client.open(Headers::new()).await.expect("open");
        let stream = server.accept().await.expect("a stream");
        stream.writer.send(Bytes::from_static(b"last words")).await.expect("sent");
        stream.writer.finish().await.expect("finished");
        drop(stream);
        let listen = async {
            assert_eq!(all(&mut asked.reader).await, b"last words");
            client.closed().await;
            drop((asked, client));
        };
        tokio::join!(server.close(), listen);
    }

    #[tokio::test]
    async fn pings_are_answered_and_rubbish_ends_the_session() {
        let (mut near, far) = tokio::io::duplex(4096);
        let mut server = Session::server(far);
        let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        near.write_all(&ping).await.expect("written");
        let mut answer = [0; 12];
        near.read_exact(&mut answer).await.expect("answered");
        assert_eq!(answer, ping);
        near.write_all(&[0x80, 9, 0, 0, 0, 0, 0, 0]).await.expect("written");
        assert!(server.accept().await.is_none());
    }
}
