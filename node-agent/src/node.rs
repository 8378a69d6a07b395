//! This machine as a Node object: registered, kept true, and shown alive by its Lease.

use crate::{
    images::Images,
    metrics::Metrics,
    pods::{Capacity, Events, PodNetwork},
};
use jiff::Timestamp;
use k8s::{Api, Object, PatchType, Request, Resource, Status};
use serde_json::{Value, json};
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::Instant;

const NODES: Resource = Resource::new("", "v1", "nodes");
const LEASES: Resource = Resource::new("coordination.k8s.io", "v1", "leases");
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The release whose kubelet this agent stands in for.
pub(crate) const KUBELET_VERSION: &str = "v1.36.2";
/// Upstream's `nodeLeaseDurationSeconds`.
const LEASE_SECONDS: u32 = 40;
/// Upstream's `nodeStatusUpdateFrequency`: how often the object is compared with the machine.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Upstream's `nodeStatusReportFrequency`: how old its heartbeats may become without a change.
const REPORT_INTERVAL: Duration = Duration::from_secs(300);
/// How often a network that is not ready is asked again.
const READY_INTERVAL: Duration = Duration::from_millis(100);
/// Pause after a failed call.
const RETRY: Duration = Duration::from_millis(500);
/// Upstream's limits.
pub(crate) const PODS_MAX: u32 = 110;
const IMAGES_MAX: usize = 50;

/// What is said about the machine.
pub(crate) struct Node {
    pub(crate) api: Arc<dyn Api>,
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) kubelet_port: u16,
    pub(crate) data_dir: PathBuf,
    pub(crate) capacity: Capacity,
    pub(crate) images: Arc<Images>,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) lease_interval: Duration,
}

pub(crate) fn capacity() -> Capacity {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<i64>().ok());
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as i64);
    Capacity { cpus, memory_bytes: kib.unwrap_or_default() * 1024 }
}

impl Node {
    /// Registers, then keeps Node and Lease true until dropped.
    pub(crate) async fn run(self) {
        let uid = self.register().await;
        self.events.node(&self.name, &uid, "Starting", "Starting kubelet.".to_string());
        let renewed = tokio::sync::Notify::new();
        tokio::join!(self.keep_lease(&uid, &renewed), self.keep_status(&renewed));
    }

    async fn register(&self) -> String {
        loop {
            let created = match self.api.call(Request::create(NODES, self.object())).await {
                Err(status) if status.is_already_exists() => {
                    let labels = json!({"metadata": {"labels": self.labels()}});
                    let kind = PatchType::Merge;
                    self.api.call(Request::patch(NODES, "", &self.name, kind, labels)).await
                }
                other => other,
            };
            match created {
                Ok(object) => return object.uid().to_string(),
                Err(status) => tracing::warn!(%status, "node not registered yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn labels(&self) -> Value {
        let arch = crate::images::architecture();
        json!({
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": arch,
        })
    }

    fn object(&self) -> Object {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": self.labels()},
            "spec": {},
            "status": self.status(&[], Timestamp::now()),
        });
        Object::from_value(value).unwrap_or_default()
    }

    /// `old`: the conditions the object has.
    fn status(&self, old: &[Value], now: Timestamp) -> Value {
        let ready = self.network.is_ready();
        let mut conditions: Vec<Value> = [
            (
                "MemoryPressure",
                false,
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            ("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            (
                "PIDPressure",
                false,
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
        ]
        .into_iter()
        .map(|(kind, status, reason, text)| condition(old, kind, status, reason, text, now))
        .collect();
        conditions.push(if ready {
            condition(old, "Ready", true, "KubeletReady", "kubelet is posting ready status", now)
        } else {
            let text = "container runtime network not ready: NetworkReady=false \
                        reason:NetworkPluginNotReady message:the pod network or the service proxy \
                        is not set up yet";
            condition(old, "Ready", false, "KubeletNotReady", text, now)
        });
        let known: Vec<Value> = conditions.iter().map(|one| one["type"].clone()).collect();
        conditions.extend(old.iter().filter(|one| !known.contains(&one["type"])).cloned());
        let disk = nix::sys::statvfs::statvfs(&self.data_dir)
            .map(|fs| fs.blocks() * fs.fragment_size() / 1024)
            .unwrap_or_default();
        let resources = json!({
            "cpu": self.capacity.cpus.to_string(),
            "memory": format!("{}Ki", self.capacity.memory_bytes / 1024),
            "ephemeral-storage": format!("{disk}Ki"),
            "pods": PODS_MAX.to_string(),
        });
        let images: Vec<Value> = self
            .images
            .list()
            .into_iter()
            .take(IMAGES_MAX)
            .map(|image| json!({"names": image.names, "sizeBytes": image.size_bytes}))
            .collect();
        json!({
            "capacity": resources,
            "allocatable": resources,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": self.ip.to_string()},
                {"type": "Hostname", "address": self.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.kubelet_port}},
            "nodeInfo": node_info(),
            "images": images,
        })
    }

    async fn keep_status(&self, renewed: &tokio::sync::Notify) {
        let mut reported: Option<Instant> = None;
        let mut last = Value::Null;
        loop {
            let due = reported.is_none_or(|at| at.elapsed() >= REPORT_INTERVAL);
            // Before the report: what changes while it is written is in the next one at once.
            let was_ready = self.network.is_ready();
            match self.report(due, &mut last).await {
                Ok(true) => reported = Some(Instant::now()),
                Ok(false) => {}
                Err(status) => tracing::warn!(%status, "node status not written"),
            }
            let changes = async {
                while self.network.is_ready() == was_ready {
                    tokio::time::sleep(READY_INTERVAL).await;
                }
            };
            tokio::select! {
                () = changes => {}
                () = renewed.notified() => {}
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
        }
    }

    /// True if something was written.
    async fn report(&self, due: bool, last: &mut Value) -> Result<bool, Status> {
        let object = match self.api.call(Request::get(NODES, "", &self.name)).await {
            Err(status) if status.is_not_found() => {
                // Somebody deleted it while the machine lives.
                return self.api.call(Request::create(NODES, self.object())).await.map(|_| true);
            }
            other => other?,
        };
        let old = object.at("/status/conditions").and_then(Value::as_array);
        let old = old.cloned().unwrap_or_default();
        let status = self.status(&old, Timestamp::now());
        let (now, then) = (essence(&status), object.at("/status").map(essence));
        if !due && *last == now && then.is_some_and(|then| then["conditions"] == now["conditions"])
        {
            return Ok(false);
        }
        let patch = json!({"status": status});
        let request = Request::patch(NODES, "", &self.name, PatchType::Merge, patch);
        self.api.call(request.subresource("status")).await?;
        *last = now;
        Ok(true)
    }

    async fn keep_lease(&self, uid: &str, renewed: &tokio::sync::Notify) {
        let mut failing = false;
        let mut ticks = tokio::time::interval(self.lease_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let result =
                tokio::time::timeout(self.lease_interval.max(RETRY), self.renew(uid)).await;
            let result = result.unwrap_or_else(|_| Err(Status::timeout("no answer in time")));
            let label = if result.is_ok() { "success" } else { "failure" };
            self.metrics.lease_renewals.with_label_values(&[label]).inc();
            match result {
                Ok(()) if failing => {
                    failing = false;
                    // The masters may have given the node up meanwhile.
                    renewed.notify_one();
                }
                Ok(()) => {}
                Err(status) => {
                    tracing::warn!(%status, "lease not renewed");
                    failing = true;
                }
            }
        }
    }

    async fn renew(&self, uid: &str) -> Result<(), Status> {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let spec = json!({
            "holderIdentity": self.name,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": time,
        });
        let patch = json!({"spec": spec});
        let kind = PatchType::Merge;
        let request = Request::patch(LEASES, LEASE_NAMESPACE, &self.name, kind, patch);
        match self.api.call(request).await {
            Err(status) if status.is_not_found() => {}
            other => return other.map(drop),
        }
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": self.name, "uid": uid});
        let value = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "namespace": LEASE_NAMESPACE,
                "ownerReferences": [owner],
            },
            "spec": spec,
        });
        let lease = Object::from_value(value).unwrap_or_default();
        self.api.call(Request::create(LEASES, lease)).await.map(drop)
    }
}

/// A status without what changes with time only.
fn essence(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastHeartbeatTime");
            fields.remove("lastTransitionTime");
        }
    }
    status
}

fn condition(
    old: &[Value],
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Value {
    let status = if status { "True" } else { "False" };
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let before = old.iter().find(|one| one["type"] == kind && one["status"] == status);
    let since = before.and_then(|one| one["lastTransitionTime"].as_str()).unwrap_or(&now);
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since,
    })
}

fn node_info() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_string();
    let release = read("/etc/os-release");
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    json!({
        "machineID": read("/etc/machine-id"),
        "systemUUID": read("/sys/class/dmi/id/product_uuid"),
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "osImage": pretty.unwrap_or("Linux").trim_matches('"'),
        "containerRuntimeVersion": concat!("coxswain://", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": crate::images::architecture(),
    })
}
