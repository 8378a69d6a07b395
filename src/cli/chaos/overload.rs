//! Too many requests for a master: clients that list, watch and write large ConfigMaps as fast as they
//! are answered, as a user of their own and of a priority level with a small share. What is refused
//! with 429 is refused rightly; what the run's own clients ask must go on meanwhile.

use super::{
    api::{LABEL, Shared},
    run::ask,
};
use crate::cli::client::{Connection, Target};
use anyhow::{Context, Result};
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// More than the level's seats and its queue hold together, so that some are refused.
const LISTERS: usize = 32;
const WRITERS: usize = 24;
const WATCHERS: usize = 8;
/// Each writer has one object of so many bytes: all of them are a list of 1.5 MB.
const OBJECT_BYTES: usize = 64 << 10;
/// Of the level, beside some 250 that there are: 600 seats make about 20 for it.
const SHARES: u32 = 8;
const QUEUE: u32 = 16;
/// Before the built-in schemas that would match, after those that nobody may come before.
const PRECEDENCE: u32 = 500;
/// After a refusal or none at all: an impolite client, not a busy loop.
const PAUSE: Duration = Duration::from_millis(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Of a run: its user, namespace, priority level and so on are all called this.
fn name(shared: &Shared) -> String {
    format!("{}-overload", shared.namespace)
}

/// What the flood needs, by its path and in order.
fn objects(name: &str) -> Vec<(&'static str, Value)> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let metadata = json!({"name": name, "labels": {LABEL: "run"}});
    let in_namespace = json!({"name": name, "namespace": name, "labels": {LABEL: "run"}});
    let user = json!({"kind": "User", "name": name, "apiGroup": RBAC});
    let limited = json!({
        "nominalConcurrencyShares": SHARES,
        "lendablePercent": 0,
        "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Queue", "queuing":
            {"queues": 1, "handSize": 1, "queueLengthLimit": QUEUE}},
    });
    let rules = json!([{
        "subjects": [{"kind": "User", "user": {"name": name}}],
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "namespaces": ["*"]}],
    }]);
    vec![
        (NAMESPACES, json!({"metadata": metadata})),
        (
            ROLES,
            json!({"metadata": in_namespace, "rules":
            [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]}),
        ),
        (
            BINDINGS,
            json!({"metadata": in_namespace, "subjects": [user], "roleRef":
            {"apiGroup": RBAC, "kind": "Role", "name": name}}),
        ),
        (LEVELS, json!({"metadata": metadata, "spec": {"type": "Limited", "limited": limited}})),
        (
            SCHEMAS,
            json!({"metadata": metadata, "spec": {"matchingPrecedence": PRECEDENCE,
            "priorityLevelConfiguration": {"name": name},
            "distinguisherMethod": {"type": "ByUser"}, "rules": rules}}),
        ),
    ]
}

const NAMESPACES: &str = "/api/v1/namespaces";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
const SCHEMAS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";

/// Makes what a flood needs; before any fault.
pub(super) async fn prepare(shared: &Shared) -> Result<()> {
    let name = name(shared);
    for (path, object) in objects(&name) {
        ask(&shared.target, Method::POST, &path.replace("{}", &name), object).await?;
    }
    Ok(())
}

/// Removes all of it, and what was written.
pub(super) async fn clean_up(shared: &Shared) -> Result<()> {
    let name = name(shared);
    let mut result = Ok(());
    // What is in the namespace goes with it.
    for path in [SCHEMAS, LEVELS, NAMESPACES] {
        let path = format!("{path}/{name}");
        let gone = ask(&shared.target, Method::DELETE, &path, Value::Null).await;
        // The first error is the one to report; the others are tried all the same.
        result = result.and(gone.map(drop));
    }
    result
}

/// What became of a flood's requests.
#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    too_many: AtomicU64,
    /// Anything else, or no answer.
    failed: AtomicU64,
}

/// Many clients of one master, until it is dropped.
pub(super) struct Flood {
    #[expect(dead_code, reason = "ends them when it is dropped")]
    clients: JoinSet<()>,
    counts: Arc<Counts>,
}

impl Flood {
    pub(super) fn begin(shared: &Shared, server: &str) -> Flood {
        let (mut clients, counts) = (JoinSet::new(), Arc::new(Counts::default()));
        for number in 0..LISTERS + WRITERS + WATCHERS {
            let client = Client {
                target: shared.target.clone(),
                server: server.to_owned(),
                user: name(shared),
                number,
                counts: counts.clone(),
            };
            clients.spawn(async move { client.work().await });
        }
        Flood { clients, counts }
    }

    /// What became of it, for people.
    pub(super) fn told(&self) -> String {
        let Counts { answered, too_many, failed } = &*self.counts;
        format!(
            "{} requests of the flood were answered, {} refused with 429, {} failed",
            answered.load(Relaxed),
            too_many.load(Relaxed),
            failed.load(Relaxed)
        )
    }
}

struct Client {
    target: Target,
    server: String,
    user: String,
    number: usize,
    counts: Arc<Counts>,
}

impl Client {
    async fn work(self) {
        let mut connection = None;
        loop {
            let counter = match self.turn(&mut connection).await {
                Ok(200..300) => &self.counts.answered,
                Ok(429) => &self.counts.too_many,
                Ok(_) => &self.counts.failed,
                Err(error) => {
                    tracing::debug!("a request of the flood failed: {error:#}");
                    connection = None;
                    &self.counts.failed
                }
            };
            counter.fetch_add(1, Relaxed);
            if !std::ptr::eq(counter, &self.counts.answered) {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// One request; the answer's code.
    async fn turn(&self, connection: &mut Option<Connection>) -> Result<u16> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let open = Connection::open(&self.server, self.target.tls.clone());
                let opened = tokio::time::timeout(CONNECT_TIMEOUT, open).await;
                let opened = connection.insert(opened.context("no connection")??);
                opened.impersonate = Some(self.user.clone());
                opened
            }
        };
        let all = format!("/api/v1/namespaces/{}/configmaps", self.user);
        if self.number < LISTERS {
            return Ok(connection.call(Method::GET, &all, Vec::new()).await?.0);
        }
        if self.number >= LISTERS + WRITERS {
            // As long as the master lets it.
            let path = format!("{all}?watch=1");
            let (code, mut body) = connection.send(Method::GET, &path, Vec::new()).await?;
            while body.frame().await.transpose()?.is_some() {}
            return Ok(code);
        }
        let key = format!("large-{}", self.number);
        let data = json!({"value": "x".repeat(OBJECT_BYTES)});
        let object = json!({"metadata": {"name": key}, "data": data}).to_string().into_bytes();
        let (code, _) =
            connection.call(Method::PUT, &format!("{all}/{key}"), object.clone()).await?;
        match code {
            404 => Ok(connection.call(Method::POST, &all, object).await?.0),
            code => Ok(code),
        }
    }
}
