//! A connection whose writes are held until they are let go. HTTP/2 writes each end of an answer by itself;
//! together they are one packet, one record of TLS, and whoever reads is woken once.

use bytes::{Buf as _, BufMut as _, BytesMut};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// With so many bytes held, what comes next waits until they are written.
const HELD_MAX: usize = 64 << 10;

/// One end of a connection. A flush does nothing; `poll_let_go` on a clone does. Clones share the connection,
/// and are of one task.
pub(super) struct Corked<IO>(Arc<Mutex<Held<IO>>>);

struct Held<IO> {
    io: IO,
    bytes: BytesMut,
}

impl<IO> Clone for Corked<IO> {
    fn clone(&self) -> Corked<IO> {
        Corked(self.0.clone())
    }
}

impl<IO> Corked<IO> {
    pub(super) fn new(io: IO) -> Corked<IO> {
        Corked(Arc::new(Mutex::new(Held { io, bytes: BytesMut::new() })))
    }

    fn held(&self) -> MutexGuard<'_, Held<IO>> {
        self.0.lock().expect("nothing panics while it has it")
    }
}

impl<IO: AsyncWrite + Unpin> Corked<IO> {
    /// Writes all that is held.
    pub(super) fn poll_let_go(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held().poll_write_out(cx)
    }
}

impl<IO: AsyncWrite + Unpin> Held<IO> {
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes.advance(written);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Waits until more may be held.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.bytes.len() < HELD_MAX {
            true => Poll::Ready(Ok(())),
            false => self.poll_write_out(cx),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Corked<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.held().io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Corked<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut held = self.held();
        ready!(held.poll_room(cx))?;
        slices.iter().for_each(|slice| held.bytes.put_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.held();
        ready!(held.poll_write_out(cx))?;
        Pin::new(&mut held.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn nothing_is_written_before_it_is_let_go() {
        let (near, mut far) = duplex(1024);
        let mut corked = Corked::new(near);
        corked.write_all(b"head").await.expect("held");
        corked.write_all(b"body").await.expect("held");
        corked.flush().await.expect("a flush does nothing");
        let mut read = [0; 8];
        let early = futures::poll!(std::pin::pin!(far.read(&mut read)));
        assert!(early.is_pending());
        poll_fn(|cx| corked.poll_let_go(cx)).await.expect("written");
        assert_eq!(far.read(&mut read).await.expect("read"), 8);
        assert_eq!(&read, b"headbody");
    }

    #[tokio::test]
    async fn no_more_is_held_than_may_be() {
        let (near, mut far) = duplex(1024);
        let mut corked = Corked::new(near);
        let all: Vec<u8> = (0..10 * HELD_MAX).map(|nth| (nth % 251) as u8).collect();
        let mut written = all.clone();
        let writing = tokio::spawn(async move {
            for piece in written.chunks_mut(16 << 10) {
                corked.write_all(piece).await.expect("written");
                assert!(corked.held().bytes.len() < HELD_MAX + (16 << 10));
            }
            corked.shutdown().await.expect("what is held goes first");
        });
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.expect("read");
        writing.await.expect("no panic");
        assert!(read == all, "{} bytes of {}", read.len(), all.len());
    }

    #[tokio::test]
    async fn whoever_has_gone_is_noticed() {
        let (near, far) = duplex(1024);
        drop(far);
        let mut corked = Corked::new(near);
        corked.write_all(b"held").await.expect("nobody has looked");
        assert!(poll_fn(|cx| corked.poll_let_go(cx)).await.is_err());
        assert!(corked.shutdown().await.is_err(), "it is still held");
    }
}
