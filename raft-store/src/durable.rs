//! Small files that hold one thing: the old or the new one, whole, also after a power cut.

use std::{fs, io, path::Path};

/// On return `name` in `dir` holds `contents` on disk.
pub(crate) fn write(dir: &Path, name: &str, contents: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    fs::write(&new, contents)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    fs::File::open(dir)?.sync_all()
}
