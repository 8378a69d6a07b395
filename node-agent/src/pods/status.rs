//! A pod's status as the API shows it, from what is observed. Pure.

use super::{
    container::{ephemeral_containers, find_container, qos_class},
    plan::Phase,
};
use crate::runtime::State;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec,
        PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use std::collections::BTreeMap;

/// What the status says of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The newest container of that name, if one was created.
    pub(crate) id: Option<String>,
    pub(crate) image_id: String,
    pub(crate) state: Option<State>,
    /// How the one before it ended.
    pub(crate) last: Option<(String, State)>,
    /// Reason and message of why it does not run now.
    pub(crate) waiting: Option<(String, String)>,
    pub(crate) restarts: u32,
    pub(crate) started: bool,
    pub(crate) ready: bool,
}

/// What the status says of the pod.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    pub(crate) phase: Phase,
    /// Reason and message, such as `DeadlineExceeded`.
    pub(crate) reason: Option<(String, String)>,
    pub(crate) containers: BTreeMap<String, Seen>,
    pub(crate) initialized: bool,
    pub(crate) sandbox_ready: bool,
    pub(crate) pod_ip: Option<String>,
    pub(crate) host_ip: String,
    pub(crate) started_at: Timestamp,
    pub(crate) now: Timestamp,
}

/// The whole status. Conditions of others (`PodScheduled`, readiness gates) are kept from `pod`, as
/// are transition times of conditions that do not change.
pub(crate) fn build(pod: &Pod, summary: &Summary) -> PodStatus {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let old = pod.status.clone().unwrap_or_default();
    let statuses = |list: &[Container]| -> Vec<ContainerStatus> {
        list.iter().map(|container| container_status(container, summary)).collect()
    };
    let init = statuses(spec.init_containers.as_deref().unwrap_or_default());
    let main = statuses(&spec.containers);
    let ephemeral: Vec<ContainerStatus> = ephemeral_containers(spec)
        .map(|container| ContainerStatus {
            // Nobody waits for one.
            ready: false,
            started: None,
            ..container_status(&container, summary)
        })
        .collect();
    let conditions = conditions(pod, &old, summary, &init, &main);
    let (reason, message) = summary.reason.clone().unzip();
    let ips = summary.pod_ip.iter();
    PodStatus {
        phase: Some(format!("{:?}", summary.phase)),
        conditions: Some(conditions),
        reason,
        message,
        host_ip: Some(summary.host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: summary.host_ip.clone() }]),
        pod_ip: summary.pod_ip.clone(),
        pod_ips: summary.pod_ip.as_ref().map(|_| ips.map(|ip| PodIP { ip: ip.clone() }).collect()),
        start_time: old.start_time.clone().or(Some(Time(whole_seconds(summary.started_at)))),
        qos_class: old.qos_class.clone().or_else(|| Some(qos_class(spec).to_string())),
        observed_generation: pod.metadata.generation,
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..old
    }
}

/// API times have no fraction.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn container_status(container: &Container, summary: &Summary) -> ContainerStatus {
    let none = Seen::default();
    let seen = summary.containers.get(&container.name).unwrap_or(&none);
    let (state, mut last) = match (&seen.waiting, &seen.state) {
        (Some((reason, message)), state) => {
            let ended = state.as_ref().filter(|state| matches!(state, State::Exited { .. }));
            let last = ended.and_then(|state| Some((seen.id.clone()?, state.clone())));
            (waiting(reason, message), last.or_else(|| seen.last.clone()))
        }
        (None, Some(State::Running { started_at })) => (running(*started_at), seen.last.clone()),
        (None, Some(state @ State::Exited { .. })) => {
            let id = seen.id.clone().unwrap_or_default();
            (terminated(&id, state), seen.last.clone())
        }
        (None, Some(State::Created)) => (waiting("ContainerCreating", ""), seen.last.clone()),
        (None, None) => {
            let initializing = !summary.initialized
                && summary.containers.contains_key(&container.name)
                && summary.sandbox_ready;
            let reason = if initializing { "PodInitializing" } else { "ContainerCreating" };
            (waiting(reason, ""), seen.last.clone())
        }
    };
    let is_running = matches!(seen.state, Some(State::Running { .. })) && seen.waiting.is_none();
    if last.as_ref().is_some_and(|(_, state)| !matches!(state, State::Exited { .. })) {
        last = None;
    }
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: seen.image_id.clone(),
        container_id: seen.id.as_ref().map(|id| container_id(id)),
        ready: seen.ready,
        started: Some(is_running && seen.started),
        restart_count: i32::try_from(seen.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(
            last.map_or_else(ContainerState::default, |(id, state)| terminated(&id, &state)),
        ),
        ..ContainerStatus::default()
    }
}

/// As the API writes ids: the runtime's name is the scheme.
pub(crate) fn container_id(id: &str) -> String {
    format!("coxswain://{id}")
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |text: &str| Some(text.to_string()).filter(|text| !text.is_empty());
    let waiting = ContainerStateWaiting { reason: text(reason), message: text(message) };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn running(started_at: Timestamp) -> ContainerState {
    let running = ContainerStateRunning { started_at: Some(Time(whole_seconds(started_at))) };
    ContainerState { running: Some(running), ..ContainerState::default() }
}

fn terminated(id: &str, state: &State) -> ContainerState {
    let State::Exited { code, signal, started_at, finished_at, oom_killed, message } = state else {
        return ContainerState::default();
    };
    let reason = match (oom_killed, code) {
        (true, _) => "OOMKilled",
        (false, 0) => "Completed",
        (false, 128) if started_at.is_none() => "StartError",
        (false, _) => "Error",
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id(id)),
        exit_code: *code,
        signal: *signal,
        reason: Some(reason.to_string()),
        message: Some(message.clone()).filter(|message| !message.is_empty()),
        started_at: started_at.map(|time| Time(whole_seconds(time))),
        finished_at: Some(Time(whole_seconds(*finished_at))),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// The conditions this agent owns, then those of others.
fn conditions(
    pod: &Pod,
    old: &PodStatus,
    summary: &Summary,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Vec<PodCondition> {
    let succeeded = summary.phase == Phase::Succeeded;
    let done = Some(("PodCompleted".to_string(), String::new()));
    let unready = |list: &[ContainerStatus], sidecars_only: bool| -> Vec<String> {
        let counted = |status: &&ContainerStatus| {
            !sidecars_only
                || find_container(pod, &status.name)
                    .is_some_and(|container| container.restart_policy.as_deref() == Some("Always"))
        };
        let unready = list.iter().filter(counted).filter(|status| !status.ready);
        unready.map(|status| status.name.clone()).collect()
    };
    let mut not_ready = unready(init, true);
    not_ready.extend(unready(main, false));
    let containers = if succeeded {
        (false, done.clone())
    } else if summary.phase == Phase::Failed {
        (false, Some(("PodFailed".to_string(), String::new())))
    } else if not_ready.is_empty() {
        (true, None)
    } else {
        let text = format!("containers with unready status: [{}]", not_ready.join(" "));
        (false, Some(("ContainersNotReady".to_string(), text)))
    };
    let initialized = if summary.initialized {
        (true, done.filter(|_| succeeded))
    } else {
        let waits: Vec<String> = init
            .iter()
            .filter(|status| !finished(status))
            .map(|status| status.name.clone())
            .collect();
        let text = format!("containers with incomplete status: [{}]", waits.join(" "));
        (false, Some(("ContainersNotInitialized".to_string(), text)))
    };
    let ready = readiness_gates(pod, old, &containers);
    let owned = [
        ("PodReadyToStartContainers", (summary.sandbox_ready, None)),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers),
    ];
    let mut list: Vec<PodCondition> = owned
        .into_iter()
        .map(|(kind, (status, why))| condition(pod, old, kind, status, why, summary.now))
        .collect();
    let others = old.conditions.iter().flatten();
    list.extend(others.filter(|one| !owned_names().contains(&one.type_.as_str())).cloned());
    list
}

fn owned_names() -> [&'static str; 4] {
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"]
}

fn finished(status: &ContainerStatus) -> bool {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0) || status.started == Some(true)
}

type Verdict = (bool, Option<(String, String)>);

fn readiness_gates(pod: &Pod, old: &PodStatus, containers: &Verdict) -> Verdict {
    if !containers.0 {
        return containers.clone();
    }
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let passed = |kind: &str| {
        let conditions = old.conditions.iter().flatten();
        conditions.into_iter().any(|one| one.type_ == kind && one.status == "True")
    };
    let missing: Vec<&str> =
        gates.map(|gate| gate.condition_type.as_str()).filter(|kind| !passed(kind)).collect();
    match missing.first() {
        None => (true, None),
        Some(kind) => {
            let text =
                format!("the status of pod readiness gate {kind:?} is not \"True\", but \"False\"");
            (false, Some(("ReadinessGatesNotReady".to_string(), text)))
        }
    }
}

fn condition(
    pod: &Pod,
    old: &PodStatus,
    kind: &str,
    status: bool,
    why: Option<(String, String)>,
    now: Timestamp,
) -> PodCondition {
    let status = if status { "True" } else { "False" };
    let before = old.conditions.iter().flatten().find(|one| one.type_ == kind);
    let since = before
        .filter(|one| one.status == status)
        .and_then(|one| one.last_transition_time.clone())
        .unwrap_or(Time(whole_seconds(now)));
    let (reason, message) = why.unzip();
    PodCondition {
        type_: kind.to_string(),
        status: status.to_string(),
        last_transition_time: Some(since),
        reason,
        message: message.filter(|message| !message.is_empty()),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn exited(code: i32) -> State {
        State::Exited {
            code,
            signal: None,
            started_at: Some(time(1)),
            finished_at: time(5),
            oom_killed: false,
            message: "bye".into(),
        }
    }

    fn check(phase: Phase, app: Seen) -> serde_json::Value {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 2},
            "spec": {"containers": [{"name": "app", "image": "demo:1"}]},
            "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]},
        }))
        .unwrap();
        let summary = Summary {
            phase,
            reason: None,
            containers: [("app".to_string(), app)].into(),
            initialized: true,
            sandbox_ready: true,
            pod_ip: Some("10.244.1.2".into()),
            host_ip: "10.90.0.21".into(),
            started_at: time(0),
            now: time(9),
        };
        serde_json::to_value(build(&pod, &summary)).unwrap()
    }

    #[test]
    fn running_and_ready() {
        let app = Seen {
            id: Some("abc".into()),
            image_id: "sha256:1".into(),
            state: Some(State::Running { started_at: time(6) }),
            last: Some(("old".into(), exited(3))),
            restarts: 1,
            started: true,
            ready: true,
            ..Seen::default()
        };
        insta::assert_yaml_snapshot!(check(Phase::Running, app));
    }

    #[test]
    fn crashed_and_waiting() {
        let app = Seen {
            id: Some("abc".into()),
            state: Some(exited(1)),
            waiting: Some(("CrashLoopBackOff".into(), "back-off 10s restarting".into())),
            restarts: 4,
            ..Seen::default()
        };
        insta::assert_yaml_snapshot!(check(Phase::Running, app));
    }

    #[test]
    fn completed() {
        let app = Seen { id: Some("abc".into()), state: Some(exited(0)), ..Seen::default() };
        insta::assert_yaml_snapshot!(check(Phase::Succeeded, app));
    }
}
