//! `meta.v1.Status`: the one error type of the API, named by what the caller does next.

use crate::text::{go_json, go_quote};
use crate::{Resource, Revision};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;

/// `field.ErrorType` as it appears in `details.causes[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CauseReason {
    FieldValueNotFound,
    FieldValueRequired,
    FieldValueDuplicate,
    FieldValueInvalid,
    FieldValueNotSupported,
    FieldValueForbidden,
    FieldValueTooLong,
    FieldValueTooMany,
    InternalError,
    FieldValueTypeInvalid,
    UnexpectedServerResponse,
    FieldManagerConflict,
    ResourceVersionTooLarge,
    FieldValueTooFew,
    FieldValueTooShort,
}

/// One thing wrong with one field; `detail` is text without the path.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// As upstream prints it: `spec.containers[0].name`.
    pub path: String,
    pub reason: CauseReason,
    /// Printed between reason and detail where upstream prints it.
    pub bad_value: Option<Value>,
    pub detail: String,
}

impl FieldError {
    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, CauseReason::FieldValueRequired, None, detail)
    }

    pub fn invalid(path: impl Into<String>, value: Value, detail: impl Into<String>) -> Self {
        Self::new(path, CauseReason::FieldValueInvalid, Some(value), detail)
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, CauseReason::FieldValueForbidden, None, detail)
    }

    pub fn duplicate(path: impl Into<String>, value: Value) -> Self {
        Self::new(path, CauseReason::FieldValueDuplicate, Some(value), "")
    }

    pub fn not_found(path: impl Into<String>, value: Value) -> Self {
        Self::new(path, CauseReason::FieldValueNotFound, Some(value), "")
    }

    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> Self {
        let unit = if max_bytes == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {max_bytes} {unit}");
        Self::new(path, CauseReason::FieldValueTooLong, None, detail)
    }

    pub fn too_many(path: impl Into<String>, count: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {unit}");
        Self::new(path, CauseReason::FieldValueTooMany, Some(json!(count)), detail)
    }

    pub fn not_supported(path: impl Into<String>, value: Value, valid: &[&str]) -> Self {
        let quoted: Vec<String> = valid.iter().map(|value| go_quote(value)).collect();
        let detail = match quoted.as_slice() {
            [] => String::new(),
            _ => format!("supported values: {}", quoted.join(", ")),
        };
        Self::new(path, CauseReason::FieldValueNotSupported, Some(value), detail)
    }

    fn new(
        path: impl Into<String>,
        reason: CauseReason,
        bad_value: Option<Value>,
        detail: impl Into<String>,
    ) -> Self {
        FieldError { path: path.into(), reason, bad_value, detail: detail.into() }
    }

    /// `Invalid value: "x": must be …`: the text of a cause, without the path.
    pub fn text(&self) -> String {
        let name = match self.reason {
            CauseReason::FieldValueNotFound => "Not found",
            CauseReason::FieldValueRequired => "Required value",
            CauseReason::FieldValueDuplicate => "Duplicate value",
            CauseReason::FieldValueInvalid => "Invalid value",
            CauseReason::FieldValueNotSupported => "Unsupported value",
            CauseReason::FieldValueForbidden => "Forbidden",
            CauseReason::FieldValueTooLong => "Too long",
            CauseReason::FieldValueTooMany => "Too many",
            CauseReason::FieldValueTooFew => "Too few",
            CauseReason::FieldValueTooShort => "Too short",
            CauseReason::FieldValueTypeInvalid => "Invalid value",
            _ => "Internal error",
        };
        let mut text = name.to_string();
        if let Some(value) = &self.bad_value {
            text.push_str(": ");
            text.push_str(&match value {
                Value::String(value) => go_quote(value),
                other => go_json(other),
            });
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text())
    }
}

/// One of `details.causes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// A refused request, as the API reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// `metav1.StatusReason`: `NotFound`, `Conflict`, `Invalid`, …; empty for unknown.
    pub reason: String,
    pub message: String,
    pub group: String,
    pub kind: String,
    pub name: String,
    pub causes: Vec<Cause>,
    /// Whole seconds, also sent as `Retry-After`.
    pub retry_after_seconds: Option<u32>,
    /// Apart, so that a Status stays small enough to be moved about.
    pub rare: Option<Box<Rare>>,
}

/// What few refusals tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rare {
    /// `details.uid`
    pub uid: String,
    /// `metadata.continue`: where an expired list may go on, though not consistently.
    pub continue_token: String,
}

impl Status {
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Status {
        Status {
            code,
            reason: reason.to_string(),
            message: message.into(),
            group: String::new(),
            kind: String::new(),
            name: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            rare: None,
        }
    }

    /// `details.kind` is the plural resource here, as upstream does it.
    fn about(mut self, resource: &Resource, name: &str) -> Status {
        self.group = resource.group.to_string();
        self.kind = resource.plural.to_string();
        self.name = name.to_string();
        self
    }

    pub fn not_found(resource: &Resource, name: &str) -> Status {
        let message = format!("{resource} {} not found", go_quote(name));
        Self::new(404, "NotFound", message).about(resource, name)
    }

    pub fn already_exists(resource: &Resource, name: &str) -> Status {
        let message = format!("{resource} {} already exists", go_quote(name));
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    pub fn conflict(resource: &Resource, name: &str, why: impl fmt::Display) -> Status {
        let quoted = go_quote(name);
        let message = format!("Operation cannot be fulfilled on {resource} {quoted}: {why}");
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The conflict of a stale `resourceVersion`.
    pub fn modified(resource: &Resource, name: &str) -> Status {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        Self::conflict(resource, name, why)
    }

    /// `kind` is the Kind (`Pod`), as upstream has it for this reason only.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
        let qualified = if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") };
        let mut texts: Vec<String> = Vec::new();
        for text in errors.iter().map(FieldError::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let name_text = go_quote(name);
        let mut status =
            Self::new(422, "Invalid", format!("{qualified} {name_text} is invalid{list}"));
        status.group = group.to_string();
        status.kind = kind.to_string();
        status.name = name.to_string();
        status.causes = errors
            .iter()
            .map(|error| Cause {
                reason: format!("{:?}", error.reason),
                message: error.text(),
                field: error.path.clone(),
            })
            .collect();
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Status {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Status {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn forbidden(resource: &Resource, name: &str, why: impl fmt::Display) -> Status {
        let subject = if name.is_empty() {
            resource.to_string()
        } else {
            format!("{resource} {}", go_quote(name))
        };
        let message = format!("{subject} is forbidden: {why}");
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    pub fn method_not_allowed(resource: &Resource, verb: &str) -> Status {
        let message = format!(
            "{verb} is not supported on resources of kind {}",
            go_quote(&resource.to_string())
        );
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    /// No route takes this method, whatever the object.
    pub fn method_unknown() -> Status {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    /// The watch or list asked for a revision older than history: list again.
    pub fn expired(message: impl Into<String>) -> Status {
        Self::new(410, "Expired", message)
    }

    pub fn too_large(limit_bytes: usize) -> Status {
        let message = format!("Request entity too large: limit is {limit_bytes}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Status {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Status {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let mut status = Self::new(429, "TooManyRequests", message);
        status.retry_after_seconds = Some(retry_after_seconds);
        status
    }

    pub fn internal(message: impl fmt::Display) -> Status {
        let mut status =
            Self::new(500, "InternalError", format!("Internal error occurred: {message}"));
        status.causes = vec![Cause {
            reason: String::new(),
            message: message.to_string(),
            field: String::new(),
        }];
        status
    }

    /// Said openly of what this server does not do yet.
    pub fn not_implemented(message: impl Into<String>) -> Status {
        Self::new(501, "NotImplemented", message)
    }

    pub fn unavailable(message: impl Into<String>, retry_after_seconds: u32) -> Status {
        let mut status = Self::new(503, "ServiceUnavailable", message);
        status.retry_after_seconds = Some(retry_after_seconds);
        status
    }

    pub fn timeout(message: impl fmt::Display) -> Status {
        Self::new(504, "Timeout", format!("Timeout: {message}"))
    }

    /// The name made from `generateName` was taken; the client may try again.
    pub fn generate_name_conflict(resource: &Resource, name: &str) -> Status {
        let message = format!(
            "{resource} {} already exists, the server was not able to generate a unique name for \
             the object",
            go_quote(name)
        );
        let mut status = Self::new(409, "AlreadyExists", message).about(resource, name);
        status.retry_after_seconds = Some(1);
        status
    }

    /// The server could not do it now; nothing was done.
    pub fn server_timeout(resource: &Resource, operation: &str) -> Status {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, \
             please try again."
        );
        Self::new(500, "ServerTimeout", message).about(resource, "")
    }

    /// The client named a revision this cluster has not reached.
    pub fn too_large_resource_version(asked: Revision, current: Revision) -> Status {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let mut status = Self::timeout(message);
        status.causes = vec![Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        }];
        status.retry_after_seconds = Some(1);
        status
    }

    pub fn is_not_found(&self) -> bool {
        self.code == 404
    }

    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// The same request may succeed later, unchanged.
    pub fn is_retryable(&self) -> bool {
        matches!(self.code, 429 | 500 | 503 | 504)
    }

    /// The JSON that travels.
    pub fn to_value(&self) -> Value {
        let mut details = serde_json::Map::new();
        let mut text = |field: &str, value: &str| {
            if !value.is_empty() {
                details.insert(field.into(), value.into());
            }
        };
        text("name", &self.name);
        text("group", &self.group);
        text("kind", &self.kind);
        text("uid", self.rare.as_ref().map_or("", |rare| rare.uid.as_str()));
        if !self.causes.is_empty() {
            details.insert("causes".into(), json!(self.causes));
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".into(), seconds.into());
        }
        let mut value = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if !details.is_empty() {
            value["details"] = Value::Object(details);
        }
        if let Some(rare) = self.rare.as_ref().filter(|rare| !rare.continue_token.is_empty()) {
            value["metadata"]["continue"] = rare.continue_token.as_str().into();
        }
        value
    }

    /// Reads what [`Status::to_value`] wrote; `None` if `value` is no `Status`.
    pub fn from_value(value: &Value) -> Option<Status> {
        if value.get("kind")?.as_str()? != "Status" {
            return None;
        }
        let text = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
        };
        let code = value.get("code").and_then(Value::as_u64).unwrap_or(500);
        let mut status = Status::new(code as u16, &text(value, "reason"), text(value, "message"));
        let pointed = |pointer: &str| {
            value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string()
        };
        let rare =
            Rare { uid: pointed("/details/uid"), continue_token: pointed("/metadata/continue") };
        status.rare = Some(rare).filter(|rare| *rare != Rare::default()).map(Box::new);
        if let Some(details) = value.get("details") {
            status.name = text(details, "name");
            status.group = text(details, "group");
            status.kind = text(details, "kind");
            status.causes = details
                .get("causes")
                .and_then(|causes| serde_json::from_value(causes.clone()).ok())
                .unwrap_or_default();
            status.retry_after_seconds =
                details.get("retryAfterSeconds").and_then(Value::as_u64).map(|n| n as u32);
        }
        Some(status)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Resource = Resource::new("", "v1", "pods");
    const DEPLOYMENTS: Resource = Resource::new("apps", "v1", "deployments");

    #[test]
    fn statuses_are_those_of_upstream() {
        let errors = [
            FieldError::required("spec.containers", ""),
            FieldError::invalid("metadata.name", "A\u{1}<".into(), "must be lower case"),
            FieldError::invalid("spec.replicas", json!(-1), "must be greater than or equal to 0"),
            FieldError::invalid("spec.selector", json!({"a": "<"}), "is too wide"),
            FieldError::not_supported("spec.type", "x".into(), &["ClusterIP", "NodePort"]),
            FieldError::duplicate("spec.ports[1]", json!({"port": 80})),
            FieldError::forbidden("spec", "is immutable"),
            FieldError::too_long("metadata.name", 1),
            FieldError::too_many("spec.items", 3, 1),
            FieldError::not_found("spec.volume", "v".into()),
            FieldError::forbidden("spec", "is immutable"),
        ];
        let statuses = [
            Status::not_found(&PODS, "web"),
            Status::already_exists(&DEPLOYMENTS, "web"),
            Status::modified(&DEPLOYMENTS, "web"),
            Status::invalid("apps", "Deployment", "web", &errors),
            Status::invalid("", "Pod", "", &errors[..1]),
            Status::invalid("", "Pod", "a", &[]),
            Status::forbidden(&PODS, "", "no"),
            Status::forbidden(&PODS, "web", "no"),
            Status::method_not_allowed(&PODS, "update"),
            Status::too_large_resource_version(Revision(9), Revision(7)),
            Status::generate_name_conflict(&PODS, "web-abcde"),
            Status::server_timeout(&PODS, "create"),
            Status::internal("disk"),
            Status::too_many_requests("slow down", 1),
        ];
        let lines: Vec<String> =
            statuses.iter().map(|status| status.to_value().to_string()).collect();
        insta::assert_snapshot!(lines.join("\n"));
        for status in statuses {
            assert_eq!(Status::from_value(&status.to_value()), Some(status));
        }
    }

    #[test]
    fn other_values_are_no_status() {
        assert_eq!(Status::from_value(&json!({"kind": "Pod"})), None);
        assert_eq!(Status::from_value(&json!(5)), None);
    }
}
