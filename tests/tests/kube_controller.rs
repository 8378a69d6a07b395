//! A controller written with kube-rs, as its users write them: it defines a kind, watches it and what
//! it owns, keeps a finalizer, and reports by applying to the status subresource.

mod served;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams,
};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use served::Served;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// For anything that takes milliseconds when it works.
const BOUND: Duration = Duration::from_secs(30);

const FINALIZER: &str = "harbour.example.com/tide";

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(BOUND, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {BOUND:?}"))
}

fn definition() -> CustomResourceDefinition {
    let schema = json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {"type": "object", "properties": {
                "height": {"type": "integer", "minimum": 0},
                "unit": {"type": "string", "default": "cm"},
            }},
            "status": {"type": "object", "properties": {
                "shown": {"type": "string"},
                "conditions": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["type"],
                    "items": {"type": "object", "required": ["type", "status"], "properties": {
                        "type": {"type": "string"}, "status": {"type": "string"},
                    }},
                },
            }},
        },
    });
    let definition = json!({
        "metadata": {"name": "tides.harbour.example.com"},
        "spec": {
            "group": "harbour.example.com",
            "scope": "Namespaced",
            "names": {"plural": "tides", "singular": "tide", "kind": "Tide"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
            }],
        },
    });
    serde_json::from_value(definition).expect("a definition")
}

fn tides() -> ApiResource {
    let kind = GroupVersionKind::gvk("harbour.example.com", "v1", "Tide");
    ApiResource::from_gvk_with_plural(&kind, "tides")
}

/// What the controller needs to know.
struct Harbour {
    client: kube::Client,
}

/// Shows each tide in a ConfigMap that it owns, and says so in its status.
async fn reconcile(
    tide: Arc<DynamicObject>,
    harbour: Arc<Harbour>,
) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let namespace = tide.namespace().unwrap_or_default();
    let api: Api<DynamicObject> =
        Api::namespaced_with(harbour.client.clone(), &namespace, &tides());
    let with = api.clone();
    finalizer(&api, FINALIZER, tide, |event| async move {
        match event {
            Event::Apply(tide) => show(&harbour, &with, &tide).await?,
            Event::Cleanup(tide) => farewell(&harbour, &tide).await?,
        }
        Ok(Action::await_change())
    })
    .await
}

async fn show(
    harbour: &Harbour,
    api: &Api<DynamicObject>,
    tide: &DynamicObject,
) -> Result<(), kube::Error> {
    let (name, spec) = (tide.name_any(), &tide.data["spec"]);
    let shown = format!("{} {}", spec["height"], spec["unit"].as_str().unwrap_or_default());
    let maps: Api<ConfigMap> = Api::default_namespaced(harbour.client.clone());
    let applying = PatchParams::apply("harbour").force();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [tide.controller_owner_ref(&tides())]},
        "data": {"shown": shown},
    });
    maps.patch(&name, &applying, &Patch::Apply(map)).await?;
    let status = json!({
        "apiVersion": "harbour.example.com/v1", "kind": "Tide",
        "status": {"shown": shown, "conditions": [{"type": "Shown", "status": "True"}]},
    });
    api.patch_status(&name, &applying, &Patch::Apply(status)).await?;
    Ok(())
}

/// Before a tide goes, a note of it is left.
async fn farewell(harbour: &Harbour, tide: &DynamicObject) -> Result<(), kube::Error> {
    let maps: Api<ConfigMap> = Api::default_namespaced(harbour.client.clone());
    let note = json!({"metadata": {"name": format!("{}-was-here", tide.name_any())}});
    let note = serde_json::from_value(note).map_err(kube::Error::SerdeError)?;
    match maps.create(&PostParams::default(), &note).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        answer => answer.map(|_| ()),
    }
}

fn shown(wanted: &'static str) -> impl Fn(Option<&DynamicObject>) -> bool {
    move |tide| tide.is_some_and(|tide| tide.data["status"]["shown"] == wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_of_its_own_kind_lives_a_whole_life() {
    let served = Served::start().await;
    let client = served.admin();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &definition()).await.expect("defined");
    let established = conditions::is_crd_established();
    let established =
        await_condition(definitions.clone(), "tides.harbour.example.com", established);
    within("the kind to be served", established).await.expect("watched");

    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &tides());
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let config = watcher::Config::default().streaming_lists();
        let controller = Controller::new_with(api.clone(), config, tides())
            .owns(maps.clone(), watcher::Config::default())
            .graceful_shutdown_on(stop.clone().cancelled_owned());
        let again = |_: Arc<DynamicObject>, _: &_, _| Action::requeue(Duration::from_millis(10));
        controller.run(reconcile, again, Arc::new(Harbour { client })).for_each(|_| async {})
    });

    let tide = DynamicObject::new("spring", &tides()).data(json!({"spec": {"height": 410}}));
    api.create(&PostParams::default(), &tide).await.expect("created");
    within("its status", await_condition(api.clone(), "spring", shown("410 cm")))
        .await
        .expect("watched");
    let map = maps.get("spring").await.expect("its ConfigMap");
    let seen = api.get("spring").await.expect("the tide");
    assert_eq!(map.owner_references()[0].uid, seen.uid().expect("a uid"));
    assert_eq!(seen.finalizers(), [FINALIZER]);
    assert_eq!(seen.data["status"]["conditions"], json!([{"type": "Shown", "status": "True"}]));

    // What it owns comes back, and what it watches is followed.
    maps.delete("spring", &DeleteParams::default()).await.expect("deleted");
    let back = |map: Option<&ConfigMap>| map.is_some();
    within("its ConfigMap again", await_condition(maps.clone(), "spring", back))
        .await
        .expect("watched");
    let higher: Value = json!({"spec": {"height": 520}});
    api.patch("spring", &PatchParams::default(), &Patch::Merge(higher)).await.expect("patched");
    within("the new status", await_condition(api.clone(), "spring", shown("520 cm")))
        .await
        .expect("watched");

    let uid = seen.meta().uid.clone().expect("a uid");
    api.delete("spring", &DeleteParams::default()).await.expect("marked");
    let gone = await_condition(api.clone(), "spring", conditions::is_deleted(&uid));
    within("the end", gone).await.expect("watched");
    maps.get("spring-was-here").await.expect("the finalizer had its turn");

    stop.cancel();
    within("the controller to stop", running).await.expect("without a panic");
    served.stop().await;
}
