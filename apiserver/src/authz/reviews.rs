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
    let selector = selector(resource, "fieldSelector")?;
    // No authorizer here looks at labels; what is wrong with them is still said.
    self::selector(resource, "labelSelector")?;
    let mut attributes = Attributes {
        user,
        verb: &asked[0],
        group: "",
        version: "",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        field_selector: &selector,
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
    Ok(status_of(authorizer.authorize(&attributes)))
}

/// `SubjectAccessReviewStatus`
pub(crate) fn status_of(decision: Decision) -> Value {
    match decision {
        Decision::Allow => json!({ "allowed": true }),
        Decision::Deny { reason } => json!({ "allowed": false, "denied": true, "reason": reason }),
        Decision::NoOpinion { reason } if reason.is_empty() => json!({ "allowed": false }),
        Decision::NoOpinion { reason } => json!({ "allowed": false, "reason": reason }),
    }
}

/// `fieldSelector` or `labelSelector` of the attributes as text (KEP-4601). What has no such text is
/// left out, which asks for more, never for less.
fn selector(attributes: Option<&Value>, field: &str) -> Result<String, Vec<FieldError>> {
    let at = format!("spec.resourceAttributes.{field}");
    let Some(value) = attributes.and_then(|it| it.get(field)).filter(|value| !value.is_null())
    else {
        return Ok(String::new());
    };
    let raw = value.get("rawSelector").and_then(Value::as_str).unwrap_or_default();
    let requirements = value.get("requirements").and_then(Value::as_array);
    let requirements = requirements.map(Vec::as_slice).unwrap_or_default();
    match (raw, requirements) {
        ("", []) => {
            let why = format!("when {at} is specified, requirements or rawSelector is required");
            Err(vec![FieldError::required(format!("{at}.requirements"), why)])
        }
        (raw, []) => Ok(raw.to_string()),
        ("", requirements) => {
            let text = |requirement: &Value| {
                let key = requirement["key"].as_str()?;
                let values = requirement["values"].as_array().map(Vec::as_slice);
                match (requirement["operator"].as_str()?, values?) {
                    ("In", [one]) => Some(format!("{key}={}", one.as_str()?)),
                    ("NotIn", [one]) => Some(format!("{key}!={}", one.as_str()?)),
                    _ => None,
                }
            };
            Ok(requirements.iter().filter_map(text).collect::<Vec<_>>().join(","))
        }
        (raw, _) => {
            let why = "may not specified at the same time as requirements";
            Err(vec![FieldError::invalid(format!("{at}.rawSelector"), raw.into(), why)])
        }
    }
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

/// `authentication.k8s.io/v1 UserInfo`.
pub(crate) fn user_info(user: &Identity) -> Value {
    let mut info = json!({ "username": user.user, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}
