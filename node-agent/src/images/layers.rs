//! Layers as directories for overlayfs: unpacked once per content (`diffID`), whiteouts in
//! overlayfs' own form, nothing ever written outside the layer.

use super::{Error, Hashing, Result, hex_of};
use crate::runtime::make_dir_in_root;
use nix::sys::stat::{Mode, SFlag, mknodat};
use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, Read, Seek},
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Component, Path},
};

const READ_BYTES: usize = 256 * 1024;

/// Unpacks `blob` (tar, perhaps gzipped) at `target` unless it is there; `diff_id` is the digest of
/// the tar and is verified. `temporary` is on the same file system.
pub(super) fn unpack(blob: &Path, diff_id: &str, temporary: &Path, target: &Path) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    fs::create_dir(temporary)?;
    let digest = unpack_into(blob, temporary)?;
    if hex_of(&digest) != hex_of(diff_id) {
        let _ = fs::remove_dir_all(temporary);
        return Err(Error::Broken(format!("layer is {digest}, its image says {diff_id}")));
    }
    match fs::rename(temporary, target) {
        // Another import was faster; the content is the same.
        Err(_) if target.exists() => Ok(fs::remove_dir_all(temporary)?),
        other => Ok(other?),
    }
}

fn unpack_into(blob: &Path, root: &Path) -> Result<String> {
    let mut hashing = Hashing::new(decompress(blob)?);
    {
        let mut archive = tar::Archive::new(&mut hashing);
        archive.set_preserve_permissions(true);
        archive.set_preserve_ownerships(true);
        archive.set_unpack_xattrs(true);
        archive.set_overwrite(true);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            if path.components().any(|part| part == Component::ParentDir) {
                return Err(Error::Broken(format!("{} leaves the layer", path.display())));
            }
            if whiteout(root, &path)? {
                continue;
            }
            if !entry.unpack_in(root)? {
                return Err(Error::Broken(format!("{} leaves the layer", path.display())));
            }
        }
    }
    // The digest covers the padding after the last entry too.
    io::copy(&mut hashing, &mut io::sink())?;
    Ok(hashing.digest())
}

/// Translates `.wh.NAME` and `.wh..wh..opq` (OCI image specification, layer changesets).
fn whiteout(root: &Path, path: &Path) -> Result<bool> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let Some(hidden) = name.strip_prefix(b".wh.") else { return Ok(false) };
    let parent = make_dir_in_root(root, path.parent().unwrap_or(Path::new("")), 0o755)?;
    if hidden == b".wh..opq" {
        let through = format!("/proc/self/fd/{}", parent.as_raw_fd());
        xattr::set_deref(through, "trusted.overlay.opaque", b"y")?;
        return Ok(true);
    }
    let hidden = OsStr::from_bytes(hidden);
    mknodat(Some(parent.as_raw_fd()), hidden, SFlag::S_IFCHR, Mode::empty(), 0)
        .map_err(io::Error::from)?;
    Ok(true)
}

fn decompress(blob: &Path) -> Result<Box<dyn Read>> {
    let mut file = File::open(blob)?;
    let mut magic = [0u8; 4];
    let count = file.read(&mut magic)?;
    file.rewind()?;
    let file = BufReader::with_capacity(READ_BYTES, file);
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(
            READ_BYTES,
            flate2::bufread::MultiGzDecoder::new(file),
        )));
    }
    if count == 4 && magic == [0x28, 0xb5, 0x2f, 0xfd] {
        return Err(Error::Broken("zstd layers are not supported yet".into()));
    }
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    fn layer(entries: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            // Written raw: the builder refuses the paths that matter here.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack_bytes(dir: &Path, bytes: &[u8]) -> Result<()> {
        let mut hash = Hashing::new(io::sink());
        io::Write::write_all(&mut hash, bytes).unwrap();
        fs::write(dir.join("blob"), bytes).unwrap();
        unpack(&dir.join("blob"), &hash.digest(), &dir.join("tmp"), &dir.join("fs"))
    }

    #[test]
    fn whiteouts_become_overlayfs_own() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root to make device nodes");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let bytes = layer(&[("a/file", "x"), ("a/.wh.gone", ""), ("b/.wh..wh..opq", "")]);
        unpack_bytes(dir.path(), &bytes).unwrap();
        let gone = fs::symlink_metadata(dir.path().join("fs/a/gone")).unwrap();
        assert!(gone.file_type().is_char_device());
        assert_eq!(gone.rdev(), 0);
        let opaque = xattr::get(dir.path().join("fs/b"), "trusted.overlay.opaque").unwrap();
        assert_eq!(opaque.as_deref(), Some(b"y".as_slice()));
    }

    #[test]
    fn a_path_that_leaves_the_layer_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack_bytes(dir.path(), &layer(&[("../evil", "x")])).unwrap_err();
        assert!(error.to_string().contains("leaves the layer"), "{error}");
        assert!(!dir.path().join("evil").exists());
    }

    #[test]
    fn other_content_than_named_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("blob"), layer(&[("a", "x")])).unwrap();
        let [blob, tmp, target] = ["blob", "tmp", "fs"].map(|name| dir.path().join(name));
        let error = unpack(&blob, "sha256:00", &tmp, &target).unwrap_err();
        assert!(error.to_string().contains("its image says sha256:00"), "{error}");
        assert!(!target.exists());
    }
}
