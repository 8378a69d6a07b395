//! A webhook as its configuration describes it, compiled once per version of the configuration.

use crate::admission::policy::{self, Expression};
use k8s::{Object, selector::LabelSelector};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// All webhooks of one configuration, in order.
pub(super) struct Hooks(pub(super) Vec<Arc<Hook>>);

pub(super) struct Hook {
    pub(super) configuration: String,
    pub(super) name: String,
    pub(super) server: Server,
    pub(super) rules: Vec<Rule>,
    /// `failurePolicy: Ignore`.
    pub(super) may_fail: bool,
    /// `matchPolicy: Equivalent`.
    pub(super) equivalent: bool,
    /// What is wrong with a selector lets the request fail, as upstream has it.
    pub(super) namespaces: Result<LabelSelector, String>,
    pub(super) objects: Result<LabelSelector, String>,
    /// `sideEffects` are such that it may be asked about what will not happen.
    pub(super) dry_run: bool,
    pub(super) timeout: Duration,
    /// `v1` or `v1beta1`, the first this server knows of those the webhook takes.
    pub(super) review: Option<&'static str>,
    /// `matchConditions`.
    pub(super) conditions: Vec<Expression>,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) again: bool,
}

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    pub(super) at: At,
    /// Starts with `/`, or is empty.
    pub(super) path: String,
    /// PEM; empty: what the machine trusts.
    pub(super) ca: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum At {
    Url { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

impl At {
    /// What its certificate must be for.
    pub(super) fn host(&self) -> String {
        match self {
            At::Url { host, .. } => host.clone(),
            At::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    pub(super) fn port(&self) -> u16 {
        match self {
            At::Url { port, .. } | At::Service { port, .. } => *port,
        }
    }
}

pub(in crate::admission) struct Rule {
    pub(super) groups: Vec<String>,
    pub(super) versions: Vec<String>,
    /// Resource and subresource.
    pub(super) resources: Vec<(String, String)>,
    pub(super) operations: Vec<String>,
    pub(super) scope: String,
}

impl Hooks {
    pub(super) fn of(configuration: &Object) -> Hooks {
        let hooks = configuration.at("/webhooks").and_then(Value::as_array).into_iter().flatten();
        Hooks(hooks.map(|hook| Arc::new(Hook::of(configuration.name(), hook))).collect())
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_string()
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_string)).collect()
}

impl Hook {
    fn of(configuration: &str, hook: &Value) -> Hook {
        let selector = |field: &str| match hook.get(field).filter(|value| !value.is_null()) {
            Some(selector) => LabelSelector::from_value(selector),
            None => Ok(LabelSelector::everything()),
        };
        let seconds = hook.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(10);
        let reviews = texts(hook, "admissionReviewVersions");
        let known = |version: &String| ["v1", "v1beta1"].into_iter().find(|it| it == version);
        let rules = hook.get("rules").and_then(Value::as_array).into_iter().flatten();
        Hook {
            configuration: configuration.to_string(),
            name: text(hook, "/name"),
            server: Server::of(hook.get("clientConfig").unwrap_or(&Value::Null)),
            rules: rules.map(Rule::of).collect(),
            may_fail: text(hook, "/failurePolicy") == "Ignore",
            equivalent: text(hook, "/matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            dry_run: matches!(text(hook, "/sideEffects").as_str(), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(seconds.clamp(1, 30)),
            review: reviews.iter().find_map(known),
            conditions: policy::conditions(hook, false),
            again: text(hook, "/reinvocationPolicy") == "IfNeeded",
        }
    }
}

impl Server {
    /// Reads a `WebhookClientConfig`.
    pub(crate) fn of(client: &Value) -> Server {
        use base64::Engine as _;
        let ca = base64::engine::general_purpose::STANDARD.decode(text(client, "/caBundle"));
        let ca = ca.unwrap_or_default();
        let service = client.get("service").filter(|service| !service.is_null());
        if let Some(service) = service {
            let port = service.get("port").and_then(Value::as_u64).unwrap_or(443);
            let at = At::Service {
                namespace: text(service, "/namespace"),
                name: text(service, "/name"),
                port: port as u16,
            };
            let path = text(service, "/path");
            let path =
                if path.starts_with('/') || path.is_empty() { path } else { format!("/{path}") };
            return Server { at, path, ca };
        }
        let url = url::Url::parse(&text(client, "/url")).ok();
        let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        let port = url.as_ref().and_then(url::Url::port).unwrap_or(443);
        let path = url.as_ref().map(|url| url.path().to_string()).unwrap_or_default();
        let host = host.trim_matches(['[', ']']).to_string();
        Server { at: At::Url { host, port }, path, ca }
    }

    /// As errors name it.
    pub(super) fn url(&self) -> String {
        let host = self.at.host();
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        match &self.at {
            At::Url { port: 443, .. } => format!("https://{host}{}", self.path),
            at => format!("https://{host}:{}{}", at.port(), self.path),
        }
    }
}

impl Rule {
    pub(in crate::admission) fn of(rule: &Value) -> Rule {
        let split = |resource: String| match resource.split_once('/') {
            Some((resource, subresource)) => (resource.to_string(), subresource.to_string()),
            None => (resource, String::new()),
        };
        Rule {
            groups: texts(rule, "apiGroups"),
            versions: texts(rule, "apiVersions"),
            resources: texts(rule, "resources").into_iter().map(split).collect(),
            operations: texts(rule, "operations"),
            scope: text(rule, "/scope"),
        }
    }
}
