//! `/stats/summary`: what each container uses, from its cgroup.

use super::Kubelet;
use crate::runtime::Usage;
use axum::{Json, extract::State};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(super) async fn summary(State(kubelet): State<Kubelet>) -> Json<Value> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pods = Vec::new();
    let mut total = Usage::default();
    for sandbox in kubelet.runtime.sandboxes().await.unwrap_or_default() {
        let mut sum = Usage::default();
        let mut containers = Vec::new();
        for container in sandbox.containers.iter().filter(|one| one.state.is_running()) {
            let usage = kubelet.runtime.usage(&sandbox.spec.uid, &container.id).await;
            let usage = usage.unwrap_or_default();
            add(&mut sum, usage);
            let mut entry = figures(usage, &now);
            entry["name"] = json!(container.name);
            containers.push(entry);
        }
        add(&mut total, sum);
        let mut pod = figures(sum, &now);
        let spec = &sandbox.spec;
        pod["podRef"] = json!({"name": spec.name, "namespace": spec.namespace, "uid": spec.uid});
        pod["containers"] = json!(containers);
        pods.push(pod);
    }
    let mut node = figures(total, &now);
    node["nodeName"] = json!(kubelet.node_name);
    Json(json!({"node": node, "pods": pods}))
}

fn add(sum: &mut Usage, usage: Usage) {
    sum.cpu_nanoseconds += usage.cpu_nanoseconds;
    sum.memory_bytes += usage.memory_bytes;
    sum.working_set_bytes += usage.working_set_bytes;
    sum.pids += usage.pids;
}

fn figures(usage: Usage, now: &str) -> Value {
    json!({
        "cpu": {"time": now, "usageCoreNanoSeconds": usage.cpu_nanoseconds},
        "memory": {
            "time": now,
            "usageBytes": usage.memory_bytes,
            "workingSetBytes": usage.working_set_bytes,
        },
        "process_stats": {"process_count": usage.pids},
    })
}
