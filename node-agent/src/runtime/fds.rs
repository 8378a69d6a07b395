//! Lines of JSON over a Unix socket, with file descriptors travelling beside them.

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

/// Descriptors that may travel with one line: stdin, stdout and stderr.
const FDS_MAX: usize = 3;

/// A socket in `dir`, reached through the directory's descriptor because a socket address holds
/// only 108 bytes and data directories may be longer.
pub(crate) fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let handle = std::fs::File::open(dir)?;
    match std::fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

/// Connects to the socket that [`bind`] made.
pub(crate) fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let handle = std::fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

/// Sends all of `bytes`, the descriptors with the first byte.
pub(crate) fn send(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    let mut rest: &UnixStream = socket;
    io::Write::write_all(&mut rest, &bytes[sent..])
}

/// Appends what is there to `buffer` and `fds`; `Ok(0)` means the peer closed.
pub(crate) fn receive(
    socket: impl AsFd,
    buffer: &mut Vec<u8>,
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut chunk = [0u8; 16 * 1024];
    let mut space = cmsg_space!([RawFd; FDS_MAX]);
    let mut slices = [IoSliceMut::new(&mut chunk)];
    let message = recvmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let read = message.bytes;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            fds.extend(raw.into_iter().map(own));
        }
    }
    buffer.extend_from_slice(&chunk[..read]);
    Ok(read)
}

/// Takes the first line out of `buffer`, without its newline.
pub(crate) fn take_line(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    let mut line: Vec<u8> = buffer.drain(..=end).collect();
    line.pop();
    Some(line)
}

#[expect(unsafe_code, reason = "the kernel has just installed this descriptor for us alone")]
fn own(fd: RawFd) -> OwnedFd {
    unsafe { OwnedFd::from_raw_fd(fd) }
}
