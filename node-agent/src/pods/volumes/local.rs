//! Volumes of this machine's own: `emptyDir` and `hostPath`.

use super::{super::amount, give_to_group};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource};
use nix::mount::{MsFlags, mount};
use std::{
    fs,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::Path,
};

pub(super) fn empty_dir(
    directory: &Path,
    source: &EmptyDirVolumeSource,
    group: Option<i64>,
) -> Result<(), String> {
    if directory.exists() {
        return Ok(());
    }
    let io = |error: std::io::Error| error.to_string();
    fs::create_dir_all(directory).map_err(io)?;
    match source.medium.as_deref() {
        None | Some("") => {}
        Some("Memory") => {
            let size = amount::whole(source.size_limit.as_ref()).filter(|size| *size > 0);
            let options = size.map_or_else(String::new, |size| format!("size={size}"));
            let kind = Some("tmpfs");
            mount(kind, directory, kind, MsFlags::empty(), Some(options.as_str()))
                .map_err(|error| error.to_string())?;
        }
        Some(medium) => return Err(format!("medium {medium:?} is not supported")),
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).map_err(io)?;
    give_to_group(directory, group, false).map_err(io)
}

/// Checks and makes what `type` asks for; the path itself is what is mounted.
pub(super) fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let make = |directory: bool| {
        let made = if directory {
            fs::create_dir_all(path)
        } else {
            fs::File::options().create(true).append(true).open(path).map(drop)
        };
        made.map_err(|error| format!("{}: {error}", source.path))
    };
    let kind = source.type_.as_deref().unwrap_or_default();
    let fits = match (kind, found) {
        // The container's own creation reports a missing path.
        ("", Some(_)) => true,
        ("", None) => return make(true),
        ("DirectoryOrCreate", None) => return make(true),
        ("FileOrCreate", None) => return make(false),
        ("DirectoryOrCreate" | "Directory", Some(found)) => found.is_dir(),
        ("FileOrCreate" | "File", Some(found)) => found.is_file(),
        ("Socket", Some(found)) => found.is_socket(),
        ("CharDevice", Some(found)) => found.is_char_device(),
        ("BlockDevice", Some(found)) => found.is_block_device(),
        _ => false,
    };
    let wanted = match kind {
        "DirectoryOrCreate" | "Directory" => "a directory",
        "FileOrCreate" | "File" => "a file",
        "Socket" => "a socket",
        "CharDevice" => "a character device",
        _ => "a block device",
    };
    if fits {
        Ok(())
    } else {
        Err(format!("hostPath type check failed: {} is not {wanted}", source.path))
    }
}
