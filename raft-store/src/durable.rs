//! Small files that hold one thing: the old or the new one, whole, also after a power cut.

use std::{fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

/// What `name` in `dir` holds, without space around it; `None`: there is no such file.
pub(crate) fn read(dir: &Path, name: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(dir.join(name)) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// On return `name` in `dir` holds `contents` on disk.
pub fn write(dir: &Path, name: &str, contents: &str) -> io::Result<()> {
    // As `fs::write` makes files: the umask decides.
    write_as(0o666, &dir.join(name), contents)
}

/// On return there is no `name` in `dir`, on disk.
pub fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::File::open(dir)?.sync_all()
}

/// Removes a directory with what is in it; one that is not there is removed already.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// On return the file holds `contents` on disk, and nobody but its owner can read it.
pub fn write_private(path: &Path, contents: &str) -> io::Result<()> {
    write_as(0o600, path, contents)
}

fn write_as(mode: u32, path: &Path, contents: &str) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&new)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let here = Path::new(".");
    let dir = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(here);
    fs::File::open(dir)?.sync_all()
}
