//! A directory as a stream of pieces, and back: names, sizes and one checksum over everything.
//! What arrives incomplete or changed is refused; nothing of it is used.

use crate::raft::machine::SnapshotDir;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use wire::peer::{SnapshotEnd, SnapshotFile, SnapshotHeader, SnapshotPiece, snapshot_piece::Piece};

const PIECE_BYTES: usize = 256 << 10;
/// Pieces read ahead of the network: 2 MiB.
const PIECES_AHEAD: usize = 8;

/// The pieces of a snapshot, read as they are taken. A read error ends the stream early, which
/// the receiver notices.
pub(crate) fn send(
    header: SnapshotHeader,
    dir: Arc<SnapshotDir>,
) -> BoxStream<'static, SnapshotPiece> {
    #[cfg(test)]
    if crate::sim::is_simulated() {
        return all_at_once(header, &dir);
    }
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let put = |piece| {
            let piece = SnapshotPiece { piece: Some(piece) };
            sender.blocking_send(piece).map_err(|_| io::Error::other("the receiver is gone"))
        };
        if let Err(error) = read_dir(header, &dir.path, put) {
            tracing::warn!(%error, "a snapshot was not sent");
        }
    });
    ReceiverStream::new(receiver).boxed()
}

/// Without a thread to read ahead.
#[cfg(test)]
fn all_at_once(header: SnapshotHeader, dir: &SnapshotDir) -> BoxStream<'static, SnapshotPiece> {
    let mut pieces = Vec::new();
    let put = |piece| {
        pieces.push(SnapshotPiece { piece: Some(piece) });
        Ok(())
    };
    read_dir(header, &dir.path, put).expect("a simulated snapshot is readable");
    futures::stream::iter(pieces).boxed()
}

fn read_dir(
    header: SnapshotHeader,
    dir: &Path,
    mut put: impl FnMut(Piece) -> io::Result<()>,
) -> io::Result<()> {
    put(Piece::Header(header))?;
    let mut end = SnapshotEnd::default();
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let mut file = fs::File::open(&path)?;
        let bytes = file.metadata()?.len();
        end.files += 1;
        end.checksum = crc32c::crc32c_append(end.checksum, name.as_bytes());
        put(Piece::File(SnapshotFile { name: name.into(), bytes }))?;
        let mut left = bytes;
        while left > 0 {
            let mut piece = vec![0; PIECE_BYTES.min(left as usize)];
            file.read_exact(&mut piece)?;
            left -= piece.len() as u64;
            end.bytes += piece.len() as u64;
            end.checksum = crc32c::crc32c_append(end.checksum, &piece);
            put(Piece::Data(Bytes::from(piece)))?;
        }
    }
    put(Piece::End(end))
}

/// Writes pieces into a directory, which goes with it if they do not all come.
pub(crate) struct Receiver {
    dir: SnapshotDir,
    file: Option<fs::File>,
    left: u64,
    seen: SnapshotEnd,
    complete: bool,
}

fn refused(detail: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("snapshot: {detail}"))
}

impl Receiver {
    /// `dir` must not exist.
    pub(crate) fn new(dir: PathBuf) -> io::Result<Receiver> {
        fs::create_dir_all(&dir)?;
        let seen = SnapshotEnd::default();
        let dir = SnapshotDir { path: dir };
        Ok(Receiver { dir, file: None, left: 0, seen, complete: false })
    }

    /// Takes one piece after the header. Blocks.
    pub(crate) fn take(&mut self, piece: SnapshotPiece) -> io::Result<()> {
        match piece.piece {
            _ if self.complete => Err(refused("a piece after the end")),
            None | Some(Piece::Header(_)) => Err(refused("an unexpected piece")),
            Some(Piece::File(file)) => self.begin(file),
            Some(Piece::Data(data)) => self.data(&data),
            Some(Piece::End(end)) => self.end(end),
        }
    }

    fn begin(&mut self, file: SnapshotFile) -> io::Result<()> {
        self.close()?;
        let plain = !file.name.is_empty() && !file.name.contains(['/', '\0']) && file.name != "..";
        if !plain || file.name == "." {
            return Err(refused("a file name that is a path"));
        }
        self.file = Some(fs::File::create_new(self.dir.path.join(&file.name))?);
        self.left = file.bytes;
        self.seen.files += 1;
        self.seen.checksum = crc32c::crc32c_append(self.seen.checksum, file.name.as_bytes());
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|_| data.len() as u64 <= self.left) else {
            return Err(refused("more data than announced"));
        };
        file.write_all(data)?;
        self.left -= data.len() as u64;
        self.seen.bytes += data.len() as u64;
        self.seen.checksum = crc32c::crc32c_append(self.seen.checksum, data);
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        if self.left > 0 {
            return Err(refused("a file is cut short"));
        }
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }

    fn end(&mut self, end: SnapshotEnd) -> io::Result<()> {
        self.close()?;
        if end != self.seen {
            return Err(refused("the checksum does not match"));
        }
        self.complete = true;
        fs::File::open(&self.dir.path)?.sync_all()
    }

    /// The directory, if everything has arrived.
    pub(crate) fn finish(self) -> io::Result<Arc<SnapshotDir>> {
        match self.complete {
            true => Ok(Arc::new(self.dir)),
            false => Err(refused("it ends early")),
        }
    }
}

/// The pieces of one small file, after the header.
#[cfg(test)]
pub(crate) fn hostile_corpus() -> Vec<u8> {
    use prost::Message as _;
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("000001.sst"), b"rows").expect("written");
    let mut pieces = Vec::new();
    let put = |piece| {
        pieces.push(SnapshotPiece { piece: Some(piece) }.encode_to_vec());
        Ok(())
    };
    read_dir(SnapshotHeader::default(), dir.path(), put).expect("a readable directory");
    crate::hostile::joined(pieces.iter().skip(1).map(|piece| &piece[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(dir: &Path) -> Vec<SnapshotPiece> {
        let mut pieces = Vec::new();
        let put = |piece| {
            pieces.push(SnapshotPiece { piece: Some(piece) });
            Ok(())
        };
        read_dir(SnapshotHeader::default(), dir, put).expect("a readable directory");
        pieces
    }

    fn receive(to: &Path, pieces: Vec<SnapshotPiece>) -> io::Result<Arc<SnapshotDir>> {
        let mut receiver = Receiver::new(to.into())?;
        for piece in pieces.into_iter().skip(1) {
            receiver.take(piece)?;
        }
        receiver.finish()
    }

    #[test]
    fn what_arrives_is_what_was_sent_or_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let from = dir.path().join("from");
        fs::create_dir(&from).expect("made");
        fs::write(from.join("a"), vec![7; PIECE_BYTES + 10]).expect("written");
        fs::write(from.join("b"), b"").expect("written");
        let all = pieces(&from);
        let whole = receive(&dir.path().join("whole"), all.clone()).expect("received");
        assert_eq!(fs::read(whole.path.join("a")).expect("a").len(), PIECE_BYTES + 10);
        assert_eq!(fs::read(whole.path.join("b")).expect("b").len(), 0);
        for lost in 1..all.len() {
            let mut some = all.clone();
            some.remove(lost);
            let to = dir.path().join(format!("lost-{lost}"));
            assert!(receive(&to, some).is_err(), "without piece {lost}");
        }
        let mut changed = all.clone();
        let Some(Piece::Data(data)) = &mut changed[2].piece else { panic!("data") };
        let mut bytes = data.to_vec();
        bytes[5] ^= 1;
        *data = bytes.into();
        assert!(receive(&dir.path().join("changed"), changed).is_err());
        let outside = SnapshotFile { name: "../x".into(), bytes: 0 };
        let piece = SnapshotPiece { piece: Some(Piece::File(outside)) };
        assert!(receive(&dir.path().join("outside"), vec![all[0].clone(), piece]).is_err());
        drop(whole);
        assert!(!dir.path().join("whole").exists(), "gone with its last user");
    }
}
