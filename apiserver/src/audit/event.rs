//! One request's entries in the audit log, stage by stage.

use super::{
    Audit,
    policy::{Level, Verdict},
};
use crate::{identity::Identity, server::RequestInfo};
use http::{HeaderMap, header};
use jiff::Timestamp;
use k8s::Status;
use serde_json::{Map, Value, json};
use std::{net::IpAddr, sync::Arc};

/// When in a request's life an entry is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// A request that is being logged.
pub(crate) struct Exchange {
    audit: Arc<Audit>,
    verdict: Verdict,
    /// All that is known so far.
    event: Map<String, Value>,
}

/// What is known of a request when it comes.
pub(crate) struct Received<'a> {
    pub(crate) id: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) peer: IpAddr,
    pub(crate) user: &'a Identity,
    pub(crate) at: Timestamp,
}

impl Exchange {
    /// `None` if the policy logs nothing of it.
    pub(crate) fn begin(
        audit: &Arc<Audit>,
        received: &Received<'_>,
        info: &RequestInfo,
    ) -> Option<Exchange> {
        let verdict = audit.policy.of(received.user, info);
        if verdict.level == Level::None {
            return None;
        }
        let level = format!("{:?}", verdict.level);
        let agent = received.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let event = json!({
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": level,
            "auditID": received.id,
            "stage": "",
            "requestURI": received.uri,
            "verb": info.verb,
            "user": user(received.user),
            "sourceIPs": sources(received.headers, received.peer),
            "userAgent": agent,
            "objectRef": object_ref(info),
            "requestReceivedTimestamp": micros(received.at),
        });
        let Value::Object(mut event) = event else { return None };
        event.retain(|_, value| !value.is_null());
        Some(Exchange { audit: audit.clone(), verdict, event })
    }

    pub(crate) fn level(&self) -> Level {
        self.verdict.level
    }

    pub(crate) fn impersonates(&mut self, identity: &Identity) {
        self.event.insert("impersonatedUser".into(), user(identity));
    }

    /// The body of a request. A new object's name is in it, not in the path.
    pub(crate) fn request(&mut self, mut object: Value) {
        if let Some(Value::Object(reference)) = self.event.get_mut("objectRef") {
            for (field, pointer) in [
                ("name", "/metadata/name"),
                ("namespace", "/metadata/namespace"),
                ("uid", "/metadata/uid"),
                ("resourceVersion", "/metadata/resourceVersion"),
            ] {
                let value = object.pointer(pointer).filter(|value| *value != "");
                if let (None, Some(value)) = (reference.get(field), value) {
                    reference.insert(field.into(), value.clone());
                }
            }
        }
        if self.verdict.level >= Level::Request {
            self.trim(&mut object);
            self.event.insert("requestObject".into(), object);
        }
    }

    pub(crate) fn response(&mut self, mut object: Value) {
        if self.verdict.level >= Level::RequestResponse {
            self.trim(&mut object);
            self.event.insert("responseObject".into(), object);
        }
    }

    fn trim(&self, object: &mut Value) {
        let drop = |object: &mut Value| {
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        };
        if self.verdict.omit_managed_fields {
            drop(object);
            object
                .get_mut("items")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
                .for_each(drop);
        }
    }

    /// How it went: a code, or the refusal.
    pub(crate) fn answered(&mut self, code: u16, refusal: Option<&Status>) {
        let mut status = match refusal {
            Some(status) => status.to_value(),
            None => json!({ "metadata": {} }),
        };
        if let Value::Object(status) = &mut status {
            for field in ["kind", "apiVersion"] {
                status.remove(field);
            }
            status.insert("code".into(), code.into());
        }
        self.event.insert("responseStatus".into(), status);
        let decision = if code == 403 { "forbid" } else { "allow" };
        self.annotate([
            ("authorization.k8s.io/decision".to_string(), decision.to_string()),
            ("authorization.k8s.io/reason".to_string(), String::new()),
        ]);
    }

    /// The first value of a key stays.
    pub(crate) fn annotate(&mut self, annotations: impl IntoIterator<Item = (String, String)>) {
        let all = self.event.entry("annotations").or_insert_with(|| json!({}));
        let Value::Object(all) = all else { return };
        for (key, value) in annotations {
            all.entry(key).or_insert(value.into());
        }
    }

    /// The line of a stage, if the policy wants it.
    fn line(&mut self, stage: Stage) -> Option<Vec<u8>> {
        if self.verdict.omit_stages.iter().any(|omitted| omitted == stage.name()) {
            return None;
        }
        self.event.insert("stage".into(), stage.name().into());
        self.event.insert("stageTimestamp".into(), micros(Timestamp::now()).into());
        let mut line = serde_json::to_vec(&self.event).ok()?;
        line.push(b'\n');
        Some(line)
    }

    /// Waits for a place in the queue.
    pub(crate) async fn log(&mut self, stage: Stage) {
        if let Some(line) = self.line(stage) {
            self.audit.lines.put(line).await;
        }
    }

    /// The same where nobody can wait.
    pub(crate) fn log_now(&mut self, stage: Stage) {
        if let Some(line) = self.line(stage) {
            self.audit.lines.put_now(line);
        }
    }
}

fn micros(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn user(identity: &Identity) -> Value {
    let mut user = json!({ "username": identity.user, "groups": identity.groups });
    if !identity.uid.is_empty() {
        user["uid"] = identity.uid.clone().into();
    }
    if !identity.extra.is_empty() {
        user["extra"] = json!(identity.extra);
    }
    user
}

/// Who claims to have passed it on, then who did (upstream's `SourceIPs`).
fn sources(headers: &HeaderMap, peer: IpAddr) -> Vec<String> {
    let forwarded = headers.get_all("x-forwarded-for").iter();
    let forwarded = forwarded.filter_map(|value| value.to_str().ok());
    let named = headers.get("x-real-ip").and_then(|value| value.to_str().ok());
    let all = forwarded.flat_map(|value| value.split(',')).chain(named).map(str::trim);
    let mut sources: Vec<String> =
        all.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_string()).collect();
    sources.push(peer.to_string());
    sources.dedup();
    sources
}

fn object_ref(info: &RequestInfo) -> Value {
    if !info.is_resource {
        return Value::Null;
    }
    let mut reference = Map::new();
    for (field, value) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !value.is_empty() {
            reference.insert(field.into(), value.clone().into());
        }
    }
    Value::Object(reference)
}
