//! A real client library over real TLS against the API server in this process: what a program built
//! with kube-rs sees.

mod served;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{
    Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions,
    WatchEvent, WatchParams,
};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use served::{Served, status};
use std::collections::BTreeSet;
use std::time::Duration;

/// For anything that takes milliseconds when it works.
const BOUND: Duration = Duration::from_secs(20);

fn config_map(name: &str, value: &str) -> ConfigMap {
    let object =
        json!({"metadata": {"name": name, "labels": {"made": "here"}}, "data": {"k": value}});
    serde_json::from_value(object).expect("a ConfigMap")
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(BOUND, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

fn revision(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|text| text.parse().ok()).expect("a revision")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_made_read_changed_and_deleted() {
    let served = Served::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(served.admin());
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.expect("created");
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());
    assert_eq!(maps.get("a").await.expect("read"), made);

    let mut next = made.clone();
    next.data.get_or_insert_default().insert("k".into(), "2".into());
    let replaced = maps.replace("a", &PostParams::default(), &next).await.expect("replaced");
    assert!(revision(&replaced) > revision(&made));
    let stale = maps.replace("a", &PostParams::default(), &next).await;
    assert_eq!(status(stale), (409, "Conflict".into()));
    let twice = maps.create(&PostParams::default(), &config_map("a", "1")).await;
    assert_eq!(status(twice), (409, "AlreadyExists".into()));

    let with = PatchParams::default();
    let merged =
        maps.patch("a", &with, &Patch::Merge(json!({"data": {"m": "x", "k": null}}))).await;
    assert_eq!(merged.expect("merged").data, Some([("m".to_string(), "x".to_string())].into()));
    let strategic = Patch::Strategic(json!({"metadata": {"labels": {"more": "yes"}}}));
    let patched = maps.patch("a", &with, &strategic).await.expect("patched");
    assert_eq!(patched.labels().len(), 2);
    let unchanged = maps.patch("a", &with, &strategic).await.expect("patched again");
    assert_eq!(revision(&unchanged), revision(&patched), "nothing changed, nothing written");

    let other = DeleteParams::default()
        .preconditions(Preconditions { uid: Some("other".into()), ..Preconditions::default() });
    assert_eq!(status(maps.delete("a", &other).await).0, 409);
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    assert_eq!(status(maps.get("a").await), (404, "NotFound".into()));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages_of_one_moment_and_by_label() {
    let served = Served::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(served.admin());
    for index in 0..7 {
        let map = config_map(&format!("m{index}"), "1");
        maps.create(&PostParams::default(), &map).await.expect("created");
    }
    let ours = ListParams::default().labels("made=here");
    let first = maps.list(&ours.clone().limit(3)).await.expect("the first page");
    let mut names: Vec<String> = first.items.iter().map(ResourceExt::name_any).collect();
    // What comes between the pages is not of their moment.
    maps.create(&PostParams::default(), &config_map("m9", "1")).await.expect("created");
    let mut token = first.metadata.continue_.clone();
    while let Some(next) = token.filter(|token| !token.is_empty()) {
        let page = maps.list(&ours.clone().limit(3).continue_token(&next)).await.expect("a page");
        names.extend(page.items.iter().map(ResourceExt::name_any));
        assert_eq!(page.metadata.resource_version, first.metadata.resource_version);
        token = page.metadata.continue_;
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    let none = maps.list(&ListParams::default().labels("made!=here,made")).await.expect("listed");
    assert_eq!(none.items.len(), 0);
    served.stop().await;
}

/// KEP-3157: the whole state as events, then changes; no list at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streaming_watcher_sees_the_state_and_then_each_change_once() {
    let served = Served::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(served.admin());
    for name in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(name, "1")).await.expect("created");
    }
    let config = watcher::Config::default().streaming_lists().labels("made=here");
    let mut events = Box::pin(watcher(maps.clone(), config));
    let mut next = async || {
        let event = within("the next event", events.try_next()).await;
        match event.expect("no error").expect("no end") {
            watcher::Event::Init => "init".to_string(),
            watcher::Event::InitApply(map) => format!("has {}", map.name_any()),
            watcher::Event::InitDone => "done".to_string(),
            watcher::Event::Apply(map) => format!("put {}", map.name_any()),
            watcher::Event::Delete(map) => format!("gone {}", map.name_any()),
        }
    };
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(next().await);
    }
    assert_eq!(seen, ["init", "has a", "has b", "done"]);
    maps.create(&PostParams::default(), &config_map("c", "1")).await.expect("created");
    maps.delete("a", &DeleteParams::default()).await.expect("deleted");
    let unlabelled = Patch::Merge(json!({"metadata": {"labels": {"made": null}}}));
    maps.patch("b", &PatchParams::default(), &unlabelled).await.expect("patched");
    let seen = [next().await, next().await, next().await];
    assert_eq!(seen, ["put c", "gone a", "gone b"], "what no longer matches is gone");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reflector_holds_what_the_server_holds() {
    let served = Served::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(served.admin());
    let (reader, writer) = reflector::store();
    let config = watcher::Config::default().streaming_lists().labels("made=here");
    let stream = watcher(maps.clone(), config).default_backoff().reflect(writer).touched_objects();
    let following = tokio::spawn(stream.for_each(|_| async {}));
    for index in 0..20 {
        let map = config_map(&format!("m{index}"), "1");
        maps.create(&PostParams::default(), &map).await.expect("created");
    }
    for index in 0..10 {
        maps.delete(&format!("m{index}"), &DeleteParams::default()).await.expect("deleted");
    }
    let want: BTreeSet<String> = (10..20).map(|index| format!("m{index}")).collect();
    let same = async {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        loop {
            let state = reader.state();
            if state.iter().map(|map| map.name_any()).collect::<BTreeSet<_>>() == want {
                return;
            }
            tick.tick().await;
        }
    };
    within("the reflector holds the last ten", same).await;
    following.abort();
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_resumes_at_its_revision_without_a_gap() {
    let served = Served::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(served.admin());
    let first = maps.create(&PostParams::default(), &config_map("m0", "1")).await.expect("created");
    for index in 1..6 {
        let map = config_map(&format!("m{index}"), "1");
        maps.create(&PostParams::default(), &map).await.expect("created");
    }
    let mut after = revision(&first);
    let mut seen = Vec::new();
    // Each round is a new watch that takes one event and goes away.
    for _ in 0..5 {
        let watch = maps.watch(&WatchParams::default(), &after.to_string()).await.expect("watched");
        let mut watch = Box::pin(watch);
        let event = within("an event", watch.try_next()).await.expect("no error");
        match event.expect("no end") {
            WatchEvent::Added(map) => {
                after = revision(&map);
                seen.push(map.name_any());
            }
            other => panic!("added, not {other:?}"),
        }
    }
    assert_eq!(seen, ["m1", "m2", "m3", "m4", "m5"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_waited_for_evicted_and_gone() {
    let served = Served::start().await;
    let pods: Api<Pod> = Api::default_namespaced(served.admin());
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pod: Pod = serde_json::from_value(pod).expect("a Pod");
    let made = pods.create(&PostParams::default(), &pod).await.expect("created");
    let spec = made.spec.clone().expect("a spec");
    assert_eq!(spec.scheduler_name.as_deref(), Some("default-scheduler"), "defaults are filled in");
    assert!(spec.tolerations.is_some_and(|all| all.len() == 2), "by admission too");

    let running = tokio::spawn(await_condition(pods.clone(), "p", conditions::is_pod_running()));
    let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
    pods.patch_status("p", &PatchParams::default(), &status).await.expect("patched");
    within("the pod to run", running).await.expect("no panic").expect("no error");

    let uid = made.uid().expect("a uid");
    let gone = tokio::spawn({
        let pods = pods.clone();
        async move { await_condition(pods, "p", conditions::is_deleted(&uid)).await }
    });
    let at_once = DeleteParams::default().grace_period(0);
    let evict = EvictParams { delete_options: Some(at_once), ..EvictParams::default() };
    pods.evict("p", &evict).await.expect("evicted");
    within("the pod to be gone", gone).await.expect("no panic").expect("no error");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scale_and_status_are_parts_of_their_own() {
    let served = Served::start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(served.admin());
    let web = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    });
    let web: Deployment = serde_json::from_value(web).expect("a Deployment");
    deployments.create(&PostParams::default(), &web).await.expect("created");
    let to = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let scale = deployments.patch_scale("web", &PatchParams::default(), &to).await.expect("scaled");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(3));
    let status = Patch::Merge(json!({"spec": {"replicas": 9}, "status": {"replicas": 2}}));
    deployments.patch_status("web", &PatchParams::default(), &status).await.expect("patched");
    let now = deployments.get("web").await.expect("read");
    assert_eq!(now.spec.and_then(|spec| spec.replicas), Some(3), "status changes no spec");
    assert_eq!(now.status.and_then(|status| status.replicas), Some(2));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_why_in_a_status() {
    let served = Served::start().await;
    let admin = served.admin();
    let secrets: Api<Secret> = Api::default_namespaced(served.client("nobody", "nogroup").await);
    assert_eq!(status(secrets.list(&ListParams::default()).await), (403, "Forbidden".into()));

    let maps: Api<ConfigMap> = Api::default_namespaced(admin.clone());
    let bad = maps.create(&PostParams::default(), &config_map("Not A Name", "1")).await;
    assert_eq!(status(bad), (422, "Invalid".into()));
    let elsewhere: Api<ConfigMap> = Api::namespaced(admin.clone(), "absent");
    let lost = elsewhere.create(&PostParams::default(), &config_map("a", "1")).await;
    assert_eq!(status(lost), (404, "NotFound".into()));

    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("dry", "1")).await.expect("it would be created");
    assert_eq!(status(maps.get("dry").await).0, 404);

    let namespaces: Api<Namespace> = Api::all(admin);
    let listed = namespaces.list(&ListParams::default()).await.expect("listed");
    let names: BTreeSet<String> = listed.iter().map(ResourceExt::name_any).collect();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(names.contains(name), "{name} among {names:?}");
    }
    served.stop().await;
}

/// Every resource that discovery offers for listing can be listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_promises_only_what_is_there() {
    let served = Served::start().await;
    let client: Client = served.admin();
    let found = kube::Discovery::new(client.clone()).run().await.expect("discovered");
    let mut listed = 0;
    for group in found.groups() {
        for (resource, capabilities) in group.resources_by_stability() {
            if capabilities.supports_operation(kube::discovery::verbs::LIST) {
                let api: Api<kube::api::DynamicObject> = Api::all_with(client.clone(), &resource);
                let answer = api.list(&ListParams::default()).await;
                answer.unwrap_or_else(|error| panic!("{}: {error}", resource.plural));
                listed += 1;
            }
        }
    }
    assert!(listed > 30, "{listed} kinds");
    served.stop().await;
}

/// Prometheus' conventions: a help text, a unit in the name of what is measured, `_total` on what
/// only grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_has_help_and_a_unit() {
    let served = Served::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(served.admin());
    maps.create(&PostParams::default(), &config_map("a", "1")).await.expect("created");
    let text = served.metrics().await;
    let mut odd = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let helped = text.lines().any(|line| {
            line.strip_prefix("# HELP ")
                .and_then(|line| line.split_once(' '))
                .is_some_and(|(named, help)| named == name && !help.trim().is_empty())
        });
        // `_sizes`: upstream's own `apiserver_response_sizes`, in bytes.
        let units =
            ["_seconds", "_sizes", "_bytes", "_pods", "_attempts", "_entries", "_objects", "_txns"];
        let named = match kind {
            "counter" => name.ends_with("_total"),
            "histogram" => units.iter().any(|unit| name.ends_with(unit)),
            _ => true,
        };
        if !helped || !named {
            odd.push(line.to_string());
        }
    }
    assert!(text.contains("# TYPE "), "metrics are there: {text}");
    assert!(odd.is_empty(), "without help or unit: {odd:#?}");
    served.stop().await;
}
