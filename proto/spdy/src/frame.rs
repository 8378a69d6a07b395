//! Frames: what is on the wire, as values.

use crate::{
    Error, Headers,
    header::{Packer, Unpacker},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// In front of every frame.
pub const HEAD_BYTES: usize = 8;
/// A control frame that is longer carries no headers of ours.
pub const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Data goes out in frames of at most this; larger ones that come in are passed on in such pieces.
pub const DATA_BYTES_MAX: usize = 32 * 1024;

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;
const FIN: u8 = 1;
/// The highest bit of stream ids and deltas is reserved.
const ID_MASK: u32 = 0x7fff_ffff;

/// Why a stream was reset (section 2.6.3).
pub const REFUSED_STREAM: u32 = 3;
pub const CANCEL: u32 = 5;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    SynReply {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    RstStream {
        id: u32,
        status: u32,
    },
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        id: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
    /// SETTINGS, and what later versions may add: read past.
    Ignored,
}

/// The first eight bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Control { kind: u16, flags: u8, length: usize },
    Data { id: u32, fin: bool, length: usize },
}

impl Head {
    pub fn parse(head: &[u8; HEAD_BYTES]) -> Result<Head, Error> {
        let control = head[0] & 0x80 != 0;
        let mut bytes = &head[..];
        let (first, rest) = (bytes.get_u32(), bytes.get_u32());
        let (flags, length) = ((rest >> 24) as u8, (rest & 0x00ff_ffff) as usize);
        if !control {
            return Ok(Head::Data { id: first & ID_MASK, fin: flags & FIN != 0, length });
        }
        if (first >> 16) as u16 != VERSION {
            return Err(Error::Protocol("another version than 3"));
        }
        if length > CONTROL_BYTES_MAX {
            return Err(Error::Protocol("a control frame is too long"));
        }
        Ok(Head::Control { kind: first as u16, flags, length })
    }
}

/// A control frame from its payload.
pub fn control(
    kind: u16,
    flags: u8,
    mut payload: &[u8],
    unpacker: &mut Unpacker,
) -> Result<Frame, Error> {
    let fin = flags & FIN != 0;
    let payload = &mut payload;
    Ok(match kind {
        SYN_STREAM => {
            let id = number(payload)? & ID_MASK;
            // Associated stream, priority and slot mean nothing here.
            number(payload)?;
            payload.try_get_u16().map_err(|_| SHORT)?;
            Frame::SynStream { id, fin, headers: unpacker.unpack(payload)? }
        }
        SYN_REPLY => {
            let id = number(payload)? & ID_MASK;
            Frame::SynReply { id, fin, headers: unpacker.unpack(payload)? }
        }
        HEADERS => {
            let id = number(payload)? & ID_MASK;
            Frame::Headers { id, fin, headers: unpacker.unpack(payload)? }
        }
        RST_STREAM => Frame::RstStream { id: number(payload)? & ID_MASK, status: number(payload)? },
        PING => Frame::Ping(number(payload)?),
        GOAWAY => Frame::GoAway { last: number(payload)? & ID_MASK, status: number(payload)? },
        WINDOW_UPDATE => Frame::WindowUpdate {
            id: number(payload)? & ID_MASK,
            delta: number(payload)? & ID_MASK,
        },
        _ => Frame::Ignored,
    })
}

const SHORT: Error = Error::Protocol("a control frame ends early");

fn number(payload: &mut &[u8]) -> Result<u32, Error> {
    payload.try_get_u32().map_err(|_| SHORT)
}

impl Frame {
    /// The frame on the wire, appended to `out`.
    pub fn encode(&self, packer: &mut Packer, out: &mut BytesMut) {
        match self {
            Frame::SynStream { id, fin, headers } => {
                let block = packer.pack(headers);
                put_head(out, SYN_STREAM, *fin, 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.put_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => {
                put_block(out, SYN_REPLY, *fin, *id, &packer.pack(headers));
            }
            Frame::Headers { id, fin, headers } => {
                put_block(out, HEADERS, *fin, *id, &packer.pack(headers));
            }
            Frame::RstStream { id, status } => put_pair(out, RST_STREAM, *id, *status),
            Frame::GoAway { last, status } => put_pair(out, GOAWAY, *last, *status),
            Frame::WindowUpdate { id, delta } => put_pair(out, WINDOW_UPDATE, *id, *delta),
            Frame::Ping(id) => {
                put_head(out, PING, false, 4);
                out.put_u32(*id);
            }
            Frame::Data { id, fin, bytes } => {
                out.put_u32(*id);
                out.put_u32(u32::from(*fin) << 24 | bytes.len() as u32);
                out.put_slice(bytes);
            }
            Frame::Ignored => {}
        }
    }
}

fn put_head(out: &mut BytesMut, kind: u16, fin: bool, length: usize) {
    out.put_u16(VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(fin) << 24 | length as u32);
}

fn put_block(out: &mut BytesMut, kind: u16, fin: bool, id: u32, block: &[u8]) {
    put_head(out, kind, fin, 4 + block.len());
    out.put_u32(id);
    out.put_slice(block);
}

fn put_pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    put_head(out, kind, false, 8);
    out.put_u32(first);
    out.put_u32(second);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(wire: &[u8], unpacker: &mut Unpacker) -> Result<Frame, Error> {
        let (head, rest) = wire.split_first_chunk().ok_or(SHORT)?;
        match Head::parse(head)? {
            Head::Control { kind, flags, length } => {
                control(kind, flags, rest.get(..length).ok_or(SHORT)?, unpacker)
            }
            Head::Data { id, fin, length } => {
                let bytes = rest.get(..length).ok_or(SHORT)?;
                Ok(Frame::Data { id, fin, bytes: Bytes::copy_from_slice(bytes) })
            }
        }
    }

    #[test]
    fn every_frame_survives_the_wire() {
        let headers: Headers = vec![("streamtype".into(), "data".into())];
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        for frame in [
            Frame::SynStream { id: 1, fin: false, headers: headers.clone() },
            Frame::SynReply { id: 1, fin: true, headers: headers.clone() },
            Frame::Headers { id: 3, fin: false, headers },
            Frame::RstStream { id: 5, status: CANCEL },
            Frame::Ping(7),
            Frame::GoAway { last: 9, status: 0 },
            Frame::WindowUpdate { id: 1, delta: 65536 },
            Frame::Data { id: 1, fin: true, bytes: Bytes::from_static(b"hello") },
        ] {
            let mut out = BytesMut::new();
            frame.encode(&mut packer, &mut out);
            assert_eq!(decode(&out, &mut unpacker).expect("a frame"), frame);
        }
    }

    /// Bytes of the draft's figures.
    #[test]
    fn the_layout_is_the_published_one() {
        let mut out = BytesMut::new();
        Frame::Ping(1).encode(&mut Packer::default(), &mut out);
        assert_eq!(out[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
        out.clear();
        let data = Frame::Data { id: 2, fin: true, bytes: Bytes::from_static(b"x") };
        data.encode(&mut Packer::default(), &mut out);
        assert_eq!(out[..], [0, 0, 0, 2, 1, 0, 0, 1, b'x']);
    }

    #[test]
    fn versions_and_lengths_are_held_to() {
        assert!(Head::parse(&[0x80, 2, 0, 1, 0, 0, 0, 0]).is_err());
        assert!(Head::parse(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).is_err());
        assert!(control(RST_STREAM, 0, &[0, 0, 0, 1], &mut Unpacker::default()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(wire in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&wire, &mut Unpacker::default());
        }
    }
}
