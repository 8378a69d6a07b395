//! Kinds that are only asked: access reviews and who-am-I. The answer is the question with a status.

use crate::{
    authz::{Attributes, Decision},
    identity::Identity,
    pipeline::{Call, Core, Reply, Type, What},
};
use k8s::{Object, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted = Type::of(call.kind, &call.version);
    let validation = call.options.field_validation.as_deref();
    let (mut review, warnings) = core.decode(&wanted, &call.body, validation)?;
    let status = match call.kind.kind {
        "SelfSubjectReview" => json!({ "userInfo": user_info(&call.identity) }),
        "SelfSubjectAccessReview" => access(core, &call.identity, &review),
        "LocalSubjectAccessReview" | "SubjectAccessReview" => {
            access(core, &subject(&review), &review)
        }
        "SelfSubjectRulesReview" => {
            core.authorizer.rules(&call.identity, review.str_at("/spec/namespace"))
        }
        "TokenReview" => json!({ "authenticated": false, "user": {} }),
        kind => {
            return Err(Status::not_implemented(format!("{kind} is not implemented yet")));
        }
    };
    review.0.insert("status".into(), status);
    review.0.remove("kind");
    review.0.remove("apiVersion");
    review.metadata_mut();
    Ok(Reply { what: What::Object(review), created: true, warnings })
}

fn user_info(identity: &Identity) -> Value {
    let mut info = json!({ "username": identity.user, "groups": identity.groups });
    if !identity.uid.is_empty() {
        info["uid"] = identity.uid.clone().into();
    }
    if !identity.extra.is_empty() {
        info["extra"] = json!(identity.extra);
    }
    info
}

/// The user a review asks about.
fn subject(review: &Object) -> Identity {
    let list = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_string).collect()
    };
    let extra = review.at("/spec/extra").and_then(Value::as_object);
    Identity {
        user: review.str_at("/spec/user").into(),
        uid: review.str_at("/spec/uid").into(),
        groups: review.at("/spec/groups").map(list).unwrap_or_default(),
        extra: extra
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), list(value)))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn access(core: &Core, user: &Identity, review: &Object) -> Value {
    let resource = |field: &str| review.str_at(&format!("/spec/resourceAttributes/{field}"));
    let other = |field: &str| review.str_at(&format!("/spec/nonResourceAttributes/{field}"));
    let whole = review.at("/spec/nonResourceAttributes").is_some();
    let attributes = Attributes {
        user,
        verb: if whole { other("verb") } else { resource("verb") },
        group: resource("group"),
        version: resource("version"),
        resource: resource("resource"),
        subresource: resource("subresource"),
        namespace: resource("namespace"),
        name: resource("name"),
        path: other("path"),
    };
    let mut status = json!({ "allowed": false });
    match core.authorizer.authorize(&attributes) {
        Decision::Allow => status["allowed"] = true.into(),
        Decision::Deny { reason } => {
            status["denied"] = true.into();
            status["reason"] = reason.into();
        }
        Decision::NoOpinion { reason } if !reason.is_empty() => status["reason"] = reason.into(),
        Decision::NoOpinion { .. } => {}
    }
    status
}
