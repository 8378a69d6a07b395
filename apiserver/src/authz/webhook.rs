//! Webhook authorization: what neither Node nor RBAC allows is put to a service outside, as a
//! SubjectAccessReview.

use super::{Attributes, Decision};
use crate::webhook::Webhook;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// kube-apiserver's --authorization-webhook-cache-authorized-ttl and …-unauthorized-ttl.
const ALLOWED_TTL: Duration = Duration::from_secs(5 * 60);
const REFUSED_TTL: Duration = Duration::from_secs(30);

pub struct AccessWebhook(Webhook);

impl AccessWebhook {
    /// As the kubeconfig file says; the error says what is wrong with it.
    pub fn from_kubeconfig(path: &Path) -> Result<AccessWebhook, String> {
        Webhook::from_kubeconfig(path).map(AccessWebhook)
    }

    /// No opinion if it cannot be asked: nothing is allowed by silence.
    pub(crate) async fn authorize(&self, asked: &Attributes<'_>) -> Decision {
        self.decide(spec(asked)).await
    }

    /// The same for a question that is a SubjectAccessReview's `spec` already.
    pub(crate) async fn decide(&self, spec: Value) -> Decision {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "metadata": { "creationTimestamp": null },
            "spec": spec,
        });
        let ttl = |status: &Value| {
            if status["allowed"] == true { ALLOWED_TTL } else { REFUSED_TTL }
        };
        let text = |status: &Value| status["reason"].as_str().unwrap_or_default().to_string();
        match self.0.ask(&review, ttl).await {
            Ok(status) if status["allowed"] == true => Decision::Allow,
            Ok(status) if status["denied"] == true => Decision::Deny { reason: text(&status) },
            Ok(status) => Decision::NoOpinion { reason: text(&status) },
            Err(error) => {
                tracing::warn!(%error, "the authorization webhook has not answered");
                Decision::NoOpinion { reason: String::new() }
            }
        }
    }
}

fn spec(asked: &Attributes<'_>) -> Value {
    let user = asked.user;
    let mut spec = json!({ "user": user.user, "groups": user.groups });
    if !user.uid.is_empty() {
        spec["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    if asked.path.is_empty() {
        let fields = [
            ("namespace", asked.namespace),
            ("verb", asked.verb),
            ("group", asked.group),
            ("version", asked.version),
            ("resource", asked.resource),
            ("subresource", asked.subresource),
            ("name", asked.name),
        ];
        let mut attributes = json!({});
        for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            attributes[field] = value.into();
        }
        if !asked.field_selector.is_empty() {
            attributes["fieldSelector"] = json!({ "rawSelector": asked.field_selector });
        }
        spec["resourceAttributes"] = attributes;
    } else {
        spec["nonResourceAttributes"] = json!({ "path": asked.path, "verb": asked.verb });
    }
    spec
}
