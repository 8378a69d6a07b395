//! The controllers on the real server over a store in memory: whole flows, with a kubelet that only
//! pretends. Nothing sleeps; every wait is for a state of the world and has a bound.

use k8s::{Api, Object, PatchType, Request, Status, Verb};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Node, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reconcile::{
    Cache, CacheBuilder, Change, Context, Controller, Gate, Key, KindInfo, Plan, Pod, Root, Runner,
    View, Wake, World, Write, kinds,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// No flow takes a tenth of it on an idle machine.
const BOUND: Duration = Duration::from_secs(60);

const SECRETS: KindInfo =
    KindInfo { group: "", version: "v1", plural: "secrets", kind: "Secret", namespaced: true };

const EVENTS: KindInfo =
    KindInfo { group: "", version: "v1", plural: "events", kind: "Event", namespaced: true };

/// A server, its controllers and somebody who watches.
struct Cluster {
    /// Everything is allowed to it.
    admin: Arc<dyn Api>,
    world: Arc<Cache>,
    term: watch::Sender<Option<u64>>,
    /// The term in which the store accepts writes.
    leading: u64,
    registry: prometheus::Registry,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Cluster {
    async fn start() -> Cluster {
        Cluster::start_with(patient, true).await
    }

    async fn start_with(change: impl FnOnce(&mut controllers::Config), leads: bool) -> Cluster {
        let store = raft_store::Store::in_memory();
        let leading = store.leadership().borrow().leading.expect("a store in memory leads").0;
        let server = apiserver::Server::new(apiserver::Config::new(store));
        server.bootstrap().await.expect("a fresh store takes everything");
        let identity = |user: &str, group: &[&str]| {
            server.client(apiserver::Identity::authenticated(user, group))
        };
        let admin = identity("admin", &["system:masters"]);
        let manager = identity("system:kube-controller-manager", &[]);
        let registry = prometheus::Registry::new();
        let mut config =
            controllers::Config::new(all_kinds(), "10.0.0.1:6443".parse().expect("an address"));
        change(&mut config);
        let (term, gate) = watch::channel(leads.then_some(leading));
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (stop, metrics) = (shutdown.clone(), registry.clone());
        tasks.spawn(async move {
            controllers::run(manager, Gate::new(gate), config, &metrics, stop).await;
        });
        let own = prometheus::Registry::new();
        let world =
            CacheBuilder::new(admin.clone(), &own).kinds(all_kinds()).view(Pods::default()).build();
        let mut kubelet = Runner::new(world.clone(), Gate::open());
        kubelet.add(KUBELET, admin.clone());
        tasks.spawn(kubelet.run(admin.clone(), shutdown.clone()));
        let (watching, stop) = (world.clone(), shutdown.clone());
        tasks.spawn(async move { watching.run(stop).await });
        let cluster = Cluster { admin, world, term, leading, registry, shutdown, tasks };
        cluster.add_node().await;
        cluster
    }

    /// `n1`, ready, where every pod goes.
    async fn add_node(&self) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
        self.create(kinds::NODES, node).await;
        let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let nodes = kinds::NODES.resource();
        let ready = Request::patch(nodes, "", "n1", PatchType::Merge, status).subresource("status");
        self.admin.call(ready).await.expect("a status patch");
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(BOUND, ended).await.expect("every task ends with its parent");
    }

    /// Waits until `holds`; says what the world looks like if it never does.
    async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        if !self.world.wait_until(BOUND, holds).await {
            panic!("never came: {what}\n{}", self.describe());
        }
    }

    fn describe(&self) -> String {
        let world = self.world.read();
        let mut text = String::new();
        for deployment in world.list::<Deployment>() {
            text += &format!("{}\n", json!(deployment.status));
        }
        for set in world.list::<ReplicaSet>() {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
            text += &format!("replicaset {name} {wanted:?} {}\n", json!(set.status));
        }
        for pod in world.list::<Pod>() {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            text += &format!("pod {name} {:?}\n", pod.metadata.deletion_timestamp);
        }
        for namespace in world.list::<Namespace>() {
            let name = namespace.metadata.name.as_deref().unwrap_or_default();
            text += &format!("namespace {name} {}\n", json!(namespace.status));
        }
        for family in self.registry.gather() {
            if family.name() == "coxswain_reconcile_writes_total" {
                for metric in family.get_metric() {
                    let labels: Vec<&str> = metric.get_label().iter().map(|l| l.value()).collect();
                    text += &format!("{labels:?} {}\n", metric.get_counter().get_value());
                }
            }
        }
        text
    }

    /// The same for what the world does not show.
    async fn poll(&self, what: &str, holds: impl Fn() -> bool) {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let polling = async {
            while !holds() {
                ticks.tick().await;
            }
        };
        if tokio::time::timeout(BOUND, polling).await.is_err() {
            panic!("never came: {what}\n{}", self.describe());
        }
    }

    async fn create(&self, kind: KindInfo, value: Value) -> Object {
        let object = Object::from_value(value).expect("an object");
        let made = self.admin.call(Request::create(kind.resource(), object)).await;
        made.unwrap_or_else(|status| panic!("{kind}: {status}"))
    }

    async fn patch(&self, kind: KindInfo, name: &str, patch: Value) {
        let patch = Request::patch(kind.resource(), "default", name, PatchType::Merge, patch);
        let patched = self.admin.call(patch).await;
        patched.unwrap_or_else(|status| panic!("{kind} {name}: {status}"));
    }

    async fn delete(&self, kind: KindInfo, namespace: &str, name: &str, policy: &str) {
        let mut delete = Request::delete(kind.resource(), namespace, name);
        delete.options.propagation_policy = Some(policy.to_string());
        let deleted = self.admin.call(delete).await;
        deleted.unwrap_or_else(|status| panic!("{kind} {name}: {status}"));
    }

    async fn get(&self, kind: KindInfo, namespace: &str, name: &str) -> Result<Object, Status> {
        self.admin.call(Request::get(kind.resource(), namespace, name)).await
    }

    fn deployment(&self) -> Deployment {
        let world = self.world.read();
        world.get::<Deployment>(&web()).expect("it exists").clone()
    }

    fn pods_made(&self) -> usize {
        self.world.read().view::<Pods>().expect("set at the start").made.len()
    }

    /// The sum of a counter over its label sets that contain all of `labels`.
    fn counted(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().filter(|family| family.name() == name);
        let metrics = family.flat_map(|family| family.get_metric());
        let has = |metric: &prometheus::proto::Metric, (name, value): &(&str, &str)| {
            let mut pairs = metric.get_label().iter();
            pairs.any(|pair| pair.name() == *name && pair.value() == *value)
        };
        let chosen = metrics.filter(|metric| labels.iter().all(|label| has(metric, label)));
        chosen.map(|metric| metric.get_counter().get_value()).sum()
    }
}

/// Nobody renews the node's lease.
fn patient(config: &mut controllers::Config) {
    config.node_monitor_grace_period = Duration::from_secs(3600);
}

fn web() -> Key {
    Key::new("default", "web")
}

/// Everything the server serves that can be watched.
fn all_kinds() -> Vec<KindInfo> {
    use apiserver::kinds::{BUILT_IN, Verbs};
    let watchable =
        BUILT_IN.iter().filter(|kind| matches!(kind.verbs, Verbs::All | Verbs::NoDeleteCollection));
    let info = watchable.map(|kind| KindInfo {
        group: kind.group,
        version: kind.versions[0],
        plural: kind.plural,
        kind: kind.kind,
        namespaced: kind.namespaced,
    });
    info.collect()
}

/// How many pods there were at worst, at every single moment.
#[derive(Default)]
struct Pods {
    made: BTreeSet<String>,
    active: BTreeSet<Key>,
    ready: BTreeSet<Key>,
    most_active: usize,
    /// Since [`Pods::arm`] was called.
    least_ready: Option<usize>,
}

impl View for Pods {
    fn observe(&mut self, change: &Change) {
        if !change.is::<Pod>() {
            return;
        }
        let key = change.key().clone();
        let pod = change.new_as::<Pod>();
        let active = pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
        let ready = active && pod.is_some_and(is_ready);
        for (set, holds) in [(&mut self.active, active), (&mut self.ready, ready)] {
            if holds {
                set.insert(key.clone())
            } else {
                set.remove(&key)
            };
        }
        self.made.extend(change.new.as_ref().map(|entry| entry.meta.uid.to_string()));
        self.most_active = self.most_active.max(self.active.len());
        if let Some(least) = &mut self.least_ready {
            *least = (*least).min(self.ready.len());
        } else if self.ready.len() == 3 {
            self.least_ready = Some(3);
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Binds every pod to `n1` and says that it runs, unless its image is `broken`; lets deleted pods go.
const KUBELET: Controller = Controller {
    name: "pretended_kubelet",
    component: "kubelet",
    root: Root::Each(kinds::PODS),
    wakes: &[(kinds::PODS, Wake::Itself)],
    plan: kubelet,
    ..Controller::BASE
};

fn kubelet(world: &World, key: &Key, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(pod) = world.get::<Pod>(key) else { return plan };
    let spec = pod.spec.clone().unwrap_or_default();
    let unbound = spec.node_name.is_none();
    if pod.metadata.deletion_timestamp.is_some() {
        let mut delete = Write::delete(pod);
        delete.request.options.grace_period_seconds = Some(0);
        plan.write(delete);
    } else if unbound {
        let body = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": &*key.name, "namespace": &*key.namespace},
            "target": {"kind": "Node", "name": "n1"},
        });
        let mut bind =
            Request::new(Verb::Create, kinds::PODS.resource(), &key.namespace, &key.name);
        bind = bind.subresource("binding").with_body(body);
        plan.write(Write::request(kinds::PODS, bind));
    } else if !is_ready(pod) && image(pod) != "broken" {
        let ip = format!(
            "10.244.0.{}",
            pod.metadata.uid.iter().flat_map(|u| u.bytes()).map(u32::from).sum::<u32>() % 250 + 1
        );
        let status = json!({
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": Time(context.now)}],
        });
        let patch = json!({"status": status});
        plan.write(Write::patch_if_unchanged(pod, patch).through_status());
    }
    plan
}

fn deployment(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image),
        },
    })
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}, "annotations": {"image": image}},
        "spec": {"containers": [{"name": "web", "image": image}]},
    })
}

fn image_patch(image: &str) -> Value {
    json!({"spec": {"template": template(image)}})
}

/// What `kubectl rollout status` waits for.
fn rolled_out(world: &World, replicas: i32) -> bool {
    let Some(deployment) = world.get::<Deployment>(&web()) else { return false };
    let Some(status) = &deployment.status else { return false };
    let all = [status.replicas, status.updated_replicas, status.available_replicas];
    status.observed_generation >= deployment.metadata.generation
        && all.iter().all(|count| *count == Some(replicas))
        && progress(deployment).as_deref() == Some("NewReplicaSetAvailable")
}

fn progress(deployment: &Deployment) -> Option<String> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let progressing = conditions.iter().find(|condition| condition.type_ == "Progressing")?;
    progressing.reason.clone()
}

fn revision(deployment: &Deployment) -> String {
    let annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.get("deployment.kubernetes.io/revision").cloned().unwrap_or_default()
}

fn images(world: &World) -> BTreeSet<String> {
    let pods = world.list::<Pod>().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    pods.map(image).map(str::to_string).collect()
}

/// Of the only container. The cache does not keep it: here it is in an annotation too.
fn image(pod: &Pod) -> &str {
    pod.metadata.annotations.as_ref().and_then(|all| all.get("image")).map_or("", String::as_str)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_rolls_out_and_back_within_its_bounds() {
    let cluster = Cluster::start().await;
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    cluster.until("three pods of a:1", |world| rolled_out(world, 3)).await;
    assert_eq!(cluster.pods_made(), 3, "not one pod too many");
    assert_eq!(revision(&cluster.deployment()), "1");

    cluster.patch(kinds::DEPLOYMENTS, "web", image_patch("a:2")).await;
    cluster
        .until("three pods of a:2", |world| {
            rolled_out(world, 3) && images(world) == BTreeSet::from(["a:2".to_string()])
        })
        .await;
    assert_eq!(revision(&cluster.deployment()), "2");

    // As `kubectl rollout undo` does it: the old template comes back.
    cluster.patch(kinds::DEPLOYMENTS, "web", image_patch("a:1")).await;
    cluster
        .until("three pods of a:1 again", |world| {
            rolled_out(world, 3) && images(world) == BTreeSet::from(["a:1".to_string()])
        })
        .await;
    assert_eq!(revision(&cluster.deployment()), "3");
    assert_eq!(cluster.pods_made(), 9, "three for each rollout, and not one too many");
    {
        let world = cluster.world.read();
        assert_eq!(world.list::<ReplicaSet>().count(), 2, "the old set was taken up again");
        let pods = world.view::<Pods>().expect("set at the start");
        // The sets are sized within four; a new pod may come a moment before an old one goes.
        assert!(pods.most_active <= 5, "{} at once", pods.most_active);
        assert_eq!(pods.least_ready, Some(3), "25 % of three unavailable is none");
    }
    let failed = cluster.counted("coxswain_reconcile_panics_total", &[]);
    assert_eq!(failed, 0.0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_deployment_scales_and_rolls_once_resumed() {
    let cluster = Cluster::start().await;
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    cluster.until("three pods", |world| rolled_out(world, 3)).await;
    cluster.patch(kinds::DEPLOYMENTS, "web", json!({"spec": {"paused": true}})).await;
    cluster.patch(kinds::DEPLOYMENTS, "web", image_patch("a:2")).await;
    cluster.patch(kinds::DEPLOYMENTS, "web", json!({"spec": {"replicas": 5}})).await;
    cluster
        .until("five pods of the old template", |world| {
            let deployment = world.get::<Deployment>(&web()).cloned().unwrap_or_default();
            let status = deployment.status.clone().unwrap_or_default();
            status.available_replicas == Some(5)
                && progress(&deployment).as_deref() == Some("DeploymentPaused")
        })
        .await;
    assert_eq!(images(&cluster.world.read()), BTreeSet::from(["a:1".to_string()]));
    cluster.patch(kinds::DEPLOYMENTS, "web", json!({"spec": {"paused": null}})).await;
    cluster
        .until("five pods of the new template", |world| {
            rolled_out(world, 5) && images(world) == BTreeSet::from(["a:2".to_string()])
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_told_by_events() {
    let cluster = Cluster::start().await;
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    cluster.until("three pods", |world| rolled_out(world, 3)).await;
    // One for the set, one for each of its pods.
    cluster.until("four events", |world| world.entries(&EVENTS).count() >= 4).await;
    let list = cluster.admin.call(Request::list(EVENTS.resource(), "default")).await;
    let items = list.expect("a list").0.remove("items").expect("items");
    let events: Vec<Event> = serde_json::from_value(items).expect("events");
    let made = events.iter().filter(|e| e.reason.as_deref() == Some("SuccessfulCreate"));
    assert_eq!(made.count(), 3);
    let scaled = events.iter().find(|e| e.reason.as_deref() == Some("ScalingReplicaSet"));
    let message = scaled.and_then(|event| event.message.clone()).unwrap_or_default();
    assert!(message.starts_with("Scaled up replica set web-"), "{message}");
    assert!(message.ends_with(" from 0 to 3"), "{message}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deployment_owns_goes_with_it() {
    let cluster = Cluster::start().await;
    for policy in ["Background", "Foreground"] {
        cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
        cluster.until("three pods", |world| rolled_out(world, 3)).await;
        cluster.delete(kinds::DEPLOYMENTS, "default", "web", policy).await;
        cluster
            .until("nothing left", |world| {
                world.list::<Deployment>().next().is_none()
                    && world.list::<ReplicaSet>().next().is_none()
                    && world.list::<Pod>().next().is_none()
            })
            .await;
    }
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    cluster.until("three pods", |world| rolled_out(world, 3)).await;
    cluster.delete(kinds::DEPLOYMENTS, "default", "web", "Orphan").await;
    cluster.until("the deployment gone", |world| world.get::<Deployment>(&web()).is_none()).await;
    cluster
        .until("its set without owner", |world| {
            world.list::<ReplicaSet>().all(|set| set.metadata.owner_references.is_none())
        })
        .await;
    assert_eq!(cluster.world.read().list::<Pod>().count(), 3, "the pods live on");
    // A deployment that selects them takes them over.
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    cluster.until("adopted", |world| rolled_out(world, 3)).await;
    assert_eq!(cluster.world.read().list::<Pod>().count(), 3);
    assert_eq!(cluster.world.read().list::<ReplicaSet>().count(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_is_made_ready_and_emptied() {
    let cluster = Cluster::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dev"}});
    cluster.create(kinds::NAMESPACES, namespace).await;
    cluster
        .until("its account and certificate", |world| {
            world.get::<ServiceAccount>(&Key::new("dev", "default")).is_some()
                && world.get::<ConfigMap>(&Key::new("dev", "kube-root-ca.crt")).is_some()
        })
        .await;
    let mut web = deployment("a:1");
    web["metadata"]["namespace"] = "dev".into();
    cluster.create(kinds::DEPLOYMENTS, web).await;
    let held = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "held", "namespace": "dev", "finalizers": ["example.com/held"]},
    });
    cluster.create(SECRETS, held).await;
    cluster.until("pods in it", |world| world.in_namespace::<Pod>("dev").count() == 3).await;
    cluster.delete(kinds::NAMESPACES, "", "dev", "Background").await;
    let dev = Key::new("", "dev");
    cluster
        .until("a namespace that waits for a finalizer", |world| {
            let conditions =
                world.get::<Namespace>(&dev).and_then(|n| n.status.clone()?.conditions);
            let waits = conditions.into_iter().flatten().any(|condition| {
                condition.type_ == "NamespaceFinalizersRemaining" && condition.status == "True"
            });
            waits && world.in_namespace::<Pod>("dev").next().is_none()
        })
        .await;
    assert!(cluster.get(kinds::NAMESPACES, "", "dev").await.is_ok(), "it waits");
    let release = json!({"metadata": {"finalizers": null}});
    let release = Request::patch(SECRETS.resource(), "dev", "held", PatchType::Merge, release);
    cluster.admin.call(release).await.expect("a patch");
    cluster.until("the namespace gone", |world| world.get::<Namespace>(&dev).is_none()).await;
    // Each kind is watched by itself: the namespace's end may be seen before its content's.
    cluster
        .until("nothing left in it", |world| {
            let mut all = world.everything();
            !all.any(|(kind, entry)| &*entry.key.namespace == "dev" && kind.plural != "events")
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_slices_follow_its_pods() {
    let cluster = Cluster::start().await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    });
    cluster.create(kinds::SERVICES, service).await;
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    let ready = |world: &World| -> usize {
        let slices = world.in_namespace::<EndpointSlice>("default");
        let ours = slices.filter(|slice| {
            slice
                .metadata
                .labels
                .iter()
                .flatten()
                .any(|(key, value)| key == "kubernetes.io/service-name" && value == "web")
        });
        let endpoints = ours.flat_map(|slice| slice.endpoints.iter().flatten());
        endpoints.filter(|one| one.conditions.as_ref().and_then(|c| c.ready) == Some(true)).count()
    };
    cluster.until("three ready endpoints", |world| ready(world) == 3).await;
    cluster.patch(kinds::DEPLOYMENTS, "web", json!({"spec": {"replicas": 1}})).await;
    cluster.until("one ready endpoint", |world| ready(world) == 1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_loses_its_pods() {
    let cluster = Cluster::start_with(
        |config| config.node_monitor_grace_period = Duration::from_secs(2),
        true,
    )
    .await;
    cluster
        .until("a range for its pods", |world| {
            let node = world.get::<Node>(&Key::new("", "n1"));
            let range = node.and_then(|node| node.spec.clone()?.pod_cidr);
            range.as_deref() == Some("10.244.0.0/24")
        })
        .await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "annotations": {"image": "broken"}},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "c", "image": "broken"}],
            "tolerations": [
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1},
            ],
        },
    });
    cluster.create(kinds::PODS, pod).await;
    cluster
        .until("the node unknown and tainted", |world| {
            let node = world.get::<Node>(&Key::new("", "n1")).cloned().unwrap_or_default();
            let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let effects: BTreeSet<String> = taints
                .into_iter()
                .filter(|taint| taint.key == "node.kubernetes.io/unreachable")
                .map(|taint| taint.effect)
                .collect();
            effects == BTreeSet::from(["NoExecute".to_string(), "NoSchedule".to_string()])
        })
        .await;
    // The pretended kubelet lets a deleted pod go at once.
    cluster.until("the pod evicted", |world| world.list::<Pod>().next().is_none()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_another_term_writes_nothing() {
    let cluster = Cluster::start_with(patient, false).await;
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    // A leader whose term the cluster has left behind, or not reached.
    cluster.term.send_replace(Some(cluster.leading + 1));
    let refused = [("outcome", "Fenced")];
    cluster
        .poll("writes that are tried and refused", || {
            cluster.counted("coxswain_reconcile_writes_total", &refused) >= 3.0
        })
        .await;
    assert_eq!(cluster.counted("coxswain_reconcile_writes_total", &[("outcome", "ok")]), 0.0);
    let sets = Request::list(kinds::REPLICA_SETS.resource(), "default");
    let sets = cluster.admin.call(sets).await.expect("a list");
    assert_eq!(sets.0["items"], json!([]), "nothing landed");

    // The term of the cluster: the caches are warm, everything goes on from here.
    cluster.term.send_replace(Some(cluster.leading));
    cluster.until("three pods", |world| rolled_out(world, 3)).await;
    assert_eq!(cluster.pods_made(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_stops_a_rollout_and_an_open_one_goes_on() {
    let cluster = Cluster::start().await;
    // Pods that never become ready: the rollout stops in the middle by itself.
    cluster.create(kinds::DEPLOYMENTS, deployment("a:1")).await;
    cluster.until("three pods", |world| rolled_out(world, 3)).await;
    cluster.patch(kinds::DEPLOYMENTS, "web", image_patch("broken")).await;
    cluster
        .until("a fourth pod that is not available", |world| {
            let status = world.get::<Deployment>(&web()).and_then(|web| web.status.clone());
            let status = status.unwrap_or_default();
            status.updated_replicas == Some(1) && status.unavailable_replicas == Some(1)
        })
        .await;
    cluster.term.send_replace(None);
    let before = cluster.deployment();
    cluster.patch(kinds::DEPLOYMENTS, "web", image_patch("a:3")).await;
    cluster
        .until("the new template", |world| {
            let web = world.get::<Deployment>(&web());
            web.is_some_and(|now| now.metadata.generation > before.metadata.generation)
        })
        .await;
    let written = cluster.counted("coxswain_reconcile_writes_total", &[]);
    let later = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "later"}});
    cluster.create(kinds::NAMESPACES, later).await;
    let (later, account) = (Key::new("", "later"), Key::new("later", "default"));
    cluster.until("the namespace", |world| world.get::<Namespace>(&later).is_some()).await;
    assert!(cluster.world.read().get::<ServiceAccount>(&account).is_none());
    assert_eq!(cluster.counted("coxswain_reconcile_writes_total", &[]), written);
    // A second term of this leader: what was missed is done, without a list.
    let listed = cluster.counted("coxswain_reconcile_cache_relists_total", &[]);
    cluster.term.send_replace(Some(cluster.leading));
    cluster
        .until("three pods of a:3", |world| {
            rolled_out(world, 3) && images(world) == BTreeSet::from(["a:3".to_string()])
        })
        .await;
    cluster.until("the account", |world| world.get::<ServiceAccount>(&account).is_some()).await;
    assert_eq!(cluster.counted("coxswain_reconcile_cache_relists_total", &[]), listed);
    cluster.stop().await;
}
