//! The disk as the kernel asks for it (FUSE), and the faults that it has at the moment.

use super::nodes::{Nodes, entries};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::{fcntl::AtFlags, libc, sys::statvfs::fstatvfs, unistd::linkat};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{
            DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
        },
    },
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The kernel asks again each time: a power cut changes files behind its back.
const TTL: Duration = Duration::ZERO;
const BLOCK: u64 = 512;
/// What is left of a disk that is nearly full: less than any master keeps free.
const NEARLY_FULL_BYTES: u64 = 16 << 20;

/// What is wrong with it now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) slower_by: Duration,
    pub(super) full: bool,
    pub(super) nearly_full: bool,
    pub(super) failing_sync: bool,
}

/// A directory that is open: its number, kind and name of each entry when it was opened.
type Listing = Arc<Vec<(u64, fs::FileType, OsString)>>;

/// Shared by the kernel's requests and the orders.
pub(super) struct Disk {
    nodes: Mutex<Nodes>,
    faults: Mutex<Faults>,
    listings: Mutex<HashMap<u64, Listing>>,
    next_listing: AtomicU64,
    /// On the real disk.
    directory: File,
}

impl Disk {
    pub(super) fn on(directory: &Path) -> io::Result<Disk> {
        Ok(Disk {
            nodes: Mutex::new(Nodes::of(directory)?),
            faults: Mutex::default(),
            listings: Mutex::default(),
            next_listing: AtomicU64::new(1),
            directory: File::open(directory)?,
        })
    }

    pub(super) fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Listing>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The faults now; a slow disk takes its time first.
    fn take_time(&self) -> Faults {
        let faults = *self.faults();
        if !faults.slower_by.is_zero() {
            thread::sleep(faults.slower_by);
        }
        faults
    }

    fn has_room(&self) -> io::Result<()> {
        match self.faults().full {
            true => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            false => Ok(()),
        }
    }

    fn entry(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let (number, metadata, size) = self.nodes().look_up(parent.0, name)?;
        Ok(attributes(number, &metadata, size))
    }

    fn attributes(&self, number: u64) -> io::Result<FileAttr> {
        let (metadata, size) = self.nodes().metadata(number)?;
        Ok(attributes(number, &metadata, size))
    }

    fn make(
        &self,
        (parent, name): (INodeNo, &OsStr),
        make: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<FileAttr> {
        self.has_room()?;
        // Not to be held while `make` looks something up.
        let path = self.nodes().path_in(parent.0, name)?;
        make(&path)?;
        self.entry(parent, name)
    }

    fn write(&self, number: u64, at: u64, data: &[u8]) -> io::Result<()> {
        self.take_time();
        let mut nodes = self.nodes();
        if at + data.len() as u64 > nodes.metadata(number)?.1 {
            self.has_room()?;
        }
        nodes.write(number, at, data)
    }

    fn sync(&self, number: u64) -> io::Result<()> {
        match self.take_time().failing_sync {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => self.nodes().sync(number),
        }
    }

    fn allocate(&self, number: u64, end: u64, mode: i32) -> io::Result<()> {
        self.has_room()?;
        if mode & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
        let mut nodes = self.nodes();
        if mode == 0 && nodes.metadata(number)?.1 < end {
            nodes.resize(number, end)?;
        }
        Ok(())
    }

    fn change(
        &self,
        number: u64,
        mode: Option<u32>,
        owner: (Option<u32>, Option<u32>),
        size: Option<u64>,
        modified: Option<SystemTime>,
    ) -> io::Result<FileAttr> {
        let path = self.nodes().path(number)?;
        if let Some(mode) = mode {
            fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777))?;
        }
        if owner != (None, None) {
            std::os::unix::fs::chown(&path, owner.0, owner.1)?;
        }
        if let Some(size) = size {
            if size > self.nodes().metadata(number)?.1 {
                self.has_room()?;
            }
            self.nodes().resize(number, size)?;
        }
        if let Some(modified) = modified {
            File::open(&path)?.set_times(FileTimes::new().set_modified(modified))?;
        }
        self.attributes(number)
    }

    /// Blocks of the real disk: size of one, how many, and how many are free.
    fn room(&self) -> io::Result<(u64, u64, u64)> {
        let there = fstatvfs(&self.directory)?;
        let (size, blocks) = (there.fragment_size(), there.blocks());
        let free = match *self.faults() {
            Faults { full: true, .. } => 0,
            Faults { nearly_full: true, .. } => NEARLY_FULL_BYTES / size.max(1),
            _ => there.blocks_available(),
        };
        Ok((size, blocks, free))
    }
}

fn attributes(number: u64, metadata: &Metadata, size: u64) -> FileAttr {
    let time = |seconds: i64, nanoseconds: i64| {
        UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanoseconds as u32)
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(BLOCK),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The disk, mounted.
pub(super) struct Files(pub(super) Arc<Disk>);

fn reply_empty(done: io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn reply_entry(entry: io::Result<FileAttr>, reply: ReplyEntry) {
    match entry {
        Ok(entry) => reply.entry(&TTL, &entry, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn reply_attributes(found: io::Result<FileAttr>, reply: ReplyAttr) {
    match found {
        Ok(found) => reply.attr(&TTL, &found),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        reply_entry(self.0.entry(parent, name), reply);
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.0.nodes().forget(number.0, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply_attributes(self.0.attributes(number.0), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let modified = modified.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        reply_attributes(self.0.change(number.0, mode, (uid, gid), size, modified), reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let make = |path: &Path| fs::DirBuilder::new().mode(mode & !umask).create(path);
        reply_entry(self.0.make((parent, name), make), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.0.nodes().path_in(parent.0, name);
        reply_empty(path.and_then(fs::remove_file), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.0.nodes().path_in(parent.0, name);
        reply_empty(path.and_then(fs::remove_dir), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let mut nodes = self.0.nodes();
        let paths =
            nodes.path_in(parent.0, name).and_then(|from| Ok((from, nodes.path_in(to.0, new)?)));
        reply_empty(paths.and_then(|(from, to)| fs::rename(from, to)), reply);
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let link = |new: &Path| {
            let handle = self.0.nodes().handle(number.0)?;
            let old = format!("/proc/self/fd/{}", handle.as_raw_fd());
            linkat(None, Path::new(&old), None, new, AtFlags::AT_SYMLINK_FOLLOW)?;
            Ok(())
        };
        reply_entry(self.0.make((parent, name), link), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let make = |path: &Path| {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(mode & !umask);
            options.open(path).map(drop)
        };
        match self.0.make((parent, name), make) {
            Ok(made) => {
                reply.created(&TTL, &made, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        at: u64,
        length: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.nodes().read(number.0, at, length as usize) {
            Ok(content) => reply.data(&content),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(number.0, at, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    /// A file that is closed is not synced.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(self.0.sync(number.0), reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply_empty(self.0.sync(number.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        at: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply_empty(self.0.allocate(number.0, at + length, mode), reply);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let path = self.0.nodes().path(number.0);
        match path.and_then(|path| entries(&path)) {
            Ok(found) => {
                let handle = self.0.next_listing.fetch_add(1, Ordering::Relaxed);
                self.0.listings().insert(handle, Arc::new(found));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = self.0.listings().get(&handle.0).cloned().unwrap_or_default();
        for (n, (number, kind, name)) in listing.iter().enumerate().skip(offset as usize) {
            let kind = FileType::from_std(*kind).unwrap_or(FileType::RegularFile);
            if reply.add(INodeNo(*number), n as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.0.listings().remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.0.room() {
            Ok((size, blocks, free)) => {
                // Names are as long as they may be everywhere.
                reply.statfs(blocks, free, free, 0, 0, size as u32, 255, size as u32);
            }
            Err(error) => reply.error(error.into()),
        }
    }
}
