//! Small files that hold one thing: the old or the new one, whole, also after a power cut.

use std::{fs, io, path::Path};

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
    let new = dir.join(format!("{name}.new"));
    fs::write(&new, contents)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}
