//! `serviceaccounts/token`: a TokenRequest is answered with a token for the account, bound to a pod, a
//! secret or a node if it names one (KEP-1205).

use crate::{
    admission::{self, Operation},
    authn::service_account::Bound,
    pipeline::{Call, Core, Reply, Type, What, meta},
};
use jiff::{SignedDuration, Timestamp};
use k8s::{FieldError, Object, Resource, Status};
use serde_json::{Value, json};

/// `SetDefaults_TokenRequestSpec`.
const DEFAULT_SECONDS: i64 = 3600;
const SECONDS_MIN: i64 = 10 * 60;
const SECONDS_MAX: i64 = 1 << 32;
const API_VERSION: &str = "authentication.k8s.io/v1";

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted = Type {
        schema: "authentication.v1.TokenRequest",
        api_version: API_VERSION.into(),
        kind: "TokenRequest",
    };
    let validation = call.options.field_validation.as_deref();
    let (mut request, warnings) = core.decode(&wanted, &call.body, validation)?;
    settle(&mut request, &call)?;
    let cx = core.admission(&call, Operation::Create, None);
    admission::mutate(&cx, &mut request).await?;
    check(&request, &call.name)?;
    admission::validate(&cx, &request).await?;
    let issued = match issue(core, &call, &request) {
        // The account or the pod may be younger than what this master has seen.
        Err(_) => {
            core.barrier().await?;
            issue(core, &call, &request)
        }
        issued => issued,
    };
    request.0.insert("status".into(), issued?);
    request.0.insert("kind".into(), "TokenRequest".into());
    request.0.insert("apiVersion".into(), API_VERSION.into());
    Ok(Reply { what: What::Other(request), created: true, warnings })
}

/// Names are those of the path; what was left out gets its default.
fn settle(request: &mut Object, call: &Call) -> Result<(), Status> {
    for (field, own) in [("name", &call.name), ("namespace", &call.namespace)] {
        let sent = request.str_at(&format!("/metadata/{field}"));
        if !sent.is_empty() && sent != own {
            let why = format!(
                "the {field} of the provided object does not match the {field} sent on the request"
            );
            return Err(Status::bad_request(why));
        }
        request.metadata_mut().insert(field.into(), own.as_str().into());
    }
    request.metadata_mut().insert("creationTimestamp".into(), meta::now().into());
    let spec = request.map_mut("spec");
    let seconds = spec.entry("expirationSeconds").or_insert(Value::Null);
    if seconds.is_null() {
        *seconds = DEFAULT_SECONDS.into();
    }
    Ok(())
}

fn check(request: &Object, name: &str) -> Result<(), Status> {
    const AT: &str = "spec.expirationSeconds";
    let seconds = request.int_at("/spec/expirationSeconds").unwrap_or_default();
    let why = match seconds {
        ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
        SECONDS_MIN..=SECONDS_MAX => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let error = FieldError::invalid(AT, seconds.into(), why);
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", name, &[error]))
}

/// The status: the token and when it must be renewed.
fn issue(core: &Core, call: &Call, request: &Object) -> Result<Value, Status> {
    let path = format!("{}/{}", call.namespace, call.name);
    let account = core.view.object("serviceaccounts", &path).ok_or_else(|| call_not_found(call))?;
    let bound = bound(core, call, request)?;
    let audiences = request.at("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let audiences: Vec<String> =
        audiences.filter_map(|text| Some(text.as_str()?.to_string())).collect();
    let seconds = request.int_at("/spec/expirationSeconds").unwrap_or(DEFAULT_SECONDS);
    let now = Timestamp::now();
    let token = core.config.tokens.issue(&account, bound.as_ref(), &audiences, seconds, now);
    let until = now.checked_add(SignedDuration::from_secs(seconds)).map_err(Status::internal)?;
    Ok(json!({ "token": token, "expirationTimestamp": meta::time(until) }))
}

fn call_not_found(call: &Call) -> Status {
    Status::not_found(&call.resource(), &call.name)
}

fn bound(core: &Core, call: &Call, request: &Object) -> Result<Option<Bound>, Status> {
    let Some(reference) = request.at("/spec/boundObjectRef").filter(|value| !value.is_null())
    else {
        return Ok(None);
    };
    let text = |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default();
    let (name, kind) = (text("name"), text("kind"));
    let (plural, claim) = match (text("apiVersion"), kind) {
        ("v1", "Pod") => ("pods", "pod"),
        ("v1", "Secret") => ("secrets", "secret"),
        ("v1", "Node") => ("nodes", "node"),
        (version, kind) => {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(why));
        }
    };
    let path = match plural {
        "nodes" => name.to_string(),
        _ => format!("{}/{name}", call.namespace),
    };
    let object = core.view.object(plural, &path);
    let object = object.ok_or_else(|| Status::not_found(&Resource::new("", "v1", plural), name))?;
    if claim == "pod" && object.str_at("/spec/serviceAccountName") != call.name {
        let why = format!(
            "cannot bind token for serviceaccount {:?} to pod running with serviceaccount {:?}",
            call.name,
            object.str_at("/spec/serviceAccountName")
        );
        return Err(Status::bad_request(why));
    }
    if !text("uid").is_empty() && text("uid") != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The \
             object might have been deleted and then recreated",
            text("uid")
        );
        let resource =
            Resource { group: "".into(), version: "v1".into(), plural: kind.to_string().into() };
        return Err(Status::conflict(&resource, name, why));
    }
    let node = object.str_at("/spec/nodeName");
    let node = (claim == "pod" && !node.is_empty()).then(|| {
        let uid = core.view.object("nodes", node).map(|node| node.uid().to_string());
        (node.to_string(), uid.unwrap_or_default())
    });
    let (name, uid) = (name.to_string(), object.uid().to_string());
    Ok(Some(Bound { claim, name, uid, node }))
}
