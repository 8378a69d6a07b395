//! Tokens of service accounts for the pods of this node (KEP-1205): asked of the API bound to the pod,
//! kept in memory only, and renewed well before they end.

use jiff::Timestamp;
use k8s::{Api, Request, Resource, Status, Verb};
use k8s_openapi::api::core::v1::Pod;
use rand::Rng;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

const SERVICE_ACCOUNTS: Resource = Resource::new("", "v1", "serviceaccounts");
/// A master that answers does so sooner.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A token is renewed when this part of its life is left (as the kubelet does).
const RENEW_PERCENT: i64 = 20;
/// And after a day in any case.
const AGE_SECONDS_MAX: i64 = 24 * 60 * 60;
/// So that pods of one second do not renew in one second.
const JITTER_SECONDS: i64 = 10;
/// Upstream's default where a projection names none.
const SECONDS: i64 = 3600;

/// What a volume wants of a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    /// Empty: the API server.
    pub(crate) audience: String,
    pub(crate) seconds: i64,
}

impl Wanted {
    pub(crate) fn new(audience: Option<&String>, seconds: Option<i64>) -> Wanted {
        Wanted {
            audience: audience.cloned().unwrap_or_default(),
            seconds: seconds.unwrap_or(SECONDS),
        }
    }
}

/// The tokens of one pod.
pub(crate) type Found = BTreeMap<Wanted, String>;

#[derive(Clone)]
struct Held {
    token: String,
    expires: Timestamp,
}

impl Held {
    fn is_due(&self, wanted: &Wanted, now: Timestamp, jitter: i64) -> bool {
        let (now, ends) = (now.as_second(), self.expires.as_second());
        let old = now > ends - wanted.seconds + AGE_SECONDS_MAX - jitter;
        old || now > ends - wanted.seconds * RENEW_PERCENT / 100 - jitter
    }
}

/// All tokens of the node, by pod uid.
pub(crate) struct Tokens {
    api: Arc<dyn Api>,
    held: Mutex<BTreeMap<(String, Wanted), Held>>,
}

impl Tokens {
    pub(crate) fn new(api: Arc<dyn Api>) -> Tokens {
        Tokens { api, held: Mutex::default() }
    }

    /// The tokens that `pod` is to have now; where no master answers, those it had.
    pub(crate) async fn of(&self, pod: &Pod, wanted: &BTreeSet<Wanted>) -> Result<Found, String> {
        let mut found = Found::new();
        for wanted in wanted {
            found.insert(wanted.clone(), self.one(pod, wanted).await?);
        }
        Ok(found)
    }

    async fn one(&self, pod: &Pod, wanted: &Wanted) -> Result<String, String> {
        let key = (pod.metadata.uid.clone().unwrap_or_default(), wanted.clone());
        let jitter = rand::rng().random_range(0..JITTER_SECONDS);
        let now = Timestamp::now();
        let held = self.lock().get(&key).cloned();
        if let Some(held) = held.as_ref().filter(|held| !held.is_due(wanted, now, jitter)) {
            return Ok(held.token.clone());
        }
        let asked = tokio::time::timeout(TIMEOUT, ask(&*self.api, pod, wanted)).await;
        let asked = asked.unwrap_or_else(|_| Err(Status::timeout("no master answered in time")));
        match (asked, held) {
            (Ok(fresh), _) => {
                let token = fresh.token.clone();
                let mut all = self.lock();
                // Of pods that are gone, too.
                all.retain(|_, held| held.expires > now);
                all.insert(key, fresh);
                Ok(token)
            }
            (Err(status), Some(held)) if held.expires > now => {
                tracing::warn!(pod = pod.metadata.name, %status, "a token was not renewed");
                Ok(held.token)
            }
            (Err(status), _) => Err(format!("failed to fetch token: {status}")),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, Wanted), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(api: &dyn Api, pod: &Pod, wanted: &Wanted) -> Result<Held, Status> {
    let meta = &pod.metadata;
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let audiences: Vec<&str> = Some(wanted.audience.as_str())
        .filter(|audience| !audience.is_empty())
        .into_iter()
        .collect();
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": wanted.seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid,
            },
        },
    });
    let request = Request::new(Verb::Create, SERVICE_ACCOUNTS, namespace, account)
        .subresource("token")
        .with_body(body);
    let answer = api.call(request).await?;
    let expires = answer.str_at("/status/expirationTimestamp").parse();
    match (answer.str_at("/status/token"), expires) {
        (token, Ok(expires)) if !token.is_empty() => Ok(Held { token: token.to_string(), expires }),
        _ => Err(Status::internal("a TokenRequest was answered without a token")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::BoxFuture;
    use k8s::{Events, Object, WatchRequest};
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    /// Issues tokens that last some seconds; none if that is 0.
    struct Master {
        seconds: AtomicI64,
        issued: AtomicUsize,
    }

    impl Api for Master {
        fn call(&self, request: Request) -> BoxFuture<'_, Result<Object, Status>> {
            assert_eq!((&*request.name, &*request.subresource), ("builder", "token"));
            let body = request.body.unwrap_or_default();
            assert_eq!(body["spec"]["boundObjectRef"]["uid"], "u1");
            let answer = match self.seconds.load(Ordering::Relaxed) {
                0 => Err(Status::unavailable("no master", 1)),
                seconds => {
                    let number = self.issued.fetch_add(1, Ordering::Relaxed);
                    let until = Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
                    let status = json!({
                        "token": format!("t{number}"), "expirationTimestamp": until.to_string(),
                    });
                    Ok(Object::from_value(json!({ "status": status })).unwrap())
                }
            };
            Box::pin(futures::future::ready(answer))
        }

        fn watch(&self, _: WatchRequest) -> BoxFuture<'_, Result<Events, Status>> {
            Box::pin(futures::future::ready(Err(Status::unavailable("no master", 1))))
        }
    }

    #[tokio::test]
    async fn a_token_is_kept_until_it_is_due_and_survives_absent_masters() {
        let master =
            Arc::new(Master { seconds: AtomicI64::new(3600), issued: AtomicUsize::new(0) });
        let tokens = Tokens::new(master.clone());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "dev", "uid": "u1" },
            "spec": { "serviceAccountName": "builder", "containers": [] },
        }))
        .unwrap();
        let ask = |audience: &str| {
            let wanted = Wanted { audience: audience.into(), seconds: 3600 };
            let (tokens, pod) = (&tokens, &pod);
            async move { tokens.one(pod, &wanted).await }
        };
        assert_eq!(ask("").await, Ok("t0".into()));
        assert_eq!(ask("").await, Ok("t0".into()));
        // A tenth of its life is left: due.
        master.seconds.store(360, Ordering::Relaxed);
        assert_eq!(ask("vault").await, Ok("t1".into()));
        assert_eq!(ask("vault").await, Ok("t2".into()));
        master.seconds.store(0, Ordering::Relaxed);
        assert_eq!(ask("vault").await, Ok("t2".into()));
        assert!(ask("other").await.unwrap_err().starts_with("failed to fetch token"));
    }
}
