//! Whether a server behind an APIService answers: upstream's checks in upstream's order, and the
//! `Available` condition they make.

use super::{Remote, SPACE, Seen, remote::remote_user};
use crate::{
    backend::{self, pass},
    conditions,
    identity::{Identity, SYSTEM_MASTERS},
    memo,
    pipeline::{Body, Call, Core},
};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use k8s::{PatchType, Status, Verb};
use raft_store::{Revision, Term};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Upstream's bound for one discovery request.
const PATIENCE: Duration = Duration::from_secs(5);
/// A list of resources that is longer is none.
const LIST_BYTES_MAX: usize = 3 << 20;

/// Reason and message.
type Trouble = (String, String);

/// Asks the server now. What it served before is kept if it does not answer.
pub(super) async fn ask(core: &Core, revision: Revision, remote: &Remote) -> Seen {
    let outcome = match service_trouble(core, remote) {
        Some(trouble) => Err(trouble),
        None => {
            let asked = tokio::time::timeout(PATIENCE, discover(core, remote)).await;
            let why = asked.unwrap_or_else(|_| Err("context deadline exceeded".to_string()));
            why.map_err(|why| {
                let url = format!(
                    "https://{}:{}/apis/{}/{}",
                    remote.host(),
                    remote.port,
                    remote.group,
                    remote.version
                );
                let text = format!("failing or missing response from {url}: {why}");
                ("FailedDiscoveryCheck".to_string(), text)
            })
        }
    };
    let before = core.aggregator.get(&remote.object).and_then(|seen| seen.list);
    let (list, trouble) = match outcome {
        Ok(list) => (Some(Arc::new(list)), None),
        Err(trouble) => (before, Some(trouble)),
    };
    Seen { revision, asked: Instant::now(), trouble, list }
}

/// What is wrong with the service, before anybody is asked.
fn service_trouble(core: &Core, remote: &Remote) -> Option<Trouble> {
    let (name, namespace) = (&remote.service, &remote.namespace);
    let service = core.view.object("services", &format!("{namespace}/{name}"));
    let Some(service) = service else {
        let text = format!("service/{name} in {namespace:?} is not present");
        return Some(("ServiceNotFound".into(), text));
    };
    let ports = service.at("/spec/ports").and_then(Value::as_array);
    if !ports.into_iter().flatten().any(|port| port["port"] == remote.port) {
        let port = remote.port;
        let text = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(("ServicePortError".into(), text));
    }
    let port = remote.port.to_string();
    let found = backend::service::endpoint(&*core.view, namespace, name, &port);
    found.err().map(|_| {
        let text = format!(
            "endpoints for service/{name} in {namespace:?} have no addresses with port name {:?}",
            backend::service::port_name(&service, &port).unwrap_or_default()
        );
        ("MissingEndpoints".to_string(), text)
    })
}

/// The server's `APIResourceList`.
async fn discover(core: &Core, remote: &Remote) -> Result<Value, String> {
    let text = |status: Status| status.message;
    let io = remote.connect(core).await.map_err(text)?;
    let (mut sender, _link) = backend::http(io).await.map_err(text)?;
    let aggregator = Identity::authenticated("system:kube-aggregator", &[SYSTEM_MASTERS]);
    let mut request = Request::get(format!("/apis/{}/{}", remote.group, remote.version))
        .header(header::HOST, remote.host())
        .header(header::ACCEPT, "application/json");
    for (name, value) in remote_user(&aggregator) {
        request = request.header(name, value);
    }
    let request = request.body(pass::empty()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let code = answer.status();
    if code != StatusCode::OK {
        return Err(format!("bad status from it: {}", code.as_u16()));
    }
    let body = Limited::new(answer.into_body(), LIST_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| error.to_string())?.to_bytes();
    let list: Value = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match list["resources"].is_array() {
        true => Ok(list),
        false => Err("it lists no resources".to_string()),
    }
}

/// Writes the condition if it is not so already.
pub(super) async fn publish(core: &Core, term: Term, name: &str, trouble: Option<Trouble>) {
    let (status, reason, message) = match trouble {
        None => ("True", "Passed".to_string(), "all checks passed".to_string()),
        Some((reason, message)) => ("False", reason, message),
    };
    if let Err(error) = set(core, term, name, status, &reason, &message).await {
        tracing::debug!(name, %error, "the condition of an APIService is not written now");
    }
}

/// The `Available` condition of an APIService; nothing is written if it is there.
pub(super) async fn set(
    core: &Core,
    term: Term,
    name: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> Result<(), Status> {
    let Some(stored) = core.view.stored(SPACE, name) else { return Ok(()) };
    let object = memo::object(&stored);
    let changed = conditions::changed(&object, "Available", status, reason, message);
    let Some(conditions) = changed else { return Ok(()) };
    let Some(kind) = crate::catalog::by_kind("apiregistration.k8s.io/v1", "APIService") else {
        return Ok(());
    };
    // The others' conditions are theirs: who wrote one in between is not written over.
    let body = Body::Value(json!({
        "metadata": { "resourceVersion": object.str_at("/metadata/resourceVersion") },
        "status": { "conditions": conditions },
    }));
    let call = Call {
        name: name.to_string(),
        subresource: "status".into(),
        ..Call::own(kind.into(), Verb::Patch(PatchType::Merge), body, term)
    };
    core.call(call).await.map(|_| ())
}
