//! The few cgroup files read beside the runtime: usage, kills for want of memory, leftovers.

use super::Usage;
use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = "/sys/fs/cgroup";

/// Whether the machine has only cgroup v2.
pub(crate) fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

fn directory(controller: &str, path: &str) -> PathBuf {
    let root = if unified() { PathBuf::from(ROOT) } else { Path::new(ROOT).join(controller) };
    root.join(path.trim_start_matches('/'))
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_default()
}

/// The value after `key` in a `key value` file.
fn keyed(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.map(number).unwrap_or_default()
}

pub(crate) fn oom_killed(path: &str) -> bool {
    let file = if unified() { "memory.events" } else { "memory.oom_control" };
    keyed(&read(&directory("memory", path), file), "oom_kill") > 0
}

pub(crate) fn usage(path: &str) -> Usage {
    let pids = number(&read(&directory("pids", path), "pids.current"));
    if unified() {
        let here = directory("", path);
        let memory_bytes = number(&read(&here, "memory.current"));
        let inactive = keyed(&read(&here, "memory.stat"), "inactive_file");
        let cpu = keyed(&read(&here, "cpu.stat"), "usage_usec") * 1000;
        let working_set_bytes = memory_bytes.saturating_sub(inactive);
        return Usage { cpu_nanoseconds: cpu, memory_bytes, working_set_bytes, pids };
    }
    let memory = directory("memory", path);
    let memory_bytes = number(&read(&memory, "memory.usage_in_bytes"));
    let inactive = keyed(&read(&memory, "memory.stat"), "total_inactive_file");
    Usage {
        cpu_nanoseconds: number(&read(&directory("cpuacct", path), "cpuacct.usage")),
        memory_bytes,
        working_set_bytes: memory_bytes.saturating_sub(inactive),
        pids,
    }
}

/// Removes the empty cgroups at and below `path` in every hierarchy.
pub(crate) fn remove_tree(path: &str) {
    let relative = path.trim_start_matches('/');
    if relative.is_empty() {
        return;
    }
    remove_below(&Path::new(ROOT).join(relative));
    for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path().join(relative));
        }
    }
}

fn remove_below(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Names of the cgroups directly below `path`.
pub(crate) fn children(path: &str) -> Vec<String> {
    let entries = fs::read_dir(directory("memory", path)).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Pids in the cgroup at `path`, its own level only.
pub(crate) fn pids(path: &str) -> Vec<i32> {
    let directory = directory("pids", path);
    read(&directory, "cgroup.procs").lines().filter_map(|line| line.parse().ok()).collect()
}
