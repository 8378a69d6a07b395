//! Opening and making paths inside a directory that others may have filled with symbolic links:
//! nothing here can name a file outside it (`openat2` with `RESOLVE_IN_ROOT`).

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
};

/// `struct open_how` of `openat2(2)`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
const RESOLVE_IN_ROOT: u64 = 0x10;

/// Opens `path` as a process whose root is `root` would.
pub(crate) fn open_in_root(root: &Path, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let root = std::fs::File::open(root)?;
    open_at(&root, path, flags)
}

#[expect(unsafe_code, reason = "openat2 has no wrapper in our libraries")]
fn open_at(root: &impl AsRawFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: if flags & libc::O_CREAT == 0 { 0 } else { 0o644 },
        resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    };
    let text = path.as_os_str().as_bytes();
    let text = CString::new(if text.is_empty() { b"." } else { text })?;
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            text.as_ptr(),
            &how as *const OpenHow,
            size_of::<OpenHow>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes `path` and its parents as directories below `root`; returns the last one, opened.
pub(crate) fn make_dir_in_root(root: &Path, path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let flags = libc::O_DIRECTORY | libc::O_PATH;
    let root = std::fs::File::open(root)?;
    let mut here = Path::new("").to_path_buf();
    let mut last = open_at(&root, Path::new("."), flags)?;
    for part in path.components() {
        let Component::Normal(name) = part else {
            if part == Component::ParentDir {
                here.push("..");
                last = open_at(&root, &here, flags)?;
            }
            continue;
        };
        here.push(name);
        last = match open_at(&root, &here, flags) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(&last, name.as_bytes(), mode)?;
                open_at(&root, &here, flags)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(last)
}

fn make_dir(parent: &OwnedFd, name: &[u8], mode: u32) -> io::Result<()> {
    let name = CString::new(name)?;
    let mode = nix::sys::stat::Mode::from_bits_truncate(mode);
    match nix::sys::stat::mkdirat(Some(parent.as_raw_fd()), name.as_c_str(), mode) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/", root.join("out")).unwrap();
        std::os::unix::fs::symlink("../../..", root.join("up")).unwrap();
        make_dir_in_root(&root, Path::new("out/made"), 0o755).unwrap();
        make_dir_in_root(&root, Path::new("/up/deep/er"), 0o755).unwrap();
        assert!(root.join("made").is_dir());
        assert!(root.join("deep/er").is_dir());
        let missing = open_in_root(&root, Path::new("out/etc/passwd"), libc::O_RDONLY);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
