//! `/openapi/v3`: per group and version, the paths with their parameters and kinds, made from the list
//! of kinds, and the schemas, made from the schema table. No request body is described for now:
//! clients that merge by schema then fall back on the types they were built with.

mod schemas;

use crate::{
    catalog::{self, Catalog, Group},
    encode,
    kinds::KindDef,
    pipeline::Core,
    server::{Body, bytes, json as answer_json},
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, sync::LazyLock};

/// A group version's document, encoded once.
struct Document {
    hash: String,
    bytes: bytes::Bytes,
}

/// By path below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let mut documents = BTreeMap::new();
    let catalog = Catalog::built_in();
    for group in catalog.groups() {
        for version in &group.versions {
            let bytes = document(group, version).to_string();
            let hash = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
            documents.insert(path(group.name, version), Document { hash, bytes: bytes.into() });
        }
    }
    documents
});

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The answer to `path`, if it is one of these.
pub(crate) fn answer(
    _core: &Core,
    path: &str,
    accept: &str,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        return Some(root());
    }
    let document = DOCUMENTS.get(rest.trim_start_matches('/'))?;
    let json = ["", "application/json", "*/*", "application/*"];
    let mut ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or(range).trim());
    if !ranges.any(|range| json.contains(&range)) {
        let why = k8s::Status::not_acceptable(
            "only the following media types are accepted: application/json",
        );
        return Some(bytes(
            StatusCode::NOT_ACCEPTABLE,
            "application/json",
            why.to_value().to_string(),
        ));
    }
    let etag = format!("\"{}\"", document.hash);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|have| have == etag.as_str());
    let mut response = if known {
        bytes(StatusCode::NOT_MODIFIED, "application/json", "")
    } else {
        bytes(StatusCode::OK, "application/json", document.bytes.clone())
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Some(response)
}

/// The hash in the URL lets clients cache a document for ever.
fn root() -> Response<Body> {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|(path, document)| {
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path.clone(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    answer_json(&json!({ "paths": paths }))
}

fn document(group: &Group, version: &str) -> Value {
    let mut paths = Map::new();
    let root = path(group.name, version);
    let kinds: Vec<&KindDef> = Catalog::of_version(group, version).map(|kind| &**kind).collect();
    for kind in &kinds {
        let collection = match kind.namespaced {
            true => format!("/{root}/namespaces/{{namespace}}/{}", kind.plural),
            false => format!("/{root}/{}", kind.plural),
        };
        let verbs = catalog::verbs(kind);
        let whole = [("list", "get"), ("create", "post"), ("deletecollection", "delete")];
        let one = [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")];
        insert(&mut paths, collection.clone(), operations(kind, version, verbs, &whole));
        insert(
            &mut paths,
            format!("{collection}/{{name}}"),
            operations(kind, version, verbs, &one),
        );
        if kind.namespaced && verbs.contains(&"list") {
            let listed = operations(kind, version, &["list"], &whole);
            insert(&mut paths, format!("/{root}/{}", kind.plural), listed);
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "paths": paths,
        "components": { "schemas": schemas::components(&kinds, version) },
    })
}

fn insert(paths: &mut Map<String, Value>, path: String, operations: Map<String, Value>) {
    if !operations.is_empty() {
        paths.insert(path, Value::Object(operations));
    }
}

fn operations(
    kind: &KindDef,
    version: &str,
    verbs: &[&str],
    wanted: &[(&str, &str)],
) -> Map<String, Value> {
    let served = wanted.iter().filter(|(verb, _)| verbs.contains(verb));
    served.map(|(verb, method)| (method.to_string(), operation(kind, version, verb))).collect()
}

fn operation(kind: &KindDef, version: &str, verb: &str) -> Value {
    let names: &[(&str, &str)] = match verb {
        "create" | "update" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
        }
        "patch" => &[
            ("dryRun", "string"),
            ("fieldManager", "string"),
            ("fieldValidation", "string"),
            ("force", "boolean"),
        ],
        "list" | "deletecollection" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("propagationPolicy", "string"),
        ],
        _ => &[],
    };
    let parameters: Vec<Value> = names
        .iter()
        .map(|(name, kind)| {
            json!({ "name": name, "in": "query", "schema": { "type": kind, "uniqueItems": true } })
        })
        .collect();
    let action = match verb {
        "create" => "post",
        "update" => "put",
        verb => verb,
    };
    let group_version = encode::api_version(kind.group, version).replace(['/', '.'], "_");
    json!({
        "operationId": format!("{verb}_{group_version}_{}", kind.kind),
        "parameters": parameters,
        "responses": { "200": {
            "description": "OK",
            "content": { "application/json": { "schema": schemas::kind_reference(kind) } },
        } },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {
            "group": kind.group, "version": version, "kind": kind.kind,
        },
    })
}
