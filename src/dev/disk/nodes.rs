//! The files of a disk that may fail: each as it is on the real disk, and over it what was written and
//! not synced. Names and directories are on the disk at once; content only when it is synced.

use super::unsynced::Unsynced;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

/// The number by which the kernel knows the topmost directory.
pub(super) const ROOT: u64 = 1;

/// A file or directory that the kernel knows, or of which something is not synced.
struct Node {
    /// Names it, whatever it is called now; for nothing else.
    handle: File,
    /// To read and write it, once somebody did.
    file: Option<Arc<File>>,
    /// How often the kernel was told of it and has not forgotten.
    lookups: u64,
    unsynced: Option<Unsynced>,
}

impl Node {
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))
    }

    fn file(&mut self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.path())?);
        Ok(self.file.insert(file).clone())
    }

    /// What is written next lies over this.
    fn unsynced(&mut self) -> io::Result<&mut Unsynced> {
        let on_disk = self.handle.metadata()?.len();
        Ok(self.unsynced.get_or_insert_with(|| Unsynced::over(on_disk)))
    }

    fn put_on_disk(&mut self, unsynced: &Unsynced) -> io::Result<()> {
        let file = self.file()?;
        let (kept, pieces, size) = unsynced.steps();
        if file.metadata()?.len() > kept {
            file.set_len(kept)?;
        }
        for (at, piece) in pieces {
            file.write_all_at(piece, *at)?;
        }
        file.set_len(size)
    }
}

/// By the number of the file on the real disk, but for [`ROOT`].
pub(super) struct Nodes {
    nodes: HashMap<u64, Node>,
    root: u64,
}

impl Nodes {
    pub(super) fn of(directory: &Path) -> io::Result<Nodes> {
        let handle = name(directory)?;
        let root = handle.metadata()?.ino();
        let node = Node { handle, file: None, lookups: 1, unsynced: None };
        Ok(Nodes { nodes: HashMap::from([(ROOT, node)]), root })
    }

    fn node(&mut self, number: u64) -> io::Result<&mut Node> {
        self.nodes.get_mut(&number).ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ESTALE))
    }

    /// Where it can be reached for the calls that want a path.
    pub(super) fn path(&mut self, number: u64) -> io::Result<PathBuf> {
        Ok(self.node(number)?.path())
    }

    pub(super) fn path_in(&mut self, parent: u64, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// The kernel is told of what has a name in a directory: its number, what it is and how long.
    pub(super) fn look_up(
        &mut self,
        parent: u64,
        what: &OsStr,
    ) -> io::Result<(u64, Metadata, u64)> {
        let handle = name(&self.path_in(parent, what)?)?;
        let metadata = handle.metadata()?;
        let number = if metadata.ino() == self.root { ROOT } else { metadata.ino() };
        let node = self.nodes.entry(number).or_insert(Node {
            handle,
            file: None,
            lookups: 0,
            unsynced: None,
        });
        node.lookups += 1;
        let size = node.unsynced.as_ref().map_or(metadata.len(), Unsynced::size);
        Ok((number, metadata, size))
    }

    /// The kernel forgets it so many times.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(times);
        let linked = || node.handle.metadata().is_ok_and(|it| it.nlink() > 0);
        let needed = node.unsynced.is_some() && linked();
        if node.lookups == 0 && !needed && number != ROOT {
            self.nodes.remove(&number);
        }
    }

    pub(super) fn metadata(&mut self, number: u64) -> io::Result<(Metadata, u64)> {
        let node = self.node(number)?;
        let metadata = node.handle.metadata()?;
        let size = node.unsynced.as_ref().map_or(metadata.len(), Unsynced::size);
        Ok((metadata, size))
    }

    /// To be linked elsewhere.
    pub(super) fn handle(&mut self, number: u64) -> io::Result<File> {
        self.node(number)?.handle.try_clone()
    }

    pub(super) fn read(&mut self, number: u64, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let node = self.node(number)?;
        let (file, mut content) = (node.file()?, vec![0; length]);
        let mut read = 0;
        while read < length {
            match file.read_at(&mut content[read..], at + read as u64)? {
                0 => break,
                more => read += more,
            }
        }
        content.truncate(read);
        Ok(match &node.unsynced {
            Some(unsynced) => unsynced.read(at, length, &content),
            None => content,
        })
    }

    pub(super) fn write(&mut self, number: u64, at: u64, data: &[u8]) -> io::Result<()> {
        self.node(number)?.unsynced()?.write(at, data);
        Ok(())
    }

    pub(super) fn resize(&mut self, number: u64, size: u64) -> io::Result<()> {
        self.node(number)?.unsynced()?.resize(size);
        Ok(())
    }

    pub(super) fn sync(&mut self, number: u64) -> io::Result<()> {
        let node = self.node(number)?;
        let Some(unsynced) = node.unsynced.take() else { return Ok(()) };
        let done = node.put_on_disk(&unsynced);
        if done.is_err() {
            node.unsynced = Some(unsynced);
        }
        done
    }

    /// Everything, as when it is unmounted.
    pub(super) fn sync_all(&mut self) -> io::Result<()> {
        let numbers: Vec<u64> = self.nodes.keys().copied().collect();
        numbers.into_iter().try_for_each(|number| self.sync(number))
    }

    /// Forgets what was not synced, but for the beginnings of some files; how many bytes are lost.
    pub(super) fn power_cut(&mut self, seed: u64) -> io::Result<u64> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut numbers: Vec<u64> = self.nodes.keys().copied().collect();
        numbers.sort_unstable();
        let mut lost = 0;
        for number in numbers {
            let node = self.node(number)?;
            let Some(unsynced) = node.unsynced.take() else { continue };
            // Half of the files lose all of it.
            let bytes = unsynced.bytes();
            let stays = if random.random() { random.random_range(0..=bytes) } else { 0 };
            let beginning = unsynced.beginning(stays);
            lost += bytes - beginning.as_ref().map_or(0, Unsynced::bytes);
            if let Some(beginning) = beginning {
                node.put_on_disk(&beginning)?;
            }
            if node.lookups == 0 {
                self.nodes.remove(&number);
            }
        }
        Ok(lost)
    }
}

/// A file by its name alone: neither opened nor followed.
fn name(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_PATH | nix::libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// What is in a directory.
pub(super) fn entries(path: &Path) -> io::Result<Vec<(u64, fs::FileType, std::ffi::OsString)>> {
    let entries = fs::read_dir(path)?.map(|entry| {
        let entry = entry?;
        Ok((std::os::unix::fs::DirEntryExt::ino(&entry), entry.file_type()?, entry.file_name()))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(path: &Path) -> String {
        String::from_utf8(fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn what_is_not_synced_is_read_and_goes_with_the_power() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "old").unwrap();
        let mut nodes = Nodes::of(directory.path()).unwrap();
        let (a, _, size) = nodes.look_up(ROOT, OsStr::new("a")).unwrap();
        assert_eq!(size, 3);
        nodes.write(a, 3, b" new").unwrap();
        assert_eq!(nodes.read(a, 0, 99).unwrap(), b"old new");
        assert_eq!(nodes.metadata(a).unwrap().1, 7);
        assert_eq!(content(&path), "old", "it is not on the disk");
        nodes.sync(a).unwrap();
        assert_eq!(content(&path), "old new");
        nodes.resize(a, 2).unwrap();
        nodes.write(a, 2, b"der").unwrap();
        assert_eq!(nodes.read(a, 0, 99).unwrap(), b"older");
        // Renamed and forgotten, it is still that file.
        fs::rename(&path, directory.path().join("b")).unwrap();
        nodes.forget(a, 1);
        let (b, _, size) = nodes.look_up(ROOT, OsStr::new("b")).unwrap();
        assert_eq!((b, size), (a, 5));
        let seed = (0..).find(|seed| !StdRng::seed_from_u64(*seed).random::<bool>()).unwrap();
        assert_eq!(nodes.power_cut(seed).unwrap(), 3, "all of it");
        assert_eq!(nodes.read(b, 0, 99).unwrap(), b"old new");
        assert!(nodes.look_up(ROOT, OsStr::new("a")).is_err());
    }

    #[test]
    fn a_power_cut_may_leave_a_beginning_of_a_file() {
        let lengths: std::collections::BTreeSet<u64> = (0..40)
            .map(|seed| {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("log");
                fs::write(&path, "").unwrap();
                let mut nodes = Nodes::of(directory.path()).unwrap();
                let (log, ..) = nodes.look_up(ROOT, OsStr::new("log")).unwrap();
                nodes.write(log, 0, &[b'x'; 8 * 512]).unwrap();
                let lost = nodes.power_cut(seed).unwrap();
                let length = content(&path).len() as u64;
                assert_eq!((length, length % 512), (8 * 512 - lost, 0));
                length
            })
            .collect();
        assert!(lengths.contains(&0) && lengths.len() > 4, "{lengths:?}");
    }
}
