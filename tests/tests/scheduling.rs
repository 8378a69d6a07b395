//! The scheduler against the real API server over a store without consensus: bindings, conditions,
//! events, and that it acts only in the term it leads in.

mod served;

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use reconcile::Gate;
use serde_json::{Value, json};
use served::Served;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const BOUND: Duration = Duration::from_secs(30);

/// A served master with a scheduler beside it.
struct Scene {
    served: Served,
    admin: Client,
    /// The term the scheduler is told that it leads in.
    term: watch::Sender<Option<u64>>,
    current_term: u64,
    registry: prometheus::Registry,
    stop: CancellationToken,
    scheduler: JoinHandle<()>,
}

impl Scene {
    async fn start() -> Scene {
        let served = Served::start().await;
        let leading = served.store.leadership().borrow().leading;
        let current_term = leading.expect("a single member leads").0;
        let (term, receiver) = watch::channel(None);
        let identity = apiserver::Identity::authenticated("system:kube-scheduler", &[]);
        let (api, gate) = (served.server.client(identity), Gate::new(receiver));
        let (registry, stop) = (prometheus::Registry::new(), CancellationToken::new());
        let scheduler = tokio::spawn({
            let (registry, stop) = (registry.clone(), stop.clone());
            async move { controllers::scheduler::run(api, gate, &registry, stop).await }
        });
        let admin = served.admin();
        Scene { served, admin, term, current_term, registry, stop, scheduler }
    }

    fn lead(&self) {
        self.term.send_replace(Some(self.current_term));
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.admin.clone())
    }

    async fn node(&self, name: &str, cpu: &str) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let status = json!({"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}});
        let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
        let node: Node = serde_json::from_value(node).expect("a Node");
        nodes.create(&PostParams::default(), &node).await.expect("created");
        let patch = Patch::Merge(json!({"status": status}));
        nodes.patch_status(name, &PatchParams::default(), &patch).await.expect("patched");
    }

    /// Tolerates everything: nobody here says that the nodes are ready.
    async fn pod(&self, name: &str, cpu: &str) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "schedulerName": "default-scheduler",
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}],
            },
        });
        let pod: Pod = serde_json::from_value(pod).expect("a Pod");
        self.pods().create(&PostParams::default(), &pod).await.expect("created");
    }

    async fn bound(&self, name: &str) -> String {
        eventually(&format!("{name} to be bound"), async || {
            let pod = self.pods().get(name).await.expect("the pod");
            node_of(&pod).ok_or(format!("{:?}", pod.status))
        })
        .await
    }

    /// The value of a metric with these labels as they are printed.
    fn metric(&self, name: &str, label: (&str, &str)) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        let labelled = metrics.iter().filter(|metric| {
            metric.get_label().iter().any(|pair| (pair.name(), pair.value()) == label)
        });
        labelled
            .map(|metric| metric.get_gauge().get_value() + metric.get_counter().get_value())
            .sum()
    }

    async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(BOUND, self.scheduler).await;
        ended.expect("the scheduler ends when told to").expect("without a panic");
        drop(self.admin);
        self.served.stop().await;
    }
}

fn node_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone().filter(|name| !name.is_empty())
}

async fn eventually<T>(what: &str, look: impl AsyncFn() -> Result<T, String>) -> T {
    let deadline = Instant::now() + BOUND;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) if Instant::now() > deadline => panic!("still waiting for {what}: {state}"),
            Err(_) => tick.tick().await,
        };
    }
}

fn condition(pod: &Pod) -> Value {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut found = conditions.into_iter().flatten().filter(|one| one.type_ == "PodScheduled");
    found.next().map_or(Value::Null, |one| json!([one.status, one.reason, one.message]))
}

async fn event(scene: &Scene, pod: &str, reason: &str) -> String {
    let events: Api<Event> = Api::default_namespaced(scene.admin.clone());
    eventually(&format!("an event {reason} about {pod}"), async || {
        let all = events.list(&ListParams::default()).await.expect("listed");
        let mut ours = all.iter().filter(|event| {
            event.involved_object.name.as_deref() == Some(pod)
                && event.reason.as_deref() == Some(reason)
        });
        let found = ours.next().and_then(|event| event.message.clone());
        found.ok_or(format!("{} events", all.items.len()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_bound_spread_and_told_of() {
    let scene = Scene::start().await;
    scene.lead();
    scene.node("a", "4").await;
    scene.node("b", "4").await;
    let names = ["p1", "p2", "p3", "p4"];
    for name in names {
        scene.pod(name, "1").await;
    }
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(scene.bound(name).await);
    }
    assert_eq!(nodes.iter().filter(|node| *node == "a").count(), 2, "{nodes:?}");
    let message = event(&scene, "p1", "Scheduled").await;
    assert_eq!(message, format!("Successfully assigned default/p1 to {}", nodes[0]));
    let pod = scene.pods().get("p1").await.expect("the pod");
    assert_eq!(condition(&pod)[0], "True", "{:?}", pod.status);
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_says_so_and_gets_the_first_node_that_has_room() {
    let scene = Scene::start().await;
    scene.lead();
    scene.node("small", "1").await;
    scene.pod("large", "3").await;
    let message = event(&scene, "large", "FailedScheduling").await;
    assert_eq!(message, "0/1 nodes are available: 1 Insufficient cpu.");
    eventually("the condition", async || {
        let pod = scene.pods().get("large").await.expect("the pod");
        let found = condition(&pod);
        (found == json!(["False", "Unschedulable", message])).then_some(()).ok_or(found.to_string())
    })
    .await;
    scene.node("big", "4").await;
    assert_eq!(scene.bound("large").await, "big");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_knows_the_pod_and_leaves_it_alone() {
    let scene = Scene::start().await;
    scene.node("a", "4").await;
    scene.pod("p", "1").await;
    eventually("the follower to know the pod", async || {
        let active = scene.metric("scheduler_pending_pods", ("queue", "active"));
        (active == 1.0).then_some(()).ok_or(format!("{active} active"))
    })
    .await;
    assert_eq!(node_of(&scene.pods().get("p").await.expect("the pod")), None);
    scene.lead();
    assert_eq!(scene.bound("p").await, "a");
    scene.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_of_another_term_is_refused() {
    let scene = Scene::start().await;
    scene.node("a", "4").await;
    scene.pod("p", "1").await;
    scene.term.send_replace(Some(scene.current_term + 1));
    eventually("a refused binding", async || {
        let errors = scene.metric("scheduler_schedule_attempts_total", ("result", "error"));
        (errors >= 1.0).then_some(()).ok_or(format!("{errors} errors"))
    })
    .await;
    let pod = scene.pods().get("p").await.expect("the pod");
    assert_eq!(node_of(&pod), None, "{}", pod.name_any());
    scene.lead();
    assert_eq!(scene.bound("p").await, "a");
    scene.stop().await;
}
