//! What every cluster starts with. Idempotent; the caller leads, and each write is fenced by its term.

use crate::{
    Server, authn, authz, catalog, memo,
    pipeline::{Body, Call},
    rotation,
};
use futures::{StreamExt, TryStreamExt};
use k8s::{Object, Status, Verb};
use raft_store::Term;
use serde_json::{Value, json};

/// As many as one log entry groups without delaying others.
const AT_ONCE: usize = 64;

impl Server {
    /// Makes what is absent: namespaces, priority classes, roles and their bindings, and the
    /// `kubernetes` Service. Does nothing on a member that does not lead.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        let leading = self.core.store.leadership().borrow().leading;
        let Some(term) = leading else {
            return Ok(());
        };
        rotation::ensure(&self.core, term).await?;
        // Namespaces first: some of the rest live in them.
        self.ensure_all(namespaces(), term.0).await?;
        let mut objects = priority_classes();
        objects.extend(default_accounts());
        objects.extend(authz::bootstrap());
        objects.push(self.kubernetes_service());
        objects.push(self.service_cidr());
        objects.extend(authn::published::config_map(&self.core.config));
        self.ensure_all(objects, term.0).await
    }

    /// Many at once, so that the log writes them together.
    async fn ensure_all(&self, objects: Vec<Object>, term: u64) -> Result<(), Status> {
        let each = objects.into_iter().map(|object| self.ensure(object, term));
        futures::stream::iter(each).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Creates `object` unless it exists; a role or binding that does is brought up to it.
    async fn ensure(&self, object: Object, term: u64) -> Result<(), Status> {
        let Some(call) = call(&object, Verb::Create, term) else {
            tracing::debug!(kind = object.kind(), "not served, not made");
            return Ok(());
        };
        let key = crate::pipeline::key(&call.kind, object.namespace(), object.name());
        if let Some(stored) = self.core.store.get(&key) {
            return self.reconcile(&memo::parse(&stored), &object, term).await;
        }
        match self.core.call(call).await {
            // Made by another bootstrap meanwhile: it may say so in other words (its address is taken).
            Err(_) if self.core.store.get(&key).is_some() => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Roles and bindings keep granting at least what they must; anything else is the user's.
    async fn reconcile(&self, have: &Object, want: &Object, term: u64) -> Result<(), Status> {
        let new = if want.api_version().starts_with("rbac.authorization.k8s.io/") {
            authz::reconcile(have, want)
        } else if want.kind() == "ConfigMap" {
            // What it tells is ours alone.
            let mut new = have.clone();
            new.0.insert("data".into(), want.0["data"].clone());
            (new != *have).then_some(new)
        } else {
            None
        };
        let Some(mut new) = new else { return Ok(()) };
        for field in ["apiVersion", "kind"] {
            new.0.insert(field.into(), want.0[field].clone());
        }
        let Some(call) = call(&new, Verb::Update, term) else {
            return Ok(());
        };
        match self.core.call(call).await {
            // Somebody wrote it in between; the next leader looks again.
            Err(status) if status.is_conflict() => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// The range that service addresses come from, for clients that look.
    fn service_cidr(&self) -> Object {
        object(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": { "name": "kubernetes" },
            "spec": { "cidrs": [self.core.config.service_cidr.to_string()] },
        }))
    }

    /// Its endpoints are a controller's.
    fn kubernetes_service(&self) -> Object {
        object(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kubernetes",
                "namespace": "default",
                "labels": { "component": "apiserver", "provider": "kubernetes" },
            },
            "spec": {
                "type": "ClusterIP",
                "clusterIP": self.core.config.service_cidr.first().to_string(),
                "sessionAffinity": "None",
                "ports": [{
                    "name": "https", "protocol": "TCP", "port": 443,
                    "targetPort": self.core.config.advertise_port,
                }],
            },
        }))
    }
}

/// `None` if the object's kind is not served.
fn call(object: &Object, verb: Verb, term: u64) -> Option<Call> {
    let kind = catalog::by_kind(object.api_version(), object.kind())?;
    let version = object.api_version().rsplit('/').next().unwrap_or_default().to_string();
    let body = Body::Value(object.clone().into_value());
    Some(Call {
        version,
        namespace: object.namespace().to_string(),
        name: if verb == Verb::Create { String::new() } else { object.name().to_string() },
        ..Call::own(kind.into(), verb, body, Term(term))
    })
}

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object literal")
}

pub(crate) const NAMESPACES: [&str; 4] =
    ["default", "kube-node-lease", "kube-public", "kube-system"];

/// A controller makes them in every namespace; here, so that a pod need not wait for it.
fn default_accounts() -> Vec<Object> {
    let account = |namespace: &str| {
        object(json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": "default", "namespace": namespace },
        }))
    };
    NAMESPACES.into_iter().map(account).collect()
}

fn namespaces() -> Vec<Object> {
    let namespace = |name: &str| {
        object(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
    };
    NAMESPACES.into_iter().map(namespace).collect()
}

/// Upstream's two, which critical add-ons name.
pub(crate) fn priority_classes() -> Vec<Object> {
    let class = |name: &str, value: i64| {
        object(json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": { "name": name },
            "value": value,
            "preemptionPolicy": "PreemptLowerPriority",
        }))
    };
    vec![
        class("system-cluster-critical", 2_000_000_000),
        class("system-node-critical", 2_000_001_000),
    ]
}
