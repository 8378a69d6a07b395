//! The checks of the Pod Security Standards, in upstream's order and words
//! (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).

use super::policy::{Level, Policy};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A pod, or the template of one.
pub(super) struct Pod<'a> {
    annotations: Vec<(&'a str, &'a str)>,
    spec: &'a Value,
    /// Minor of the version whose rules hold.
    minor: u32,
}

/// Why a check fails: in a word, and in detail.
type Found = Option<(String, String)>;

struct Check {
    /// The first `v1.minor` that has it.
    since: u32,
    restricted: bool,
    /// A stricter check stands for it where the level is `restricted` (from this minor on).
    replaced_since: Option<u32>,
    run: fn(&Pod<'_>) -> Found,
}

const fn baseline(since: u32, run: fn(&Pod<'_>) -> Found) -> Check {
    Check { since, restricted: false, replaced_since: None, run }
}

const fn restricted(since: u32, run: fn(&Pod<'_>) -> Found) -> Check {
    Check { since, restricted: true, replaced_since: None, run }
}

/// By upstream's identifiers, baseline first.
const CHECKS: &[Check] = &[
    baseline(0, app_armor),
    Check { replaced_since: Some(22), ..baseline(0, added_capabilities) },
    baseline(0, host_namespaces),
    Check { replaced_since: Some(0), ..baseline(0, host_paths) },
    baseline(0, host_ports),
    baseline(34, probe_hosts),
    baseline(0, privileged),
    baseline(0, proc_mount),
    baseline(0, se_linux),
    Check { replaced_since: Some(19), ..baseline(0, seccomp_baseline) },
    baseline(0, sysctls),
    baseline(0, host_process),
    restricted(8, privilege_escalation),
    restricted(22, dropped_capabilities),
    restricted(0, volume_types),
    restricted(0, run_as_non_root),
    restricted(23, run_as_user),
    restricted(19, seccomp_restricted),
];

/// Every check of the policy that the pod fails.
pub(super) fn run(pod: &Pod<'_>, policy: &Policy) -> Vec<(String, String)> {
    let minor = policy.version.unwrap_or(u32::MAX);
    let pod = Pod { annotations: pod.annotations.clone(), spec: pod.spec, minor };
    let due = |check: &&Check| {
        let replaced = policy.level == Level::Restricted
            && check.replaced_since.is_some_and(|since| since <= minor);
        let level = if check.restricted { Level::Restricted } else { Level::Baseline };
        level <= policy.level && check.since <= minor && !replaced
    };
    CHECKS.iter().filter(due).filter_map(|check| (check.run)(&pod)).collect()
}

impl<'a> Pod<'a> {
    /// `None`: there is no spec.
    pub(super) fn of(object: &'a Map<String, Value>) -> Option<Pod<'a>> {
        let annotations = object.get("metadata").and_then(|meta| meta.get("annotations"));
        let annotations = annotations.and_then(Value::as_object).into_iter().flatten();
        Some(Pod {
            annotations: annotations
                .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
                .collect(),
            spec: object.get("spec")?,
            minor: u32::MAX,
        })
    }

    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        let fields = ["initContainers", "containers", "ephemeralContainers"];
        fields.into_iter().flat_map(move |field| list(spec, field))
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        list(self.spec, "volumes")
    }

    /// Names of the containers that `bad` says so of.
    fn bad(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| bad(container)).map(|it| text(it, "name")).collect()
    }

    fn is_windows(&self) -> bool {
        at(self.spec, "/os/name").and_then(Value::as_str) == Some("windows")
    }

    /// The pod itself and its containers of which `bad` says so, as they begin a sentence; `bad`
    /// sees a security context.
    fn setters(&self, bad: impl Fn(&Value) -> bool) -> Option<String> {
        let context = |of: &Value| of.get("securityContext").is_some_and(&bad);
        let mut setters: Vec<String> = Vec::new();
        if context(self.spec) {
            setters.push("pod".into());
        }
        let containers = self.bad(context);
        if !containers.is_empty() {
            setters.push(named("container", &containers));
        }
        Some(setters.join(" and ")).filter(|text| !text.is_empty())
    }
}

fn list<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn at<'a>(of: &'a Value, pointer: &str) -> Option<&'a Value> {
    of.pointer(pointer).filter(|value| !value.is_null())
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    of.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn is_true(of: &Value, pointer: &str) -> bool {
    at(of, pointer) == Some(&Value::Bool(true))
}

fn is_false(of: &Value, pointer: &str) -> bool {
    at(of, pointer) == Some(&Value::Bool(false))
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> =
        texts.into_iter().map(|text| format!("\"{}\"", text.as_ref())).collect();
    quoted.join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn named(what: &str, names: &[&str]) -> String {
    let end = plural("", "s", names.len());
    format!("{what}{end} {}", quoted(names))
}

fn found(reason: &str, detail: String) -> Found {
    Some((reason.to_string(), detail))
}

/// Of containers, if there are any.
fn of_containers(names: &[&str], reason: &str, what: &str) -> Found {
    (!names.is_empty()).then(|| (reason.into(), format!("{} {what}", named("container", names))))
}

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn app_armor(pod: &Pod<'_>) -> Found {
    let mut values = BTreeSet::new();
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let kind = |context: &Value| {
        let kind = at(context, "/appArmorProfile/type").and_then(Value::as_str);
        kind.filter(|kind| !allowed(kind)).map(str::to_string)
    };
    let mut setters: Vec<String> =
        pod.setters(|context| kind(context).is_some()).into_iter().collect();
    let contexts = std::iter::once(pod.spec).chain(pod.containers());
    values.extend(contexts.filter_map(|of| kind(of.get("securityContext")?)));
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let notes = pod.annotations.iter().filter(|(key, v)| key.starts_with(APP_ARMOR) && !allowed(v));
    let mut bad: Vec<String> = Vec::new();
    for (key, value) in notes {
        bad.push(format!("{key}={value:?}"));
        values.insert((*value).to_string());
    }
    if !bad.is_empty() {
        bad.sort();
        let what = plural("annotation", "annotations", bad.len());
        setters.push(format!("{what} {}", bad.join(", ")));
    }
    if setters.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let who = setters.join(" and ");
    found(reason, format!("{who} must not set AppArmor profile type to {}", quoted(&values)))
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities<'a>(container: &'a Value, which: &str) -> impl Iterator<Item = &'a str> {
    let list = at(container, &format!("/securityContext/capabilities/{which}"));
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str)
}

/// What containers add beyond `allowed`: who, and what.
fn added<'a>(pod: &Pod<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, BTreeSet<String>)> {
    let mut all = BTreeSet::new();
    let mut who = Vec::new();
    for container in pod.containers() {
        let bad = capabilities(container, "add").filter(|name| !allowed.contains(name));
        let bad: Vec<String> = bad.map(str::to_string).collect();
        if !bad.is_empty() {
            who.push(text(container, "name"));
            all.extend(bad);
        }
    }
    (!who.is_empty()).then_some((who, all))
}

fn must_not_add(who: &[&str], what: &BTreeSet<String>) -> String {
    let who = named("container", who);
    format!("{who} must not include {} in securityContext.capabilities.add", quoted(what))
}

fn added_capabilities(pod: &Pod<'_>) -> Found {
    let (who, what) = added(pod, DEFAULT_CAPABILITIES)?;
    found("non-default capabilities", must_not_add(&who, &what))
}

fn dropped_capabilities(pod: &Pod<'_>) -> Found {
    if pod.minor >= 25 && pod.is_windows() {
        return None;
    }
    let mut details = Vec::new();
    let keep = pod.bad(|container| !capabilities(container, "drop").any(|name| name == "ALL"));
    if !keep.is_empty() {
        let who = named("container", &keep);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if let Some((who, what)) = added(pod, &["NET_BIND_SERVICE"]) {
        details.push(must_not_add(&who, &what));
    }
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Pod<'_>) -> Found {
    let fields = ["hostNetwork", "hostPID", "hostIPC"].iter();
    let set = fields.filter(|field| pod.spec.get(**field) == Some(&Value::Bool(true)));
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { found("host namespaces", set.join(", ")) }
}

fn host_paths(pod: &Pod<'_>) -> Found {
    let bad = pod.volumes().filter(|volume| at(volume, "/hostPath").is_some());
    let names: Vec<&str> = bad.map(|volume| text(volume, "name")).collect();
    if names.is_empty() { None } else { found("hostPath volumes", named("volume", &names)) }
}

fn host_ports(pod: &Pod<'_>) -> Found {
    let ports = |container: &Value| -> Vec<String> {
        let ports = list(container, "ports").filter_map(|port| port.get("hostPort")?.as_i64());
        ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let who = pod.bad(|container| !ports(container).is_empty());
    if who.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = pod.containers().flat_map(ports).collect();
    let (use_, what) =
        (plural("uses", "use", who.len()), plural("hostPort", "hostPorts", all.len()));
    let all: Vec<String> = all.into_iter().collect();
    found("hostPort", format!("{} {use_} {what} {}", named("container", &who), all.join(", ")))
}

fn probe_hosts(pod: &Pod<'_>) -> Found {
    const HANDLERS: &[&str] = &[
        "/livenessProbe",
        "/readinessProbe",
        "/startupProbe",
        "/lifecycle/postStart",
        "/lifecycle/preStop",
    ];
    let hosts = |container: &Value| -> BTreeSet<String> {
        let handlers = HANDLERS.iter().filter_map(|handler| at(container, handler));
        let hosts = handlers.flat_map(|handler| {
            ["/httpGet/host", "/tcpSocket/host"].map(|host| at(handler, host)?.as_str())
        });
        hosts.flatten().filter(|host| !host.is_empty()).map(str::to_string).collect()
    };
    let who: BTreeSet<&str> =
        pod.bad(|container| !hosts(container).is_empty()).into_iter().collect();
    if who.is_empty() {
        return None;
    }
    let who: Vec<&str> = who.into_iter().collect();
    let all: BTreeSet<String> = pod.containers().flat_map(hosts).collect();
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
    let use_ = plural("uses", "use", who.len());
    let detail = format!("{} {use_} {what} {}", named("container", &who), quoted(&all));
    found("probe or lifecycle host", detail)
}

fn privileged(pod: &Pod<'_>) -> Found {
    let bad = pod.bad(|container| is_true(container, "/securityContext/privileged"));
    of_containers(&bad, "privileged", "must not set securityContext.privileged=true")
}

fn proc_mount(pod: &Pod<'_>) -> Found {
    let mut values = BTreeSet::new();
    let kind = |container: &Value| {
        let kind = at(container, "/securityContext/procMount").and_then(Value::as_str);
        kind.filter(|kind| *kind != "Default").map(str::to_string)
    };
    let bad = pod.bad(|container| kind(container).is_some());
    values.extend(pod.containers().filter_map(kind));
    let what = format!("must not set securityContext.procMount to {}", quoted(&values));
    of_containers(&bad, "procMount", &what)
}

fn se_linux(pod: &Pod<'_>) -> Found {
    let allowed = |kind: &str| {
        matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (pod.minor >= 31 && kind == "container_engine_t")
    };
    let options = |context: &Value| at(context, "/seLinuxOptions").cloned();
    let bad_type = |options: &Value| !allowed(text(options, "type"));
    let sets = |options: &Value, field: &str| !text(options, field).is_empty();
    let bad = |options: &Value| bad_type(options) || sets(options, "user") || sets(options, "role");
    let who = pod.setters(|context| options(context).is_some_and(|it| bad(&it)))?;
    let contexts = std::iter::once(pod.spec).chain(pod.containers());
    let all: Vec<Value> = contexts.filter_map(|of| options(of.get("securityContext")?)).collect();
    let types: BTreeSet<&str> =
        all.iter().filter(|it| bad_type(it)).map(|it| text(it, "type")).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|it| sets(it, field)) {
            data.push(format!("{field} may not be set"));
        }
    }
    let data = data.join("; ");
    found("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {data}"))
}

fn seccomp_kind(context: &Value) -> Option<&str> {
    at(context, "/seccompProfile/type").and_then(Value::as_str)
}

fn good_seccomp(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

fn forbidden_seccomp(pod: &Pod<'_>) -> Found {
    let bad = |context: &Value| seccomp_kind(context).is_some_and(|kind| !good_seccomp(kind));
    let who = pod.setters(bad)?;
    let contexts = std::iter::once(pod.spec).chain(pod.containers());
    let kinds = contexts.filter_map(|of| seccomp_kind(of.get("securityContext")?));
    let kinds: BTreeSet<&str> = kinds.filter(|kind| !good_seccomp(kind)).collect();
    let what = "must not set securityContext.seccompProfile.type to";
    found("seccompProfile", format!("{who} {what} {}", quoted(&kinds)))
}

fn seccomp_baseline(pod: &Pod<'_>) -> Found {
    if pod.minor >= 19 {
        return forbidden_seccomp(pod);
    }
    const OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let good = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let names: BTreeSet<&str> = pod.containers().map(|container| text(container, "name")).collect();
    let ours = |key: &str| {
        key == OF_POD || key.strip_prefix(OF_CONTAINER).is_some_and(|name| names.contains(name))
    };
    let bad = pod.annotations.iter().filter(|(key, value)| ours(key) && !good(value));
    let bad: BTreeSet<String> = bad.map(|(key, value)| format!("{key}={value:?}")).collect();
    if bad.is_empty() {
        return None;
    }
    let what = plural("annotation", "annotations", bad.len());
    let bad: Vec<String> = bad.into_iter().collect();
    found("seccompProfile", format!("forbidden {what} {}", bad.join(", ")))
}

fn seccomp_restricted(pod: &Pod<'_>) -> Found {
    if pod.minor >= 25 && pod.is_windows() {
        return None;
    }
    if let Some(explicit) = forbidden_seccomp(pod) {
        return Some(explicit);
    }
    let set = |of: &Value| of.get("securityContext").and_then(seccomp_kind).is_some();
    if set(pod.spec) {
        return None;
    }
    let who = pod.bad(|container| !set(container));
    let what =
        "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    (!who.is_empty())
        .then(|| ("seccompProfile".into(), format!("pod or {} {what}", named("container", &who))))
}

fn sysctls(pod: &Pod<'_>) -> Found {
    const SAFE: &[(u32, &str)] = &[
        (0, "kernel.shm_rmid_forced"),
        (0, "net.ipv4.ip_local_port_range"),
        (0, "net.ipv4.ip_unprivileged_port_start"),
        (0, "net.ipv4.ping_group_range"),
        (0, "net.ipv4.tcp_syncookies"),
        (27, "net.ipv4.ip_local_reserved_ports"),
        (29, "net.ipv4.tcp_fin_timeout"),
        (29, "net.ipv4.tcp_keepalive_intvl"),
        (29, "net.ipv4.tcp_keepalive_probes"),
        (29, "net.ipv4.tcp_keepalive_time"),
        (32, "net.ipv4.tcp_rmem"),
        (32, "net.ipv4.tcp_wmem"),
    ];
    let safe = |name: &str| SAFE.iter().any(|(since, safe)| *safe == name && *since <= pod.minor);
    let context = pod.spec.get("securityContext");
    let names = context.into_iter().flat_map(|context| list(context, "sysctls"));
    let bad: Vec<&str> =
        names.map(|sysctl| text(sysctl, "name")).filter(|name| !safe(name)).collect();
    if bad.is_empty() { None } else { found("forbidden sysctls", bad.join(", ")) }
}

fn host_process(pod: &Pod<'_>) -> Found {
    let who = pod.setters(|context| is_true(context, "/windowsOptions/hostProcess"))?;
    let what = "must not set securityContext.windowsOptions.hostProcess=true";
    found("hostProcess", format!("{who} {what}"))
}

fn privilege_escalation(pod: &Pod<'_>) -> Found {
    if pod.minor >= 25 && pod.is_windows() {
        return None;
    }
    let bad =
        pod.bad(|container| !is_false(container, "/securityContext/allowPrivilegeEscalation"));
    let what = "must set securityContext.allowPrivilegeEscalation=false";
    of_containers(&bad, "allowPrivilegeEscalation != false", what)
}

fn volume_types(pod: &Pod<'_>) -> Found {
    const ALLOWED: &[&str] = &[
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let kind = |volume: &Value| -> Option<String> {
        let fields = volume.as_object().into_iter().flatten();
        let mut kinds = fields.filter(|(field, value)| *field != "name" && !value.is_null());
        let kind = kinds.next().map_or("unknown", |(field, _)| field.as_str());
        (!ALLOWED.contains(&kind)).then(|| kind.to_string())
    };
    let bad = pod.volumes().filter(|volume| kind(volume).is_some());
    let names: Vec<&str> = bad.map(|volume| text(volume, "name")).collect();
    if names.is_empty() {
        return None;
    }
    let kinds: BTreeSet<String> = pod.volumes().filter_map(kind).collect();
    let use_ = plural("uses", "use", names.len());
    let what = plural("restricted volume type", "restricted volume types", kinds.len());
    let detail = format!("{} {use_} {what} {}", named("volume", &names), quoted(&kinds));
    found("restricted volume types", detail)
}

/// In a user namespace root is nobody (KEP-127).
fn in_user_namespace(pod: &Pod<'_>) -> bool {
    pod.minor >= 35 && pod.spec.get("hostUsers") == Some(&Value::Bool(false))
}

fn run_as_non_root(pod: &Pod<'_>) -> Found {
    if in_user_namespace(pod) {
        return None;
    }
    let reason = "runAsNonRoot != true";
    if let Some(who) = pod.setters(|context| is_false(context, "/runAsNonRoot")) {
        return found(reason, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if is_true(pod.spec, "/securityContext/runAsNonRoot") {
        return None;
    }
    let bad = pod.bad(|container| at(container, "/securityContext/runAsNonRoot").is_none());
    let what = "must set securityContext.runAsNonRoot=true";
    (!bad.is_empty())
        .then(|| (reason.into(), format!("pod or {} {what}", named("container", &bad))))
}

fn run_as_user(pod: &Pod<'_>) -> Found {
    if in_user_namespace(pod) {
        return None;
    }
    let root = |context: &Value| at(context, "/runAsUser").and_then(Value::as_i64) == Some(0);
    let who = pod.setters(root)?;
    found("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
