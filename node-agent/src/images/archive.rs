//! Images from archives: an OCI layout in a tar, or what `docker save` writes.

use super::{Error, Images, Result};
use serde::{Deserialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Component, Path, PathBuf},
};

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// One entry of `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Images {
    /// Takes in every named image of the archive; returns the names.
    pub fn import(&self, archive: &Path) -> Result<Vec<String>> {
        let files = self.store_members(archive)?;
        if let Some(digest) = files.get("index.json") {
            return self.import_layout(digest);
        }
        match files.get("manifest.json") {
            Some(digest) => self.import_saved(digest, &files),
            None => Err(Error::Broken(format!(
                "{}: neither index.json nor manifest.json",
                archive.display()
            ))),
        }
    }

    /// Every file of the archive goes into the content store: name to digest.
    fn store_members(&self, archive: &Path) -> Result<BTreeMap<String, String>> {
        let (mut files, mut links) = (BTreeMap::new(), Vec::new());
        for entry in tar::Archive::new(File::open(archive)?).entries()? {
            let mut entry = entry?;
            let name = plain(&entry.path()?);
            let kind = entry.header().entry_type();
            if kind.is_file() {
                files.insert(name, self.put(&mut entry)?.0);
            } else if let (true, Some(link)) = (kind.is_symlink(), entry.link_name()?) {
                let parent = Path::new(&name).parent().unwrap_or(Path::new(""));
                links.push((name.clone(), plain(&parent.join(link))));
            }
        }
        for (name, target) in links {
            if let Some(digest) = files.get(&target).cloned() {
                files.insert(name, digest);
            }
        }
        Ok(files)
    }

    fn import_layout(&self, digest: &str) -> Result<Vec<String>> {
        let index: Index = self.parse_blob(digest)?;
        let mut names = Vec::new();
        for descriptor in &index.manifests {
            let annotation = |key: &str| descriptor.annotations.get(key);
            let Some(name) = annotation("io.containerd.image.name")
                .or_else(|| annotation("org.opencontainers.image.ref.name"))
            else {
                continue;
            };
            let digest = self.for_this_machine(&descriptor.digest)?;
            let manifest: Manifest = self.parse_blob(&digest)?;
            let layers: Vec<String> =
                manifest.layers.into_iter().map(|layer| layer.digest).collect();
            self.add(name, Some(digest), &manifest.config.digest, &layers)?;
            names.push(name.clone());
        }
        Ok(names)
    }

    /// An index within the index lists one manifest per platform.
    fn for_this_machine(&self, digest: &str) -> Result<String> {
        let Ok(index) = self.parse_blob::<Index>(digest) else { return Ok(digest.to_string()) };
        let fits = |descriptor: &&Descriptor| {
            descriptor.platform.as_ref().is_some_and(|platform| {
                platform.os == "linux" && platform.architecture == super::pull::architecture()
            })
        };
        match index.manifests.iter().find(fits) {
            Some(descriptor) => Ok(descriptor.digest.clone()),
            None => Err(Error::Broken(format!("no image for {}", super::pull::architecture()))),
        }
    }

    fn import_saved(&self, digest: &str, files: &BTreeMap<String, String>) -> Result<Vec<String>> {
        let find = |name: &str| {
            let missing = || Error::Broken(format!("{name} is missing"));
            files.get(name).cloned().ok_or_else(missing)
        };
        let mut names = Vec::new();
        for saved in self.parse_blob::<Vec<Saved>>(digest)? {
            let layers = saved.layers.iter().map(|name| find(name)).collect::<Result<Vec<_>>>()?;
            for name in saved.repo_tags.unwrap_or_default() {
                self.add(&name, None, &find(&saved.config)?, &layers)?;
                names.push(name);
            }
        }
        Ok(names)
    }

    fn parse_blob<T: DeserializeOwned>(&self, digest: &str) -> Result<T> {
        /// Manifests are small; anything larger is not one.
        const MANIFEST_BYTES_MAX: u64 = 4 << 20;
        let mut text = Vec::new();
        fs::File::open(self.blob(digest))?.take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(|error| Error::Broken(format!("{digest}: {error}")))
    }
}

/// Without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain.to_string_lossy().into_owned()
}
