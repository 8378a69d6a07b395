//! What this server serves: `/api`, `/apis`, resource lists, aggregated discovery, `/version`. All of
//! it derives from the list of kinds.

use crate::{
    aggregator,
    catalog::{self, Catalog, Group},
    kinds::{KindDef, Subresource},
    pipeline::Core,
    server::{Body, Format, bytes, object, respond, wants_aggregated},
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use k8s::Object;
use serde_json::{Value, json as value};
use sha2::{Digest, Sha256, Sha512};

/// What tools parse to know which API they talk to.
pub(crate) const GIT_VERSION: &str = concat!("v1.36.0+coxswain-", env!("CARGO_PKG_VERSION"));

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The answer to `path`, if it is one of these.
pub(crate) fn answer(
    path: &str,
    core: &Core,
    headers: &HeaderMap,
    format: Format,
) -> Option<Response<Body>> {
    let catalog = core.catalog();
    let aggregated = wants_aggregated(headers);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let answer = match parts.as_slice() {
        ["api"] if aggregated => return Some(aggregate(core, &catalog, true, headers, format)),
        ["apis"] if aggregated => return Some(aggregate(core, &catalog, false, headers, format)),
        ["api"] => value!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [
                { "clientCIDR": "0.0.0.0/0", "serverAddress": server_address(core) },
            ],
        }),
        ["apis"] => {
            let mut groups: Vec<Value> =
                named_groups(&catalog).map(|group| api_group(group, false)).collect();
            groups.extend(aggregator::discovery_group(core, None));
            value!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", group] => match named_groups(&catalog).find(|known| known.name == *group) {
            Some(group) => api_group(group, true),
            None => {
                let mut group = aggregator::discovery_group(core, Some(group)).pop()?;
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                group
            }
        },
        ["api", version] => resource_list(&catalog, "", version)?,
        ["apis", group, version] => resource_list(&catalog, group, version)
            .or_else(|| aggregator::resource_list(group, version))?,
        ["version"] => return Some(indented(&version())),
        [""] => return Some(indented(&value!({ "paths": paths(&catalog) }))),
        _ => return None,
    };
    Some(object(StatusCode::OK, &Object::from_value(answer)?, format))
}

/// As upstream writes what it does not negotiate.
fn indented(value: &Value) -> Response<Body> {
    bytes(StatusCode::OK, "application/json", format!("{value:#}"))
}

fn server_address(core: &Core) -> String {
    let members = core.store.members();
    members.first().map(|member| member.api_address.clone()).unwrap_or_default()
}

fn named_groups(catalog: &Catalog) -> impl Iterator<Item = &Group> {
    catalog.groups().iter().filter(|group| !group.name.is_empty())
}

fn api_group(group: &Group, alone: bool) -> Value {
    let version = |version: &&str| value!({ "groupVersion": format!("{}/{version}", group.name), "version": version });
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let mut answer = value!({
        "name": group.name,
        "preferredVersion": versions.first(),
        "versions": versions,
    });
    if alone {
        answer["kind"] = "APIGroup".into();
        answer["apiVersion"] = "v1".into();
    }
    answer
}

/// The group, version and kind of a subresource's body.
pub(crate) fn body_kind(
    kind: &KindDef,
    version: &str,
    subresource: &Subresource,
) -> (String, String, String) {
    let schema = match subresource {
        Subresource::Status => "",
        Subresource::Scale { .. } => "autoscaling.v1.Scale",
        Subresource::Named { schema, .. } if *schema == kind.schema => "",
        Subresource::Named { schema, .. } => schema,
    };
    let mut parts = schema.splitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(version), Some(kind)) => {
            let group = match group {
                "core" => "",
                "authentication" => "authentication.k8s.io",
                group => group,
            };
            (group.into(), version.into(), kind.into())
        }
        _ => (kind.group.into(), version.into(), kind.kind.into()),
    }
}

fn resource_list(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let group = catalog.groups().iter().find(|known| known.name == group)?;
    if !group.versions.contains(&version) {
        return None;
    }
    let mut resources = Vec::new();
    for kind in Catalog::of_version(group, version) {
        let mut entry = value!({
            "name": kind.plural,
            "singularName": kind.singular(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": catalog::verbs(kind),
        });
        if !kind.short_names.is_empty() {
            entry["shortNames"] = value!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            entry["categories"] = value!(kind.categories);
        }
        if catalog::verbs(kind).contains(&"get") {
            entry["storageVersionHash"] = storage_hash(kind).into();
        }
        resources.push(entry);
        for subresource in kind.subresources {
            let (group, body_version, body) = body_kind(kind, version, subresource);
            let mut entry = value!({
                "name": format!("{}/{}", kind.plural, catalog::subresource_name(subresource)),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": body,
                "verbs": catalog::subresource_verbs(subresource),
            });
            if (group.as_str(), body_version.as_str()) != (kind.group, version) {
                entry["group"] = group.into();
                entry["version"] = body_version.into();
            }
            resources.push(entry);
        }
    }
    Some(value!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": crate::encode::api_version(group.name, version),
        "resources": resources,
    }))
}

fn storage_hash(kind: &KindDef) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let stored = format!("{}/{}/{}", kind.group, kind.versions[0], kind.kind);
    STANDARD.encode(&Sha256::digest(stored)[..8])
}

/// KEP-3352: everything in two documents, which a client need not read twice.
fn aggregate(
    core: &Core,
    catalog: &Catalog,
    unnamed: bool,
    headers: &HeaderMap,
    format: Format,
) -> Response<Body> {
    let groups = catalog.groups().iter().filter(|group| group.name.is_empty() == unnamed);
    let mut items: Vec<Value> = groups.map(aggregate_group).collect();
    if !unnamed {
        let served = |name: &str| named_groups(catalog).any(|group| group.name == name);
        items.extend(aggregator::discovery_items(core, &served));
    }
    let document = value!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    let document = document.to_string();
    let hash: String = Sha512::digest(&document).iter().map(|byte| format!("{byte:02X}")).collect();
    let etag = format!("\"{hash}\"");
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == etag.as_str());
    let mut response = if known {
        bytes(StatusCode::NOT_MODIFIED, AGGREGATED, "")
    } else {
        respond(StatusCode::OK, AGGREGATED, std::iter::once(document.into_bytes()), format)
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.append(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn aggregate_group(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = Catalog::of_version(group, version)
                .map(|kind| aggregate_kind(kind, version))
                .collect();
            value!({ "version": version, "freshness": "Current", "resources": resources })
        })
        .collect();
    let mut metadata = value!({ "creationTimestamp": null });
    if !group.name.is_empty() {
        metadata["name"] = group.name.into();
    }
    value!({ "metadata": metadata, "versions": versions })
}

fn aggregate_kind(kind: &KindDef, version: &str) -> Value {
    let mut entry = value!({
        "resource": kind.plural,
        "responseKind": { "group": kind.group, "version": version, "kind": kind.kind },
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular(),
        "verbs": catalog::verbs(kind),
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = value!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = value!(kind.categories);
    }
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|subresource| {
            let (group, version, body) = body_kind(kind, version, subresource);
            value!({
                "subresource": catalog::subresource_name(subresource),
                "responseKind": { "group": group, "version": version, "kind": body },
                "verbs": catalog::subresource_verbs(subresource),
            })
        })
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}

fn version() -> Value {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    value!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{machine}"),
    })
}

/// Sorted, as upstream lists them.
fn paths(catalog: &Catalog) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/apis/",
        "/healthz",
        "/healthz/ping",
        "/livez",
        "/livez/ping",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/readyz/ping",
        "/readyz/quorum",
        "/version",
    ];
    let mut paths: Vec<String> = fixed.iter().map(|path| path.to_string()).collect();
    for group in named_groups(catalog) {
        paths.push(format!("/apis/{}", group.name));
        paths
            .extend(group.versions.iter().map(|version| format!("/apis/{}/{version}", group.name)));
    }
    paths.sort();
    paths
}
