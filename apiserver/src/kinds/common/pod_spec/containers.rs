//! Containers: names, images, ports, mounts, and what each role may and may not have.

use super::{
    super::{
        field::{At, Errors},
        resources::{self, Whose},
        volume_sources::{descending, no_back_steps},
    },
    Pod, Taken, field_sources,
    probes::{self, PROBES},
    security,
};
use k8s::names as rules;
use std::collections::BTreeSet;

/// In upstream's order: main, init, ephemeral.
pub(super) fn validate(spec: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    main_containers(spec, pod, errors);
    init_containers(spec, pod, errors);
    ephemeral_containers(spec, pod, errors);
}

fn main_containers(spec: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    let mains = spec.field("containers");
    if mains.count() == 0 {
        return errors.required(&mains, "");
    }
    let mut names = Taken::default();
    for container in mains.items() {
        common(&container, pod, errors);
        names.add(&container.field("name"), errors);
        probes::validate(&container, pod.probes, errors);
        restart_policy(&container, errors);
    }
    let mut host_ports = BTreeSet::new();
    for container in mains.items() {
        host_port_conflicts(&container, &mut host_ports, errors);
    }
}

const NOT_FOR_INIT: &str = "may not be set for init containers without restartPolicy=Always";

fn init_containers(spec: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    let mut names = Taken::default();
    spec.field("containers").items().for_each(|main| names.know(main.field("name").text()));
    for container in spec.field("initContainers").items() {
        common(&container, pod, errors);
        let policy = container.field("restartPolicy");
        let stays = policy.text() == "Always";
        let rules = container.field("restartPolicyRules");
        if stays && rules.count() > 0 {
            let detail =
                "restartPolicyRules are not allowed for init containers with restart policy Always";
            errors.forbidden(&rules, detail);
        } else if policy.exists() && !stays {
            restart_policy(&container, errors);
        }
        names.add(&container.field("name"), errors);
        host_port_conflicts(&container, &mut BTreeSet::new(), errors);
        if stays {
            probes::validate(&container, pod.probes, errors);
            continue;
        }
        for field in ["lifecycle"].into_iter().chain(PROBES) {
            if container.field(field).exists() {
                errors.forbidden(&container.field(field), NOT_FOR_INIT);
            }
        }
        for policy in container.field("resizePolicy").items() {
            let restart = policy.field("restartPolicy");
            if restart.text() == "RestartContainer" {
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.invalid(&restart, detail);
            }
        }
    }
}

/// Fields that an ephemeral container has in common with others but may not use.
const NOT_FOR_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

fn ephemeral_containers(spec: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    const CANNOT: &str = "cannot be set for an Ephemeral Container";
    let mut names = Taken::default();
    for list in ["containers", "initContainers"] {
        spec.field(list).items().for_each(|other| names.know(other.field("name").text()));
    }
    let others = names.clone();
    for container in spec.field("ephemeralContainers").items() {
        common(&container, pod, errors);
        errors.unpadded(&container.field("image"));
        names.add(&container.field("name"), errors);
        let target = container.field("targetContainerName");
        if !target.text().is_empty() && !others.has(target.text()) {
            errors.not_found(&target);
        }
        for field in NOT_FOR_EPHEMERAL {
            let at = container.field(field);
            let empty =
                matches!(field, "ports" | "resizePolicy" | "restartPolicyRules" | "resources")
                    && at.count() == 0;
            if at.exists() && !empty {
                errors.forbidden(&at, CANNOT);
            }
        }
        for mount in container.field("volumeMounts").items() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.field(field).text().is_empty() {
                    errors.forbidden(&mount.field(field), CANNOT);
                }
            }
        }
    }
}

/// What is asked of a container of any role.
fn common(container: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    errors.needs_label(&container.field("name"));
    errors.needs_text(&container.field("image"));
    let policies = ["File", "FallbackToLogsOnError"];
    errors.one_of(&container.field("terminationMessagePolicy"), &policies, true);
    ports(container, errors);
    field_sources::env(container, errors);
    field_sources::env_from(container, errors);
    mounts(container, pod, errors);
    devices(container, pod, errors);
    errors.one_of(&container.field("imagePullPolicy"), &["Always", "IfNotPresent", "Never"], true);
    resources::validate_requirements(
        &container.field("resources"),
        Whose::Container,
        &pod.claims,
        errors,
    );
    resize_policy(&container.field("resizePolicy"), pod.restart_policy, errors);
    security::validate_container(&container.field("securityContext"), pod.host_users, errors);
}

/// What happens when a container of its own will ends (KEP-5307).
fn restart_policy(container: &At<'_, '_>, errors: &mut Errors) {
    let (policy, rules) = (container.field("restartPolicy"), container.field("restartPolicyRules"));
    let policies = ["Always", "Never", "OnFailure"];
    if !policy.exists() {
        if rules.count() > 0 {
            errors.required(&policy, "must specify restartPolicy when restart rules are used");
        }
    } else if !policies.contains(&policy.text()) {
        errors.not_supported(&policy, &policies);
    }
    if rules.count() > 20 {
        errors.too_long(&rules, 20);
    }
    for rule in rules.items() {
        let (action, codes) = (rule.field("action"), rule.field("exitCodes"));
        if action.text() != "Restart" {
            errors.not_supported_value(&action, action.text(), &["Restart"]);
        }
        if !codes.exists() {
            errors.required(&codes, "must be specified");
            continue;
        }
        let operator = codes.field("operator");
        if !matches!(operator.text(), "In" | "NotIn") {
            errors.not_supported_value(&operator, operator.text(), &["In", "NotIn"]);
        }
        if codes.field("values").count() > 255 {
            errors.too_long(&codes.field("values"), 255);
        }
    }
}

fn resize_policy(policies: &At<'_, '_>, restart_policy: &str, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for policy in policies.items() {
        let resource = policy.field("resourceName").text();
        let restart = policy.field("restartPolicy").text();
        if !taken.insert(resource) {
            errors.duplicate_value(&policy, resource);
        }
        // Upstream names the list, not the entry, from here on.
        match resource {
            "cpu" | "memory" => (),
            "" => errors.required(policies, ""),
            _ => errors.not_supported_value(policies, resource, &["cpu", "memory"]),
        }
        match restart {
            "NotRequired" | "RestartContainer" => (),
            "" => errors.required(policies, ""),
            _ => {
                let known = ["NotRequired", "RestartContainer"];
                errors.not_supported_value(policies, restart, &known);
            }
        }
        if restart_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid_value(policies, restart, detail);
        }
    }
}

fn ports(container: &At<'_, '_>, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for port in container.field("ports").items() {
        let name = port.field("name");
        if !name.text().is_empty() {
            match rules::is_port_name(name.text()) {
                wrong if !wrong.is_empty() => errors.invalid_each(&name, wrong),
                _ if !taken.insert(name.text()) => errors.duplicate(&name),
                _ => (),
            }
        }
        let number = port.field("containerPort");
        match number.int().unwrap_or(0) {
            0 => errors.required(&number, ""),
            _ => errors.port_number(&number),
        }
        let host = port.field("hostPort");
        if host.int().unwrap_or(0) != 0 {
            errors.port_number(&host);
        }
        errors.one_of(&port.field("protocol"), &["SCTP", "TCP", "UDP"], true);
    }
}

/// No two containers may want the same port of the node.
fn host_port_conflicts(container: &At<'_, '_>, taken: &mut BTreeSet<String>, errors: &mut Errors) {
    for port in container.field("ports").items() {
        let host = port.field("hostPort");
        let number = host.int().unwrap_or(0);
        if number == 0 {
            continue;
        }
        let (protocol, ip) = (port.field("protocol").text(), port.field("hostIP").text());
        let key = format!("{protocol}/{ip}/{number}");
        if !taken.insert(key.clone()) {
            errors.duplicate_value(&host, key);
        }
    }
}

fn mounts(container: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    let list = container.field("volumeMounts");
    let devices = container.field("volumeDevices");
    let mut paths = BTreeSet::new();
    for mount in list.items() {
        let (name, path) = (mount.field("name"), mount.field("mountPath"));
        errors.needs_text(&name);
        if !pod.volumes.has(name.text()) {
            errors.not_found_value(&name, name.text(), String::new());
        }
        errors.needs_text(&path);
        if !paths.insert(path.text()) {
            errors.invalid(&path, "must be unique");
        }
        let same = |field: &'static str, text: &str| {
            devices.items().any(|device| device.field(field).text() == text)
        };
        if same("name", name.text()) {
            errors.invalid(&name, "must not already exist in volumeDevices");
        }
        if same("devicePath", path.text()) {
            errors.invalid(&path, "must not already exist as a path in volumeDevices");
        }
        sub_paths(&list, &mount, errors);
        propagation(container, &mount, errors);
        recursive_read_only(&mount, errors);
    }
}

/// Upstream names the list where a path is wrong, the entry where there are two.
fn sub_paths(list: &At<'_, '_>, mount: &At<'_, '_>, errors: &mut Errors) {
    let (sub, expression) = (mount.field("subPath"), mount.field("subPathExpr"));
    let mut within = Errors::default();
    if !sub.text().is_empty() {
        descending(&sub, &mut within);
    }
    if !expression.text().is_empty() {
        if !sub.text().is_empty() {
            errors.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
        }
        descending(&expression, &mut within);
    }
    errors.adopt(within, mount, list);
}

fn propagation(container: &At<'_, '_>, mount: &At<'_, '_>, errors: &mut Errors) {
    let propagation = mount.field("mountPropagation");
    if !propagation.exists() {
        return;
    }
    let kinds = ["Bidirectional", "HostToContainer", "None"];
    if !kinds.contains(&propagation.text()) {
        errors.not_supported(&propagation, &kinds);
    }
    let privileged = container.field("securityContext").field("privileged").flag();
    if propagation.text() == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.forbidden(&propagation, detail);
    }
}

fn recursive_read_only(mount: &At<'_, '_>, errors: &mut Errors) {
    let mode = mount.field("recursiveReadOnly");
    match mode.text() {
        "" if !mode.exists() => (),
        "Disabled" => (),
        "Enabled" | "IfPossible" => {
            if !mount.field("readOnly").flag() {
                errors.forbidden(&mode, "may only be specified when readOnly is true");
            }
            if !matches!(mount.field("mountPropagation").text(), "" | "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(&mode, detail);
            }
        }
        _ => errors.not_supported(&mode, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    let mounts = container.field("volumeMounts");
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.field("volumeDevices").items() {
        let (name, path) = (device.field("name"), device.field("devicePath"));
        errors.needs_text(&name);
        if names.contains(name.text()) {
            errors.invalid(&name, "must be unique");
        }
        match pod.volumes.is_claim(name.text()) {
            Some(false) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or \
                              Ephemeral for block mode";
                errors.invalid(&name, detail);
            }
            Some(true) => (),
            None => errors.not_found_value(&name, name.text(), String::new()),
        }
        errors.needs_text(&path);
        if paths.contains(path.text()) {
            errors.invalid(&path, "must be unique");
        }
        let mut steps = Errors::default();
        no_back_steps(&path, &mut steps);
        if steps.0.is_empty() {
            paths.insert(path.text());
        } else {
            errors.invalid(&path, "can not contain backsteps ('..')");
        }
        let same = |field: &'static str, text: &str| {
            mounts.items().any(|mount| mount.field(field).text() == text)
        };
        if same("name", name.text()) {
            errors.invalid(&name, "must not already exist in volumeMounts");
        }
        if same("mountPath", path.text()) {
            errors.invalid(&path, "must not already exist as a path in volumeMounts");
        }
        if !name.text().is_empty() {
            names.insert(name.text());
        }
    }
}
