//! The agent's end of a process: its pipes or terminal, and how it ended.

use nix::pty::Winsize;
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::{UnixStream, unix::pipe},
};

use super::protocol::Reply;

/// A running exec or attachment. Dropping it closes the streams; an exec'd process is then told by
/// its pipes.
#[derive(Default)]
pub struct Session {
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub terminal: Option<Terminal>,
    /// `None` for attachments: they end with their streams.
    pub exited: Option<Exited>,
}

/// Waits for an exec'd process.
pub struct Exited {
    pub(crate) socket: UnixStream,
    /// What has been read from it already.
    pub(crate) read: Vec<u8>,
}

impl Exited {
    /// Exit code, 128 + signal if a signal killed it; an error if the shim went away.
    pub async fn wait(mut self) -> io::Result<i32> {
        loop {
            if let Some(line) = super::fds::take_line(&mut self.read) {
                let reply: Reply = serde_json::from_slice(&line)?;
                return reply.exit_code.ok_or_else(|| io::Error::other("no exit code"));
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// The size of a terminal can be changed through this.
pub struct Terminal(pub(crate) OwnedFd);

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

impl Terminal {
    #[expect(unsafe_code, reason = "TIOCSWINSZ only reads the structure")]
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        unsafe { set_window_size(self.0.as_raw_fd(), &size)? };
        Ok(())
    }
}

/// A terminal's master end. A closed terminal reads as the end of the stream.
pub(crate) struct Pty(AsyncFd<OwnedFd>);

impl Pty {
    #[expect(unsafe_code, reason = "an OwnedFd names the same open descriptor while it lives")]
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Pty> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL)?);
        fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Pty(unsafe { AsyncFd::register(fd)? }))
    }
}

impl AsyncRead for Pty {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let read = guard
                .try_io(|fd| Ok(nix::unistd::read(fd.as_raw_fd(), buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(result) = guard.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A pipe whose read end is ours and non-blocking; the other end is for a child.
pub(crate) fn pipe_to_read() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

/// A pipe whose write end is ours and non-blocking; the other end is for a child.
pub(crate) fn pipe_to_write() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((pipe::Sender::from_owned_fd(write)?, read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exit_that_came_with_the_answer_is_not_lost() {
        let (socket, shim) = UnixStream::pair().expect("a pair");
        let exited = Exited { socket, read: b"{\"exit_code\":3}\n".to_vec() };
        assert_eq!(exited.wait().await.expect("an exit code"), 3);
        drop(shim);
    }
}
