//! `/openapi/v3` and `/openapi/v2`: what this server serves, for people and for machines. Made of the
//! list of kinds and the schema table when first asked for, and kept as bytes.

mod custom;
mod gnostic;
mod operations;
mod schemas;
mod swagger;

use crate::{
    aggregator,
    catalog::{Catalog, Group},
    kind::Kind,
    pipeline::Core,
    server::{Body, Format, bytes, respond},
};
use gnostic::Model;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use k8s_docs::Descriptions;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

/// A document, encoded once.
struct Document {
    /// Of the JSON, in hexadecimal: its `ETag`.
    hash: String,
    json: Vec<u8>,
    /// The same in gnostic's protobuf, made when first asked for.
    protobuf: OnceLock<Vec<u8>>,
    model: Model,
}

impl Document {
    fn new(model: Model, value: &Value) -> Document {
        let json = value.to_string().into_bytes();
        let hash = Sha512::digest(&json).iter().map(|byte| format!("{byte:02X}")).collect();
        Document { hash, json, protobuf: OnceLock::new(), model }
    }

    fn protobuf(&self) -> &[u8] {
        self.protobuf.get_or_init(|| {
            let value = serde_json::from_slice(&self.json).expect("JSON this server wrote");
            gnostic::encode(self.model, &value)
        })
    }
}

/// The documents of one state of the catalog.
struct Documents {
    catalog: Arc<Catalog>,
    /// By path below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
    group_versions: OnceLock<BTreeMap<String, Arc<Document>>>,
    swagger: OnceLock<Document>,
}

/// The last ones made; others are made when the catalog was exchanged and somebody asks.
static LAST: Mutex<Option<Arc<Documents>>> = Mutex::new(None);

impl Documents {
    fn of(catalog: Arc<Catalog>) -> Arc<Documents> {
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(documents) = last.as_ref().filter(|one| Arc::ptr_eq(&one.catalog, &catalog)) {
            return documents.clone();
        }
        let (group_versions, swagger) = (OnceLock::new(), OnceLock::new());
        let documents = Arc::new(Documents { catalog, group_versions, swagger });
        *last = Some(documents.clone());
        documents
    }

    fn group_versions(&self) -> &BTreeMap<String, Arc<Document>> {
        self.group_versions.get_or_init(|| {
            let descriptions = OnceLock::new();
            let descriptions = || descriptions.get_or_init(Descriptions::load);
            let known = built_in_documents();
            let mut documents = BTreeMap::new();
            for (path, group, version) in group_versions(&self.catalog) {
                let has_custom = Catalog::of_version(group, version).any(|kind| kind.is_custom());
                let document = known.get(&path).filter(|_| !has_custom).cloned();
                let document = document.unwrap_or_else(|| {
                    let value = value(&path, group, version, descriptions());
                    Arc::new(Document::new(Model::V3, &value))
                });
                documents.insert(path, document);
            }
            documents
        })
    }

    fn swagger(&self) -> &Document {
        self.swagger.get_or_init(|| {
            let descriptions = Descriptions::load();
            let values = values(&self.catalog, &descriptions).map(|(_, value)| value);
            Document::new(Model::V2, &swagger::merged(values))
        })
    }
}

/// Those of the built-in kinds, which are the same whatever else there is.
fn built_in_documents() -> &'static BTreeMap<String, Arc<Document>> {
    static DOCUMENTS: OnceLock<BTreeMap<String, Arc<Document>>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let (descriptions, catalog) = (Descriptions::load(), Catalog::built_in());
        let values = values(&catalog, &descriptions);
        values.map(|(path, value)| (path, Arc::new(Document::new(Model::V3, &value)))).collect()
    })
}

/// Each group and version, with the path of its document.
fn group_versions(catalog: &Catalog) -> impl Iterator<Item = (String, &Group, &'static str)> {
    catalog.groups().iter().flat_map(|group| {
        group.versions.iter().map(move |version| (path(group.name, version), group, *version))
    })
}

/// The document of each group and version, by its path.
fn values(catalog: &Catalog, descriptions: &Descriptions) -> impl Iterator<Item = (String, Value)> {
    group_versions(catalog).map(move |(path, group, version)| {
        let value = value(&path, group, version, descriptions);
        (path, value)
    })
}

fn value(root: &str, group: &Group, version: &str, descriptions: &Descriptions) -> Value {
    let kinds: Vec<Kind> = Catalog::of_version(group, version).cloned().collect();
    let served = Served { group: group.name, version, kinds: &kinds };
    document(root, served, descriptions)
}

/// What one document is about.
#[derive(Clone, Copy)]
struct Served<'a> {
    group: &'a str,
    version: &'a str,
    kinds: &'a [Kind],
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn document(root: &str, served: Served<'_>, descriptions: &Descriptions) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": operations::paths(root, served),
        "components": {
            "schemas": schemas::components(served, descriptions),
            "securitySchemes": { "BearerToken": bearer() },
        },
    })
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": crate::discovery::GIT_VERSION })
}

fn bearer() -> Value {
    json!({
        "type": "apiKey", "name": "authorization", "in": "header",
        "description": "Bearer Token authentication",
    })
}

/// The answer to `path`, if it is one of these.
pub(crate) async fn answer(
    core: &Core,
    path: &str,
    query: &str,
    format: Format,
    headers: &HeaderMap,
) -> Option<Response<Body>> {
    let asked = Asked {
        path: path.strip_prefix("/openapi/")?.to_string(),
        hash: query.split('&').find_map(|pair| pair.strip_prefix("hash=")).map(str::to_string),
        accept: text(headers, header::ACCEPT),
        known: text(headers, header::IF_NONE_MATCH),
        format: Format { pretty: false, ..format },
        elsewhere: aggregator::openapi_paths(core),
    };
    let catalog = core.catalog();
    // The first request makes every document, which takes a while.
    tokio::task::spawn_blocking(move || asked.answer(&Documents::of(catalog))).await.ok()?
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_string()
}

/// What a request for a document says.
struct Asked {
    path: String,
    hash: Option<String>,
    accept: String,
    known: String,
    format: Format,
    /// Documents that other servers have.
    elsewhere: Vec<String>,
}

#[derive(Clone, Copy)]
enum Coding {
    Json,
    Protobuf,
}

impl Asked {
    fn answer(&self, documents: &Documents) -> Option<Response<Body>> {
        match self.path.split_once('/') {
            None if self.path == "v3" => Some(self.index(documents)),
            None if self.path == "v2" => Some(self.document(documents.swagger())),
            Some(("v3", path)) => {
                let document = documents.group_versions().get(path)?;
                if self.hash.as_ref().is_some_and(|hash| *hash != document.hash) {
                    return Some(moved(&url(path, document)));
                }
                Some(self.document(document))
            }
            _ => None,
        }
    }

    /// The hash in a URL lets clients keep a document for ever.
    fn index(&self, documents: &Documents) -> Response<Body> {
        let mut paths: Map<String, Value> = documents
            .group_versions()
            .iter()
            .map(|(path, document)| {
                (path.clone(), json!({ "serverRelativeURL": url(path, document) }))
            })
            .collect();
        for path in &self.elsewhere {
            let url = format!("/openapi/v3/{path}");
            paths.insert(path.clone(), json!({ "serverRelativeURL": url }));
        }
        let index = Document::new(Model::V3, &json!({ "paths": paths }));
        self.tagged("application/json", &index.hash, &index.json)
    }

    fn document(&self, document: &Document) -> Response<Body> {
        let mut response = match (coding(&self.accept, document.model), document.model) {
            (None, _) => {
                let mut response = Response::new(crate::server::full(""));
                *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
                response
            }
            (Some(Coding::Json), _) => {
                self.tagged("application/json", &document.hash, &document.json)
            }
            (Some(Coding::Protobuf), model) => {
                let media = match model {
                    Model::V2 => "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
                    Model::V3 => "application/com.github.proto-openapi.spec.v3.v1.0+protobuf",
                };
                self.tagged(media, &document.hash, document.protobuf())
            }
        };
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
        if self.hash.is_some() {
            let forever = HeaderValue::from_static("public, immutable");
            headers.insert(header::CACHE_CONTROL, forever);
        }
        response
    }

    fn tagged(&self, media: &'static str, hash: &str, content: &[u8]) -> Response<Body> {
        let etag = format!("\"{hash}\"");
        let mut response = if self.known.split(',').any(|known| known.trim() == etag) {
            bytes(StatusCode::NOT_MODIFIED, media, "")
        } else {
            respond(StatusCode::OK, media, std::iter::once(content.to_vec()), self.format)
        };
        if let Ok(etag) = HeaderValue::from_str(&etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }
}

fn url(path: &str, document: &Document) -> String {
    format!("/openapi/v3/{path}?hash={}", document.hash)
}

fn moved(url: &str) -> Response<Body> {
    let mut response = Response::new(crate::server::full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(url) = HeaderValue::from_str(url) {
        response.headers_mut().insert(header::LOCATION, url);
    }
    response
}

/// The first coding the client names that there is; both of upstream's spellings of the protobuf.
fn coding(accept: &str, model: Model) -> Option<Coding> {
    if accept.trim().is_empty() {
        return Some(Coding::Json);
    }
    let version = if model == Model::V2 { "v2" } else { "v3" };
    accept.split(',').find_map(|range| {
        let range = range.split(';').next().unwrap_or(range).trim();
        let protobuf = range
            .strip_prefix("application/com.github.proto-openapi.spec.")
            .and_then(|rest| rest.strip_prefix(version));
        match (range, protobuf) {
            (_, Some("@v1.0+protobuf" | ".v1.0+protobuf")) => Some(Coding::Protobuf),
            ("application/json" | "application/*" | "*/*", _) => Some(Coding::Json),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_choose_the_coding() {
        let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        assert!(matches!(coding(protobuf, Model::V2), Some(Coding::Protobuf)));
        assert!(coding(protobuf, Model::V3).is_none());
        assert!(matches!(coding("text/plain, */*", Model::V3), Some(Coding::Json)));
    }

    /// Every reference leads somewhere, in every document.
    #[test]
    fn no_reference_dangles() {
        let descriptions = Descriptions::default();
        let check = |document: &Value, prefix: &str, names: &Value| {
            let mut todo = vec![document];
            while let Some(value) = todo.pop() {
                match value {
                    Value::Array(list) => todo.extend(list),
                    Value::Object(map) => {
                        if let Some(Value::String(reference)) = map.get("$ref") {
                            let name = reference.strip_prefix(prefix).expect("a local reference");
                            assert!(names.get(name).is_some(), "{name}");
                        }
                        todo.extend(map.values());
                    }
                    _ => {}
                }
            }
        };
        let catalog = Catalog::built_in();
        for (_, document) in values(&catalog, &descriptions) {
            check(&document, "#/components/schemas/", &document["components"]["schemas"]);
        }
        let merged = swagger::merged(values(&catalog, &descriptions).map(|(_, value)| value));
        check(&merged, "#/definitions/", &merged["definitions"]);
        let parsed = gnostic::encode(Model::V2, &merged);
        assert!(parsed.len() > 100_000, "{}", parsed.len());
    }
}
