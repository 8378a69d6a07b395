//! Pods: containers that live and die together on one node.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{self, field::Errors, pod_spec, print},
};

fn completed(pod: &Object) -> Option<(&'static str, &'static str)> {
    match pod.str_at("/status/phase") {
        "Succeeded" => Some(("Succeeded", "All containers of the pod have ended well.")),
        "Failed" => Some(("Failed", "The pod has ended with an error.")),
        _ => None,
    }
}
use jiff::Timestamp;
use k8s::{FieldError, Object, apply::Scope, names};
use serde_json::{Value, json};

pub(super) const KIND: KindDef = KindDef {
    kind: "Pod",
    plural: "pods",
    short_names: &["po"],
    categories: &["all"],
    schema: "core.v1.Pod",
    subresources: &[
        Subresource::Status,
        Subresource::Named {
            name: "attach",
            schema: "core.v1.PodAttachOptions",
            verbs: &["create", "get"],
        },
        Subresource::Named { name: "binding", schema: "core.v1.Binding", verbs: &["create"] },
        Subresource::Named {
            name: "ephemeralcontainers",
            schema: "core.v1.Pod",
            verbs: &["get", "patch", "update"],
        },
        Subresource::Named { name: "eviction", schema: "policy.v1.Eviction", verbs: &["create"] },
        Subresource::Named {
            name: "exec",
            schema: "core.v1.PodExecOptions",
            verbs: &["create", "get"],
        },
        Subresource::Named { name: "log", schema: "core.v1.Pod", verbs: &["get"] },
        Subresource::Named {
            name: "portforward",
            schema: "core.v1.PodPortForwardOptions",
            verbs: &["create", "get"],
        },
        Subresource::Named {
            name: "proxy",
            schema: "core.v1.PodProxyOptions",
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Subresource::Named {
            name: "resize",
            schema: "core.v1.Pod",
            verbs: &["get", "patch", "update"],
        },
    ],
    completed,
    columns: &[
        Column::NAME,
        Column::text("Ready", |o, now| Summary::of(o, now).ready.into()),
        Column::text("Status", |o, now| Summary::of(o, now).status.into()),
        Column::text("Restarts", |o, now| Summary::of(o, now).restarts.into()),
        Column::AGE,
        Column::text("IP", ip).wide(),
        Column::text("Node", |o, _| print::text_or_none(o, "/spec/nodeName")).wide(),
        Column::text("Nominated Node", |o, _| print::text_or_none(o, "/status/nominatedNodeName"))
            .wide(),
        Column::text("Readiness Gates", readiness_gates).wide(),
    ],
    selectable: &[
        SelectableField::text("spec.nodeName", |o| o.str_at("/spec/nodeName").to_string()),
        SelectableField::text("spec.restartPolicy", |o| {
            o.str_at("/spec/restartPolicy").to_string()
        }),
        SelectableField::text("spec.schedulerName", |o| {
            o.str_at("/spec/schedulerName").to_string()
        }),
        SelectableField::text("spec.serviceAccountName", |o| {
            o.str_at("/spec/serviceAccountName").to_string()
        }),
        SelectableField::text("spec.hostNetwork", |o| {
            print::boolean(o, "/spec/hostNetwork").to_string()
        }),
        SelectableField::text("status.phase", |o| o.str_at("/status/phase").to_string()),
        SelectableField::text("status.podIP", |o| o.str_at("/status/podIP").to_string()),
        SelectableField::text("status.nominatedNodeName", |o| {
            o.str_at("/status/nominatedNodeName").to_string()
        }),
    ],
    default,
    prepare_create,
    prepare_update,
    prepare_status,
    status_scope: Scope::STATUS_BUT_OWNERS,
    validate,
    validate_part,
    validate_status,
    warnings,
    generation: true,
    grace_period_seconds,
    ..KindDef::BASE
};

fn default(pod: &mut Object) {
    let spec = pod.map_mut("spec");
    pod_spec::default(spec);
    pod_spec::default_pod(spec);
    if let Some(status) = common::child(&mut pod.0, "status") {
        addresses(status, "podIP", "podIPs");
    }
}

/// The old field is the first of the new one's.
fn addresses(status: &mut serde_json::Map<String, Value>, one: &str, all: &str) {
    let first = status.get(all).and_then(|all| all.pointer("/0/ip")).and_then(Value::as_str);
    let own = status.get(one).and_then(Value::as_str).filter(|own| !own.is_empty());
    match (own.map(String::from), first.map(String::from)) {
        (Some(own), first) if first.as_ref() != Some(&own) => {
            status.insert(all.into(), json!([{ "ip": own }]));
        }
        (None, Some(first)) => _ = status.insert(one.into(), first.into()),
        _ => (),
    }
}

/// A new pod waits, and its quality of service is decided once.
fn prepare_create(pod: &mut Object) {
    pod_spec::merge_label_keys(pod);
    let mut status = json!({ "phase": "Pending", "qosClass": pod_spec::qos_class(pod) });
    if print::count(pod, "/spec/schedulingGates") > 0 {
        status["conditions"] = json!([{
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null,
            "lastTransitionTime": null,
        }]);
    }
    pod.0.insert("status".into(), status);
}

fn prepare_update(new: &mut Object, old: &Object) {
    common::keep_status(new, old);
    let attached = old.at("/spec/ephemeralContainers").cloned();
    let spec = new.map_mut("spec");
    match attached {
        Some(attached) => spec.insert("ephemeralContainers".into(), attached),
        None => spec.remove("ephemeralContainers"),
    };
}

/// A status that leaves out the quality of service or a generation does not mean to change it.
fn prepare_status(new: &mut Object, old: &Object) {
    keep_generations(new, old);
    let class = old.str_at("/status/qosClass").to_string();
    if !class.is_empty() {
        common::set_text(new.map_mut("status"), "qosClass", &class);
    }
}

/// What was observed stays known to whoever does not know of generations (KEP-5067). There may be
/// several conditions of a type, which are taken in order.
fn keep_generations(new: &mut Object, old: &Object) {
    const FIELD: &str = "observedGeneration";
    let mut known: Vec<&Value> = print::list(old, "/status/conditions").iter().collect();
    let status = new.map_mut("status");
    if let Some(observed) = old.at("/status/observedGeneration") {
        common::set_default(status, FIELD, observed.clone());
    }
    for condition in common::children(status, "conditions") {
        let is_it = |old: &&Value| old.get("type") == condition.get("type");
        let Some(place) = known.iter().position(is_it) else { continue };
        if let Some(observed) = known.remove(place).get(FIELD) {
            common::set_default(condition, FIELD, observed.clone());
        }
    }
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    pod_spec::validate_pod(new, &mut errors);
    match old {
        None => pod_spec::validate_new(new, &mut errors),
        Some(old) => pod_spec::validate_update(new, old, &mut errors),
    }
    errors.0
}

fn validate_part(subresource: &str, new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    pod_spec::validate_pod(new, &mut errors);
    match subresource {
        "ephemeralcontainers" => pod_spec::validate_ephemeral(new, old, &mut errors),
        _ => pod_spec::validate_resize(new, old, &mut errors),
    }
    errors.0
}

fn validate_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    pod_spec::validate_status(new, old, &mut errors);
    errors.0
}

/// Updates of pods come from programs and often; they are not warned of.
fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let name = names::is_dns1123_label(new.name());
    let mut warnings = Vec::new();
    if !name.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising \
             behavior; a DNS label is recommended: [{}]",
            name.join(" ")
        ));
    }
    warnings.extend(pod_spec::warnings(new));
    warnings
}

/// What the client asks, else what the pod says, else 30; at once if no node runs it.
fn grace_period_seconds(pod: &Object, requested: Option<i64>) -> i64 {
    let asked = requested.or_else(|| pod.int_at("/spec/terminationGracePeriodSeconds"));
    let ended = matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed");
    match asked.unwrap_or(30) {
        _ if ended || pod.str_at("/spec/nodeName").is_empty() => 0,
        ..0 => 1,
        seconds => seconds,
    }
}

/// What upstream's printer makes of the statuses of the containers.
struct Summary {
    ready: String,
    status: String,
    restarts: String,
}

/// Restarts counted so far, and when the last container before a restart ended.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += status.get("restartCount").and_then(Value::as_i64).unwrap_or(0);
        let ended = status.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str);
        self.last = self.last.max(ended.and_then(|time| time.parse().ok()));
    }
}

impl Summary {
    fn of(pod: &Object, now: Timestamp) -> Summary {
        let init = Init::of(pod);
        let mut status = match pod.str_at("/status/reason") {
            "" => pod.str_at("/status/phase").to_string(),
            reason => reason.to_string(),
        };
        if condition(pod, "PodScheduled")
            .is_some_and(|c| print::field(c, "reason") == "SchedulingGated")
        {
            status = "SchedulingGated".into();
        }
        let mut ready = init.ready;
        let mut restarts = init.restarts;
        match init.reason {
            Some(reason) if !is_true(pod, "Initialized") => status = reason,
            reason => {
                status = reason.unwrap_or(status);
                restarts = init.sidecar_restarts;
                status = main_containers(pod, status, &mut ready, &mut restarts);
            }
        }
        let ended = matches!(pod.str_at("/status/phase"), "Succeeded" | "Failed");
        if pod.deletion_timestamp().is_some() {
            if pod.str_at("/status/reason") == "NodeLost" {
                status = "Unknown".into();
            } else if !ended {
                status = "Terminating".into();
            }
        }
        let total = print::count(pod, "/spec/containers") + init.sidecars;
        let restarts = match restarts.last {
            Some(last) if restarts.count > 0 => {
                let ago = print::human_duration(now.as_second() - last.as_second());
                format!("{} ({ago} ago)", restarts.count)
            }
            _ => restarts.count.to_string(),
        };
        Summary { ready: format!("{ready}/{total}"), status, restarts }
    }
}

/// How far the init containers are.
#[derive(Default)]
struct Init {
    /// `Init:1/2`, … while one of them is not done.
    reason: Option<String>,
    /// Restartable ones, which count as containers.
    sidecars: usize,
    ready: usize,
    restarts: Restarts,
    sidecar_restarts: Restarts,
}

impl Init {
    fn of(pod: &Object) -> Init {
        let specs = print::list(pod, "/spec/initContainers");
        let is_sidecar = |name: &str| {
            let spec = specs.iter().find(|spec| print::field(spec, "name") == name);
            spec.is_some_and(|spec| print::field(spec, "restartPolicy") == "Always")
        };
        let sidecars = specs.iter().filter(|spec| print::field(spec, "restartPolicy") == "Always");
        let mut init = Init { sidecars: sidecars.count(), ..Init::default() };
        for (at, status) in print::list(pod, "/status/initContainerStatuses").iter().enumerate() {
            init.restarts.add(status);
            let sidecar = is_sidecar(print::field(status, "name"));
            if sidecar {
                init.sidecar_restarts.add(status);
            }
            let flag = |name: &str| status.get(name).and_then(Value::as_bool).unwrap_or(false);
            let terminated = status.pointer("/state/terminated");
            if terminated.is_some_and(|end| exit_code(end) == 0) {
                continue;
            }
            if sidecar && flag("started") {
                init.ready += usize::from(flag("ready"));
                continue;
            }
            let waiting =
                status.pointer("/state/waiting").map_or("", |wait| print::field(wait, "reason"));
            init.reason = Some(match (terminated, waiting) {
                (Some(end), _) => format!("Init:{}", end_reason(end)),
                (None, "" | "PodInitializing") => format!("Init:{at}/{}", specs.len()),
                (None, waiting) => format!("Init:{waiting}"),
            });
            break;
        }
        init
    }
}

/// The last container with something to say decides.
fn main_containers(
    pod: &Object,
    status: String,
    ready: &mut usize,
    restarts: &mut Restarts,
) -> String {
    let (mut status, mut running, mut failed) = (status, false, None);
    for container in print::list(pod, "/status/containerStatuses").iter().rev() {
        restarts.add(container);
        let waiting =
            container.pointer("/state/waiting").map_or("", |wait| print::field(wait, "reason"));
        let is_ready = container.get("ready").and_then(Value::as_bool).unwrap_or(false);
        if !waiting.is_empty() {
            status = waiting.to_string();
        } else if let Some(end) = container.pointer("/state/terminated") {
            status = end_reason(end);
            if exit_code(end) != 0 {
                failed = Some(status.clone());
            }
        } else if is_ready && container.pointer("/state/running").is_some() {
            running = true;
            *ready += 1;
        }
    }
    match failed {
        _ if status != "Completed" => status,
        _ if running && is_true(pod, "Ready") => "Running".into(),
        Some(failed) => failed,
        None if running => "NotReady".into(),
        None => status,
    }
}

fn exit_code(terminated: &Value) -> i64 {
    terminated.get("exitCode").and_then(Value::as_i64).unwrap_or(0)
}

fn end_reason(terminated: &Value) -> String {
    let signal = terminated.get("signal").and_then(Value::as_i64).unwrap_or(0);
    match print::field(terminated, "reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", exit_code(terminated)),
        reason => reason.to_string(),
    }
}

fn condition<'a>(pod: &'a Object, kind: &str) -> Option<&'a Value> {
    let conditions = print::list(pod, "/status/conditions");
    conditions.iter().find(|condition| print::field(condition, "type") == kind)
}

fn is_true(pod: &Object, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| print::field(condition, "status") == "True")
}

fn ip(pod: &Object, _: Timestamp) -> Value {
    match print::list(pod, "/status/podIPs").first() {
        Some(first) => print::field(first, "ip").into(),
        None => print::text_or_none(pod, "/status/podIP"),
    }
}

/// How many of the conditions the pod waits for are true.
fn readiness_gates(pod: &Object, _: Timestamp) -> Value {
    let gates = print::list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let met = gates.iter().filter(|gate| is_true(pod, print::field(gate, "conditionType"))).count();
    format!("{met}/{}", gates.len()).into()
}
