//! The few verbs of an API server that an agent uses, over a map: what these tests need to stand
//! in for the masters, who are tested elsewhere.

use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s::{Api, Events, Object, Request, Revision, Status, Verb, WatchEvent, WatchRequest};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Path = (String, String, String);

/// Objects by plural, namespace and name.
#[derive(Default)]
struct State {
    objects: BTreeMap<Path, Value>,
    revision: u64,
}

pub(crate) struct Masters {
    state: Mutex<State>,
    changes: broadcast::Sender<(String, WatchEvent)>,
}

impl Masters {
    pub(crate) fn new() -> Arc<Masters> {
        let (changes, _) = broadcast::channel(4096);
        Arc::new(Masters { state: Mutex::default(), changes })
    }

    /// As a client would apply it.
    pub(crate) fn put(&self, plural: &str, mut value: Value) {
        let meta = value["metadata"].as_object_mut().unwrap();
        meta.entry("uid").or_insert_with(|| json!(uuid::Uuid::new_v4().to_string()));
        let path = path_of(plural, &value);
        self.write(path, value);
    }

    pub(crate) fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let path = (plural.to_string(), namespace.to_string(), name.to_string());
        self.state.lock().unwrap().objects.get(&path).cloned()
    }

    pub(crate) fn all(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let found = state.objects.iter().filter(|((kind, ..), _)| kind == plural);
        found.map(|(_, value)| value.clone()).collect()
    }

    /// Marks for deletion with a grace period, as DELETE does for a pod on a node.
    pub(crate) fn delete_gracefully(&self, name: &str, seconds: i64) {
        let mut pod = self.get("pods", "default", name).unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
        self.put("pods", pod);
    }

    /// Takes a pod away as if it had never been.
    pub(crate) fn forget(&self, name: &str) {
        self.remove(&("pods".to_string(), "default".to_string(), name.to_string()));
    }

    fn write(&self, path: Path, value: Value) -> Value {
        self.write_in(&mut self.state.lock().unwrap(), path, value)
    }

    fn write_in(&self, state: &mut State, path: Path, mut value: Value) -> Value {
        state.revision += 1;
        value["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let old = state.objects.insert(path.clone(), value.clone());
        let object = Arc::new(Object::from_value(value.clone()).unwrap());
        let event =
            if old.is_none() { WatchEvent::Added(object) } else { WatchEvent::Modified(object) };
        let _ = self.changes.send((path.0, event));
        value
    }

    fn remove(&self, path: &Path) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        let mut value = state.objects.remove(path)?;
        state.revision += 1;
        value["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        let object = Arc::new(Object::from_value(value.clone()).unwrap());
        let _ = self.changes.send((path.0.clone(), WatchEvent::Deleted(object)));
        Some(value)
    }

    fn answer(&self, request: Request) -> Result<Object, Status> {
        let plural = request.resource.plural.to_string();
        let path = (plural.clone(), request.namespace.clone(), request.name.clone());
        let missing = || Status::not_found(&request.resource, &request.name);
        let value = match request.verb {
            Verb::Get => self.get(&path.0, &path.1, &path.2).ok_or_else(missing)?,
            Verb::List => {
                let mut items = self.all(&plural);
                items.retain(|item| item["metadata"]["namespace"] == json!(request.namespace));
                json!({"items": items})
            }
            Verb::Create => {
                let mut value = request.body.unwrap();
                let path = path_of(&plural, &value);
                if self.state.lock().unwrap().objects.contains_key(&path) {
                    return Err(Status::already_exists(&request.resource, &path.2));
                }
                value["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
                self.write(path, value)
            }
            Verb::Patch(_) => {
                let mut state = self.state.lock().unwrap();
                let mut value = state.objects.get(&path).cloned().ok_or_else(missing)?;
                merge(&mut value, &request.body.unwrap());
                self.write_in(&mut state, path, value)
            }
            Verb::Delete => self.remove(&path).ok_or_else(missing)?,
            Verb::Update | Verb::DeleteCollection => {
                return Err(Status::not_implemented("no agent does this"));
            }
        };
        Ok(Object::from_value(value).unwrap())
    }
}

fn path_of(plural: &str, value: &Value) -> Path {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default().to_string();
    (plural.to_string(), text("namespace"), text("name"))
}

/// RFC 7386.
fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (key, part) in patch {
        let fields = value.as_object_mut().unwrap();
        if part.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), part);
        }
    }
}

impl Api for Masters {
    fn call(&self, request: Request) -> BoxFuture<'_, Result<Object, Status>> {
        futures::future::ready(self.answer(request)).boxed()
    }

    fn watch(&self, request: WatchRequest) -> BoxFuture<'_, Result<Events, Status>> {
        let state = self.state.lock().unwrap();
        let plural = request.resource.plural.to_string();
        let later = BroadcastStream::new(self.changes.subscribe());
        let now = state.objects.iter().filter(|((kind, ..), _)| *kind == plural);
        let mut first: Vec<Result<WatchEvent, Status>> = now
            .map(|(_, value)| Object::from_value(value.clone()).unwrap())
            .map(|object| Ok(WatchEvent::Added(Arc::new(object))))
            .collect();
        let revision = Revision(state.revision);
        first.push(Ok(WatchEvent::Bookmark { revision, initial_events_end: true }));
        let later = later.filter_map(move |change| {
            let event = change.ok().filter(|(kind, _)| *kind == plural).map(|(_, event)| Ok(event));
            futures::future::ready(event)
        });
        let stream: Events = futures::stream::iter(first).chain(later).boxed();
        futures::future::ready(Ok(stream)).boxed()
    }
}
