//! The way of one HTTP request: who, what, may they, then the pipeline, then the answer's form.

use super::{
    Body, Connection,
    negotiate::{self, Format, Offer},
    notes::{self, Notes},
    options::Query,
    render,
    request_info::RequestInfo,
};
use crate::{
    admission, aggregator, authn,
    authz::Attributes,
    backup, believed, catalog, discovery, exchange, health,
    identity::Identity,
    kind::Kind,
    masters,
    metrics::{Inflight, Observed},
    openapi,
    pipeline::{self, Call, Core, manage, watch::WatchCall},
    protobuf, rotation,
    subresources::{connect::Asker, proxy, stream},
};
use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use k8s::{PatchType, Status, Verb};
use rand::Rng;
use serde_json::Value;
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

/// Shortest life of a watch that names none; the longest is twice that (upstream's
/// --min-request-timeout).
const WATCH_SECONDS_MIN: u64 = 1800;
/// Open to everybody (upstream's `system:public-info-viewer`).
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Answers one request. Whatever goes wrong becomes a `Status`; a panic becomes 500 and is logged.
pub(super) async fn handle(
    core: Arc<Core>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query());
    let refusals = negotiate::of_refusals(request.headers(), request.uri().query());
    let mut info =
        RequestInfo::parse(request.method(), request.uri().path(), query.watch, query.named());
    info.field_selector = query.options.field_selector.clone().unwrap_or_default();
    let observed = Observed::begin(&core, &info, query.options.dry_run);
    let request_id = notes::audit_id(&request);
    let mut notes = Notes::default();
    let limit = query.patience(notes::converses(&info) || info.verb == "watch");
    let call = answer(&core, connection, &info, query, request, &request_id, &mut notes).boxed();
    let answered = AssertUnwindSafe(in_time(limit, call)).catch_unwind().await;
    let panicked = answered.is_err();
    let (response, refusal) = match answered {
        Ok(Ok(response)) => (response, None),
        Ok(Err(status)) => (render::status(&status, refusals), Some(status)),
        Err(_) => {
            tracing::error!(path = info.path, verb = info.verb, request_id, "a handler panicked");
            let why = "This request caused apiserver to panic. Look in the logs for details.";
            let status = Status::new(500, "InternalError", why);
            (render::status(&status, refusals), Some(status))
        }
    };
    observed.end(&response);
    let mut response = notes.finish(response, &info, refusal.as_ref(), panicked).await;
    let headers = response.headers_mut();
    if let Ok(id) = request_id.parse() {
        headers.insert("Audit-Id", id);
    }
    let private = header::HeaderValue::from_static("no-cache, private");
    headers.entry(header::CACHE_CONTROL).or_insert(private);
    response
}

/// The answer, or the refusal of a request that took too long. `limit` is an error where the client
/// asked for one that is none.
async fn in_time(
    limit: Result<Option<Duration>, Status>,
    answer: BoxFuture<'_, Result<Response<Body>, Status>>,
) -> Result<Response<Body>, Status> {
    let Some(limit) = limit? else { return answer.await };
    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
        let why = "request did not complete within requested timeout - context deadline exceeded";
        Err(Status::new(504, "Timeout", format!("Timeout: {why}")))
    })
}

async fn answer(
    core: &Arc<Core>,
    connection: Connection,
    info: &RequestInfo,
    query: Query,
    request: Request<Incoming>,
    request_id: &str,
    notes: &mut Notes,
) -> Result<Response<Body>, Status> {
    let user = authn::authenticate(core, &connection, request.headers()).await?;
    notes.begin(core, &connection, &user, info, &request, request_id).await;
    let identity = authn::impersonation::apply(core, user.clone(), request.headers())?;
    notes.acts_as(&user, &identity);
    // Held until the answer is ready: bounded work, not bounded connections.
    let _seat = notes.seat(core, &identity, info).await?;
    let public = PUBLIC.contains(&info.path.as_str())
        || info.path.starts_with("/livez/")
        || info.path.starts_with("/readyz/");
    if !public {
        core.authorize_or_ask(&attributes(&identity, info)).await?;
    }
    if let Some(remote) = aggregator::remote(core, &info.group, &info.version) {
        return aggregator::proxy(core, connection, info, &identity, &remote, request).await;
    }
    if !info.is_resource {
        if let Some(remote) = aggregator::elsewhere(core, &info.path) {
            return aggregator::proxy(core, connection, info, &identity, &remote, request).await;
        }
        return plain(core, info, &identity, request).await;
    }
    if (info.group.as_str(), info.version.as_str()) == aggregator::METRICS {
        return aggregator::metrics_api::answer(core, info, &query.options).await;
    }
    let kind = find_kind(core, info).await?;
    let (streams, proxies) =
        (stream::is_stream(&kind, &info.subresource), proxy::is_proxy(&kind, &info.subresource));
    if streams || proxies {
        let decisions = admission::Notes::default();
        let asker = Asker { kind: &kind, identity: &identity, notes: &decisions };
        let answer = match streams {
            true => stream::proxy(core, connection, info, asker, request).await,
            false => proxy::proxy(core, connection, info, asker, request).await,
        };
        notes.decided(&decisions, true);
        return answer;
    }
    refuse_unknown_method(request.method())?;
    query.refuse_unreadable(&info.verb)?;
    let offer = Offer {
        table: catalog::verbs(&kind) != ["create"],
        protobuf: protobuf::type_of(&kind, &info.version).is_some(),
        watch: info.verb == "watch",
    };
    let format = negotiate::format(request.headers(), request.uri().query(), query.include, offer)?;
    if info.verb == "watch" {
        return watch(core, connection, info, kind, query, format).await;
    }
    let _counted = Inflight::enter(core, &info.verb);
    let call = call(info, kind.clone(), query, identity, request).await?;
    notes.request(&call.body);
    let (version, verb) = (call.version.clone(), call.verb);
    let decisions = call.notes.clone();
    let answer = core.call(call).await;
    notes.decided(&decisions, answer.is_err());
    render::reply(answer?, &kind, &version, format, verb).await
}

fn refuse_unknown_method(method: &Method) -> Result<(), Status> {
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE => Ok(()),
        _ => Err(Status::method_unknown()),
    }
}

pub(crate) fn attributes<'a>(user: &'a Identity, info: &'a RequestInfo) -> Attributes<'a> {
    Attributes {
        user,
        verb: &info.verb,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        field_selector: &info.field_selector,
        path: if info.is_resource { "" } else { &info.path },
    }
}

/// The kind a path names. One that is not known here may have been defined on another master a moment
/// ago: looked for again in a state that is not behind.
async fn find_kind(core: &Core, info: &RequestInfo) -> Result<Kind, Status> {
    let find = || core.catalogs.find(&info.group, &info.version, &info.resource);
    if let Some(kind) = find() {
        return Ok(kind);
    }
    if info.group.contains('.') {
        core.barrier().await?;
    }
    find().ok_or_else(unknown)
}

fn unknown() -> Status {
    Status::new(404, "NotFound", "the server could not find the requested resource")
}

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> String {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// Everything that is no resource.
async fn plain(
    core: &Arc<Core>,
    info: &RequestInfo,
    identity: &Identity,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    if let Some(asked) = masters::Asked::of(request.method(), &info.path) {
        return masters::answer(core, asked, request).await;
    }
    if let Some(asked) = exchange::Asked::of(request.method(), &info.path) {
        return exchange::answer(core, asked, request).await;
    }
    if let Some(answer) = rotation::answer(core, request.method(), &info.path).await {
        return answer;
    }
    let query = request.uri().query().unwrap_or_default();
    if let Some(answer) = backup::answer(core, request.method(), &info.path, query).await {
        return answer;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(unknown());
    }
    let path = info.path.trim_end_matches('/');
    if let Some(answer) = health::answer(core, path, query).await {
        return Ok(answer);
    }
    if let Some(answer) = believed::answer(core, path, identity, query) {
        return Ok(answer);
    }
    if let Some(answer) = authn::discovery::answer(core, path) {
        return Ok(answer);
    }
    let format = negotiate::of_refusals(request.headers(), request.uri().query());
    if let Some(answer) = openapi::answer(core, path, query, format, request.headers()).await {
        return Ok(answer);
    }
    discovery::answer(path, core, request.headers(), format).ok_or_else(unknown)
}

/// The request as the pipeline takes it.
async fn call(
    info: &RequestInfo,
    kind: Kind,
    mut query: Query,
    identity: Arc<Identity>,
    request: Request<Incoming>,
) -> Result<Call, Status> {
    let media = text(request.headers(), header::CONTENT_TYPE);
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let agent = manage::manager_of(&text(request.headers(), header::USER_AGENT));
    let verb = match info.verb.as_str() {
        "get" => Verb::Get,
        "list" => Verb::List,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch(patch_type(&media)?),
        "delete" => Verb::Delete,
        _ => Verb::DeleteCollection,
    };
    let body = match verb {
        Verb::Get | Verb::List => pipeline::Body::None,
        Verb::Create | Verb::Update => {
            query.refuse_invalid(if verb == Verb::Create {
                "CreateOptions"
            } else {
                "UpdateOptions"
            })?;
            let coding = coding(&media)?;
            let bytes = read(request).await?;
            match coding {
                Coding::Json => pipeline::Body::Json(bytes),
                Coding::Yaml => pipeline::Body::Yaml(bytes),
                Coding::Protobuf => pipeline::Body::Protobuf(bytes),
            }
        }
        Verb::Patch(PatchType::Apply) => {
            query.refuse_invalid_patch(PatchType::Apply)?;
            pipeline::Body::Yaml(read(request).await?)
        }
        Verb::Patch(kind) => {
            query.refuse_invalid_patch(kind)?;
            pipeline::Body::Value(k8s::patch::parse(kind, &read(request).await?)?)
        }
        Verb::Delete | Verb::DeleteCollection => {
            query.refuse_invalid("DeleteOptions")?;
            let bytes = read(request).await?;
            query.take_delete_options(&delete_options(&bytes, &media)?)?;
            pipeline::Body::None
        }
    };
    let named = query.options.field_manager.take().filter(|manager| !manager.is_empty());
    query.options.field_manager = named.or(Some(agent));
    Ok(Call {
        version: info.version.clone(),
        verb,
        namespace: if kind.namespaced { info.namespace.clone() } else { String::new() },
        kind,
        name: if matches!(verb, Verb::List | Verb::DeleteCollection) {
            String::new()
        } else {
            info.name.clone()
        },
        subresource: info.subresource.clone(),
        body,
        options: query.options,
        fence: None,
        identity,
        notes: Default::default(),
    })
}

fn patch_type(media: &str) -> Result<PatchType, Status> {
    match media {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::StrategicMerge),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, \
             application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

/// What a body is written in.
enum Coding {
    Json,
    Yaml,
    Protobuf,
}

fn coding(media: &str) -> Result<Coding, Status> {
    match media {
        "" | "application/json" => Ok(Coding::Json),
        "application/yaml" => Ok(Coding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Coding::Protobuf),
        _ => Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// The whole body as JSON; none at all is null.
pub(crate) async fn read_json(request: Request<Incoming>) -> Result<Value, Status> {
    let body = read(request).await?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body)
        .map_err(|error| Status::bad_request(format!("the body is not JSON: {error}")))
}

/// The whole body, if it is not larger than upstream takes.
async fn read(request: Request<Incoming>) -> Result<Bytes, Status> {
    let limit = k8s::decode::BODY_BYTES_MAX;
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(limit)),
        Err(error) => Err(Status::bad_request(format!("unable to read the request: {error}"))),
    }
}

fn delete_options(bytes: &[u8], media: &str) -> Result<Value, Status> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let schema = k8s::schema::Schema::built_in();
    let value = match (coding(media)?, schema.get("meta.v1.DeleteOptions")) {
        (Coding::Json, _) => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        (Coding::Protobuf, Some(ty)) => {
            k8s::protobuf::read(schema, ty, bytes).map_err(|error| error.to_string())
        }
        _ => k8s::decode::yaml_to_value(bytes).map_err(|error| error.to_string()),
    };
    value.map_err(|why| Status::bad_request(format!("cannot read the delete options: {why}")))
}

async fn watch(
    core: &Arc<Core>,
    connection: Connection,
    info: &RequestInfo,
    kind: Kind,
    query: Query,
    format: Format,
) -> Result<Response<Body>, Status> {
    if !catalog::verbs(&kind).contains(&"watch") || !info.subresource.is_empty() {
        let resource = catalog::resource(&kind, &info.version);
        return Err(Status::method_not_allowed(&resource, "watch"));
    }
    let mut options = query.options;
    if !info.name.is_empty() && options.field_selector.is_none() {
        // The legacy path /watch/…/NAME.
        options.field_selector = Some(format!("metadata.name={}", info.name));
    }
    let random = || {
        let seconds = rand::rng().random_range(WATCH_SECONDS_MIN..=2 * WATCH_SECONDS_MIN);
        Duration::from_secs(seconds)
    };
    let call = WatchCall {
        kind: kind.clone(),
        version: info.version.clone(),
        namespace: if kind.namespaced { info.namespace.clone() } else { String::new() },
        options,
        send_initial_events: query.send_initial_events,
        bookmarks: query.bookmarks,
        timeout: Some(query.timeout.unwrap_or_else(random)),
    };
    let running = core.metrics.longrunning(info);
    match core.watch(call).await {
        Ok(feed) => {
            let version = info.version.clone();
            let metrics = core.metrics.clone();
            let ends = connection.stale;
            Ok(render::watch(feed, kind, version, format, metrics, running, ends))
        }
        Err(status) if matches!(status.code, 410 | 504) => Ok(render::watch_error(&status, format)),
        Err(status) => Err(status),
    }
}

/// A JSON answer to a path that is no resource.
pub(crate) fn json(value: &Value) -> Response<Body> {
    render::bytes(StatusCode::OK, "application/json", value.to_string())
}
