//! One HTTPS request at a time, for the commands: enough of a client to ask every master the same
//! question. The ordinary API goes through `node_agent::client`.

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use node_agent::credentials::{Newest, certified, roots};
use rustls::pki_types::ServerName;
use serde_json::Value;
use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};
use tokio_rustls::TlsConnector;

/// Largest answer we read: a verbose health page, a list of members or a list of 10,000 pods,
/// with much room.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// After that another master is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What `asked` (a server or a path) said instead of doing it: the message of a `Status`.
pub(super) fn refused(asked: &str, code: u16, body: &[u8]) -> anyhow::Error {
    let status: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    anyhow::anyhow!("{asked}: {code}: {}", status["message"].as_str().unwrap_or("refused"))
}

/// Where the masters are and who we are.
#[derive(Clone)]
pub(crate) struct Target {
    /// `https://host:port`, the current context's server first.
    pub(crate) servers: Vec<String>,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    /// The certificate of the cluster's CA, PEM; who joins knows it by its hash.
    pub(crate) ca: Vec<u8>,
    /// What we prove ourselves with, PEM.
    pub(crate) cert: Vec<u8>,
}

impl Target {
    /// Reads `path`, or `$KUBECONFIG`, or `~/.kube/config`.
    pub(crate) fn from_kubeconfig(path: Option<&Path>) -> Result<Target> {
        let path = match (path, std::env::var_os("KUBECONFIG"), std::env::var_os("HOME")) {
            (Some(path), ..) => path.to_path_buf(),
            (None, Some(path), _) => PathBuf::from(path),
            (None, None, Some(home)) => PathBuf::from(home).join(".kube/config"),
            (None, None, None) => bail!("no kubeconfig: name one with --kubeconfig"),
        };
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
        let config: Value = k8s::decode::yaml_to_value(text.as_bytes())
            .map_err(|error| anyhow::anyhow!("{}: {error:?}", path.display()))?;
        Target::from_config(&config).with_context(|| format!("kubeconfig {}", path.display()))
    }

    /// Where the masters themselves are asked: a kubeconfig names their front or a load balancer first.
    pub(super) fn of_masters(path: Option<&Path>) -> Result<Target> {
        let mut target = Target::from_kubeconfig(path)?;
        if target.servers.len() > 1 {
            target.servers.remove(0);
        }
        Ok(target)
    }

    fn from_config(config: &Value) -> Result<Target> {
        let named = |list: &str, name: &str, field: &str| -> Result<Value> {
            let entries = config[list].as_array().into_iter().flatten();
            let entry = entries.into_iter().find(|entry| entry["name"] == name);
            Ok(entry.with_context(|| format!("no entry {name:?} in {list}"))?[field].clone())
        };
        let current = config["current-context"].as_str().context("no current-context")?;
        let context = named("contexts", current, "context")?;
        let cluster =
            named("clusters", context["cluster"].as_str().unwrap_or_default(), "cluster")?;
        let user = named("users", context["user"].as_str().unwrap_or_default(), "user")?;
        let mut servers = vec![cluster["server"].as_str().context("no server")?.to_string()];
        for extension in cluster["extensions"].as_array().into_iter().flatten() {
            let listed = extension["extension"]["servers"].as_array();
            servers.extend(
                listed.into_iter().flatten().filter_map(|url| url.as_str().map(str::to_string)),
            );
        }
        let pem = |object: &Value, field: &str| -> Result<Vec<u8>> {
            if let Some(data) = object[format!("{field}-data")].as_str() {
                return Ok(STANDARD.decode(data)?);
            }
            let path = object[field].as_str().with_context(|| format!("no {field}"))?;
            std::fs::read(path).with_context(|| format!("cannot read {path}"))
        };
        let ca = pem(&cluster, "certificate-authority")?;
        let cert = pem(&user, "client-certificate")?;
        let tls = client_tls(&ca, &cert, &pem(&user, "client-key")?)?;
        Ok(Target { servers, tls, ca, cert })
    }

    /// `GET`s `path` from `server`; the status code and the body. Bounded by `timeout`.
    pub(crate) async fn get(
        &self,
        server: &str,
        path: &str,
        timeout: Duration,
    ) -> Result<(u16, String)> {
        let asked = tokio::time::timeout(timeout, get(server, path, self.tls.clone())).await;
        asked.with_context(|| format!("{server}{path}: no answer within {timeout:?}"))?
    }
}

/// A TLS client that trusts `ca` and proves itself with `cert` and `key`, all PEM.
pub(crate) fn client_tls(ca: &[u8], cert: &[u8], key: &[u8]) -> Result<Arc<rustls::ClientConfig>> {
    let own = certified(cert, &[], key).context("the client's certificate and key")?;
    client_tls_of(ca, Arc::new(Newest::new(own)))
}

/// The same, with a certificate that can be replaced.
pub(super) fn client_tls_of(ca: &[u8], own: Arc<Newest>) -> Result<Arc<rustls::ClientConfig>> {
    let trusted = roots(ca).context("the CA's certificate")?;
    let config = rustls::ClientConfig::builder().with_root_certificates(trusted);
    Ok(Arc::new(config.with_client_cert_resolver(own)))
}

/// Who is to answer at a URL, and the host and port that are dialled.
pub(super) fn destination(server: &str) -> Result<(ServerName<'static>, String, u16)> {
    let url = url::Url::parse(server).with_context(|| format!("{server}: not a URL"))?;
    let host = url.host_str().with_context(|| format!("{server}: no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
    let port = url.port_or_known_default().unwrap_or(443);
    Ok((ServerName::try_from(host.clone())?, host, port))
}

/// One connection to one master; a request at a time, in order.
pub(crate) struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    host: String,
    /// The media type asked for.
    pub(crate) accept: &'static str,
    /// A token to show with each request.
    pub(crate) bearer: Option<String>,
    /// As whom each request is to be judged, if we may say that.
    pub(crate) impersonate: Option<String>,
    task: tokio::task::JoinHandle<()>,
}

impl Connection {
    pub(crate) async fn open(server: &str, tls: Arc<rustls::ClientConfig>) -> Result<Connection> {
        let (name, host, port) = destination(server)?;
        let tcp = tokio::net::TcpStream::connect((host.as_str(), port))
            .await
            .with_context(|| format!("cannot reach {server}"))?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await.context("TLS handshake")?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        // As a URL has it.
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let (bearer, impersonate) = (None, None);
        Ok(Connection { sender, host, accept: "application/json", bearer, impersonate, task })
    }

    /// To the first master that answers.
    pub(crate) async fn to_any(target: &Target) -> Result<Connection> {
        let mut why = anyhow::anyhow!("the kubeconfig names no server");
        for server in &target.servers {
            let opened = Connection::open(server, target.tls.clone());
            match tokio::time::timeout(CONNECT_TIMEOUT, opened).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => why = error,
                Err(_) => why = anyhow::anyhow!("{server}: no answer within {CONNECT_TIMEOUT:?}"),
            }
        }
        Err(why)
    }

    /// The answer's code and its body, still arriving.
    pub(crate) async fn send(
        &mut self,
        method: http::Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, hyper::body::Incoming)> {
        let content = match method {
            http::Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("accept", self.accept)
            .header("content-type", content);
        if let Some(token) = &self.bearer {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if let Some(user) = &self.impersonate {
            request = request.header("impersonate-user", user);
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }

    /// The answer's code and its whole body.
    pub(crate) async fn call(
        &mut self,
        method: http::Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes)> {
        let (code, body) = self.send(method, path, body).await?;
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
        Ok((code, body.to_bytes()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn get(server: &str, path: &str, tls: Arc<rustls::ClientConfig>) -> Result<(u16, String)> {
    let mut connection = Connection::open(server, tls).await?;
    let (code, body) = connection.call(http::Method::GET, path, Vec::new()).await?;
    Ok((code, String::from_utf8_lossy(&body).into_owned()))
}
