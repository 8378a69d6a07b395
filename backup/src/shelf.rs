//! Where backups are kept: a directory, or a bucket. A backup is there whole or not at all.

mod s3;

use crate::names::Name;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use raft_store::backup::{Header, Reader};
use s3::{Object, S3};
use std::{
    fmt,
    io::Read,
    path::{Path, PathBuf},
    pin::pin,
};
use tokio::io::AsyncWriteExt as _;

/// Why a shelf does not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Correct the target or the environment.
    #[error("{0}")]
    Target(String),
    /// The bytes did not all come: what was written of them is removed.
    #[error("the backup broke off: {0}")]
    BrokeOff(String),
    #[error("{path}")]
    File { path: PathBuf, source: std::io::Error },
    /// What the server said, or why it could not be asked.
    #[error("{what}: {why}")]
    Server { what: String, why: String },
    /// What is there is no backup, or not a sound one.
    #[error(transparent)]
    Backup(#[from] raft_store::backup::Error),
    /// The runtime ends.
    #[error("not read to its end: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The header of a backup stands within this much at the beginning; it is far smaller.
pub const HEADER_BYTES_MAX: u64 = 16 << 20;

/// A place for backups.
#[derive(Clone)]
pub enum Shelf {
    Directory(PathBuf),
    Bucket(S3),
}

/// A shelf, and perhaps one backup on it.
#[derive(Clone)]
pub struct Place {
    pub shelf: Shelf,
    pub file: Option<String>,
}

/// A backup on a shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub name: Name,
    pub bytes: u64,
}

impl Place {
    /// `s3://BUCKET/PREFIX`, or a path; with a file's name if it ends like a backup's, or is a file.
    /// `variable` looks up an environment variable.
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Place, Error> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
            let (prefix, file) = match path.rsplit_once('/') {
                Some((prefix, file)) if file.ends_with(".cxb") => (prefix, Some(file.to_string())),
                None if path.ends_with(".cxb") => ("", Some(path.to_string())),
                _ => (path, None),
            };
            let shelf = Shelf::Bucket(S3::new(bucket, prefix, variable)?);
            return Ok(Place { shelf, file });
        }
        let path = Path::new(text);
        let is_file = path.is_file() || (text.ends_with(".cxb") && !path.is_dir());
        match (is_file, path.file_name().and_then(|name| name.to_str())) {
            (true, Some(name)) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = parent.unwrap_or(Path::new(".")).to_path_buf();
                Ok(Place { shelf: Shelf::Directory(directory), file: Some(name.to_string()) })
            }
            _ => Ok(Place { shelf: Shelf::Directory(path.to_path_buf()), file: None }),
        }
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shelf::Directory(path) => write!(f, "{}", path.display()),
            Shelf::Bucket(bucket) => write!(f, "{bucket}"),
        }
    }
}

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_path_buf();
    move |source| Error::File { path, source }
}

impl Shelf {
    /// All backups, the oldest first. What has another name is left out.
    pub async fn list(&self) -> Result<Vec<Item>, Error> {
        let found = match self {
            Shelf::Directory(path) => list_directory(path).await?,
            Shelf::Bucket(bucket) => bucket.list().await?,
        };
        let item = |(name, bytes): (String, u64)| Some(Item { name: Name::parse(&name)?, bytes });
        let mut items: Vec<Item> = found.into_iter().filter_map(item).collect();
        items.sort_by(|a, b| {
            let key = |item: &Item| (item.name.taken_at, item.name.revision);
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        Ok(items)
    }

    /// Puts a backup there, all of `pieces` or nothing; its bytes.
    pub async fn put<E: fmt::Display>(
        &self,
        name: &str,
        pieces: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<u64, Error> {
        match self {
            Shelf::Directory(path) => put_file(path, name, pieces).await,
            Shelf::Bucket(bucket) => bucket.put(name, pieces).await,
        }
    }

    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        match self {
            Shelf::Directory(path) => {
                let path = path.join(name);
                tokio::fs::remove_file(&path).await.map_err(file(&path))
            }
            Shelf::Bucket(bucket) => bucket.delete(name).await,
        }
    }

    /// The header of a backup; no more of it is read.
    pub async fn header(&self, name: &str) -> Result<Header, Error> {
        let (shelf, name) = (self.clone(), name.to_string());
        let read = move || {
            let (from, _) = shelf.read(&name)?;
            Ok(Reader::open(from.take(HEADER_BYTES_MAX), &name)?.header().clone())
        };
        tokio::task::spawn_blocking(read).await?
    }

    /// Reads a backup, and its size. Blocks: not for tasks of a runtime, but one must be there.
    pub fn read(&self, name: &str) -> Result<(Box<dyn Read + Send>, u64), Error> {
        match self {
            Shelf::Directory(path) => {
                let path = path.join(name);
                let open = std::fs::File::open(&path).map_err(file(&path))?;
                let bytes = open.metadata().map_err(file(&path))?.len();
                Ok((Box::new(std::io::BufReader::with_capacity(1 << 20, open)), bytes))
            }
            Shelf::Bucket(bucket) => {
                let object = Object::open(bucket.clone(), name)?;
                let bytes = object.size();
                Ok((Box::new(object), bytes))
            }
        }
    }
}

async fn list_directory(path: &Path) -> Result<Vec<(String, u64)>, Error> {
    let mut entries = tokio::fs::read_dir(path).await.map_err(file(path))?;
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(file(path))? {
        let metadata = entry.metadata().await.map_err(file(path))?;
        if let (Some(name), true) = (entry.file_name().to_str(), metadata.is_file()) {
            found.push((name.to_string(), metadata.len()));
        }
    }
    Ok(found)
}

/// Under another name until all of it is on the disk.
async fn put_file<E: fmt::Display>(
    directory: &Path,
    name: &str,
    pieces: impl Stream<Item = Result<Bytes, E>>,
) -> Result<u64, Error> {
    tokio::fs::create_dir_all(directory).await.map_err(file(directory))?;
    let partial = Partial(directory.join(format!("{name}.partial")));
    let bytes = write_file(&partial.0, pieces).await?;
    let place = directory.join(name);
    tokio::fs::rename(&partial.0, &place).await.map_err(file(&place))?;
    let open = tokio::fs::File::open(directory).await.map_err(file(directory))?;
    open.sync_all().await.map_err(file(directory))?;
    Ok(bytes)
}

/// A file that is not complete; it goes with whoever wrote it, also when that one is cancelled.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // It has its name now, or the first error is the one to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn write_file<E: fmt::Display>(
    path: &Path,
    pieces: impl Stream<Item = Result<Bytes, E>>,
) -> Result<u64, Error> {
    let mut options = tokio::fs::OpenOptions::new();
    // The state of a cluster is its operator's only.
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut out = options.open(path).await.map_err(file(path))?;
    let (mut pieces, mut bytes) = (pin!(pieces), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| Error::BrokeOff(error.to_string()))?;
        bytes += piece.len() as u64;
        out.write_all(&piece).await.map_err(file(path))?;
    }
    out.flush().await.map_err(file(path))?;
    out.sync_all().await.map_err(file(path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
