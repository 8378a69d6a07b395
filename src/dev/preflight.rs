//! What a development cluster needs from this machine, checked before anything is started, so that
//! each missing thing is named with what to do about it.

use super::clock;
use crate::cli::dev::Args;
use anyhow::{Result, bail};
use std::path::Path;

pub(super) fn check(args: &Args) -> Result<()> {
    if !matches!(args.masters, 1 | 3 | 5) {
        bail!("--masters {}: a quorum wants 1, 3 or 5 masters", args.masters);
    }
    let networks = args.nodes > 0 || args.isolate;
    if args.etcd_port.is_some() && networks {
        bail!(
            "--etcd-port: with nodes or --isolate, masters are in networks of their own; \
             say --nodes 0, and not --isolate"
        );
    }
    if args.nodes > 20 {
        bail!("--nodes {}: at most 20 on one machine", args.nodes);
    }
    let mut missing = Vec::new();
    if args.faulty_clocks && clock::library().is_none() {
        missing.push("libfaketime, for --faulty-clocks: `apt-get install libfaketime`");
    }
    if (networks || args.faulty_disks) && !nix::unistd::geteuid().is_root() {
        missing.push(match args.nodes {
            0 => {
                "root (networks and disks): run it with sudo, without --isolate and --faulty-disks"
            }
            _ => "root (namespaces, mounts, cgroups): run it with sudo, or with --nodes 0",
        });
    }
    if args.faulty_disks && !Path::new("/dev/fuse").exists() {
        missing.push("/dev/fuse, for --faulty-disks: `modprobe fuse`");
    }
    if networks && !Path::new("/proc/self/ns/net").exists() {
        missing.push("network namespaces: a kernel with CONFIG_NET_NS");
    }
    if args.nodes > 0 {
        missing.extend(missing_for_nodes());
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this machine cannot run that; missing:\n  - {}", missing.join("\n  - "))
}

fn missing_for_nodes() -> Vec<&'static str> {
    let mut missing = Vec::new();
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("overlay")) && !loads("overlay") {
        missing.push("overlayfs: `modprobe overlay`");
    }
    if !Path::new("/sys/fs/cgroup").read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        missing.push("cgroups: mount them at /sys/fs/cgroup");
    }
    if !["/bin/busybox", "/usr/bin/busybox"].iter().any(|path| Path::new(path).exists()) {
        missing.push("busybox for the demo image: `apt-get install busybox-static`");
    }
    missing
}

fn loads(module: &str) -> bool {
    std::process::Command::new("modprobe").arg(module).status().is_ok_and(|it| it.success())
}
