//! A backup as bytes: a mark, then chunks, each with a checksum that also covers its place, the last
//! with one over everything. Knows nothing of what is in a record; does no IO but through `Read`.

use super::{End, Error, Header};
use crate::{disk::At, types::Revision};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write as _};

/// The format written here; older ones are read.
pub const FORMAT: u32 = 1;
/// What a backup begins with, before its format.
const MARK: &[u8; 16] = b"coxswain-backup\n";
/// kind, codec, length
const HEAD: usize = 1 + 1 + 4;
/// Records are gathered to about this much before they become a chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// No chunk is longer, packed or not: a record is one version, and a transaction at most 8 MiB.
const CHUNK_BYTES_MAX: usize = 64 << 20;

const KIND_HEADER: u8 = b'H';
const KIND_RECORDS: u8 = b'R';
const KIND_END: u8 = b'E';
const CODEC_NONE: u8 = 0;
const CODEC_ZLIB: u8 = 1;

/// One version or deletion, as the disk has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) at: At,
    pub(super) record: Bytes,
}

/// Makes the bytes of a backup; whoever holds it carries them away.
pub(super) struct Writer {
    chunks: u64,
    sha256: Sha256,
    gathered: BytesMut,
    records: u64,
    bytes: u64,
}

impl Writer {
    /// A new backup, and its first bytes.
    pub(super) fn new(header: &Header) -> (Writer, Bytes) {
        let mut writer = Writer {
            chunks: 0,
            sha256: Sha256::new(),
            gathered: BytesMut::new(),
            records: 0,
            bytes: 0,
        };
        let mut out = BytesMut::from(&MARK[..]);
        out.put_u32(FORMAT);
        writer.sha256.update(&out);
        let header = serde_json::to_vec(header).expect("plain data");
        out.extend(writer.chunk(KIND_HEADER, &header));
        (writer, out.freeze())
    }

    /// Takes a record; a chunk, if there is enough for one.
    pub(super) fn push(&mut self, unit: &Unit) -> Option<Bytes> {
        self.gathered.put_u64(unit.at.revision.0);
        self.gathered.put_u32(unit.at.place);
        self.gathered.put_u32(unit.record.len() as u32);
        self.gathered.put_slice(&unit.record);
        self.records += 1;
        self.bytes += unit.record.len() as u64;
        (self.gathered.len() >= CHUNK_BYTES).then(|| self.flush())
    }

    /// The last bytes.
    pub(super) fn finish(mut self) -> Bytes {
        let mut out = BytesMut::new();
        if !self.gathered.is_empty() {
            out.extend(self.flush());
        }
        let sha256 = hexadecimal(&self.sha256.clone().finalize());
        let end = End { records: self.records, bytes: self.bytes, sha256 };
        let end = serde_json::to_vec(&end).expect("plain data");
        out.extend(self.chunk(KIND_END, &end));
        out.freeze()
    }

    fn flush(&mut self) -> Bytes {
        let gathered = std::mem::take(&mut self.gathered);
        self.chunk(KIND_RECORDS, &gathered)
    }

    fn chunk(&mut self, kind: u8, payload: &[u8]) -> Bytes {
        let packed = (kind == KIND_RECORDS).then(|| pack(payload)).flatten();
        let (codec, payload) = match &packed {
            Some(packed) => (CODEC_ZLIB, &packed[..]),
            None => (CODEC_NONE, payload),
        };
        let mut out = BytesMut::with_capacity(HEAD + payload.len() + 4);
        out.put_u8(kind);
        out.put_u8(codec);
        out.put_u32(payload.len() as u32);
        out.put_slice(payload);
        out.put_u32(checksum(self.chunks, &out));
        self.chunks += 1;
        self.sha256.update(&out);
        out.freeze()
    }
}

/// Smaller, if that is possible. The fastest level: a backup must not take the member's processor.
fn pack(payload: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::with_capacity(payload.len() / 4), Compression::fast());
    encoder
        .write_all(payload)
        .and_then(|()| encoder.finish())
        .ok()
        .filter(|p| p.len() < payload.len())
}

fn unpack(payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    ZlibDecoder::new(payload).take(CHUNK_BYTES_MAX as u64 + 1).read_to_end(&mut out)?;
    match out.len() > CHUNK_BYTES_MAX {
        true => Err(io::Error::other("it unpacks to more than a chunk may hold")),
        false => Ok(out),
    }
}

/// Covers the number of the chunk: none can be lost, doubled or moved unnoticed.
fn checksum(number: u64, chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_be_bytes()), chunk)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Chunk {
    kind: u8,
    payload: Bytes,
}

/// The chunks of a backup, each checked.
struct Chunks<R> {
    from: R,
    name: String,
    count: u64,
    offset: u64,
    sha256: Sha256,
}

impl<R: Read> Chunks<R> {
    fn bad(&self, why: impl Into<String>) -> Error {
        Error::damaged(format!("{} before byte {}", self.name, self.offset), why)
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<(), Error> {
        let read = read_up_to(&mut self.from, to).map_err(Error::io(self.name.as_str()))?;
        self.offset += read as u64;
        match read == to.len() {
            true => Ok(()),
            false => Err(self.bad("it ends early")),
        }
    }

    /// The mark and the format before the first chunk.
    fn begin(&mut self) -> Result<(), Error> {
        let mut begin = [0; MARK.len() + 4];
        self.fill(&mut begin)?;
        if begin[..MARK.len()] != MARK[..] {
            return Err(self.bad("it is no backup"));
        }
        let found = (&begin[MARK.len()..]).get_u32();
        if found > FORMAT {
            return Err(Error::Newer { found, known: FORMAT });
        }
        self.sha256.update(begin);
        Ok(())
    }

    fn next(&mut self) -> Result<Chunk, Error> {
        let mut head = [0; HEAD];
        self.fill(&mut head)?;
        let mut fields = &head[..];
        let (kind, codec) = (fields.get_u8(), fields.get_u8());
        let length = fields.get_u32() as usize;
        if length > CHUNK_BYTES_MAX {
            return Err(self.bad(format!("a chunk of {length} bytes")));
        }
        let mut chunk = vec![0; HEAD + length + 4];
        chunk[..HEAD].copy_from_slice(&head);
        self.fill(&mut chunk[HEAD..])?;
        let (covered, mut tail) = chunk.split_at(HEAD + length);
        if checksum(self.count, covered) != tail.get_u32() {
            return Err(self.bad(format!("chunk {} does not match its checksum", self.count)));
        }
        self.count += 1;
        self.sha256.update(&chunk);
        let payload = Bytes::from(chunk).slice(HEAD..HEAD + length);
        let payload = match codec {
            CODEC_NONE => payload,
            CODEC_ZLIB => unpack(&payload).map_err(|e| self.bad(e.to_string()))?.into(),
            codec => return Err(self.bad(format!("a chunk packed in the unknown way {codec}"))),
        };
        Ok(Chunk { kind, payload })
    }
}

/// Reads a backup; nothing of a chunk is given out before it was checked.
pub struct Reader<R> {
    chunks: Chunks<R>,
    header: Header,
    records: u64,
    bytes: u64,
    end: Option<End>,
}

impl<R: Read> Reader<R> {
    /// Reads up to the header. `name` is what errors call it.
    pub fn open(from: R, name: &str) -> Result<Reader<R>, Error> {
        let (name, sha256) = (name.to_owned(), Sha256::new());
        let mut chunks = Chunks { from, name, count: 0, offset: 0, sha256 };
        chunks.begin()?;
        let first = chunks.next()?;
        if first.kind != KIND_HEADER {
            return Err(chunks.bad("it does not begin with its header"));
        }
        let header = serde_json::from_slice(&first.payload)
            .map_err(|error| chunks.bad(format!("its header: {error}")))?;
        Ok(Reader { chunks, header, records: 0, bytes: 0, end: None })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.chunks.name
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.chunks.offset
    }

    /// What stands at the end, once it was reached.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// The next records, in order; `None` after the last, when everything has been checked.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Unit>>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        let before = self.chunks.sha256.clone();
        let chunk = self.chunks.next()?;
        match chunk.kind {
            KIND_RECORDS => self.units(chunk.payload).map(Some),
            KIND_END => {
                let sha256 = hexadecimal(&before.finalize());
                self.finish(&chunk.payload, sha256).map(|()| None)
            }
            kind => Err(self.chunks.bad(format!("a chunk of the unknown kind {kind}"))),
        }
    }

    fn units(&mut self, mut payload: Bytes) -> Result<Vec<Unit>, Error> {
        let mut units = Vec::new();
        while payload.has_remaining() {
            let unit =
                unit(&mut payload).ok_or_else(|| self.chunks.bad("a record is cut short"))?;
            self.records += 1;
            self.bytes += unit.record.len() as u64;
            units.push(unit);
        }
        Ok(units)
    }

    fn finish(&mut self, payload: &[u8], sha256: String) -> Result<(), Error> {
        let end: End = serde_json::from_slice(payload)
            .map_err(|error| self.chunks.bad(format!("its last chunk: {error}")))?;
        let seen = End { records: self.records, bytes: self.bytes, sha256 };
        if end != seen {
            return Err(self.chunks.bad(format!("it should hold {end:?}, but holds {seen:?}")));
        }
        let name = self.chunks.name.as_str();
        if read_up_to(&mut self.chunks.from, &mut [0]).map_err(Error::io(name))? > 0 {
            return Err(self.chunks.bad("something follows its last chunk"));
        }
        self.end = Some(end);
        Ok(())
    }
}

fn unit(payload: &mut Bytes) -> Option<Unit> {
    let revision = Revision(payload.try_get_u64().ok()?);
    let place = payload.try_get_u32().ok()?;
    let length = payload.try_get_u32().ok()? as usize;
    let record = (length <= payload.len()).then(|| payload.split_to(length))?;
    Some(Unit { at: At { revision, place }, record })
}

/// Fills `to` unless the input ends before.
fn read_up_to(from: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < to.len() {
        match from.read(&mut to[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Puts the checksums of chunks right, as far as there are chunks.
#[cfg(any(test, fuzzing))]
pub(super) fn mend(backup: &mut [u8]) {
    let (mut number, mut start) = (0, MARK.len() + 4);
    while let Some(mut head) = backup.get(start..start + HEAD) {
        head.advance(2);
        let end = start + HEAD + head.get_u32() as usize;
        let Some(sum) = backup.get(start..end).map(|chunk| checksum(number, chunk)) else { return };
        let Some(place) = backup.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&sum.to_be_bytes());
        (number, start) = (number + 1, end + 4);
    }
}
