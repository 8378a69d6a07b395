//! The review kinds: objects that are answered instead of stored.

use super::{Attributes, Authorizer, Decision};
use crate::{identity::Identity, kinds::KindDef};
use k8s::{Object, Status};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The answer at `now`, as the API writes times, to a create of a review by `user`, which has its
/// namespace; `None` if `kind` is not a review.
pub fn answer(
    authorizer: &dyn Authorizer,
    user: &Identity,
    kind: &KindDef,
    review: &Object,
    now: &str,
) -> Option<Result<Object, Status>> {
    let errors = (kind.validate)(review, None);
    if !errors.is_empty() {
        // Upstream asks the decoded object for its kind, which by then has none.
        return Some(Err(Status::invalid(kind.group, "", "", &errors)));
    }
    let status = match (kind.group, kind.kind) {
        ("authorization.k8s.io", "SelfSubjectAccessReview") => access(authorizer, user, review),
        ("authorization.k8s.io", "SubjectAccessReview" | "LocalSubjectAccessReview") => {
            access(authorizer, &spec_user(review), review)
        }
        ("authorization.k8s.io", "SelfSubjectRulesReview") => {
            return Some(rules(authorizer, user, review));
        }
        ("authentication.k8s.io", "SelfSubjectReview") => {
            return Some(Ok(whoami(user, now)));
        }
        _ => return None,
    };
    let mut answer = review.clone();
    answer.metadata_mut();
    answer.0.insert("status".into(), status);
    Some(Ok(answer))
}

/// Who asks is told anew: nothing of what was sent comes back (KEP-3325).
fn whoami(user: &Identity, now: &str) -> Object {
    let mut answer = Object(Default::default());
    answer.metadata_mut().insert("creationTimestamp".into(), now.into());
    answer.0.insert("status".into(), json!({ "userInfo": user_info(user) }));
    answer
}

fn access(authorizer: &dyn Authorizer, user: &Identity, review: &Object) -> Value {
    let resource = review.at("/spec/resourceAttributes").filter(|value| !value.is_null());
    let path = review.at("/spec/nonResourceAttributes");
    let field = |value: Option<&Value>, name: &str| {
        let text = value.and_then(|value| value.get(name)?.as_str());
        text.unwrap_or_default().to_string()
    };
    let of = |name: &str| field(resource, name);
    let (verb, path) = match resource {
        Some(_) => (of("verb"), String::new()),
        None => (field(path, "verb"), field(path, "path")),
    };
    // No authorizer here looks at labels.
    status_of(authorizer.authorize(&Attributes {
        user,
        verb: &verb,
        group: &of("group"),
        version: &of("version"),
        resource: &of("resource"),
        subresource: &of("subresource"),
        namespace: &of("namespace"),
        name: &of("name"),
        field_selector: &field_selector(resource),
        path: &path,
    }))
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

/// `fieldSelector` of the attributes as text (KEP-4601). What has no such text is left out, which
/// asks for more, never for less.
fn field_selector(attributes: Option<&Value>) -> String {
    let Some(value) = attributes.and_then(|attributes| attributes.get("fieldSelector")) else {
        return String::new();
    };
    if let Some(raw) = value["rawSelector"].as_str().filter(|raw| !raw.is_empty()) {
        return raw.to_string();
    }
    let text = |requirement: &Value| {
        let key = requirement["key"].as_str()?;
        match (requirement["operator"].as_str()?, requirement["values"].as_array()?.as_slice()) {
            ("In", [one]) => Some(format!("{key}={}", one.as_str()?)),
            ("NotIn", [one]) => Some(format!("{key}!={}", one.as_str()?)),
            _ => None,
        }
    };
    let requirements = value["requirements"].as_array().into_iter().flatten();
    requirements.filter_map(text).collect::<Vec<_>>().join(",")
}

/// Upstream's answer has neither the question nor its metadata.
fn rules(authorizer: &dyn Authorizer, user: &Identity, review: &Object) -> Result<Object, Status> {
    match review.str_at("/spec/namespace") {
        "" => Err(Status::bad_request("no namespace on request")),
        namespace => {
            let status = authorizer.rules(user, namespace);
            let mut answer = Object::default();
            answer.metadata_mut();
            answer.0.insert("spec".into(), json!({}));
            answer.0.insert("status".into(), status);
            Ok(answer)
        }
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
