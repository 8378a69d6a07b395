//! AdmissionReview: the question as `admission.k8s.io` v1 or v1beta1, and what the answer means.

use super::{Part, matching::Invocation};
use crate::{
    admission::{Cx, Operation},
    encode, memo,
    pipeline::{convert, key},
    subresources,
};
use base64::Engine as _;
use k8s::{Object, Status};
use serde_json::{Map, Value, json};

/// What is asked about: kind and object are those of the subresource where it has its own.
pub(super) struct Question<'a> {
    pub(super) invocation: &'a Invocation,
    pub(super) uid: String,
    /// Absent on delete.
    pub(super) object: Option<&'a Object>,
}

/// What the webhook says.
pub(super) struct Answer {
    pub(super) allowed: bool,
    /// Operations of RFC 6902; empty: none.
    pub(super) patch: Vec<Value>,
    pub(super) result: Value,
    pub(super) annotations: Vec<(String, String)>,
    pub(super) warnings: Vec<String>,
}

/// Group, version and kind of the object in a review.
fn kind(cx: &Cx<'_>, version: &str) -> (String, String, String) {
    let own = |group: &str, version: &str, kind: &str| {
        (group.to_string(), version.to_string(), kind.to_string())
    };
    match (cx.kind.plural, cx.subresource) {
        (_, "scale") => own("autoscaling", "v1", "Scale"),
        ("pods", "eviction") => own("policy", "v1", "Eviction"),
        ("pods", "binding") => own("", "v1", "Binding"),
        ("pods", "exec") => own("", "v1", "PodExecOptions"),
        ("pods", "attach") => own("", "v1", "PodAttachOptions"),
        ("pods", "portforward") => own("", "v1", "PodPortForwardOptions"),
        ("pods", "proxy") => own("", "v1", "PodProxyOptions"),
        ("pods", "log") => own("", "v1", "PodLogOptions"),
        ("services", "proxy") => own("", "v1", "ServiceProxyOptions"),
        ("nodes", "proxy") => own("", "v1", "NodeProxyOptions"),
        ("serviceaccounts", "token") => own("authentication.k8s.io", "v1", "TokenRequest"),
        _ => own(cx.kind.group, version, cx.kind.kind),
    }
}

/// The object as the webhook sees it. The stored one has its revision; the new one of an update has
/// the same, as a client that read it would have sent it.
pub(in crate::admission) fn document(cx: &Cx<'_>, version: &str, object: &Object) -> Value {
    let mut shown = if cx.subresource == "scale" {
        subresources::scale::shown(cx.kind, object)
    } else {
        convert::seen(cx.kind, version, object.clone())
    };
    let (group, version, kind) = kind(cx, version);
    shown.0.insert("kind".into(), kind.into());
    shown.0.insert("apiVersion".into(), encode::api_version(&group, &version).into());
    let revision = cx.old.and_then(Object::revision);
    if let Some(revision) = revision.filter(|_| cx.operation != Operation::Connect) {
        encode::stamp_revision(&mut shown, revision);
    }
    shown.into_value()
}

/// The old object of a write as the webhook sees it, with its managed fields, which nobody in here
/// carries along.
pub(in crate::admission) fn old_document(cx: &Cx<'_>, version: &str) -> Option<Value> {
    let old = cx.old.filter(|_| cx.operation != Operation::Connect)?;
    let mut shown = document(cx, version, old);
    if cx.subresource != "scale"
        && let Some(managed) = managed(cx, old)
    {
        shown["metadata"]["managedFields"] = managed;
    }
    Some(shown)
}

/// `None` also if the object was changed meanwhile: then this write fails and is decided again.
fn managed(cx: &Cx<'_>, old: &Object) -> Option<Value> {
    let key = key(cx.kind, cx.namespace, cx.name);
    let stored = cx.view.stored(&key.space, &key.path)?;
    let same = old.revision() == Some(encode::revision(stored.revision));
    memo::managed(&stored).filter(|_| same)
}

/// The request without its objects, as `version` of its kind has it.
pub(in crate::admission) fn request(cx: &Cx<'_>, version: &str) -> Value {
    let gvk = |version: &str| {
        let (group, version, kind) = kind(cx, version);
        json!({ "group": group, "version": version, "kind": kind })
    };
    let gvr = |version: &str| json!({ "group": cx.kind.group, "version": version, "resource": cx.kind.plural });
    let is_namespace = cx.kind.group.is_empty() && cx.kind.plural == "namespaces";
    let mut request = json!({
        "kind": gvk(version),
        "resource": gvr(version),
        "requestKind": gvk(cx.version),
        "requestResource": gvr(cx.version),
        "name": cx.name,
        "namespace": if is_namespace { cx.name } else { cx.namespace },
        "operation": cx.operation.name(),
        "userInfo": user(cx),
        "dryRun": cx.dry_run,
        "options": options(cx),
    });
    if !cx.subresource.is_empty() {
        request["subResource"] = cx.subresource.into();
        request["requestSubResource"] = cx.subresource.into();
    }
    if let Some(request) = request.as_object_mut() {
        request.retain(|_, value| !matches!(value.as_str(), Some("")));
    }
    request
}

impl Question<'_> {
    pub(super) fn body(&self, cx: &Cx<'_>) -> Value {
        let version = &self.invocation.version;
        let mut request = request(cx, version);
        request["uid"] = self.uid.clone().into();
        request["object"] = self.object.map(|it| document(cx, version, it)).unwrap_or_default();
        request["oldObject"] = old_document(cx, version).unwrap_or_default();
        let version = self.invocation.hook.review.unwrap_or("v1");
        json!({
            "kind": "AdmissionReview",
            "apiVersion": format!("admission.k8s.io/{version}"),
            "request": request,
        })
    }

    /// `Err` says why it is no answer to this question.
    pub(super) fn read(&self, part: Part, body: &[u8]) -> Result<Answer, String> {
        let review: Value = serde_json::from_slice(body)
            .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
        let response = review.get("response").filter(|response| response.is_object());
        let response = response.ok_or("webhook response was absent")?;
        let text = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
        };
        let strict = self.invocation.hook.review == Some("v1");
        if strict {
            let uid = text(response, "uid");
            if uid != self.uid {
                return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
            }
            let (version, kind) = (text(&review, "apiVersion"), text(&review, "kind"));
            if version != "admission.k8s.io/v1" || kind != "AdmissionReview" {
                return Err(format!(
                    "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got \
                     {version}, Kind={kind}"
                ));
            }
        }
        let annotations = response.get("auditAnnotations").and_then(Value::as_object);
        let warnings = response.get("warnings").and_then(Value::as_array);
        Ok(Answer {
            allowed: response.get("allowed").and_then(Value::as_bool).unwrap_or(false),
            patch: patch(part, strict, response)?,
            result: response.get("status").cloned().unwrap_or_default(),
            annotations: annotations
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_string())))
                .collect(),
            warnings: warnings
                .into_iter()
                .flatten()
                .filter_map(|warning| warning.as_str().map(str::to_string))
                .collect(),
        })
    }
}

fn patch(part: Part, strict: bool, response: &Value) -> Result<Vec<Value>, String> {
    let field = |name: &str| response.get(name).filter(|value| !value.is_null());
    let encoded = field("patch").and_then(Value::as_str).filter(|patch| !patch.is_empty());
    let kind = field("patchType").map(|kind| kind.as_str().unwrap_or_default());
    if part == Part::Validating {
        return match (strict, encoded, kind) {
            (true, Some(_), _) => Err("validating webhook may not return response.patch".into()),
            (true, None, Some(_)) => {
                Err("validating webhook may not return response.patchType".into())
            }
            _ => Ok(Vec::new()),
        };
    }
    match (encoded, kind) {
        (None, Some(_)) if strict => {
            return Err("webhook returned response.patchType but not response.patch".into());
        }
        (Some(_), None) if strict => {
            return Err("webhook returned response.patch but not response.patchType".into());
        }
        (Some(_), Some(kind)) if strict && kind != "JSONPatch" => {
            return Err(format!("webhook returned invalid response.patchType of {kind:?}"));
        }
        _ => {}
    }
    let Some(encoded) = encoded else { return Ok(Vec::new()) };
    let undecodable =
        |why: String| format!("received undecodable patch in webhook response: {why}");
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
    let bytes = bytes.map_err(|error| undecodable(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| undecodable(error.to_string()))
}

fn user(cx: &Cx<'_>) -> Value {
    let identity = cx.identity;
    let mut user = json!({ "username": identity.user, "groups": identity.groups });
    if !identity.uid.is_empty() {
        user["uid"] = identity.uid.clone().into();
    }
    if !identity.extra.is_empty() {
        user["extra"] = json!(identity.extra);
    }
    user
}

/// The options of the request as an object of `meta.k8s.io/v1`.
fn options(cx: &Cx<'_>) -> Value {
    let kind = match cx.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = Map::new();
    options.insert("kind".into(), kind.into());
    options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
    let given = cx.options;
    if cx.dry_run {
        options.insert("dryRun".into(), json!(["All"]));
    }
    if cx.operation == Operation::Delete {
        if let Some(seconds) = given.grace_period_seconds {
            options.insert("gracePeriodSeconds".into(), seconds.into());
        }
        if let Some(policy) = &given.propagation_policy {
            options.insert("propagationPolicy".into(), policy.clone().into());
        }
        let mut preconditions = Map::new();
        if let Some(uid) = &given.precondition_uid {
            preconditions.insert("uid".into(), uid.clone().into());
        }
        if let Some(revision) = given.precondition_revision {
            preconditions.insert("resourceVersion".into(), revision.to_string().into());
        }
        if !preconditions.is_empty() {
            options.insert("preconditions".into(), preconditions.into());
        }
    } else {
        for (field, value) in
            [("fieldManager", &given.field_manager), ("fieldValidation", &given.field_validation)]
        {
            if let Some(value) = value {
                options.insert(field.into(), value.clone().into());
            }
        }
    }
    Value::Object(options)
}

/// The refusal a webhook's `status` makes, in upstream's words.
pub(super) fn refusal(hook: &str, result: &Value) -> Status {
    let text = |field: &str| result.get(field).and_then(Value::as_str).unwrap_or_default();
    let denied = format!("admission webhook {hook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let mut status = json!({ "kind": "Status" });
    if let (Some(status), Some(result)) = (status.as_object_mut(), result.as_object()) {
        status.extend(result.clone());
        status.insert("kind".into(), "Status".into());
    }
    let mut refused =
        Status::from_value(&status).unwrap_or_else(|| Status::new(400, "", String::new()));
    let code = result.get("code").and_then(Value::as_u64).unwrap_or(0);
    // A refusal is never told as a success.
    refused.code = if (400..600).contains(&code) { code as u16 } else { 400 };
    refused.message = message;
    refused
}

/// The object after a webhook's patch, as a document.
pub(super) fn patched(document: Value, patch: Vec<Value>) -> Result<Value, Status> {
    k8s::patch::json(document, &Value::Array(patch))
        .map_err(|error| Status::internal(error.status().message))
}

/// What a patched document stands for: the object of the request's own kind, or the subresource's.
pub(in crate::admission) fn object(
    cx: &Cx<'_>,
    version: &str,
    before: &Object,
    document: Value,
) -> Result<Object, Status> {
    if cx.operation == Operation::Connect {
        let mut options = Object::from_value(document).unwrap_or_default();
        options.0.remove("kind");
        options.0.remove("apiVersion");
        return Ok(options);
    }
    match cx.subresource {
        "scale" => {
            let replicas = document.pointer("/spec/replicas").cloned().unwrap_or_default();
            let mut object = before.clone();
            subresources::scale::set_replicas(cx.kind, &mut object, replicas)?;
            Ok(object)
        }
        "binding" | "eviction" | "token" => {
            let mut object = Object::from_value(document)
                .ok_or_else(|| Status::internal("a webhook made something that is no object"))?;
            encode::strip(&mut object);
            Ok(object)
        }
        _ => cx.reader.read(cx.kind, version, document).map_err(|status| {
            Status::internal(format!(
                "a webhook made an object of the wrong type: {}",
                status.message
            ))
        }),
    }
}
