//! A container's OCI configuration from its specification. Pure.

use super::{ContainerSpec, SandboxSpec, cgroup, users::Ids};
use serde_json::{Value, json};
use std::path::Path;

/// What Docker and containerd give by default.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const ALL_CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

const READ_ONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What this process may hand on: the kernel refuses more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    /// The bounding set of this process, as a bit mask.
    pub(crate) bounding: u64,
    /// `/proc/self/oom_score_adj`.
    pub(crate) oom_score_adj: i32,
    pub(crate) unified_cgroup: bool,
}

impl Means {
    pub(crate) fn of_this_process() -> Means {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
        let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
        let adj = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
        Means {
            bounding: mask.unwrap_or(u64::MAX),
            oom_score_adj: adj.trim().parse().unwrap_or_default(),
            unified_cgroup: cgroup::unified(),
        }
    }

    fn may(&self, capability: &str) -> bool {
        capability_number(capability).is_some_and(|bit| self.bounding & (1 << bit) != 0)
    }
}

/// Bit numbers of `linux/capability.h`.
fn capability_number(name: &str) -> Option<u32> {
    const BY_NUMBER: [&str; 41] = [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ];
    BY_NUMBER.iter().position(|known| *known == name).map(|bit| bit as u32)
}

/// Paths of the pod's and the container's pieces on the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    pub(crate) root: &'a Path,
    /// Directory with the pinned namespaces `net`, `ipc`, `uts`.
    pub(crate) namespaces: &'a Path,
    /// The process namespace to enter instead of a new one.
    pub(crate) processes: Option<&'a Path>,
    pub(crate) cgroup: &'a str,
}

/// `config.json` of the container.
pub(crate) fn config(
    pod: &SandboxSpec,
    spec: &ContainerSpec,
    ids: &Ids,
    places: Places<'_>,
    means: Means,
) -> Value {
    let privileged = spec.security.privileged;
    let (masked, read_only): (&[&str], &[&str]) = if privileged || spec.security.unmasked_proc {
        (&[], &[])
    } else {
        (&MASKED_PATHS, &READ_ONLY_PATHS)
    };
    let mut linux = json!({
        "namespaces": namespaces(pod, spec, places),
        "cgroupsPath": places.cgroup,
        "resources": resources(spec),
        "rootfsPropagation": propagation(spec),
        "maskedPaths": masked,
        "readonlyPaths": read_only,
    });
    if !spec.security.sysctls.is_empty() {
        linux["sysctl"] = json!(spec.security.sysctls);
    }
    json!({
        "ociVersion": "1.1.0",
        "process": process(spec, ids, &spec.args, spec.tty, means),
        "root": {"path": places.root, "readonly": spec.security.read_only_root},
        "mounts": mounts(spec, places.processes.is_none() || means.unified_cgroup),
        "linux": linux,
        "annotations": {
            "io.kubernetes.pod.namespace": pod.namespace,
            "io.kubernetes.pod.name": pod.name,
            "io.kubernetes.pod.uid": pod.uid,
            "io.kubernetes.container.name": spec.name,
        },
    })
}

/// `process.json` for the first process or an exec'd one.
pub(crate) fn process(
    spec: &ContainerSpec,
    ids: &Ids,
    args: &[String],
    tty: bool,
    means: Means,
) -> Value {
    let set = capabilities(spec, means);
    let mut process = json!({
        "terminal": tty,
        "user": {"uid": ids.uid, "gid": ids.gid, "additionalGids": groups(spec, ids)},
        "args": args,
        "env": environment(spec, ids, tty),
        "cwd": if spec.cwd.is_empty() { "/" } else { &spec.cwd },
        "capabilities": {"bounding": set, "effective": set, "permitted": set},
        "oomScoreAdj": oom_score_adj(spec, means),
    });
    // Left out unless true: libcontainer takes an explicit `false` for a wish to filter late.
    if spec.security.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    process
}

fn groups(spec: &ContainerSpec, ids: &Ids) -> Vec<u32> {
    let mut groups = spec.security.supplemental_groups.clone();
    groups.extend(&ids.groups);
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn environment(spec: &ContainerSpec, ids: &Ids, tty: bool) -> Vec<String> {
    let has = |name: &str| spec.env.iter().any(|(known, _)| known == name);
    let mut env = Vec::new();
    if !has("PATH") {
        env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string());
    }
    if tty && !has("TERM") {
        env.push("TERM=xterm".to_string());
    }
    if !has("HOME") {
        env.push(format!("HOME={}", ids.home.as_deref().unwrap_or("/")));
    }
    env.extend(spec.env.iter().map(|(name, value)| format!("{name}={value}")));
    env
}

/// Sorted names with the `CAP_` prefix.
fn capabilities(spec: &ContainerSpec, means: Means) -> Vec<String> {
    let security = &spec.security;
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let mut set: Vec<&str> = DEFAULT_CAPABILITIES.to_vec();
    if means.unified_cgroup {
        // Without a device filter a made device node would be a way out.
        set.retain(|name| *name != "MKNOD");
    }
    if security.privileged || all(&security.add_capabilities) {
        set = ALL_CAPABILITIES.to_vec();
    }
    if all(&security.drop_capabilities) {
        set.clear();
    }
    set.extend(security.add_capabilities.iter().map(|name| plain(name)));
    let dropped: Vec<&str> = security.drop_capabilities.iter().map(|name| plain(name)).collect();
    set.retain(|name| means.may(name) && (security.privileged || !dropped.contains(name)));
    set.sort_unstable();
    set.dedup();
    set.into_iter().map(|name| format!("CAP_{name}")).collect()
}

fn plain(name: &str) -> &str {
    name.strip_prefix("CAP_").unwrap_or(name)
}

/// Lowering it needs CAP_SYS_RESOURCE, which this process may lack.
fn oom_score_adj(spec: &ContainerSpec, means: Means) -> i32 {
    let wanted = spec.resources.oom_score_adj;
    if means.may("SYS_RESOURCE") { wanted } else { wanted.max(means.oom_score_adj) }
}

fn namespaces(pod: &SandboxSpec, spec: &ContainerSpec, places: Places<'_>) -> Vec<Value> {
    let pinned = places.namespaces;
    let mut list = vec![json!({"type": "mount"})];
    match places.processes {
        Some(path) => list.push(json!({"type": "pid", "path": path})),
        None if !spec.host_pid => list.push(json!({"type": "pid"})),
        None => {}
    }
    if !pod.host_network {
        list.push(json!({"type": "network", "path": pinned.join("net")}));
        list.push(json!({"type": "uts", "path": pinned.join("uts")}));
    }
    if !pod.host_ipc {
        list.push(json!({"type": "ipc", "path": pinned.join("ipc")}));
    }
    list
}

fn resources(spec: &ContainerSpec) -> Value {
    let limits = &spec.resources;
    let mut cpu = json!({"shares": limits.cpu_shares.max(2)});
    if let Some(quota) = limits.cpu_quota {
        cpu["quota"] = json!(quota);
        cpu["period"] = json!(100_000);
    }
    let mut resources = json!({
        "devices": [{"allow": spec.security.privileged, "access": "rwm"}],
        "cpu": cpu,
    });
    if let Some(bytes) = limits.memory_bytes {
        resources["memory"] = json!({"limit": bytes});
    }
    if let Some(count) = limits.pids_max {
        resources["pids"] = json!({"limit": count});
    }
    resources
}

fn propagation(spec: &ContainerSpec) -> &'static str {
    let shares = |wanted: &str| spec.mounts.iter().any(|mount| mount.propagation == wanted);
    if shares("rshared") {
        "shared"
    } else if shares("rslave") {
        "slave"
    } else {
        "private"
    }
}

/// `cgroups`: false for a container of cgroup v1 among another's processes. libcontainer looks for
/// itself in `/proc`, under its number among them: it finds nobody, or somebody else.
fn mounts(spec: &ContainerSpec, cgroups: bool) -> Vec<Value> {
    let privileged = spec.security.privileged;
    let writable = if privileged { "rw" } else { "ro" };
    let special = |destination, kind, options: &[&str]| json!({"destination": destination, "type": kind, "source": kind, "options": options});
    let mut list = vec![
        special("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        special("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        special(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        special("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        special("/sys", "sysfs", &["nosuid", "noexec", "nodev", writable]),
    ];
    if cgroups {
        let options = ["nosuid", "noexec", "nodev", "relatime", writable];
        list.push(special("/sys/fs/cgroup", "cgroup", &options));
    }
    if !spec.mounts.iter().any(|mount| mount.target == "/dev/shm") {
        let options = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
        list.push(special("/dev/shm", "tmpfs", &options));
    }
    let mut binds: Vec<&super::Mount> = spec.mounts.iter().collect();
    // A parent before what is mounted into it.
    binds.sort_by_key(|mount| mount.target.trim_end_matches('/').matches('/').count());
    list.extend(binds.into_iter().map(|mount| {
        let access = if mount.read_only { "ro" } else { "rw" };
        let propagation =
            if mount.propagation.is_empty() { "rprivate" } else { mount.propagation.as_str() };
        json!({
            "destination": mount.target,
            "type": "bind",
            "source": mount.source,
            "options": ["rbind", propagation, access],
        })
    }));
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Security;

    const MEANS: Means = Means { bounding: u64::MAX, oom_score_adj: 0, unified_cgroup: false };

    fn with(security: Security) -> ContainerSpec {
        ContainerSpec { security, ..ContainerSpec::default() }
    }

    #[test]
    fn dropping_all_leaves_what_is_added() {
        let spec = with(Security {
            drop_capabilities: vec!["ALL".into()],
            add_capabilities: vec!["NET_BIND_SERVICE".into(), "CAP_CHOWN".into()],
            ..Security::default()
        });
        assert_eq!(capabilities(&spec, MEANS), ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"]);
    }

    #[test]
    fn nothing_is_given_that_this_process_lacks() {
        let lacks = Means { bounding: !(1 << 24), oom_score_adj: 10, ..MEANS };
        let spec = with(Security { privileged: true, ..Security::default() });
        assert!(!capabilities(&spec, lacks).contains(&"CAP_SYS_RESOURCE".to_string()));
        assert!(capabilities(&spec, MEANS).contains(&"CAP_SYS_RESOURCE".to_string()));
        assert_eq!(oom_score_adj(&spec, lacks), 10);
    }

    #[test]
    fn no_device_nodes_where_no_filter_guards_them() {
        let unified = Means { unified_cgroup: true, ..MEANS };
        let spec = with(Security::default());
        assert!(capabilities(&spec, MEANS).contains(&"CAP_MKNOD".to_string()));
        assert!(!capabilities(&spec, unified).contains(&"CAP_MKNOD".to_string()));
    }

    #[test]
    fn an_ordinary_container() {
        let pod = SandboxSpec { uid: "u".into(), ..SandboxSpec::default() };
        let mut spec = with(Security::default());
        spec.args = vec!["sh".into()];
        spec.resources.memory_bytes = Some(1 << 20);
        let ids = Ids::default();
        let places = Places {
            root: Path::new("/r"),
            namespaces: Path::new("/n"),
            processes: None,
            cgroup: "/pods/u/c",
        };
        insta::assert_json_snapshot!(config(&pod, &spec, &ids, places, MEANS));
    }

    #[test]
    fn among_anothers_processes_there_are_no_cgroups_of_version_1() {
        let has_cgroups = |means: Means, processes: Option<&Path>| {
            let places = Places {
                root: Path::new("/r"),
                namespaces: Path::new("/n"),
                processes,
                cgroup: "/pods/u/c",
            };
            let spec = with(Security::default());
            let config = config(&SandboxSpec::default(), &spec, &Ids::default(), places, means);
            let mounts = config["mounts"].as_array().expect("mounts").clone();
            mounts.iter().any(|mount| mount["type"] == "cgroup")
        };
        let (unified, other) = (Means { unified_cgroup: true, ..MEANS }, Some(Path::new("/p")));
        assert!(has_cgroups(MEANS, None) && has_cgroups(unified, other));
        assert!(!has_cgroups(MEANS, other));
    }
}
