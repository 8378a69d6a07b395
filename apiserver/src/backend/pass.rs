//! One request handed on to a backend, and its answer handed back; bytes both ways where the backend
//! agrees to an upgrade.

use super::unreachable;
use crate::{
    metrics::Running,
    pipeline::Core,
    server::{Body, full},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use k8s::Status;
use std::{net::IpAddr, sync::Arc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) type Sender = http1::SendRequest<Body>;

/// What must live as long as the conversation.
pub(crate) struct Pass {
    pub(crate) core: Arc<Core>,
    pub(crate) draining: CancellationToken,
    pub(crate) running: Running,
    pub(crate) link: AbortOnDropHandle<()>,
}

/// What a request to a backend looks like.
pub(crate) struct Outgoing {
    /// Path and query.
    pub(crate) uri: String,
    /// The `Host` header.
    pub(crate) host: String,
    /// Set in place of what the client sent under these names.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) client: IpAddr,
}

pub(crate) fn empty() -> Body {
    Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync()
}

impl Pass {
    /// Sends the request and returns the answer as it came, without what belongs to one connection.
    pub(crate) async fn on(
        self,
        mut sender: Sender,
        outgoing: Outgoing,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let client = upgrade.then(|| hyper::upgrade::on(&mut request));
        let head = *request.method() == Method::HEAD;
        let asked = rewritten(outgoing, request)?;
        let mut answer = sender.send_request(asked).await.map_err(unreachable)?;
        if let Some(client) = client
            && answer.status() == StatusCode::SWITCHING_PROTOCOLS
        {
            let backend = hyper::upgrade::on(&mut answer);
            let mut response = Response::new(empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            copy_headers(answer.headers(), response.headers_mut(), true);
            let tasks = self.core.tasks.clone();
            tasks.spawn(self.splice(client, backend));
            return Ok(response);
        }
        let (parts, body) = answer.into_parts();
        let body = match head {
            true => full(Bytes::new()),
            false => body
                .map_frame(move |frame| {
                    let _alive = (&self.link, &self.running);
                    frame
                })
                .map_err(Into::into)
                .boxed_unsync(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        copy_headers(&parts.headers, response.headers_mut(), false);
        Ok(response)
    }

    /// Copies both ways until either side closes or the server drains.
    async fn splice(self, client: OnUpgrade, backend: OnUpgrade) {
        let both = async {
            let (client, backend) = futures::try_join!(client, backend)?;
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            let copied = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
            if let Err(error) = copied {
                tracing::debug!(%error, "a stream to a backend ended");
            }
            Ok::<_, hyper::Error>(())
        };
        tokio::select! {
            ended = both => if let Err(error) = ended {
                tracing::debug!(%error, "a stream to a backend did not begin");
            },
            () = self.draining.cancelled() => {}
        }
    }
}

/// The client's request as the backend gets it.
fn rewritten(outgoing: Outgoing, request: Request<Incoming>) -> Result<Request<Body>, Status> {
    let (parts, body) = request.into_parts();
    let upgrade = parts.headers.contains_key(header::UPGRADE);
    let bodiless = upgrade || matches!(parts.method, Method::GET | Method::HEAD);
    let body = if bodiless { empty() } else { body.map_err(Into::into).boxed_unsync() };
    let mut request = Request::builder()
        .method(parts.method)
        .uri(&outgoing.uri)
        .header(header::HOST, outgoing.host)
        .body(body)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    copy_headers(&parts.headers, request.headers_mut(), upgrade);
    let headers = request.headers_mut();
    let known = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let forwarded = known.map_or(String::new(), |known| format!("{known}, "));
    if let Ok(value) = format!("{forwarded}{}", outgoing.client).parse() {
        headers.insert("x-forwarded-for", value);
    }
    for name in outgoing.headers.iter().map(|(name, _)| name) {
        headers.remove(name);
    }
    for (name, value) in outgoing.headers {
        headers.append(name, value);
    }
    Ok(request)
}

/// All but what belongs to one connection (unless it is being upgraded) and the client's credentials.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, upgrade: bool) {
    const NEVER: &[&str] = &[
        "host",
        "authorization",
        "transfer-encoding",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "trailer",
    ];
    const OF_CONNECTION: &[&str] = &["connection", "upgrade", "te"];
    for (name, value) in from {
        let name_text = name.as_str();
        let own = OF_CONNECTION.contains(&name_text) && !upgrade;
        if !own && !NEVER.contains(&name_text) && !name_text.starts_with("impersonate-") {
            to.append(name, value.clone());
        }
    }
}
