//! The review kinds: objects that are answered instead of stored.

use super::{Attributes, Authorizer, Decision};
use crate::{identity::Identity, kinds::KindDef};
use k8s::{FieldError, Object, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The answer to a create of a review by `user`; `None` if `kind` is not a review. `namespace` is
/// that of the request path.
pub fn answer(
    authorizer: &dyn Authorizer,
    user: &Identity,
    kind: &KindDef,
    namespace: &str,
    review: &Object,
) -> Option<Result<Object, Status>> {
    let status = match (kind.group, kind.kind) {
        ("authorization.k8s.io", "SelfSubjectAccessReview") => access(authorizer, user, review),
        ("authorization.k8s.io", "SubjectAccessReview") => other_access(authorizer, review),
        ("authorization.k8s.io", "LocalSubjectAccessReview") => {
            local_access(authorizer, namespace, review)
        }
        ("authorization.k8s.io", "SelfSubjectRulesReview") => rules(authorizer, user, review),
        ("authentication.k8s.io", "SelfSubjectReview") => {
            Ok(json!({ "userInfo": user_info(user) }))
        }
        // No token is issued yet, so none is known.
        ("authentication.k8s.io", "TokenReview") => token(review),
        _ => return None,
    };
    let refused = |errors: Vec<FieldError>| Status::invalid(kind.group, kind.kind, "", &errors);
    Some(status.map_err(refused).map(|status| {
        let mut answer = review.clone();
        answer.metadata_mut();
        answer.0.insert("status".into(), status);
        answer
    }))
}

type Answer = Result<Value, Vec<FieldError>>;

fn access(authorizer: &dyn Authorizer, user: &Identity, review: &Object) -> Answer {
    let resource = review.at("/spec/resourceAttributes");
    let path = review.at("/spec/nonResourceAttributes");
    let field = |value: Option<&Value>, name: &str| {
        let text = value.and_then(|value| value.get(name)?.as_str());
        text.unwrap_or_default().to_string()
    };
    let asked: Vec<String> = match (resource, path) {
        (Some(_), None) => {
            ["verb", "group", "version", "resource", "subresource", "namespace", "name"]
                .iter()
                .map(|name| field(resource, name))
                .collect()
        }
        (None, Some(_)) => vec![field(path, "verb"), field(path, "path")],
        (Some(_), Some(value)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            let at = "spec.nonResourceAttributes";
            return Err(vec![FieldError::invalid(at, value.clone(), detail)]);
        }
        (None, None) => {
            let detail =
                "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return Err(vec![FieldError::invalid("spec.resourceAttributes", Value::Null, detail)]);
        }
    };
    let mut attributes = Attributes {
        user,
        verb: &asked[0],
        group: "",
        version: "",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        path: "",
    };
    match asked.as_slice() {
        [_, path] => attributes.path = path,
        [_, group, version, resource, subresource, namespace, name] => {
            (attributes.group, attributes.version) = (group, version);
            (attributes.resource, attributes.subresource) = (resource, subresource);
            (attributes.namespace, attributes.name) = (namespace, name);
        }
        _ => unreachable!("two or seven texts, made above"),
    }
    Ok(match authorizer.authorize(&attributes) {
        Decision::Allow => json!({ "allowed": true }),
        Decision::Deny { reason } => json!({ "allowed": false, "denied": true, "reason": reason }),
        Decision::NoOpinion { reason } if reason.is_empty() => json!({ "allowed": false }),
        Decision::NoOpinion { reason } => json!({ "allowed": false, "reason": reason }),
    })
}

fn other_access(authorizer: &dyn Authorizer, review: &Object) -> Answer {
    let user = spec_user(review);
    if user.user.is_empty() && user.groups.is_empty() {
        let detail = "at least one of user or group must be specified";
        return Err(vec![FieldError::invalid("spec.user", json!(""), detail)]);
    }
    access(authorizer, &user, review)
}

fn local_access(authorizer: &dyn Authorizer, namespace: &str, review: &Object) -> Answer {
    let asked = review.str_at("/spec/resourceAttributes/namespace");
    if asked != namespace {
        let detail = format!("must match metadata.namespace: {namespace}");
        let at = "spec.resourceAttributes.namespace";
        return Err(vec![FieldError::invalid(at, asked.into(), detail)]);
    }
    other_access(authorizer, review)
}

fn rules(authorizer: &dyn Authorizer, user: &Identity, review: &Object) -> Answer {
    match review.str_at("/spec/namespace") {
        "" => Err(vec![FieldError::required("spec.namespace", "namespace is required")]),
        namespace => Ok(authorizer.rules(user, namespace)),
    }
}

fn token(review: &Object) -> Answer {
    match review.str_at("/spec/token") {
        "" => Err(vec![FieldError::required("spec.token", "")]),
        _ => Ok(json!({ "user": {}, "error": "this server issues no tokens yet" })),
    }
}

fn spec_user(review: &Object) -> Identity {
    let texts = |value: &Value| {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|entry| Some(entry.as_str()?.to_string())).collect::<Vec<_>>()
    };
    let extra = review.at("/spec/extra").and_then(Value::as_object).into_iter().flatten();
    Identity {
        user: review.str_at("/spec/user").into(),
        uid: review.str_at("/spec/uid").into(),
        groups: review.at("/spec/groups").map(texts).unwrap_or_default(),
        extra: extra.map(|(key, value)| (key.clone(), texts(value))).collect::<BTreeMap<_, _>>(),
    }
}

fn user_info(user: &Identity) -> Value {
    let mut info = json!({ "username": user.user, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
