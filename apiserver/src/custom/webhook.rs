//! Conversion by webhook: `ConversionReview` (apiextensions.k8s.io) over HTTPS. A webhook may change
//! everything but the identity of an object: of its metadata only labels and annotations.

use super::definition::Definition;
use crate::admission::{Clients, WebhookServer};
use bytes::Bytes;
use k8s::{Object, Status, names};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How long a webhook may take for all objects of one request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects of one call: as many as a page of a list has with most clients.
const OBJECTS_MAX: usize = 500;

/// `spec.conversion.webhook`, read once.
pub(crate) struct Webhook {
    server: WebhookServer,
    /// The first this server knows of those the webhook takes.
    review: &'static str,
}

impl Webhook {
    pub(super) fn read(webhook: &Value) -> Webhook {
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        let known = |version: &Value| ["v1", "v1beta1"].into_iter().find(|it| version == it);
        Webhook {
            server: WebhookServer::of(&webhook["clientConfig"]),
            review: versions.into_iter().find_map(known).unwrap_or("v1"),
        }
    }

    /// The objects in the version `to`, in order.
    pub(super) async fn convert(
        &self,
        clients: &Clients,
        definition: &Definition,
        objects: Vec<Object>,
        to: &str,
    ) -> Result<Vec<Object>, Status> {
        let mut converted = Vec::with_capacity(objects.len());
        for some in objects.chunks(OBJECTS_MAX) {
            let from = some.first().map(Object::api_version).unwrap_or_default();
            let kind = definition.kind;
            let named = format!("conversion webhook for {from}, Kind={kind}");
            let answers = self.call(clients, some, to).await;
            let answers = answers.map_err(|why| Status::internal(format!("{named} {why}")))?;
            for (before, after) in some.iter().zip(answers) {
                let kept = restored(before, after, to);
                let invalid = |why| format!("{named} returned invalid object: {why}");
                converted.push(kept.map_err(|why| Status::internal(invalid(why)))?);
            }
        }
        Ok(converted)
    }

    async fn call(
        &self,
        clients: &Clients,
        objects: &[Object],
        to: &str,
    ) -> Result<Vec<Value>, String> {
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": format!("apiextensions.k8s.io/{}", self.review),
            "kind": "ConversionReview",
            "request": { "uid": uid, "desiredAPIVersion": to, "objects": objects },
        });
        let body = Bytes::from(review.to_string());
        let answer = clients.post(&self.server, body, TIMEOUT).await;
        let answer = answer.map_err(|failed| format!("failed: {}", failed.why))?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|error| format!("failed: the answer is not JSON: {error}"))?;
        let objects_back = self.objects(answer, &uid).map_err(|why| format!("failed: {why}"))?;
        if objects_back.len() != objects.len() {
            return Err(format!(
                "returned {} objects, expected {}",
                objects_back.len(),
                objects.len()
            ));
        }
        Ok(objects_back)
    }

    fn objects(&self, mut answer: Value, uid: &str) -> Result<Vec<Value>, String> {
        let wanted = format!("apiextensions.k8s.io/{}", self.review);
        if self.review == "v1"
            && (answer["apiVersion"] != wanted || answer["kind"] != "ConversionReview")
        {
            return Err(format!(
                "expected webhook response of {wanted}, Kind=ConversionReview, got {}, Kind={}",
                answer["apiVersion"].as_str().unwrap_or_default(),
                answer["kind"].as_str().unwrap_or_default()
            ));
        }
        let response = &mut answer["response"];
        if response.is_null() {
            return Err("no response provided".into());
        }
        if self.review == "v1" && response["uid"] != uid {
            let got = response["uid"].as_str().unwrap_or_default();
            return Err(format!("expected response.uid={uid:?}, got {got:?}"));
        }
        let status = response["result"]["status"].as_str().unwrap_or_default();
        if status != "Success" {
            return Err(match response["result"]["message"].as_str() {
                Some(message) if !message.is_empty() => message.to_string(),
                _ => format!("response.result.status was '{status}', not 'Success'"),
            });
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}

/// The converted object with the metadata it had, but for labels and annotations.
fn restored(before: &Object, after: Value, to: &str) -> Result<Object, String> {
    let mut after = Object::from_value(after).ok_or("it is no object")?;
    if after.api_version() != to {
        return Err(format!(
            "invalid groupVersion (expected {to}, received {})",
            after.api_version()
        ));
    }
    for (what, was, is) in [
        ("kind", before.kind(), after.kind()),
        ("name", before.name(), after.name()),
        ("namespace", before.namespace(), after.namespace()),
        ("UID", before.uid(), after.uid()),
    ] {
        if was != is {
            return Err(format!("must have the same {what}: {was} != {is}"));
        }
    }
    let answered = after.metadata().ok_or("missing metadata in converted object")?;
    let mut metadata = before.metadata().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match answered.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
            }
            Some(Value::Object(map)) => {
                check(field, map)?;
                metadata.insert(field.into(), Value::Object(map.clone()));
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    after.0.insert("metadata".into(), Value::Object(metadata));
    Ok(after)
}

fn check(field: &str, map: &Map<String, Value>) -> Result<(), String> {
    for (key, value) in map {
        let Some(text) = value.as_str() else {
            return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
        };
        let mut wrong = match field {
            "labels" => names::is_qualified_name(key),
            _ => names::is_qualified_name(&key.to_lowercase()),
        };
        if field == "labels" {
            wrong.extend(names::is_label_value(text));
        }
        if let Some(wrong) = wrong.first() {
            return Err(format!("metadata.{field}: Invalid value: {key:?}: {wrong}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn only_labels_and_annotations_may_change() {
        let before = object(json!({
            "apiVersion": "a.b/v1", "kind": "C",
            "metadata": { "name": "n", "uid": "u", "finalizers": ["x/y"], "labels": { "a": "b" } },
        }));
        let after = |metadata: Value| {
            let after =
                json!({ "apiVersion": "a.b/v2", "kind": "C", "metadata": metadata, "n": 1 });
            restored(&before, after, "a.b/v2").map(|object| Value::Object(object.0))
        };
        let good = after(json!({ "name": "n", "uid": "u", "annotations": { "c": "d" } }));
        assert_eq!(
            good,
            Ok(json!({
                "apiVersion": "a.b/v2", "kind": "C", "n": 1,
                "metadata": {
                    "name": "n", "uid": "u", "finalizers": ["x/y"], "annotations": { "c": "d" },
                },
            }))
        );
        let renamed = after(json!({ "name": "m", "uid": "u" }));
        assert_eq!(renamed, Err("must have the same name: n != m".into()));
        assert!(after(json!({ "name": "n", "uid": "u", "labels": { "a": 1 } })).is_err());
        assert!(after(json!({ "name": "n", "uid": "u", "labels": { "a": "b c" } })).is_err());
    }
}
