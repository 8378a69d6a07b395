//! Somebody outside who answers reviews (token or access): reached as a kubeconfig file says, asked at
//! most once for the same thing within a while.

use crate::outbound::{Error, Outbound};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use ring::digest;
use serde_json::Value;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use url::Url;

/// Upstream's timeout for both kinds of webhooks.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Answers remembered; beyond, the oldest half is forgotten.
const REMEMBERED_MAX: usize = 8192;

/// One such service.
pub(crate) struct Webhook {
    url: Url,
    outbound: Outbound,
    credentials: Option<HeaderValue>,
    remembered: Mutex<HashMap<[u8; 32], (Instant, Value)>>,
}

impl Webhook {
    /// Of the current context of a kubeconfig; paths in it are relative to its directory.
    pub(crate) fn from_kubeconfig(path: &Path) -> Result<Webhook, String> {
        let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let config = k8s::decode::yaml_to_value(&text)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let named = |list: &str, name: &str, field: &str| -> Option<Value> {
            let entries = config[list].as_array()?;
            Some(entries.iter().find(|entry| entry["name"] == name)?[field].clone())
        };
        let current = config["current-context"].as_str().unwrap_or_default();
        let context = named("contexts", current, "context").ok_or("no current context")?;
        let cluster = named("clusters", context["cluster"].as_str().unwrap_or_default(), "cluster");
        let cluster = cluster.ok_or("no cluster in the current context")?;
        let user = named("users", context["user"].as_str().unwrap_or_default(), "user");
        let user = user.unwrap_or_default();
        let file = |object: &Value, field: &str| -> Result<Option<Vec<u8>>, String> {
            if let Some(data) = object[format!("{field}-data")].as_str() {
                return STANDARD.decode(data).map(Some).map_err(|e| format!("{field}-data: {e}"));
            }
            let Some(name) = object[field].as_str() else { return Ok(None) };
            let whole = path.parent().unwrap_or(Path::new("")).join(name);
            std::fs::read(&whole).map(Some).map_err(|e| format!("{}: {e}", whole.display()))
        };
        let own = match (file(&user, "client-certificate")?, file(&user, "client-key")?) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => None,
        };
        let own = own.as_ref().map(|(certificate, key)| (&certificate[..], &key[..]));
        let ca = file(&cluster, "certificate-authority")?.unwrap_or_default();
        let server = cluster["server"].as_str().unwrap_or_default();
        Ok(Webhook {
            url: Url::parse(server).map_err(|error| format!("{server:?}: {error}"))?,
            outbound: Outbound::new(&ca, own, TIMEOUT).map_err(|error| error.to_string())?,
            credentials: credentials(&user)?,
            remembered: Mutex::default(),
        })
    }

    /// The `status` of the answer to `review`. `ttl` says how long an answer counts for the same
    /// question.
    pub(crate) async fn ask(
        &self,
        review: &Value,
        ttl: impl Fn(&Value) -> Duration,
    ) -> Result<Value, Error> {
        let body = review.to_string();
        let key = digest::digest(&digest::SHA256, body.as_bytes());
        let key: [u8; 32] = key.as_ref().try_into().expect("SHA-256 has 32 bytes");
        if let Some(known) = self.recall(&key) {
            return Ok(known);
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(credentials) = &self.credentials {
            headers.insert(header::AUTHORIZATION, credentials.clone());
        }
        let sent = self.outbound.send(Method::POST, &self.url, headers, Bytes::from(body)).await?;
        let place = self.url.host_str().unwrap_or_default();
        let odd = |why: String| Error::Unreachable(place.to_string(), why);
        let (code, answer) = sent;
        if code != StatusCode::OK && code != StatusCode::CREATED {
            return Err(odd(format!("it answered {code}")));
        }
        let answer: Value = serde_json::from_slice(&answer).map_err(|e| odd(e.to_string()))?;
        let status = answer.get("status").cloned().unwrap_or_default();
        self.remember(key, Instant::now() + ttl(&status), status.clone());
        Ok(status)
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Value> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, status) = remembered.get(key)?;
        (*until > Instant::now()).then(|| status.clone())
    }

    fn remember(&self, key: [u8; 32], until: Instant, status: Value) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            let mut ends: Vec<Instant> = remembered.values().map(|(until, _)| *until).collect();
            ends.sort_unstable();
            let middle = ends[ends.len() / 2];
            remembered.retain(|_, (until, _)| *until > middle);
        }
        remembered.insert(key, (until, status));
    }
}

fn credentials(user: &Value) -> Result<Option<HeaderValue>, String> {
    let text = |field: &str| user[field].as_str().unwrap_or_default();
    let value = if !text("token").is_empty() {
        format!("Bearer {}", text("token"))
    } else if !text("username").is_empty() {
        let pair = format!("{}:{}", text("username"), text("password"));
        format!("Basic {}", STANDARD.encode(pair))
    } else {
        return Ok(None);
    };
    let mut value = HeaderValue::from_str(&value).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };
    use tokio_util::task::AbortOnDropHandle;

    /// Answers every request with `answer` and counts them.
    async fn service(answer: &'static str) -> (u16, Arc<AtomicUsize>, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 64 << 10];
                let mut read = 0;
                // The body is JSON, and its end is the end of the request.
                while !request[..read].ends_with(b"}") {
                    match stream.read(&mut request[read..]).await {
                        Ok(bytes) if bytes > 0 => read += bytes,
                        _ => break,
                    }
                }
                count.fetch_add(1, Ordering::Relaxed);
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (port, asked, AbortOnDropHandle::new(task))
    }

    fn kubeconfig(directory: &Path, port: u16) -> std::path::PathBuf {
        let path = directory.join("webhook.yaml");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}/review'}}}}]\n\
             users: [{{name: u, user: {{token: secret}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        std::fs::write(&path, text).expect("written");
        path
    }

    const ALLOWED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 31\r\nconnection: close\r\n\r\n\
                           {\"status\": {\"allowed\": true}}   ";
    const BROKEN: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn the_same_question_is_asked_once_in_its_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let (port, asked, _task) = service(ALLOWED).await;
        let webhook = Webhook::from_kubeconfig(&kubeconfig(directory.path(), port));
        let webhook = webhook.expect("a usable file");
        let long = |_: &Value| Duration::from_secs(60);
        for _ in 0..2 {
            let status = webhook.ask(&json!({ "spec": 1 }), long).await.expect("answered");
            assert_eq!(status["allowed"], true);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let at_once = |_: &Value| Duration::ZERO;
        for _ in 0..2 {
            webhook.ask(&json!({ "spec": 2 }), at_once).await.expect("answered");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_service_that_fails_has_not_answered() {
        let directory = tempfile::tempdir().expect("a directory");
        let (port, ..) = service(BROKEN).await;
        let path = kubeconfig(directory.path(), port);
        let webhook = Webhook::from_kubeconfig(&path).expect("a usable file");
        let ttl = |_: &Value| Duration::from_secs(60);
        assert!(webhook.ask(&json!({}), ttl).await.is_err());
        assert!(Webhook::from_kubeconfig(&directory.path().join("absent")).is_err());
    }

    #[tokio::test]
    async fn what_the_access_webhook_allows_is_allowed() {
        let directory = tempfile::tempdir().expect("a directory");
        let (port, asked, _task) = service(ALLOWED).await;
        let path = kubeconfig(directory.path(), port);
        let webhook = crate::authz::AccessWebhook::from_kubeconfig(&path).expect("a usable file");
        let decided = webhook.decide(json!({ "user": "jane" })).await;
        assert_eq!(decided, crate::authz::Decision::Allow);
        let (port, ..) = service(BROKEN).await;
        let path = kubeconfig(directory.path(), port);
        let silent = crate::authz::AccessWebhook::from_kubeconfig(&path).expect("a usable file");
        let decided = silent.decide(json!({ "user": "jane" })).await;
        assert!(matches!(decided, crate::authz::Decision::NoOpinion { .. }));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
