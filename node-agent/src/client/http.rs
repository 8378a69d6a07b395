//! API calls as HTTP: paths, queries and bodies out, `Status` in. Pure.

use bytes::Bytes;
use http::Method;
use k8s::{Object, Options, PatchType, Request, Resource, Status, Verb, WatchRequest};
use serde_json::{Map, Value, json};

/// One HTTP request, ready to be sent any number of times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path_and_query: String,
    pub(super) content_type: &'static str,
    pub(super) body: Bytes,
    /// Sending it twice leaves the same state as once (though the second answer may be a conflict
    /// or not-found), so it may be repeated when it is unknown whether it was carried out.
    pub(super) repeatable: bool,
}

/// The HTTP form of an API request.
pub(super) fn call(request: &Request) -> Call {
    let (method, content_type) = match request.verb {
        Verb::Get | Verb::List => (Method::GET, ""),
        Verb::Create => (Method::POST, "application/json"),
        Verb::Update => (Method::PUT, "application/json"),
        Verb::Patch(kind) => (Method::PATCH, patch_content_type(kind)),
        Verb::Delete | Verb::DeleteCollection => (Method::DELETE, "application/json"),
    };
    let repeatable = match request.verb {
        Verb::Create => false,
        // "add /list/-" twice adds twice.
        Verb::Patch(PatchType::Json) => false,
        _ => true,
    };
    let mut path = path(&request.resource, &request.namespace);
    for part in [request.name.as_str(), &request.subresource] {
        if !part.is_empty() {
            path.push('/');
            path.extend(url::form_urlencoded::byte_serialize(part.as_bytes()));
        }
    }
    let query = query(&request.options, request.verb);
    Call { method, path_and_query: path + &query, content_type, body: body(request), repeatable }
}

/// The HTTP form of a watch from `after` on; `None` asks for the present state first.
pub(super) fn watch(request: &WatchRequest, timeout_seconds: u32) -> Call {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("watch", "true");
    query.append_pair("allowWatchBookmarks", "true");
    query.append_pair("timeoutSeconds", &timeout_seconds.to_string());
    match request.after {
        Some(revision) => {
            query.append_pair("resourceVersion", &revision.to_string());
        }
        None => {
            query.append_pair("sendInitialEvents", "true");
            query.append_pair("resourceVersionMatch", "NotOlderThan");
        }
    }
    let selectors =
        [("labelSelector", &request.label_selector), ("fieldSelector", &request.field_selector)];
    for (name, selector) in selectors {
        if let Some(selector) = selector {
            query.append_pair(name, selector);
        }
    }
    Call {
        method: Method::GET,
        path_and_query: path(&request.resource, &request.namespace) + "?" + &query.finish(),
        content_type: "",
        body: Bytes::new(),
        repeatable: true,
    }
}

/// What the server said of a request it refused; upstream's words if the body is not a `Status`.
pub(super) fn refusal(code: u16, retry_after_seconds: Option<u32>, body: &[u8]) -> Status {
    let parsed = serde_json::from_slice::<Value>(body).ok();
    let status = parsed.as_ref().and_then(Status::from_value);
    let mut status = status.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_string();
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            410 => "Expired",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Status::new(code, reason, text)
    });
    if status.retry_after_seconds.is_none() {
        status.retry_after_seconds = retry_after_seconds;
    }
    status
}

/// The object in a successful answer.
pub(super) fn answer(body: &[u8]) -> Result<Object, Status> {
    if body.is_empty() {
        return Ok(Object::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Status::internal(format!("the server's answer is not an object: {error}")))
}

fn patch_content_type(kind: PatchType) -> &'static str {
    match kind {
        PatchType::Json => "application/json-patch+json",
        PatchType::Merge => "application/merge-patch+json",
        PatchType::StrategicMerge => "application/strategic-merge-patch+json",
        PatchType::Apply => "application/apply-patch+yaml",
    }
}

fn path(resource: &Resource, namespace: &str) -> String {
    let mut path = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    if !namespace.is_empty() {
        path.push_str("/namespaces/");
        path.push_str(namespace);
    }
    path.push('/');
    path.push_str(&resource.plural);
    path
}

fn query(options: &Options, verb: Verb) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let texts = [
        ("labelSelector", &options.label_selector),
        ("fieldSelector", &options.field_selector),
        ("continue", &options.continue_token),
        ("resourceVersion", &options.resource_version),
        ("resourceVersionMatch", &options.resource_version_match),
        ("fieldManager", &options.field_manager),
        ("fieldValidation", &options.field_validation),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    if let Some(limit) = options.limit {
        query.append_pair("limit", &limit.to_string());
    }
    if options.dry_run && !matches!(verb, Verb::Delete | Verb::DeleteCollection) {
        query.append_pair("dryRun", "All");
    }
    if options.force {
        query.append_pair("force", "true");
    }
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

/// Deletes carry `DeleteOptions`; everything else what the caller gave.
fn body(request: &Request) -> Bytes {
    if let Some(body) = &request.body {
        return Bytes::from(body.to_string());
    }
    if !matches!(request.verb, Verb::Delete | Verb::DeleteCollection) {
        return Bytes::new();
    }
    let options = &request.options;
    let mut delete = Map::new();
    delete.insert("apiVersion".into(), "v1".into());
    delete.insert("kind".into(), "DeleteOptions".into());
    if let Some(policy) = &options.propagation_policy {
        delete.insert("propagationPolicy".into(), policy.as_str().into());
    }
    if let Some(seconds) = options.grace_period_seconds {
        delete.insert("gracePeriodSeconds".into(), seconds.into());
    }
    if options.dry_run {
        delete.insert("dryRun".into(), json!(["All"]));
    }
    let mut preconditions = Map::new();
    if let Some(uid) = &options.precondition_uid {
        preconditions.insert("uid".into(), uid.as_str().into());
    }
    if let Some(revision) = options.precondition_revision {
        preconditions.insert("resourceVersion".into(), revision.to_string().into());
    }
    if !preconditions.is_empty() {
        delete.insert("preconditions".into(), Value::Object(preconditions));
    }
    Bytes::from(Value::Object(delete).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s::Revision;

    const PODS: Resource = Resource::new("", "v1", "pods");
    const DEPLOYMENTS: Resource = Resource::new("apps", "v1", "deployments");

    fn show(request: Request) -> String {
        let call = call(&request);
        let body = String::from_utf8(call.body.to_vec()).unwrap();
        let text = format!("{} {} {} {body}", call.method, call.path_and_query, call.content_type);
        text.trim_end().to_string()
    }

    #[test]
    fn requests_become_upstreams_paths() {
        let pod = Object::from_value(json!({"metadata": {"name": "a", "namespace": "n"}})).unwrap();
        assert_eq!(show(Request::get(PODS, "n", "a")), "GET /api/v1/namespaces/n/pods/a");
        let mut list = Request::list(DEPLOYMENTS, "");
        list.options.label_selector = Some("a=b,c".into());
        list.options.limit = Some(5);
        let text = "GET /apis/apps/v1/deployments?labelSelector=a%3Db%2Cc&limit=5";
        assert_eq!(show(list), text);
        assert_eq!(
            show(Request::update(PODS, pod.clone()).subresource("status")),
            "PUT /api/v1/namespaces/n/pods/a/status application/json \
             {\"metadata\":{\"name\":\"a\",\"namespace\":\"n\"}}"
        );
        let create = Request::create(PODS, pod);
        assert!(!call(&create).repeatable);
        assert!(show(create).starts_with("POST /api/v1/namespaces/n/pods application/json "));
        let patch = Request::patch(PODS, "n", "a", PatchType::StrategicMerge, json!({}));
        assert_eq!(
            show(patch),
            "PATCH /api/v1/namespaces/n/pods/a application/strategic-merge-patch+json {}"
        );
    }

    #[test]
    fn deletes_carry_their_options_as_body() {
        let mut delete = Request::delete(PODS, "n", "a");
        delete.options.grace_period_seconds = Some(0);
        delete.options.precondition_uid = Some("u".into());
        assert_eq!(
            show(delete),
            "DELETE /api/v1/namespaces/n/pods/a application/json {\"apiVersion\":\"v1\",\
             \"gracePeriodSeconds\":0,\"kind\":\"DeleteOptions\",\"preconditions\":{\"uid\":\"u\"}}"
        );
    }

    #[test]
    fn a_watch_asks_for_initial_events_only_at_its_start() {
        let mut request = WatchRequest {
            resource: PODS,
            namespace: String::new(),
            label_selector: None,
            field_selector: Some("spec.nodeName=n1".into()),
            after: None,
        };
        assert_eq!(
            watch(&request, 300).path_and_query,
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=300&\
             sendInitialEvents=true&resourceVersionMatch=NotOlderThan&\
             fieldSelector=spec.nodeName%3Dn1"
        );
        request.after = Some(Revision(7));
        assert_eq!(
            watch(&request, 300).path_and_query,
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=300&\
             resourceVersion=7&fieldSelector=spec.nodeName%3Dn1"
        );
    }

    #[test]
    fn refusals_are_statuses_whatever_the_body() {
        let body = Status::not_found(&PODS, "a").to_value().to_string();
        assert!(refusal(404, None, body.as_bytes()).is_not_found());
        let plain = refusal(503, Some(2), b"no leader\n");
        assert_eq!((plain.code, plain.message.as_str()), (503, "no leader"));
        assert_eq!(plain.retry_after_seconds, Some(2));
    }
}
