//! Images on this machine: a content store, layers unpacked once each, names, and how images come
//! here (archives, registries). Never runs anything.

mod archive;
pub mod demo;
mod layers;
mod pull;

pub use demo::build_demo_archive;
pub use pull::Credentials;
pub(crate) use pull::architecture;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Semaphore;

/// Pulls at one time: more only share the same network.
const PULLS_MAX: usize = 3;

/// Why an image is not here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("couldn't parse image name {name:?}: {why}")]
    InvalidName { name: String, why: String },
    /// The registry refused or could not be reached: worth another try later.
    #[error("failed to pull image {name:?}: {why}")]
    Pull { name: String, why: String },
    /// The bytes are not what their digest or their format says.
    #[error("image archive: {0}")]
    Broken(String),
    #[error("image store: {0}")]
    Io(#[from] io::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

/// An image ready to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    /// Unpacked layers, the lowest first.
    pub layers: Vec<PathBuf>,
    pub config: Config,
}

/// What the image says about running it (OCI image configuration, `config`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: Option<String>,
}

fn null_is_default<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A line of `Node.status.images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub names: Vec<String>,
    pub size_bytes: u64,
}

/// What is remembered of each name.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    config: String,
    diff_ids: Vec<String>,
    /// Digest of the manifest, where there was one.
    manifest: Option<String>,
    size_bytes: u64,
}

/// The store below one directory: `blobs/sha256/…`, `layers/…`, `images.json`.
pub struct Images {
    root: PathBuf,
    index: Mutex<BTreeMap<String, Record>>,
    pulls: Semaphore,
    temporary: AtomicU64,
}

impl Images {
    pub fn open(root: PathBuf) -> Result<Images> {
        for name in ["blobs/sha256", "layers", "tmp"] {
            fs::create_dir_all(root.join(name))?;
        }
        // Left over from a process that died while writing.
        for entry in fs::read_dir(root.join("tmp"))?.flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        let index = match fs::read(root.join("images.json")) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| Error::Broken(format!("images.json: {error}")))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Images {
            root,
            index: Mutex::new(index),
            pulls: Semaphore::new(PULLS_MAX),
            temporary: AtomicU64::new(0),
        })
    }

    /// The image of that name, if it is here. `name` as a pod has it.
    pub fn get(&self, name: &str) -> Result<Option<Image>> {
        let full = full_name(name)?;
        let found = {
            let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            let by_id = || index.values().find(|record| record.config == name);
            index.get(&full).or_else(by_id).cloned()
        };
        found.map(|record| self.load(&record)).transpose()
    }

    /// All names, grouped by image, largest first.
    pub fn list(&self) -> Vec<Summary> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_config: BTreeMap<&str, Summary> = BTreeMap::new();
        for (name, record) in index.iter() {
            let slot = by_config
                .entry(&record.config)
                .or_insert_with(|| Summary { names: Vec::new(), size_bytes: record.size_bytes });
            if let Some(manifest) = &record.manifest
                && let Some((repository, _)) = name.rsplit_once(':')
            {
                slot.names.insert(0, format!("{repository}@{manifest}"));
            }
            slot.names.push(name.clone());
        }
        let mut list: Vec<Summary> = by_config.into_values().collect();
        list.sort_by_key(|summary| std::cmp::Reverse(summary.size_bytes));
        list
    }

    fn load(&self, record: &Record) -> Result<Image> {
        /// The one field used of an image configuration file.
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            config: Option<Config>,
        }
        let text = fs::read(self.blob(&record.config))?;
        let file: File = serde_json::from_slice(&text)
            .map_err(|error| Error::Broken(format!("image configuration: {error}")))?;
        let layers = record.diff_ids.iter().map(|id| self.layer(id)).collect();
        Ok(Image { id: record.config.clone(), layers, config: file.config.unwrap_or_default() })
    }

    /// Where the unpacked layer is linked: a short path, for mount options hold only a page.
    fn layer(&self, diff_id: &str) -> PathBuf {
        self.root.join("layers").join(hex_of(diff_id).get(..16).unwrap_or(hex_of(diff_id)))
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.root.join("blobs/sha256").join(hex_of(digest))
    }

    fn temporary(&self) -> PathBuf {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        self.root.join("tmp").join(format!("{}-{number}", std::process::id()))
    }

    /// Stores what `reader` gives; returns its digest and length.
    fn put(&self, reader: &mut dyn Read) -> Result<(String, u64)> {
        let path = self.temporary();
        let mut file = Hashing::new(File::create(&path)?);
        let length = io::copy(reader, &mut file)?;
        let digest = file.digest();
        fs::rename(path, self.blob(&digest))?;
        Ok((digest, length))
    }

    /// Names an image whose blobs are here: unpacks its layers, then writes the index.
    fn add(
        &self,
        name: &str,
        manifest: Option<String>,
        config: &str,
        layers: &[String],
    ) -> Result<()> {
        #[derive(Deserialize)]
        struct RootFs {
            diff_ids: Vec<String>,
        }
        #[derive(Deserialize)]
        struct File {
            rootfs: RootFs,
        }
        let full = full_name(name)?;
        let text = fs::read(self.blob(config))?;
        let file: File = serde_json::from_slice(&text)
            .map_err(|error| Error::Broken(format!("image configuration: {error}")))?;
        let diff_ids = file.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(Error::Broken(format!(
                "{name}: {} layers, but {} in its configuration",
                layers.len(),
                diff_ids.len()
            )));
        }
        let mut size_bytes = text.len() as u64;
        for (digest, diff_id) in layers.iter().zip(&diff_ids) {
            size_bytes += fs::metadata(self.blob(digest))?.len();
            layers::unpack(&self.blob(digest), diff_id, &self.temporary(), &self.layer(diff_id))?;
        }
        let record = Record { config: config.to_string(), diff_ids, manifest, size_bytes };
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.insert(full, record);
        let text =
            serde_json::to_vec_pretty(&*index).map_err(|error| Error::Broken(error.to_string()))?;
        let path = self.temporary();
        fs::write(&path, text)?;
        fs::rename(path, self.root.join("images.json"))?;
        Ok(())
    }
}

/// With registry, repository and tag or digest: `docker.io/library/busybox:latest`.
pub fn full_name(name: &str) -> Result<String> {
    parse(name).map(|reference| reference.whole())
}

fn parse(name: &str) -> Result<oci_client::Reference> {
    name.parse::<oci_client::Reference>()
        .map_err(|error| Error::InvalidName { name: name.to_string(), why: error.to_string() })
}

fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hashes what passes through.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hash: Sha256::new() }
    }

    fn digest(self) -> String {
        format!("sha256:{}", hex(&self.hash.finalize()))
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        let check = |name: &str| full_name(name).unwrap();
        assert_eq!(check("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(check("coxswain.local/demo:1"), "coxswain.local/demo:1");
        assert!(matches!(full_name("Not A Name"), Err(Error::InvalidName { .. })));
    }

    #[test]
    fn the_demo_archive_is_imported_and_its_base_shared() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("demo.tar");
        build_demo_archive(&archive).unwrap();
        let images = Images::open(dir.path().join("images")).unwrap();
        let mut names = images.import(&archive).unwrap();
        names.sort();
        assert_eq!(names, ["coxswain.local/demo:1", "coxswain.local/demo:2"]);
        let one = images.get("coxswain.local/demo:1").unwrap().unwrap();
        let two = images.get("coxswain.local/demo:2").unwrap().unwrap();
        assert_eq!(one.layers[0], two.layers[0]);
        assert_ne!(one.layers[1], two.layers[1]);
        assert!(one.layers[0].join("bin/busybox").is_file());
        assert_eq!(one.config.cmd, ["/bin/serve"]);
        let again = Images::open(dir.path().join("images")).unwrap();
        assert_eq!(again.get("coxswain.local/demo:2").unwrap(), Some(two));
        assert_eq!(again.list().len(), 2);
        assert_eq!(again.get("coxswain.local/demo:3").unwrap(), None);
    }
}
