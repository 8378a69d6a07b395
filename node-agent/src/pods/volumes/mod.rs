//! A pod's volumes as directories and files on this machine. A volume type is one function here or
//! one file beside it, and one arm of [`Volumes::prepare_one`].

mod atomic;
mod content;
mod local;

use super::{env::Facts, sources::Sources};
use crate::runtime::{Mount, make_dir_in_root, open_in_root};
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use nix::mount::{MntFlags, umount2};
use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// The volumes of one pod below `DATA/volumes/UID`.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
}

impl Volumes {
    pub(crate) fn new(data_dir: &Path, uid: &str) -> Volumes {
        Volumes { root: data_dir.join("volumes").join(uid) }
    }

    fn directory(&self, volume: &Volume) -> PathBuf {
        self.root.join(&volume.name)
    }

    /// Makes every volume ready, or brings those made of API objects up to date. Blocks.
    pub(crate) fn prepare(
        &self,
        pod: &Pod,
        sources: &Sources,
        facts: &Facts,
    ) -> Result<(), String> {
        let spec = pod.spec.as_ref().ok_or("the pod has no spec")?;
        let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
        for volume in spec.volumes.iter().flatten() {
            self.prepare_one(pod, volume, sources, facts, group).map_err(|why| {
                format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name)
            })?;
        }
        Ok(())
    }

    fn prepare_one(
        &self,
        pod: &Pod,
        volume: &Volume,
        sources: &Sources,
        facts: &Facts,
        group: Option<i64>,
    ) -> Result<(), String> {
        let directory = self.directory(volume);
        if let Some(source) = &volume.empty_dir {
            return local::empty_dir(&directory, source, group);
        }
        if let Some(source) = &volume.host_path {
            return local::host_path(source);
        }
        match content::of(pod, volume, sources, facts)? {
            Some(files) => atomic::write(&directory, &files, group).map_err(|e| e.to_string()),
            None => Err("this type of volume is not supported yet".to_string()),
        }
    }

    /// Undoes mounts and removes everything. Blocks.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for below in [self.root.join("subpaths"), self.root.clone()] {
            for entry in fs::read_dir(&below).into_iter().flatten().flatten() {
                let _ = umount2(&entry.path(), MntFlags::MNT_DETACH);
            }
        }
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Bind mounts of a container. `env` is for `subPathExpr`. Blocks.
    pub(crate) fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        env: &BTreeMap<String, String>,
    ) -> Result<Vec<Mount>, String> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let volumes: BTreeMap<&str, &Volume> =
            volumes.map(|volume| (volume.name.as_str(), volume)).collect();
        let mut mounts = Vec::new();
        for (number, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let volume = volumes
                .get(mount.name.as_str())
                .ok_or_else(|| format!("volume {:?} not found", mount.name))?;
            let base = match &volume.host_path {
                Some(source) => PathBuf::from(&source.path),
                None => self.directory(volume),
            };
            let slot = format!("{}-{number}", container.name);
            let source = match sub_path(mount, env)? {
                Some(path) => self.bind_sub_path(&base, &path, &slot)?,
                None => base,
            };
            let read_only = mount.read_only == Some(true) || content::is_read_only(volume);
            let propagation = match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => "rslave",
                Some("Bidirectional") => "rshared",
                _ => "rprivate",
            };
            mounts.push(Mount {
                source,
                target: mount.mount_path.clone(),
                read_only,
                propagation: propagation.to_string(),
            });
        }
        Ok(mounts)
    }

    /// A bind mount of `base/path` that is fixed while the container lives: the container may
    /// change its volume but not where this leads (CVE-2017-1002101).
    fn bind_sub_path(&self, base: &Path, path: &Path, slot: &str) -> Result<PathBuf, String> {
        let failed = |error: io::Error| format!("subPath {}: {error}", path.display());
        let opened = match open_in_root(base, path, libc::O_PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir_in_root(base, path, 0o750)
            }
            other => other,
        };
        let opened = opened.map_err(failed)?;
        let slots = self.root.join("subpaths");
        fs::create_dir_all(&slots).map_err(failed)?;
        let target = slots.join(slot);
        let _ = umount2(&target, MntFlags::MNT_DETACH);
        bind(&opened, &target).map_err(failed)?;
        Ok(target)
    }
}

fn bind(opened: &OwnedFd, target: &Path) -> io::Result<()> {
    let through = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    if fs::metadata(&through)?.is_dir() {
        fs::create_dir_all(target)?;
    } else {
        fs::File::create(target)?;
    }
    let flags = nix::mount::MsFlags::MS_BIND | nix::mount::MsFlags::MS_REC;
    nix::mount::mount(Some(&through), target, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

fn sub_path(
    mount: &VolumeMount,
    env: &BTreeMap<String, String>,
) -> Result<Option<PathBuf>, String> {
    let text = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(expression)) if !expression.is_empty() => super::env::expand(expression, env),
        _ => return Ok(None),
    };
    let path = PathBuf::from(text);
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if path.is_absolute() || climbs || path.to_string_lossy().contains("$(") {
        return Err(format!("subPath {:?} must be a path within the volume", path.display()));
    }
    Ok(Some(path))
}

/// Gives a tree to the pod's `fsGroup`, which may then read it, and write it unless `read_only`.
fn give_to_group(path: &Path, group: Option<i64>, read_only: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let Some(group) = group.and_then(|group| u32::try_from(group).ok()) else { return Ok(()) };
    std::os::unix::fs::lchown(path, None, Some(group))?;
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let extra = match (metadata.is_dir(), read_only) {
        (true, false) => 0o2070,
        (true, true) => 0o2050,
        (false, false) => 0o060,
        (false, true) => 0o040,
    };
    let mode = fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777 | extra);
    fs::set_permissions(path, mode)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to_group(&entry?.path(), Some(group.into()), read_only)?;
        }
    }
    Ok(())
}
