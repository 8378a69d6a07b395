//! A netfilter netlink socket and the encoding of its messages: headers, attributes, batches.

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
        setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike},
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;
pub(super) const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
/// `nlmsghdr` and `nfgenmsg`.
const HEADER_BYTES: usize = 16;
const FAMILY_HEADER_BYTES: usize = 4;
/// A batch must be one datagram: room for a full load of tens of thousands of services.
const SEND_BUFFER_BYTES: usize = 256 << 20;
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;
/// The kernel answers within milliseconds, within seconds for a full load.
const ANSWER_SECONDS: i64 = 30;

fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Netlink messages one after the other.
#[derive(Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    /// Sequence number of the last message; the kernel names it in errors.
    sequence: u32,
    /// Where the last message begins.
    last: usize,
}

impl Messages {
    /// Appends a message whose attributes `body` writes. `id` is `nfgenmsg.res_id`.
    pub(super) fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        id: u16,
        body: impl FnOnce(&mut Messages),
    ) {
        let start = self.bytes.len();
        self.last = start;
        self.sequence += 1;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(id.to_be_bytes());
        body(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Asks the kernel to confirm the last message; errors are reported of all.
    pub(super) fn acknowledge_last(&mut self) {
        let at = self.last + 6;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | NLM_F_ACK;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = (value.len() + 4) as u16;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        self
    }

    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Messages)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        body(self);
        let length = self.bytes.len() - start;
        let length = u16::try_from(length).expect("elements are chunked well below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        self
    }
}

/// A socket of the network namespace in which it was opened, whichever thread uses it.
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open() -> io::Result<Socket> {
        let protocol = SockProtocol::NetlinkNetFilter;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        // Needs CAP_NET_ADMIN, as does everything that will be sent.
        setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES)?;
        setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
        Ok(Socket(fd))
    }

    /// Sends all as one datagram, which the last message closes by asking for an acknowledgement,
    /// and waits for the kernel's word. `Err` names the first message refused.
    pub(super) fn transact(&self, messages: &Messages) -> io::Result<()> {
        self.send(messages)?;
        let mut buffer = vec![0; 1 << 16];
        let mut outcome = None;
        loop {
            // After the first word only what is already here: the errors of the same batch.
            let flags = if outcome.is_some() { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
            let received = match recv(self.0.as_raw_fd(), &mut buffer, flags) {
                Ok(received) => received,
                Err(nix::Error::EINTR) => continue,
                Err(_) if outcome.is_some() => break,
                Err(error) => return Err(error.into()),
            };
            for (kind, sequence, payload) in parse(&buffer[..received]) {
                let code = payload.get(..4).and_then(|code| code.try_into().ok());
                let (NLMSG_ERROR, Some(code)) = (kind, code.map(i32::from_ne_bytes)) else {
                    continue;
                };
                if outcome.is_none_or(|(_, known)| known == 0) {
                    outcome = Some((sequence, code));
                }
            }
        }
        match outcome {
            Some((sequence, code)) if code != 0 => {
                let error = io::Error::from_raw_os_error(-code);
                Err(io::Error::new(error.kind(), format!("message {sequence}: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Sends a dump request and gives each message's attributes to `each`.
    pub(super) fn dump(&self, messages: &Messages, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.send(messages)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let received = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(received) => received,
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for (kind, _, payload) in parse(&buffer[..received]) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = payload.get(..4).and_then(|code| code.try_into().ok());
                        let code = code.map_or(-libc::EPROTO, i32::from_ne_bytes);
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    _ => each(payload.get(FAMILY_HEADER_BYTES..).unwrap_or_default()),
                }
            }
        }
    }

    fn send(&self, messages: &Messages) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &messages.bytes, &kernel, MsgFlags::empty())?;
        Ok(())
    }
}

/// Type, sequence number and payload of each message.
fn parse(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER_BYTES)?;
        let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
        let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
        let payload = bytes.get(HEADER_BYTES..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, sequence, payload))
    })
}

/// Type and value of each attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the attribute of that type.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut messages = Messages::default();
        messages.message(0x0a06, 0, 2, 0, |m| {
            m.text(1, "abc").nest(2, |m| {
                m.number(7, 5);
            });
        });
        messages.message(0x11, 0, 0, 10, |_| {});
        let found: Vec<_> = parse(&messages.bytes).collect();
        assert_eq!(found.len(), 2);
        let (kind, sequence, payload) = found[0];
        assert_eq!((kind, sequence), (0x0a06, 1));
        let body = &payload[FAMILY_HEADER_BYTES..];
        assert_eq!(attribute(body, 1), Some(&b"abc\0"[..]));
        let nested = attribute(body, 2).unwrap();
        assert_eq!(attribute(nested, 7), Some(&[0, 0, 0, 5][..]));
        assert_eq!(attribute(nested, 8), None);
    }

    #[test]
    fn cut_off_bytes_end_the_reading() {
        let mut messages = Messages::default();
        messages.message(1, 0, 2, 0, |m| {
            m.text(1, "abc");
        });
        assert_eq!(parse(&messages.bytes[..messages.bytes.len() - 1]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
    }
}
