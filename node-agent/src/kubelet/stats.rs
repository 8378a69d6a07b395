//! What the node and each container use, from their cgroups: `/stats/summary` and
//! `/metrics/resource`, with rates over the last ten seconds or so.

use super::{Kubelet, Refusal};
use crate::runtime::{Runtime, SandboxStatus, State as ContainerState, Usage};
use axum::{Json, extract::State};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often usage is looked at, so that a rate can be told at once.
const EVERY: Duration = Duration::from_secs(10);
/// A rate over less than this says little.
const WINDOW_MIN_SECONDS: f64 = 4.0;
/// Enough that one is old enough: two intervals.
const LOOKS_KEPT: usize = 3;

/// Usage of everything at one time.
#[derive(Clone, Debug)]
struct Look {
    at: Timestamp,
    node: Usage,
    /// By container id.
    containers: BTreeMap<String, Usage>,
}

/// The last few looks.
#[derive(Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<VecDeque<Look>>>);

impl Looks {
    fn push(&self, look: Look) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.push_back(look);
        while looks.len() > LOOKS_KEPT {
            looks.pop_front();
        }
    }

    /// The newest that is old enough to tell a rate against `now`.
    fn before(&self, now: Timestamp) -> Option<Look> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.iter().rev().find(|look| seconds(look.at, now) >= WINDOW_MIN_SECONDS).cloned()
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// Looks now and then, until dropped.
pub(super) async fn keep_looking(kubelet: Kubelet) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sandboxes = kubelet.runtime.sandboxes().await.unwrap_or_default();
        let look = look(&*kubelet.runtime, &sandboxes).await;
        kubelet.looks.push(look);
    }
}

async fn look(runtime: &dyn Runtime, sandboxes: &[SandboxStatus]) -> Look {
    let mut containers = BTreeMap::new();
    for sandbox in sandboxes {
        for container in sandbox.containers.iter().filter(|one| one.state.is_running()) {
            // A container that is just ending has nothing to tell.
            if let Ok(usage) = runtime.usage(&sandbox.spec.uid, &container.id).await {
                containers.insert(container.id.clone(), usage);
            }
        }
    }
    Look { at: Timestamp::now(), node: machine(), containers }
}

/// The whole machine's, as the kernel counts.
fn machine() -> Usage {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    machine_usage(&read("/proc/stat"), &read("/proc/meminfo"))
}

fn machine_usage(stat: &str, meminfo: &str) -> Usage {
    // A tick is 10 ms on every Linux there is; idle and iowait (4 and 5) are no use.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks = line.split_whitespace().take(8).enumerate();
    let busy: u64 = ticks
        .filter(|(index, _)| !matches!(index, 3 | 4))
        .filter_map(|(_, number)| number.parse::<u64>().ok())
        .sum();
    let kilobytes = |key: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    };
    let total = kilobytes("MemTotal");
    Usage {
        cpu_nanoseconds: busy * NANOSECONDS_PER_TICK,
        memory_bytes: total.saturating_sub(kilobytes("MemFree")) * 1024,
        working_set_bytes: total.saturating_sub(kilobytes("MemAvailable")) * 1024,
        pids: 0,
    }
}

pub(super) async fn summary(State(kubelet): State<Kubelet>) -> Result<Json<Value>, Refusal> {
    let sandboxes = kubelet.runtime.sandboxes().await;
    let sandboxes = sandboxes.map_err(|error| Refusal::internal(error.text()))?;
    let now = look(&*kubelet.runtime, &sandboxes).await;
    let before = kubelet.looks.before(now.at);
    let time = time(now.at);
    let window = before.as_ref().map(|before| seconds(before.at, now.at));
    let mut pods = Vec::new();
    for sandbox in sandboxes.iter().filter(|sandbox| sandbox.ready) {
        let (mut sum, mut rate) = (Usage::default(), None);
        let mut containers = Vec::new();
        for container in sandbox.containers.iter().filter(|one| one.state.is_running()) {
            let Some(usage) = now.containers.get(&container.id) else { continue };
            let then = before.as_ref().and_then(|before| before.containers.get(&container.id));
            let own = then.zip(window).map(|(then, window)| rate_of(*usage, *then, window));
            add(&mut sum, *usage);
            rate = own.map_or(rate, |own| Some(rate.unwrap_or(0) + own));
            let mut entry = figures(*usage, own, &time);
            entry["name"] = json!(container.name);
            entry["startTime"] = json!(started(container));
            containers.push(entry);
        }
        let mut pod = figures(sum, rate, &time);
        let spec = &sandbox.spec;
        pod["podRef"] = json!({"name": spec.name, "namespace": spec.namespace, "uid": spec.uid});
        pod["containers"] = json!(containers);
        pods.push(pod);
    }
    let rate =
        before.as_ref().zip(window).map(|(then, window)| rate_of(now.node, then.node, window));
    let mut node = figures(now.node, rate, &time);
    node["nodeName"] = json!(kubelet.node_name);
    Ok(Json(json!({"node": node, "pods": pods})))
}

/// Nanocores: nanoseconds of processor time per second.
fn rate_of(now: Usage, then: Usage, window_seconds: f64) -> u64 {
    (now.cpu_nanoseconds.saturating_sub(then.cpu_nanoseconds) as f64 / window_seconds) as u64
}

fn add(sum: &mut Usage, usage: Usage) {
    sum.cpu_nanoseconds += usage.cpu_nanoseconds;
    sum.memory_bytes += usage.memory_bytes;
    sum.working_set_bytes += usage.working_set_bytes;
    sum.pids += usage.pids;
}

fn figures(usage: Usage, nanocores: Option<u64>, time: &str) -> Value {
    let mut figures = json!({
        "cpu": {"time": time, "usageCoreNanoSeconds": usage.cpu_nanoseconds},
        "memory": {
            "time": time,
            "usageBytes": usage.memory_bytes,
            "workingSetBytes": usage.working_set_bytes,
        },
        "process_stats": {"process_count": usage.pids},
    });
    if let Some(nanocores) = nanocores {
        figures["cpu"]["usageNanoCores"] = json!(nanocores);
    }
    figures
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn started(container: &crate::runtime::ContainerStatus) -> Option<String> {
    match container.state {
        ContainerState::Running { started_at } => Some(time(started_at)),
        _ => None,
    }
}

/// Upstream's resource metrics (KEP-727), each with the time it was read at.
pub(super) async fn resource_metrics(State(kubelet): State<Kubelet>) -> Result<String, Refusal> {
    let sandboxes = kubelet.runtime.sandboxes().await;
    let sandboxes = sandboxes.map_err(|error| Refusal::internal(error.text()))?;
    let now = look(&*kubelet.runtime, &sandboxes).await;
    let at = now.at.as_millisecond();
    let (mut cpu, mut memory, mut start) = (String::new(), String::new(), String::new());
    let (mut pod_cpu, mut pod_memory) = (String::new(), String::new());
    for sandbox in sandboxes.iter().filter(|sandbox| sandbox.ready) {
        let (namespace, pod) = (&sandbox.spec.namespace, &sandbox.spec.name);
        let mut sum = Usage::default();
        for container in &sandbox.containers {
            let Some(usage) = now.containers.get(&container.id) else { continue };
            add(&mut sum, *usage);
            let name = &container.name;
            let labels =
                format!("{{container=\"{name}\",namespace=\"{namespace}\",pod=\"{pod}\"}}");
            sample(&mut cpu, "container_cpu_usage_seconds_total", &labels, in_seconds(*usage), at);
            let bytes = usage.working_set_bytes as f64;
            sample(&mut memory, "container_memory_working_set_bytes", &labels, bytes, at);
            if let ContainerState::Running { started_at } = container.state {
                let began = started_at.as_millisecond() as f64 / 1000.0;
                sample(&mut start, "container_start_time_seconds", &labels, began, at);
            }
        }
        let labels = format!("{{namespace=\"{namespace}\",pod=\"{pod}\"}}");
        sample(&mut pod_cpu, "pod_cpu_usage_seconds_total", &labels, in_seconds(sum), at);
        let bytes = sum.working_set_bytes as f64;
        sample(&mut pod_memory, "pod_memory_working_set_bytes", &labels, bytes, at);
    }
    let (mut node_cpu, mut node_memory) = (String::new(), String::new());
    sample(&mut node_cpu, "node_cpu_usage_seconds_total", "", in_seconds(now.node), at);
    let bytes = now.node.working_set_bytes as f64;
    sample(&mut node_memory, "node_memory_working_set_bytes", "", bytes, at);
    let families = [
        ("container_cpu_usage_seconds_total", "counter", "Processor time in seconds.", cpu),
        ("container_memory_working_set_bytes", "gauge", "Working set in bytes.", memory),
        ("container_start_time_seconds", "gauge", "Start in seconds since 1970.", start),
        ("node_cpu_usage_seconds_total", "counter", "Processor time in seconds.", node_cpu),
        ("node_memory_working_set_bytes", "gauge", "Working set in bytes.", node_memory),
        ("pod_cpu_usage_seconds_total", "counter", "Processor time in seconds.", pod_cpu),
        ("pod_memory_working_set_bytes", "gauge", "Working set in bytes.", pod_memory),
        (
            "resource_scrape_error",
            "gauge",
            "1 if reading failed.",
            "resource_scrape_error 0\n".into(),
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, samples) in families.iter().filter(|family| !family.3.is_empty()) {
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
    }
    Ok(text)
}

fn in_seconds(usage: Usage) -> f64 {
    usage.cpu_nanoseconds as f64 / 1e9
}

fn sample(out: &mut String, name: &str, labels: &str, value: f64, at: i64) {
    // A String takes everything.
    let _ = writeln!(out, "{name}{labels} {value} {at}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_what_the_kernel_counts() {
        let stat = "cpu  100 10 50 9999 888 3 2 5 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        let meminfo = "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 600 kB\n";
        let usage = machine_usage(stat, meminfo);
        assert_eq!(usage.cpu_nanoseconds, 170 * 10_000_000);
        assert_eq!((usage.memory_bytes, usage.working_set_bytes), (700 * 1024, 400 * 1024));
    }

    #[test]
    fn a_rate_needs_a_look_that_is_old_enough() {
        let looks = Looks::default();
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        for second in [0, 10, 20, 30] {
            looks.push(Look { at: at(second), node: Usage::default(), containers: [].into() });
        }
        assert_eq!(looks.before(at(31)).map(|look| look.at), Some(at(20)));
        assert_eq!(looks.before(at(35)).map(|look| look.at), Some(at(30)));
        assert!(looks.before(at(12)).is_none(), "older looks are forgotten");
        let (then, now) = (Usage::default(), Usage { cpu_nanoseconds: 5_000, ..Usage::default() });
        assert_eq!(rate_of(now, then, 5.0), 1000);
    }
}
