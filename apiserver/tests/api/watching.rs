//! Watches over HTTP and in the process.

use crate::harness::{CONFIG_MAPS, Cluster, config_map, config_map_path, request};
use futures::StreamExt;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s::{Resource, WatchEvent, WatchRequest};
use serde_json::{Value, json};
use std::time::Duration;

/// The events of a response's body, line by line.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    pub(crate) async fn open(cluster: &mut Cluster, path: &str) -> Lines {
        let asked = request(Method::GET, path, "", "");
        let response = cluster.send(cluster.admin(), asked).await;
        assert_eq!(response.status(), 200);
        Lines { body: response.into_body(), buffer: Vec::new() }
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.body.frame());
            let frame = frame.await.expect("an event within ten seconds")?.expect("a frame");
            self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }

    /// `ADDED a` of the next event.
    pub(crate) async fn told(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }
}

#[tokio::test]
async fn a_watch_tells_what_is_and_what_changes() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let mut watch = Lines::open(&mut cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(watch.told().await, "ADDED a");
    cluster.post(CONFIG_MAPS, config_map("b")).await;
    cluster.merge(&config_map_path("b"), json!({ "data": { "color": "red" } })).await;
    cluster.delete(&config_map_path("b")).await;
    assert_eq!(watch.told().await, "ADDED b");
    assert_eq!(watch.told().await, "MODIFIED b");
    let deleted = watch.next().await.expect("an event");
    assert_eq!(deleted["type"], "DELETED");
    let revision = cluster.store.revision().to_string();
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], revision);
    assert_eq!(deleted["object"]["kind"], "ConfigMap");
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_list_ends_its_beginning_with_a_bookmark() {
    let mut cluster = Cluster::start().await;
    assert_eq!(cluster.post(CONFIG_MAPS, config_map("a")).await.code, 201);
    let query =
        "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Lines::open(&mut cluster, &format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let bookmark = watch.next().await.expect("an event");
    assert_eq!(bookmark["type"], "BOOKMARK");
    let annotations = &bookmark["object"]["metadata"]["annotations"];
    assert_eq!(annotations["k8s.io/initial-events-end"], "true");
    cluster.stop().await;
}

#[tokio::test]
async fn entering_and_leaving_a_selection_are_events() {
    let mut cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}?watch=1&labelSelector=color%3Dred");
    let mut watch = Lines::open(&mut cluster, &path).await;
    cluster.post(CONFIG_MAPS, config_map("a")).await;
    let color = |color: &str| json!({ "metadata": { "labels": { "color": color } } });
    cluster.merge(&config_map_path("a"), color("red")).await;
    assert_eq!(watch.told().await, "ADDED a");
    cluster.merge(&config_map_path("a"), color("blue")).await;
    assert_eq!(watch.told().await, "DELETED a");
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_resumes_after_a_revision_or_is_told_to_list() {
    let mut cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await;
    let from = cluster.store.revision();
    cluster.post(CONFIG_MAPS, config_map("b")).await;
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={from}&timeoutSeconds=1");
    let mut watch = Lines::open(&mut cluster, &path).await;
    assert_eq!(watch.told().await, "ADDED b");
    assert_eq!(watch.next().await, None, "its time is up");
    cluster.store.compact(cluster.store.revision()).await.expect("compacted");
    let mut late = Lines::open(&mut cluster, &path).await;
    let event = late.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    cluster.stop().await;
}

#[tokio::test]
async fn a_watcher_in_the_process_sees_the_same() {
    let mut cluster = Cluster::start().await;
    cluster.post(CONFIG_MAPS, config_map("a")).await;
    let client =
        cluster.server.client(apiserver::Identity::authenticated("c", &["system:masters"]));
    let request = WatchRequest {
        resource: Resource::new("", "v1", "configmaps"),
        namespace: "default".into(),
        label_selector: None,
        field_selector: None,
        after: None,
    };
    let mut events = client.watch(request).await.expect("a watch");
    let first = events.next().await.expect("an event").expect("no error");
    let WatchEvent::Added(object) = first else { panic!("{first:?}") };
    assert_eq!((object.name(), object.kind(), object.api_version()), ("a", "ConfigMap", "v1"));
    let next = events.next().await.expect("an event").expect("no error");
    assert!(matches!(next, WatchEvent::Bookmark { initial_events_end: true, .. }), "{next:?}");
    cluster.delete(&config_map_path("a")).await;
    let last = events.next().await.expect("an event").expect("no error");
    let WatchEvent::Deleted(object) = last else { panic!("{last:?}") };
    assert_eq!(object.revision().map(|revision| revision.0), Some(cluster.store.revision().0));
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_ends_with_a_bookmark() {
    let mut cluster = Cluster::start().await;
    let path = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&timeoutSeconds=3");
    let mut watch = Lines::open(&mut cluster, &path).await;
    let bookmark = watch.next().await.expect("an event");
    assert_eq!(bookmark["type"], "BOOKMARK");
    let revision = bookmark["object"]["metadata"]["resourceVersion"].clone();
    assert_eq!(revision, cluster.store.revision().to_string());
    assert_eq!(watch.next().await, None);
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_nobody_reads_costs_nothing_and_loses_nothing() {
    let mut cluster = Cluster::start().await;
    let mut watch = Lines::open(&mut cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
    let client =
        cluster.server.client(apiserver::Identity::authenticated("c", &["system:masters"]));
    const CHANGES: usize = 400;
    for index in 0..CHANGES {
        // 16 KiB each: more than the sockets between the two hold.
        let object = json!({
            "metadata": { "name": format!("m{index}"), "namespace": "default" },
            "data": { "x": "x".repeat(16 << 10) },
        });
        let object = k8s::Object::from_value(object).expect("an object");
        let resource = Resource::new("", "v1", "configmaps");
        client.call(k8s::Request::create(resource, object)).await.expect("made");
    }
    for index in 0..CHANGES {
        assert_eq!(watch.told().await, format!("ADDED m{index}"));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_waits_for_what_its_client_saw_elsewhere() {
    let mut cluster = Cluster::start().await;
    let next = cluster.store.revision().0 + 1;
    let client =
        cluster.server.client(apiserver::Identity::authenticated("c", &["system:masters"]));
    let request = WatchRequest {
        resource: Resource::new("", "v1", "configmaps"),
        namespace: String::new(),
        label_selector: None,
        field_selector: None,
        after: Some(k8s::Revision(next)),
    };
    let resumed = async { client.watch(request).await.expect("a watch") };
    let caught_up = async {
        cluster.post(CONFIG_MAPS, config_map("a")).await;
        cluster.post(CONFIG_MAPS, config_map("b")).await;
    };
    let (mut events, ()) = futures::join!(resumed, caught_up);
    let first = events.next().await.expect("an event").expect("no error");
    assert!(matches!(&first, WatchEvent::Added(object) if object.name() == "b"), "{first:?}");
    cluster.store.shutdown().await;
    assert!(events.next().await.is_none(), "ends without an error, to be resumed elsewhere");
    cluster.stop().await;
}
