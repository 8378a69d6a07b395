//! What a pod may have on its operating system, and what shares the node's namespaces.

use super::super::field::{At, Errors};

/// Every container of a pod, in upstream's order.
pub(super) const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// `spec.os` and what does not go with it.
pub(super) fn validate(spec: &At<'_, '_>, errors: &mut Errors) {
    let os = spec.field("os");
    if !os.exists() {
        return;
    }
    match os.field("name").text() {
        "" => errors.required(&os.field("name"), ""),
        "linux" => linux(spec, errors),
        "windows" => windows(spec, errors),
        other => errors.not_supported_value(&os, other, &["linux", "windows"]),
    }
}

fn linux(spec: &At<'_, '_>, errors: &mut Errors) {
    const CANNOT: &str = "windows options cannot be set for a linux pod";
    let context = spec.field("securityContext");
    if context.field("windowsOptions").exists() {
        errors.forbidden(&context.field("windowsOptions"), CANNOT);
    }
    for list in LISTS {
        for container in spec.field(list).items() {
            let context = container.field("securityContext");
            if context.field("windowsOptions").exists() {
                errors.forbidden(&context.field("windowsOptions"), CANNOT);
            }
        }
    }
}

/// Fields that a Windows pod may not have, in upstream's order; false for those of the spec itself.
const NOT_WINDOWS: [(&str, bool); 15] = [
    ("appArmorProfile", true),
    ("seLinuxOptions", true),
    ("hostUsers", false),
    ("hostPID", false),
    ("hostIPC", false),
    ("seccompProfile", true),
    ("fsGroup", true),
    ("fsGroupChangePolicy", true),
    ("sysctls", true),
    ("shareProcessNamespace", false),
    ("runAsUser", true),
    ("runAsGroup", true),
    ("supplementalGroups", true),
    ("supplementalGroupsPolicy", true),
    ("seLinuxChangePolicy", true),
];
const NOT_WINDOWS_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn windows(spec: &At<'_, '_>, errors: &mut Errors) {
    const CANNOT: &str = "cannot be set for a windows pod";
    let context = spec.field("securityContext");
    for (field, within) in NOT_WINDOWS {
        let at = if within { context.field(field) } else { spec.field(field) };
        let set = match field {
            "hostPID" | "hostIPC" => at.flag(),
            "sysctls" => at.count() > 0,
            _ => at.exists(),
        };
        if set {
            errors.forbidden(&at, CANNOT);
        }
    }
    for list in LISTS {
        for container in spec.field(list).items() {
            let context = container.field("securityContext");
            for field in NOT_WINDOWS_CONTAINER {
                if context.field(field).exists() {
                    errors.forbidden(&context.field(field), CANNOT);
                }
            }
        }
    }
}

/// Host processes on Windows: all containers or none, and on the host's network.
pub(super) fn host_processes(spec: &At<'_, '_>, errors: &mut Errors) {
    let of_pod = spec.field("securityContext");
    let of_pod = of_pod.field("windowsOptions");
    let of_pod = of_pod.field("hostProcess");
    let (mut all, mut host) = (0, 0);
    for list in LISTS {
        for container in spec.field(list).items() {
            all += 1;
            let own = container.field("securityContext");
            let own = own.field("windowsOptions");
            let own = own.field("hostProcess");
            if own.exists() && of_pod.exists() && own.flag() != of_pod.flag() {
                let detail = format!(
                    "pod hostProcess value must be identical if both are specified, was {}",
                    of_pod.flag()
                );
                errors.invalid(&own, detail);
            }
            host += usize::from(if own.exists() { own.flag() } else { of_pod.flag() });
        }
    }
    if host == 0 {
        return;
    }
    if host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be \
                      HostProcess containers";
        errors.invalid_value(spec, "", detail);
    }
    let network = spec.field("hostNetwork");
    if !network.flag() {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid_value(&network, false, detail);
    }
}

/// A pod with users of its own may not share other namespaces with the node (KEP-127).
pub(super) fn users(spec: &At<'_, '_>, errors: &mut Errors) {
    const WHEN: &str = "when `hostUsers` is false";
    let users = spec.field("hostUsers");
    if !users.exists() || users.flag() {
        return;
    }
    // Two of the names are upstream's Go names.
    for (field, name) in
        [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        let at = spec.field(field);
        if at.flag() {
            errors.forbidden(&at.renamed(name), WHEN);
        }
    }
    for list in LISTS {
        for container in spec.field(list).items() {
            let devices = container.field("volumeDevices");
            if devices.count() > 0 {
                errors.forbidden(&devices, WHEN);
            }
        }
    }
}
