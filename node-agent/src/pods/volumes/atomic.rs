//! Files that change all at once: they live in a directory with a time for a name, `..data` is a
//! link to it that is replaced by rename, and what the container sees are links through `..data`.

use super::give_to_group;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Component, Path, PathBuf},
};

/// One file of such a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// `None`: root.
    pub(crate) owner: Option<u32>,
}

pub(crate) type Files = BTreeMap<PathBuf, File>;

const LINK: &str = "..data";
const NEW_LINK: &str = "..data_tmp";

/// Makes `directory` show exactly `files`; does nothing if it does already.
pub(crate) fn write(directory: &Path, files: &Files, group: Option<i64>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    let old = fs::read_link(directory.join(LINK)).ok();
    if let Some(old) = &old
        && shows(&directory.join(old), files)
    {
        return Ok(());
    }
    let name = format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%N"));
    let fresh = directory.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Never readable by more than it will be, not even for a moment.
        let mut options = fs::OpenOptions::new();
        let mut out = options.write(true).create_new(true).mode(file.mode).open(&path)?;
        out.write_all(&file.bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        if let Some(owner) = file.owner {
            std::os::unix::fs::chown(&path, Some(owner), None)?;
        }
    }
    give_to_group(&fresh, group, true)?;
    let _ = fs::remove_file(directory.join(NEW_LINK));
    symlink(&name, directory.join(NEW_LINK))?;
    fs::rename(directory.join(NEW_LINK), directory.join(LINK))?;
    link_names(directory, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(directory.join(old))?;
    }
    Ok(())
}

/// One link per first path component; links to names that are gone are removed.
fn link_names(directory: &Path, files: &Files) -> io::Result<()> {
    let first = |path: &PathBuf| match path.components().next() {
        Some(Component::Normal(name)) => Some(name.to_os_string()),
        _ => None,
    };
    let wanted: BTreeSet<_> = files.keys().filter_map(first).collect();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("..") && !wanted.contains(&name) {
            fs::remove_file(directory.join(&name))?;
        }
    }
    for name in wanted {
        let link = directory.join(&name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(LINK).join(&name), link)?;
        }
    }
    Ok(())
}

fn shows(directory: &Path, files: &Files) -> bool {
    let same = |(path, file): (&PathBuf, &File)| {
        fs::read(directory.join(path)).is_ok_and(|bytes| bytes == file.bytes)
    };
    count(directory) == Some(files.len()) && files.iter().all(same)
}

/// Files in the tree.
fn count(directory: &Path) -> Option<usize> {
    let mut sum = 0;
    for entry in fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        sum += if entry.file_type().ok()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file = |text: &str| File { bytes: text.into(), mode: 0o644, owner: None };
        list.iter().map(|(path, text)| (PathBuf::from(path), file(text))).collect()
    }

    fn shown(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("..2"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn all_files_change_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        write(&volume, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(shown(&volume), ["..data", "a", "sub"]);
        assert_eq!(fs::read_to_string(volume.join("sub/b")).unwrap(), "2");
        let before = fs::read_link(volume.join("..data")).unwrap();
        write(&volume, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(fs::read_link(volume.join("..data")).unwrap(), before, "nothing changed");
        write(&volume, &files(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(shown(&volume), ["..data", "a", "c"]);
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(!volume.join(before).exists());
    }
}
