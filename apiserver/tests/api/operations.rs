//! What upstream's conformance cases "… API operations" and "… lifecycle" do to every kind alike:
//! watch it, patch it in three ways, read and write its status, try without doing, delete by label.

use crate::{
    differential::{Kind, Report, changed},
    harness::{Answer, Cluster},
    watching::Lines,
};
use http::Method;
use serde_json::{Value, json};

/// The label that `writes` has given the object.
const OURS: &str = "labelSelector=patched%3Dyes";

/// Of an object that is there; leaves it there.
pub(crate) async fn live(cluster: &mut Cluster, kind: &Kind<'_>, report: &mut Report) {
    watched(cluster, kind, report).await;
    tried(cluster, kind, report).await;
    if kind.built_in().has_status() {
        status(cluster, kind, report).await;
    }
}

/// Changes of every sort, seen by who watches from a list on.
async fn watched(cluster: &mut Cluster, kind: &Kind<'_>, report: &mut Report) {
    let listed = cluster.get(&format!("{}?{OURS}", kind.everywhere())).await;
    let count = listed.body["items"].as_array().map_or(0, Vec::len);
    report.note(&kind.name, "list", (count != 1).then(|| format!("{count} everywhere")));
    let revision = listed.body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let query = format!("watch=1&resourceVersion={revision}&{OURS}");
    let mut watches = Vec::new();
    for place in [kind.collection.clone(), kind.everywhere()] {
        watches.push(Lines::open(cluster, &format!("{place}?{query}")).await);
    }
    let path = kind.path();
    let annotated = |name: &str| json!({ "metadata": { "annotations": { name: "true" } } });
    let answer = cluster.merge(&path, annotated("merged")).await;
    report.note(&kind.name, "patch", lacks_annotation(&answer, "merged"));
    let steps = json!([{ "op": "add", "path": "/metadata/annotations/stepped", "value": "true" }]);
    let media = "application/json-patch+json";
    let answer = cluster.ask(Method::PATCH, &path, media, steps.to_string()).await;
    report.note(&kind.name, "patch", lacks_annotation(&answer, "stepped"));
    let media = "application/strategic-merge-patch+json";
    let document = annotated("strategic").to_string();
    let answer = cluster.ask(Method::PATCH, &path, media, document).await;
    report.note(&kind.name, "patch", lacks_annotation(&answer, "strategic"));
    let answer = cluster.put(&path, changed(&answer.body, &annotated("updated"))).await;
    report.note(&kind.name, "update", lacks_annotation(&answer, "updated"));
    for watch in &mut watches {
        report.note(&kind.name, "watch", seen(watch, &answer.body).await);
    }
}

/// All events up to the last change, which must look as its answer did.
async fn seen(watch: &mut Lines, last: &Value) -> Option<String> {
    loop {
        let event = watch.next().await?;
        if event["type"] != "MODIFIED" {
            return Some(format!("unexpected {event}"));
        }
        if event["object"]["metadata"]["annotations"].get("updated").is_some() {
            let object = &event["object"];
            return (object != last).then(|| format!("watched {object}, not {last}"));
        }
    }
}

/// A dry run answers as if it had been done.
async fn tried(cluster: &mut Cluster, kind: &Kind<'_>, report: &mut Report) {
    let path = kind.path();
    let before = cluster.get(&path).await.body;
    let annotation = json!({ "metadata": { "annotations": { "tried": "true" } } });
    let answer = cluster.merge(&format!("{path}?dryRun=All"), annotation).await;
    report.note(&kind.name, "dry", lacks_annotation(&answer, "tried"));
    let answer = cluster.delete(&format!("{path}?dryRun=All")).await;
    let refused = answer.code >= 300;
    report.note(&kind.name, "dry", refused.then(|| format!("not deleted: {}", answer.body)));
    let after = cluster.get(&path).await.body;
    let difference = (before != after).then(|| format!("dry runs made {after} of {before}"));
    report.note(&kind.name, "dry", difference);
}

async fn status(cluster: &mut Cluster, kind: &Kind<'_>, report: &mut Report) {
    let path = format!("{}/status", kind.path());
    let whole = cluster.get(&kind.path()).await.body;
    let read = cluster.get(&path).await.body;
    let same = read == whole;
    report.note(&kind.name, "status", (!same).then(|| format!("{read} is not {whole}")));
    let annotation = json!({ "metadata": { "annotations": { "patchedstatus": "true" } } });
    let answer = cluster.merge(&path, annotation).await;
    // Some kinds' status is all that a write of it may change.
    let difference = match kind.spec.get("statusOnly") == Some(&Value::Bool(true)) {
        false => lacks_annotation(&answer, "patchedstatus"),
        true => (answer.body["metadata"] != whole["metadata"])
            .then(|| format!("a write of the status changed {}", answer.body["metadata"])),
    };
    report.note(&kind.name, "status", difference);
    let present = cluster.get(&kind.path()).await.body;
    let answer = cluster.put(&path, present.clone()).await;
    let same = answer.body == present;
    let difference = (!same).then(|| format!("an update of nothing gave {}", answer.body));
    report.note(&kind.name, "status", difference);
}

/// Deletes by label what is made anew, or what still waits for somebody to let it go.
pub(crate) async fn collected(cluster: &mut Cluster, kind: &Kind<'_>, report: &mut Report) {
    let label = json!({ "metadata": { "labels": { "patched": "yes" } } });
    let again = cluster.post(&kind.collection, changed(&kind.spec["object"], &label)).await;
    let waits = again.code == 409;
    let difference = (again.code != 201 && !waits).then(|| format!("not again: {}", again.body));
    report.note(&kind.name, "create", difference);
    let gone = cluster.delete(&format!("{}?{OURS}", kind.collection)).await;
    if kind.built_in().verbs == apiserver::kinds::Verbs::NoDeleteCollection {
        let difference = (gone.code != 405).then(|| format!("deleted: {}", gone.body));
        return report.note(&kind.name, "collect", difference);
    }
    report.note(&kind.name, "collect", (gone.code != 200).then(|| gone.body.to_string()));
    let left = cluster.get(&format!("{}?{OURS}", kind.collection)).await.body;
    let ends = |item: &Value| {
        let metadata = &item["metadata"];
        metadata.get("deletionTimestamp").is_some() && metadata.get("finalizers").is_some()
    };
    let all_end = left["items"].as_array().is_some_and(|items| items.iter().all(ends));
    report.note(&kind.name, "collect", (!all_end).then(|| format!("left: {left}")));
}

fn lacks_annotation(answer: &Answer, name: &str) -> Option<String> {
    let has = answer.code == 200 && answer.body["metadata"]["annotations"][name] == "true";
    (!has).then(|| format!("no annotation {name} in {}", answer.body))
}
