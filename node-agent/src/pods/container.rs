//! From a pod's container, its image and its environment to what the runtime is told. Pure.

use super::{amount, env::expand, plan};
use crate::{
    images::Image,
    runtime::{ContainerSpec, Mount, Resources, Security},
};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, SecurityContext};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// What is known only when the container is about to be created.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) image: &'a Image,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) log: PathBuf,
    /// Capacity of the node, for the out-of-memory score.
    pub(crate) node_memory_bytes: i64,
    /// Id of the container whose process namespace is shared.
    pub(crate) processes_of: Option<String>,
}

/// Init containers first, in order, then the others.
pub(crate) fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Ephemeral containers as the containers they are but for their target.
pub(crate) fn ephemeral_containers(spec: &PodSpec) -> impl Iterator<Item = Container> {
    spec.ephemeral_containers.iter().flatten().map(|own| {
        let own = own.clone();
        Container {
            args: own.args,
            command: own.command,
            env: own.env,
            env_from: own.env_from,
            image: own.image,
            image_pull_policy: own.image_pull_policy,
            name: own.name,
            security_context: own.security_context,
            stdin: own.stdin,
            stdin_once: own.stdin_once,
            termination_message_path: own.termination_message_path,
            termination_message_policy: own.termination_message_policy,
            tty: own.tty,
            volume_devices: own.volume_devices,
            volume_mounts: own.volume_mounts,
            working_dir: own.working_dir,
            ..Container::default()
        }
    })
}

/// The container whose processes an ephemeral one wants to see.
pub(crate) fn ephemeral_target<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let all = pod.spec.as_ref()?.ephemeral_containers.iter().flatten();
    let target = all.into_iter().find(|own| own.name == name)?.target_container_name.as_deref();
    target.filter(|target| !target.is_empty())
}

pub(crate) fn find_container(pod: &Pod, name: &str) -> Option<Container> {
    let spec = pod.spec.as_ref()?;
    let found = all_containers(spec).find(|container| container.name == name).cloned();
    found.or_else(|| ephemeral_containers(spec).find(|container| container.name == name))
}

/// The order of things, for [`plan::plan`].
pub(crate) fn shape(spec: &PodSpec) -> plan::Shape {
    let step = |container: &Container| plan::Step {
        name: container.name.clone(),
        sidecar: container.restart_policy.as_deref() == Some("Always"),
    };
    let grace = spec.termination_grace_period_seconds.unwrap_or(30).max(0);
    plan::Shape {
        init: spec.init_containers.iter().flatten().map(step).collect(),
        main: spec.containers.iter().map(|container| container.name.clone()).collect(),
        ephemeral: ephemeral_containers(spec).map(|container| container.name).collect(),
        restart: match spec.restart_policy.as_deref() {
            Some("Never") => plan::Restart::Never,
            Some("OnFailure") => plan::Restart::OnFailure,
            _ => plan::Restart::Always,
        },
        grace: Duration::from_secs(grace.unsigned_abs()),
    }
}

/// Changes when the container must be started again to follow its specification.
pub(crate) fn hash(container: &Container) -> u64 {
    // Upstream too looks at the image only: the rest cannot be changed in a running pod. The hash is
    // compared with one that an older agent may have written.
    let image = container.image.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\0{image}", container.name));
    digest[..8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// Upstream's safe sysctls; others could change the node.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What the pod asks for and must not get, or cannot get here: better no container than one that
/// is less confined than its specification says.
pub(crate) fn refusal(pod: &Pod, container: &Container) -> Option<String> {
    let context = pod.spec.as_ref()?.security_context.as_ref();
    let mut sysctls = context.and_then(|pod| pod.sysctls.as_ref()).into_iter().flatten();
    if let Some(bad) = sysctls.find(|entry| !SAFE_SYSCTLS.contains(&entry.name.as_str())) {
        return Some(format!("forbidden sysctl: {:?} not allowlisted", bad.name));
    }
    let own = container.security_context.as_ref();
    let seccomp = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or(context.and_then(|pod| pod.seccomp_profile.as_ref()));
    if seccomp.is_some_and(|profile| profile.type_ == "Localhost") {
        return Some("seccomp profiles of type Localhost are not supported yet".to_string());
    }
    let apparmor = own
        .and_then(|own| own.app_armor_profile.as_ref())
        .or(context.and_then(|pod| pod.app_armor_profile.as_ref()));
    if apparmor.is_some_and(|profile| profile.type_ == "Localhost") {
        return Some("AppArmor profiles of type Localhost are not supported yet".to_string());
    }
    None
}

/// Whether a filter of system calls is asked for that this runtime does not have.
pub(crate) fn wants_default_seccomp(pod: &Pod, container: &Container) -> bool {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let profile = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or(context.and_then(|pod| pod.seccomp_profile.as_ref()));
    profile.is_some_and(|profile| profile.type_ == "RuntimeDefault")
}

pub(crate) fn specification(pod: &Pod, container: &Container, given: Given<'_>) -> ContainerSpec {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let config = &given.image.config;
    let known: BTreeMap<String, String> = given.env.iter().cloned().collect();
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    ContainerSpec {
        id: given.id,
        name: container.name.clone(),
        attempt: given.attempt,
        image: container.image.clone().unwrap_or_default(),
        image_id: given.image.id.clone(),
        layers: given.image.layers.clone(),
        args: arguments(container, &config.entrypoint, &config.cmd, &known),
        env: with_image_environment(&config.env, given.env),
        cwd: container
            .working_dir
            .clone()
            .filter(|dir| !dir.is_empty())
            .unwrap_or_else(|| config.working_dir.clone()),
        tty: container.tty == Some(true),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        mounts: given.mounts,
        security: security(spec, container, &config.user),
        resources: resources(spec, container, given.node_memory_bytes),
        log: given.log,
        host_pid: spec.host_pid == Some(true),
        processes_of: given.processes_of,
        termination_message: Some(PathBuf::from(path)),
        spec_hash: hash(container),
    }
}

/// `command` replaces the entrypoint and its arguments; `args` replaces the arguments only.
fn arguments(
    container: &Container,
    entrypoint: &[String],
    cmd: &[String],
    known: &BTreeMap<String, String>,
) -> Vec<String> {
    let expanded =
        |list: &Vec<String>| list.iter().map(|text| expand(text, known)).collect::<Vec<_>>();
    let command = container.command.as_ref().filter(|list| !list.is_empty()).map(expanded);
    let args = container.args.as_ref().filter(|list| !list.is_empty()).map(expanded);
    let (mut all, rest) = match (command, args) {
        (Some(command), args) => (command, args.unwrap_or_default()),
        (None, Some(args)) => (entrypoint.to_vec(), args),
        (None, None) => (entrypoint.to_vec(), cmd.to_vec()),
    };
    all.extend(rest);
    all
}

/// The pod's variables win over the image's.
fn with_image_environment(image: &[String], pod: Vec<(String, String)>) -> Vec<(String, String)> {
    let split = |entry: &String| {
        let (name, value) = entry.split_once('=')?;
        Some((name.to_string(), value.to_string()))
    };
    let mut env: Vec<(String, String)> = image.iter().filter_map(split).collect();
    env.retain(|(name, _)| !pod.iter().any(|(other, _)| other == name));
    env.extend(pod);
    env
}

fn security(spec: &PodSpec, container: &Container, image_user: &str) -> Security {
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let pod = spec.security_context.as_ref();
    let number = |value: i64| u32::try_from(value).ok();
    let user = own.run_as_user.or(pod.and_then(|pod| pod.run_as_user));
    let group = own.run_as_group.or(pod.and_then(|pod| pod.run_as_group));
    let mut groups: Vec<u32> = pod
        .and_then(|pod| pod.supplemental_groups.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|group| number(*group))
        .collect();
    groups.extend(pod.and_then(|pod| pod.fs_group).and_then(number));
    let capabilities = own.capabilities.as_ref();
    let privileged = own.privileged == Some(true);
    let sysctls = pod.and_then(|pod| pod.sysctls.as_ref()).into_iter().flatten();
    Security {
        user: user.map_or_else(|| image_user.to_string(), |user| user.to_string()),
        group: group.and_then(number),
        supplemental_groups: groups,
        run_as_non_root: own
            .run_as_non_root
            .or(pod.and_then(|pod| pod.run_as_non_root))
            .unwrap_or(false),
        privileged,
        read_only_root: own.read_only_root_filesystem == Some(true),
        no_new_privileges: own.allow_privilege_escalation == Some(false) && !privileged,
        add_capabilities: capabilities.and_then(|all| all.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|all| all.drop.clone()).unwrap_or_default(),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        sysctls: sysctls.map(|entry| (entry.name.clone(), entry.value.clone())).collect(),
    }
}

fn resources(spec: &PodSpec, container: &Container, node_memory_bytes: i64) -> Resources {
    let of = |kind: &str, name: &str| {
        let all = container.resources.as_ref()?;
        let map = if kind == "limits" { &all.limits } else { &all.requests };
        map.as_ref()?.get(name)
    };
    let cpu_limit = amount::thousandths(of("limits", "cpu"));
    let cpu_request = amount::thousandths(of("requests", "cpu")).or(cpu_limit).unwrap_or(0);
    let memory_request = amount::whole(of("requests", "memory")).unwrap_or(0);
    let oom_score_adj = match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        // The more of the machine it asked for, the later it is killed.
        _ => {
            let share = 1000 * memory_request / node_memory_bytes.max(1);
            (1000 - share).clamp(3, 999) as i32
        }
    };
    Resources {
        // A thousand millicores are 1024 shares.
        cpu_shares: (cpu_request * 1024 / 1000).clamp(2, 262_144).unsigned_abs(),
        cpu_quota: cpu_limit.filter(|milli| *milli > 0).map(|milli| (milli * 100).max(1000)),
        memory_bytes: amount::whole(of("limits", "memory")).filter(|bytes| *bytes > 0),
        pids_max: None,
        oom_score_adj,
    }
}

/// `status.qosClass`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut any, mut all) = (false, true);
    for container in all_containers(spec) {
        for name in ["cpu", "memory"] {
            let of = |map: Option<&BTreeMap<String, _>>| {
                amount::thousandths(map.and_then(|map| map.get(name))).filter(|n| *n > 0)
            };
            let resources = container.resources.as_ref();
            let limit = of(resources.and_then(|all| all.limits.as_ref()));
            let request = of(resources.and_then(|all| all.requests.as_ref()));
            any |= limit.is_some() || request.is_some();
            all &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, all) {
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
        (false, _) => "BestEffort",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(containers: serde_json::Value) -> PodSpec {
        serde_json::from_value(json!({"containers": containers})).unwrap()
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let check = |context| {
            let pod = json!({"spec": {"containers": [{"name": "a"}], "securityContext": context}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            refusal(&pod, &pod.spec.as_ref().unwrap().containers[0]).unwrap_or_default()
        };
        let bad = check(json!({"sysctls": [{"name": "kernel.panic", "value": "1"}]}));
        assert_eq!(bad, "forbidden sysctl: \"kernel.panic\" not allowlisted");
        let good = json!({"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]});
        assert_eq!(check(good), "");
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "x"}});
        assert!(check(local).contains("not supported yet"));
    }

    #[test]
    fn quality_of_service() {
        let check = |resources| qos_class(&spec(json!([{"name": "a", "resources": resources}])));
        assert_eq!(check(json!({})), "BestEffort");
        assert_eq!(check(json!({"requests": {"cpu": "1"}})), "Burstable");
        assert_eq!(check(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
        let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}});
        assert_eq!(check(less), "Burstable");
    }

    #[test]
    fn command_and_args() {
        let check = |container: serde_json::Value| {
            let container: Container = serde_json::from_value(container).unwrap();
            let known = [("X".to_string(), "1".to_string())].into();
            arguments(&container, &["entry".into()], &["cmd".into()], &known).join(" ")
        };
        assert_eq!(check(json!({"name": "a"})), "entry cmd");
        assert_eq!(check(json!({"name": "a", "args": ["$(X)"]})), "entry 1");
        assert_eq!(check(json!({"name": "a", "command": ["own"]})), "own");
        assert_eq!(check(json!({"name": "a", "command": ["own"], "args": ["b"]})), "own b");
    }

    #[test]
    fn limits_in_the_kernels_units() {
        let spec = spec(json!([{"name": "a", "resources": {
            "limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}]));
        let resources = resources(&spec, &spec.containers[0], 1 << 30);
        assert_eq!(resources.cpu_shares, 256);
        assert_eq!(resources.cpu_quota, Some(50_000));
        assert_eq!(resources.memory_bytes, Some(64 << 20));
        assert_eq!(resources.oom_score_adj, 999);
    }

    #[test]
    fn the_containers_own_security_wins() {
        let spec: PodSpec = serde_json::from_value(json!({
            "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000},
            "containers": [{"name": "a", "securityContext":
                {"runAsUser": 5, "allowPrivilegeEscalation": false}}],
        }))
        .unwrap();
        let security = security(&spec, &spec.containers[0], "image");
        assert_eq!((security.user.as_str(), security.group), ("5", Some(2000)));
        assert_eq!(security.supplemental_groups, [3000]);
        assert!(security.no_new_privileges);
    }
}
