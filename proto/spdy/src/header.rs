//! Header blocks: name and value pairs, compressed with one zlib stream per direction and session
//! that both sides prime with the same dictionary.

use crate::Error;
use bytes::{Buf, BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::sync::LazyLock;

/// Names in lower case, each with its values.
pub type Headers = Vec<(String, String)>;

/// A block that unpacks to more is an attack, not a header.
const BLOCK_BYTES_MAX: usize = 64 * 1024;
/// Pairs in one block.
const PAIRS_MAX: usize = 256;

/// Section 2.6.10.1 of the draft: each word behind its length, then the tail as it is.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match \
    if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url \
    public set-cookie keep-alive origin";
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416\
    417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad \
    Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not \
    Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 \
    Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,\
    deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    for word in WORDS.split(' ') {
        let word = word.replace('_', " ");
        bytes.put_u32(word.len() as u32);
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(TAIL.as_bytes());
    bytes
});

/// Packs the header blocks of one direction.
pub struct Packer(Compress);

impl Default for Packer {
    fn default() -> Packer {
        let mut compress = Compress::new(Compression::fast(), true);
        if let Err(error) = compress.set_dictionary(&DICTIONARY) {
            unreachable!("a fresh zlib stream takes a dictionary: {error}");
        }
        Packer(compress)
    }
}

impl Packer {
    pub fn pack(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = BytesMut::new();
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            for text in [name, value] {
                plain.put_u32(text.len() as u32);
                plain.put_slice(text.as_bytes());
            }
        }
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let begun = self.0.total_in();
        loop {
            let done = (self.0.total_in() - begun) as usize;
            let result = self.0.compress_vec(&plain[done..], &mut packed, FlushCompress::Sync);
            if let Err(error) = result {
                unreachable!("deflate refuses no input: {error}");
            }
            let all = (self.0.total_in() - begun) as usize == plain.len();
            if all && packed.len() < packed.capacity() {
                return packed;
            }
            packed.reserve(256);
        }
    }
}

/// Unpacks the header blocks of one direction.
pub struct Unpacker(Decompress);

impl Default for Unpacker {
    fn default() -> Unpacker {
        Unpacker(Decompress::new(true))
    }
}

impl Unpacker {
    pub fn unpack(&mut self, packed: &[u8]) -> Result<Headers, Error> {
        let plain = self.inflate(packed)?;
        parse(&plain)
    }

    fn inflate(&mut self, packed: &[u8]) -> Result<Vec<u8>, Error> {
        const BROKEN: Error = Error::Protocol("a header block cannot be unpacked");
        let mut plain = Vec::with_capacity(packed.len() * 4 + 256);
        let begun = self.0.total_in();
        loop {
            let done = (self.0.total_in() - begun) as usize;
            let (before, length) = (self.0.total_in(), plain.len());
            match self.0.decompress_vec(&packed[done..], &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(BROKEN),
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| BROKEN)?;
                    continue;
                }
                Err(_) => return Err(BROKEN),
            }
            if plain.len() > BLOCK_BYTES_MAX {
                return Err(Error::Protocol("a header block is too large"));
            }
            let all = (self.0.total_in() - begun) as usize == packed.len();
            if all && plain.len() < plain.capacity() {
                return Ok(plain);
            }
            let stuck = before == self.0.total_in() && length == plain.len();
            if stuck && plain.len() < plain.capacity() {
                return Err(BROKEN);
            }
            plain.reserve(1024);
        }
    }
}

fn parse(mut plain: &[u8]) -> Result<Headers, Error> {
    const SHORT: Error = Error::Protocol("a header block ends early");
    let count = number(&mut plain).ok_or(SHORT)?;
    if count > PAIRS_MAX {
        return Err(Error::Protocol("too many headers"));
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let name = text(&mut plain).ok_or(SHORT)?.to_ascii_lowercase();
        headers.push((name, text(&mut plain).ok_or(SHORT)?));
    }
    Ok(headers)
}

fn number(plain: &mut &[u8]) -> Option<usize> {
    plain.try_get_u32().ok()?.try_into().ok()
}

fn text(plain: &mut &[u8]) -> Option<String> {
    let length = number(plain)?;
    let (text, rest) = plain.split_at_checked(length)?;
    *plain = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The first value of `name`, which is in lower case.
pub fn find<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What zlib calls a dictionary by: its Adler-32, which every SPDY/3 peer sends.
    #[test]
    fn the_dictionary_is_the_published_one() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_of_one_session_share_their_history() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        let headers: Headers =
            vec![("streamtype".into(), "error".into()), ("port".into(), "8080".into())];
        let first = packer.pack(&headers);
        // A zlib header that names the dictionary.
        assert_eq!(first[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
        assert_eq!(unpacker.unpack(&first).expect("a block"), headers);
        let second = packer.pack(&headers);
        assert!(second.len() < first.len());
        assert_eq!(unpacker.unpack(&second).expect("a block"), headers);
        assert_eq!(find(&headers, "port"), Some("8080"));
    }

    #[test]
    fn blocks_larger_than_any_buffer_pass() {
        let (mut packer, mut unpacker) = (Packer::default(), Unpacker::default());
        let long: String = (0..9000).map(|n: u32| char::from(b'a' + (n * n % 23) as u8)).collect();
        let headers: Headers = (0..5).map(|n| (format!("h{n}"), long.clone())).collect();
        assert_eq!(unpacker.unpack(&packer.pack(&headers)).expect("a block"), headers);
    }

    #[test]
    fn bombs_and_rubbish_are_refused() {
        let zeros: Headers = vec![("a".into(), "0".repeat(1 << 20))];
        let bomb = Packer::default().pack(&zeros);
        assert!(bomb.len() < BLOCK_BYTES_MAX);
        assert!(Unpacker::default().unpack(&bomb).is_err());
        assert!(Unpacker::default().unpack(b"nonsense").is_err());
        assert!(parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'x']).is_err());
    }
}
