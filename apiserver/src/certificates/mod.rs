//! CertificateSigningRequests from question to certificate: approves what nodes may ask for
//! themselves (client certificates here, those they serve with in [`serving`]), signs what is approved,
//! and forgets what is old.

mod authority;
pub(crate) mod request;
pub(crate) mod serving;
pub(crate) mod signers;

pub(crate) use authority::fingerprint;
pub use authority::{Authority, to_pem};

use crate::{
    authz::{Attributes, Decision},
    chores::{Chore, Desk},
    identity::Identity,
    pipeline::meta,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s::{Object, Request as ApiRequest, Resource, Status, Verb};
use request::Request;
use serde_json::{Value, json};
use std::sync::Arc;

const RESOURCE: Resource = Resource::new("certificates.k8s.io", "v1", "certificatesigningrequests");

/// kube-controller-manager's --cluster-signing-duration.
const LIFE_SECONDS: i64 = 365 * 24 * 60 * 60;
/// Upstream's cleaner: how long a request is kept once it is decided, and undecided.
const DECIDED_SECONDS: i64 = 60 * 60;
const PENDING_SECONDS: i64 = 24 * 60 * 60;

pub(crate) const CHORE: Chore = Chore {
    name: "certificates",
    space: "certificates.k8s.io/certificatesigningrequests",
    account: "certificate-controller",
    work,
};

fn work(desk: &Desk, object: Arc<Object>) -> BoxFuture<'_, Result<(), Status>> {
    async move { take(desk, next(desk, &object, Timestamp::now())).await }.boxed()
}

async fn take(desk: &Desk, step: Step) -> Result<(), Status> {
    let mut request = match step {
        Step::None => return Ok(()),
        Step::Write { subresource, changed } => {
            ApiRequest::update(RESOURCE, changed).subresource(subresource)
        }
        Step::Delete(object) => {
            let mut request = ApiRequest::new(Verb::Delete, RESOURCE, "", object.name());
            request.options.precondition_uid = Some(object.uid().to_string());
            request
        }
    };
    request.fence = Some(desk.term.0);
    desk.api.call(request).await.map(|_| ())
}

enum Step {
    None,
    Write { subresource: &'static str, changed: Object },
    Delete(Arc<Object>),
}

/// What to do with a request now.
fn next(desk: &Desk, object: &Arc<Object>, now: Timestamp) -> Step {
    if is_old(object, now) {
        return Step::Delete(object.clone());
    }
    let has = |kind: &str| condition(object, kind).is_some();
    if has("Denied") || has("Failed") || !object.str_at("/status/certificate").is_empty() {
        return Step::None;
    }
    if !has("Approved") {
        return approve(desk, object);
    }
    if !signers::is_ours(object.str_at("/spec/signerName")) {
        return Step::None;
    }
    let believed = desk.server.core.config.believed.now();
    let Some(authority) = &believed.signer else { return Step::None };
    let mut changed = Object::clone(object);
    match sign(authority, object, now) {
        Ok(pem) => {
            let status = changed.map_mut("status");
            status.insert("certificate".into(), STANDARD.encode(pem).into());
        }
        Err(why) => add_condition(&mut changed, "Failed", "True", "SignerValidationFailure", &why),
    }
    Step::Write { subresource: "status", changed }
}

fn sign(authority: &Authority, object: &Object, now: Timestamp) -> Result<String, String> {
    let request = Request::of(object)?;
    if let Some(why) = signers::refusal(object, &request) {
        return Err(why);
    }
    let asked = object.int_at("/spec/expirationSeconds").unwrap_or(LIFE_SECONDS);
    authority.sign(&request, &signers::usages(object), asked.min(LIFE_SECONDS), now)
}

/// A node's own client certificate, if RBAC lets its requestor have one unasked.
fn approve(desk: &Desk, object: &Object) -> Step {
    let usages = signers::usages(object);
    let Ok(request) = Request::of(object) else { return Step::None };
    let for_a_node = object.str_at("/spec/signerName") == signers::KUBELET_CLIENT
        && signers::kubelet_client_refusal(&request, &usages).is_none();
    if !for_a_node {
        return Step::None;
    }
    let user = requestor(object);
    let itself = user.user == request.common_name;
    let may = |subresource| may(desk, &user, subresource);
    let message = match (itself && may("selfnodeclient"), may("nodeclient")) {
        (true, _) => "Auto approving self kubelet client certificate after SubjectAccessReview.",
        (_, true) => "Auto approving kubelet client certificate after SubjectAccessReview.",
        _ => return Step::None,
    };
    let mut changed = object.clone();
    add_condition(&mut changed, "Approved", "True", "AutoApproved", message);
    Step::Write { subresource: "approval", changed }
}

/// Subresources that RBAC alone knows say who is answered without being asked.
fn may(desk: &Desk, user: &Identity, subresource: &str) -> bool {
    let asked = Attributes {
        user,
        verb: "create",
        group: RESOURCE_GROUP,
        version: "v1",
        resource: "certificatesigningrequests",
        subresource,
        namespace: "",
        name: "",
        field_selector: "",
        path: "",
    };
    desk.server.core.authorizer.authorize(&asked) == Decision::Allow
}

const RESOURCE_GROUP: &str = "certificates.k8s.io";

/// Who made the request, as the API server wrote it down.
fn requestor(object: &Object) -> Identity {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|text| Some(text.as_str()?.to_string())).collect()
    };
    let extra = object.at("/spec/extra").and_then(Value::as_object).into_iter().flatten();
    Identity {
        user: object.str_at("/spec/username").to_string(),
        uid: object.str_at("/spec/uid").to_string(),
        groups: object.at("/spec/groups").map(texts).unwrap_or_default(),
        extra: extra.map(|(key, value)| (key.clone(), texts(value))).collect(),
    }
}

fn condition<'a>(object: &'a Object, kind: &str) -> Option<&'a Value> {
    let conditions = object.at("/status/conditions").and_then(Value::as_array)?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

/// Approved, denied or failed: nothing is left to decide.
fn is_decided(object: &Object) -> bool {
    ["Approved", "Denied", "Failed"].iter().any(|kind| condition(object, kind).is_some())
}

fn add_condition(object: &mut Object, kind: &str, status: &str, reason: &str, message: &str) {
    let now = meta::now();
    let conditions = object.map_mut("status").entry("conditions").or_insert(Value::Null);
    if conditions.is_null() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.push(json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now,
        }));
    }
}

/// Decided an hour ago, or never for a day.
fn is_old(object: &Object, now: Timestamp) -> bool {
    let before = |text: &str, seconds: i64| {
        text.parse::<Timestamp>().is_ok_and(|at| at.as_second() + seconds < now.as_second())
    };
    let decided = ["Approved", "Denied", "Failed"].map(|kind| condition(object, kind));
    let mut decided = decided.into_iter().flatten().peekable();
    if decided.peek().is_none() {
        return before(object.str_at("/metadata/creationTimestamp"), PENDING_SECONDS);
    }
    decided.any(|condition| {
        before(condition["lastUpdateTime"].as_str().unwrap_or_default(), DECIDED_SECONDS)
    })
}
