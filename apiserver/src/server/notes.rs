//! What is noted of a request on its way: how flow control classified it, what the audit log says.

use super::{Body, Connection, render, request_info::RequestInfo};
use crate::{
    admission,
    audit::{Exchange, Level, Received, Stage},
    flow::{self, Admitted},
    identity::Identity,
    pipeline::{self, Core},
};
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use k8s::Status;
use std::sync::Arc;

/// Answers that are longer are logged without their body.
const LOGGED_BYTES_MAX: u64 = 1536 * 1024;
/// An id that a client chose is no longer than this.
const ID_BYTES_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Notes {
    flow: Option<(Arc<str>, Arc<str>)>,
    audit: Option<Exchange>,
    /// Goes out with a refusal or a connection; other answers have their own.
    warnings: Vec<String>,
}

/// The client's own id for the audit log, or a new one.
pub(super) fn audit_id(request: &Request<Incoming>) -> String {
    let asked = request.headers().get("audit-id").and_then(|value| value.to_str().ok());
    let asked = asked.filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    asked.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_string)
}

/// True for conversations, which neither hold a seat nor end in time (upstream's
/// `longRunningRequestCheck` but for watches).
pub(super) fn converses(info: &RequestInfo) -> bool {
    const NAMES: &[&str] = &["attach", "exec", "log", "portforward", "proxy"];
    NAMES.contains(&info.subresource.as_str())
}

impl Notes {
    /// The first entry of the audit log, if there is one.
    pub(super) async fn begin(
        &mut self,
        core: &Core,
        connection: &Connection,
        user: &Identity,
        info: &RequestInfo,
        request: &Request<Incoming>,
        id: &str,
    ) {
        let Some(audit) = &core.config.audit else { return };
        let uri = request.uri();
        let received = Received {
            id,
            uri: uri.path_and_query().map_or(uri.path(), |both| both.as_str()),
            headers: request.headers(),
            peer: connection.peer.ip(),
            user,
            at: jiff::Timestamp::now(),
        };
        self.audit = Exchange::begin(audit, &received, info);
        if let Some(exchange) = &mut self.audit {
            exchange.log(Stage::RequestReceived).await;
        }
    }

    pub(super) fn acts_as(&mut self, user: &Identity, identity: &Identity) {
        if let Some(exchange) = &mut self.audit
            && user != identity
        {
            exchange.impersonates(identity);
        }
    }

    /// A seat, as flow control gives it; conversations need none.
    pub(super) async fn seat(
        &mut self,
        core: &Core,
        identity: &Identity,
        info: &RequestInfo,
    ) -> Result<Option<Admitted>, Status> {
        if converses(info) {
            return Ok(None);
        }
        match flow::enter(core, identity, info).await {
            Ok(admitted) => {
                self.flow = Some(admitted.uids());
                Ok(Some(admitted))
            }
            Err((status, schema, level)) => {
                self.flow = Some((schema, level));
                Err(status)
            }
        }
    }

    /// What the client sent, if the policy wants it.
    pub(super) fn request(&mut self, body: &pipeline::Body) {
        let Some(exchange) = &mut self.audit else { return };
        let object = match body {
            pipeline::Body::Json(bytes) => serde_json::from_slice(bytes).ok(),
            pipeline::Body::Yaml(bytes) => k8s::decode::yaml_to_value(bytes).ok(),
            pipeline::Body::Value(value) => Some(value.clone()),
            // Of protobuf, as of nothing, there is nothing to show.
            _ => None,
        };
        if let Some(object) = object {
            exchange.request(object);
        }
    }

    /// What those who decided on the request left behind; `unsaid`: the answer does not say what they
    /// warn of.
    pub(super) fn decided(&mut self, decisions: &admission::Notes, unsaid: bool) {
        if unsaid {
            self.warnings = decisions.take_warnings();
        }
        if let Some(exchange) = &mut self.audit {
            exchange.annotate(decisions.annotations());
        }
    }

    /// The answer with flow control's headers; the last entries of the audit log.
    pub(super) async fn finish(
        self,
        mut response: Response<Body>,
        info: &RequestInfo,
        refusal: Option<&Status>,
        panicked: bool,
    ) -> Response<Body> {
        if let Some((schema, level)) = &self.flow {
            Admitted::mark(schema, level, response.headers_mut());
        }
        render::warn(&mut response, self.warnings);
        let Some(mut exchange) = self.audit else { return response };
        exchange.answered(response.status().as_u16(), refusal);
        if panicked {
            exchange.log(Stage::Panic).await;
            return response;
        }
        if refusal.is_none() && (info.verb == "watch" || converses(info)) {
            exchange.log(Stage::ResponseStarted).await;
            let ending = Ending(exchange);
            return response.map(|body| {
                let held = move |frame| {
                    let _until_the_end = &ending;
                    frame
                };
                body.map_frame(held).boxed_unsync()
            });
        }
        if exchange.level() >= Level::RequestResponse {
            response = with_logged_body(&mut exchange, response).await;
        }
        exchange.log(Stage::ResponseComplete).await;
        response
    }
}

/// An answer under way; its last entry is made when it ends.
struct Ending(Exchange);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.log_now(Stage::ResponseComplete);
    }
}

/// JSON that is there whole and not too long goes into the log.
async fn with_logged_body(exchange: &mut Exchange, response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let json = media.is_some_and(|media| media.starts_with("application/json"))
        && !headers.contains_key(header::CONTENT_ENCODING);
    let short = response.body().size_hint().exact().is_some_and(|size| size <= LOGGED_BYTES_MAX);
    if !(json && short) {
        return response;
    }
    let (parts, body) = response.into_parts();
    // A body that is there whole cannot fail.
    let bytes = body.collect().await.map(|all| all.to_bytes()).unwrap_or_else(|_| Bytes::new());
    if let Ok(object) = serde_json::from_slice(&bytes) {
        exchange.response(object);
    }
    Response::from_parts(parts, super::full(bytes))
}
