//! The clients whose Pods and Deployments the scheduler and controllers are to work on, and the watches
//! that show what those do.

use super::{
    api::{CONNECT_PAUSE, Client, LABEL, Shared, Write, revision},
    faults::LOOK_INTERVAL,
    watching::{Ended, Shown, watch},
};
use ::chaos::{
    Violation,
    history::{Guard, Told},
    objects::{self, Objects, State, Stream},
    record::Record,
    scenario::{Kind, Workload},
};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// A development cluster has it without any registry. Where it cannot be had, pods get their nodes and
/// Deployments are carried out all the same.
const IMAGE: &str = "coxswain.local/demo:1";
const REPLICAS: u64 = 2;
const MAX_SURGE: u64 = 1;
/// Between two looks at what a client waits for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A watch begins anew after that.
const RENEW_AFTER: Duration = Duration::from_secs(30);

/// One that costs a node little, and goes at once when it is deleted.
fn pod_spec() -> Value {
    json!({
        "containers": [{"name": "idle", "image": IMAGE, "command": ["sleep", "3600"]}],
        "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
    })
}

pub(super) fn pod() -> Value {
    json!({"spec": pod_spec()})
}

/// Its pods need not be ready for a rollout to go on: what is measured is the controllers.
pub(super) fn deployment(name: &str, value: &str) -> Value {
    let labels = json!({LABEL: Kind::RollingUpdate.to_string(), "deployment": name});
    let strategy = json!({"maxSurge": MAX_SURGE, "maxUnavailable": "100%"});
    json!({"spec": {
        "replicas": REPLICAS,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": labels},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": strategy},
        "template": {
            "metadata": {"labels": labels, "annotations": {LABEL: value}},
            "spec": pod_spec(),
        },
    }})
}

/// The change of one that is there.
pub(super) fn change(value: &str) -> Value {
    json!({"spec": {"template": {"metadata": {"annotations": {LABEL: value}}}}})
}

/// Makes a pod, waits until it has a node, and deletes it.
pub(super) async fn step_of_binding(client: &mut Client<'_>, turn: u64) {
    let key = format!("{}-{}-{turn}", Kind::Binding, client.number());
    let write = Write { key: &key, value: Some(key.clone()), guard: Guard::Absent };
    if matches!(client.write(write).await, None | Some(Told::Refused)) {
        return;
    }
    // Whatever became of it: a pod that is there is not left to a node.
    if !until(client, &key, |pod| pod["spec"]["nodeName"].is_string()).await {
        return;
    }
    let delete = || Write { key: &key, value: None, guard: Guard::Nothing };
    while let Some(Told::Unknown) = client.write(delete()).await {}
}

/// Makes its Deployment, or changes its template, and waits until that is carried out.
pub(super) async fn step_of_rolling_update(client: &mut Client<'_>, made: &mut bool, turn: u64) {
    let key = format!("{}-{}", Kind::RollingUpdate, client.number());
    let guard = if *made { Guard::Nothing } else { Guard::Absent };
    let value = Some(format!("{}-{turn}", client.number()));
    match client.write(Write { key: &key, value, guard }).await {
        None => return,
        // It may be there by an earlier request.
        Some(Told::Refused) if *made => return,
        Some(_) => {}
    }
    *made |= until(client, &key, is_done).await;
}

/// Whether it came to that, before the load stopped; `false` also if there is no such object.
async fn until(client: &mut Client<'_>, key: &str, done: impl Fn(&Value) -> bool) -> bool {
    while !client.shared.stop.is_cancelled() {
        match client.look(key).await {
            Some(Some((200, object))) if done(&object) => return true,
            Some(Some((404, _))) | None => return false,
            _ => {}
        }
        tokio::select! {
            () = client.shared.stop.cancelled() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
    false
}

/// Its controller has seen the newest generation, and all its pods are of that.
fn is_done(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let wanted = spec["replicas"].as_u64().unwrap_or(1);
    let generation = deployment["metadata"]["generation"].as_u64().unwrap_or(0);
    let count = |name: &str| status[name].as_u64().unwrap_or(0);
    count("observedGeneration") >= generation
        && count("updatedReplicas") == wanted
        && count("replicas") == wanted
}

/// Which stream of the record a watch fills.
type Fills = fn(&mut Objects) -> &mut Stream;

/// What is watched: where, and for which stream.
const WATCHED: [(&str, Fills); 3] = [
    ("/api/v1/namespaces/{}/pods", |objects| &mut objects.pods),
    ("/apis/apps/v1/namespaces/{}/replicasets", |objects| &mut objects.sets),
    ("/apis/apps/v1/namespaces/{}/deployments", |objects| &mut objects.deployments),
];

/// Starts the watches, of what is newer than `from`, if there is a workload that wants them: one for each
/// master, so that what happened is known from whoever shows it first, and not late because the one who is
/// asked is away. They go on until the tasks are ended.
pub(super) fn start(
    shared: &Arc<Shared>,
    workloads: &[Workload],
    from: u64,
    tasks: &mut JoinSet<()>,
) {
    if !workloads.iter().any(|it| it.kind.needs_nodes()) {
        return;
    }
    for (path, stream) in WATCHED {
        stream(&mut shared.record().objects).upto = from;
        for server in &shared.target.servers {
            let (shared, server) = (shared.clone(), server.clone());
            let path = path.replace("{}", &shared.namespace);
            tasks.spawn(async move { follow(&shared, &server, &path, stream).await });
        }
    }
}

async fn follow(shared: &Shared, server: &str, path: &str, stream: Fills) {
    loop {
        let after = stream(&mut shared.record().objects).upto;
        let take = &mut |seen| {
            let at = shared.now();
            let mut record = shared.record();
            let stream = stream(&mut record.objects);
            match seen {
                Seen::Shown(shown) => stream.show(objects::Shown { at, ..shown }),
                Seen::UpTo(revision) => stream.upto = stream.upto.max(revision),
            }
        };
        match watch(shared, server, (path, after, None), RENEW_AFTER, read, take).await {
            Ok(Ended::GoOn) => {}
            Ok(Ended::Lost(why)) => {
                let what = format!("the watch of {path} lost its place: {why}");
                shared.record().broken.push(Violation::new("watches", what));
                return;
            }
            Err(error) => tracing::debug!(%error, path, "a watch ended"),
        }
        tokio::time::sleep(CONNECT_PAUSE).await;
    }
}

enum Seen {
    Shown(objects::Shown),
    UpTo(u64),
}

fn read(kind: &str, object: &Value) -> Shown<Seen> {
    let metadata = &object["metadata"];
    let Some(revision) = revision(object) else {
        return Shown::Odd(format!("no revision: {object}"));
    };
    let state = match kind {
        "BOOKMARK" => return Shown::Seen(Seen::UpTo(revision)),
        "ADDED" | "MODIFIED" => Some(state(object)),
        "DELETED" => None,
        other => return Shown::Odd(format!("an event of type {other:?}")),
    };
    let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owner = owners.find(|it| it["controller"] == true).and_then(|it| it["uid"].as_str());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Shown::Seen(Seen::Shown(objects::Shown {
        at: 0,
        revision,
        uid: text(&metadata["uid"]),
        name: text(&metadata["name"]),
        owner: owner.map(str::to_owned),
        state,
    }))
}

fn state(object: &Value) -> State {
    let (spec, size) = (&object["spec"], object["spec"]["replicas"].as_u64());
    match object["kind"].as_str() {
        Some("Deployment") => State::Deployment {
            most: size.unwrap_or(1) + MAX_SURGE,
            generation: object["metadata"]["generation"].as_u64().unwrap_or(0),
            done: is_done(object),
        },
        Some("ReplicaSet") => State::Set { size: size.unwrap_or(1) },
        _ => State::Pod {
            node: spec["nodeName"].as_str().filter(|it| !it.is_empty()).map(str::to_owned),
            active: object["metadata"]["deletionTimestamp"].is_null()
                && !matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")),
        },
    }
}

/// Waits until nobody waits for the scheduler or a controller any more, at most so long; what then
/// still waits is for the checks to judge.
pub(super) async fn settle(shared: &Shared, within: Duration) {
    let waits = |record: &Record| {
        let mut waits = objects::unbound(record).into_iter().chain(objects::unreconciled(record));
        waits.any(|it| it.until.is_none())
    };
    let until = Instant::now() + within + Duration::from_secs(1);
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    loop {
        let waits = waits(&shared.record());
        if !waits || Instant::now() >= until {
            return;
        }
        tick.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: &str, object: Value) -> objects::Shown {
        match read(kind, &object) {
            Shown::Seen(Seen::Shown(shown)) => shown,
            _ => panic!("{object} is shown"),
        }
    }

    #[test]
    fn objects_are_read_as_the_checks_want_them() {
        let metadata = json!({"name": "a", "uid": "u", "resourceVersion": "7", "ownerReferences": [
            {"uid": "x"}, {"uid": "set", "controller": true}]});
        let pod = json!({"kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n1"}});
        let read_pod = shown("MODIFIED", pod.clone());
        assert_eq!((read_pod.revision, read_pod.owner.as_deref()), (7, Some("set")));
        let state =
            |node: Option<&str>, active| State::Pod { node: node.map(str::to_owned), active };
        assert_eq!(read_pod.state, Some(state(Some("n1"), true)));
        assert_eq!(shown("DELETED", pod.clone()).state, None);
        let mut going = pod;
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        going["spec"] = json!({});
        assert_eq!(shown("ADDED", going).state, Some(state(None, false)));
        assert!(matches!(
            read("BOOKMARK", &json!({"metadata": metadata})),
            Shown::Seen(Seen::UpTo(7))
        ));
        assert!(matches!(read("RENAMED", &json!({"metadata": metadata})), Shown::Odd(_)));
    }

    #[test]
    fn a_rollout_is_done_when_only_new_pods_are_there() {
        let status = |observed: u64, updated: u64, all: u64| {
            let mut object = deployment("web", "1");
            object["kind"] = json!("Deployment");
            object["metadata"] = json!({"name": "web", "resourceVersion": "9", "generation": 3});
            object["status"] = json!({"observedGeneration": observed, "updatedReplicas": updated,
                                      "replicas": all});
            shown("MODIFIED", object).state
        };
        let done = |done| Some(State::Deployment { most: 3, generation: 3, done });
        assert_eq!(status(3, 2, 2), done(true));
        assert_eq!(status(2, 2, 2), done(false), "of another generation");
        assert_eq!(status(3, 1, 2), done(false), "an old pod counts");
        assert_eq!(status(3, 2, 3), done(false), "an old pod is left");
    }
}
