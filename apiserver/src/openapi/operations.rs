//! The paths of one group and version with their operations, named as upstream names them: clients
//! are generated from these names.

use super::{
    Served,
    schemas::{self, DELETE_OPTIONS, PATCH, RESOURCE_LIST, STATUS, WATCH_EVENT},
};
use crate::{catalog, discovery::body_kind, kind::Kind, kinds::Subresource};
use serde_json::{Map, Value, json};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const ANSWERS: &[&str] = &[JSON, PROTOBUF, YAML];
const TEXTS: &[&str] = &[JSON, PROTOBUF, YAML, "text/plain"];
const ANY: &[&str] = &["*/*"];
const STREAMS: &[&str] = &[
    JSON,
    "application/json;stream=watch",
    PROTOBUF,
    "application/vnd.kubernetes.protobuf;stream=watch",
    YAML,
];
/// What objects of custom kinds are sent and answered in: nobody compiled their types.
const CUSTOM: &[&str] = &[JSON, YAML];
/// The last is for kinds whose types say how lists are merged: kubectl looks here before it sends one.
const PATCHES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A query parameter: name, type, what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const CONTINUE: Parameter =
    ("continue", "string", "Token of the page before; the next page of the same list is returned.");
const DRY_RUN: Parameter = ("dryRun", "string", "`All`: nothing is stored.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "Name under which the changed fields are owned.");
const FIELD_SELECTOR: Parameter =
    ("fieldSelector", "string", "Restricts the list by fields of the objects.");
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What unknown and duplicate fields lead to: `Ignore`, `Warn` or `Strict`.",
);
const FORCE: Parameter = ("force", "boolean", "Takes over fields others own; apply only.");
const GRACE: Parameter =
    ("gracePeriodSeconds", "integer", "Seconds until the object is deleted; zero: at once.");
const LABEL_SELECTOR: Parameter =
    ("labelSelector", "string", "Restricts the list by labels of the objects.");
const LIMIT: Parameter = ("limit", "integer", "The most objects one page holds.");
const ORPHAN: Parameter =
    ("orphanDependents", "boolean", "Deprecated: please use propagationPolicy.");
const PRETTY: Parameter = ("pretty", "string", "If `true`, JSON is indented.");
const PROPAGATION: Parameter = (
    "propagationPolicy",
    "string",
    "What becomes of dependents: `Orphan`, `Background` or `Foreground`.",
);
const REVISION: Parameter =
    ("resourceVersion", "string", "The resource version the answer is to be of.");
const REVISION_MATCH: Parameter =
    ("resourceVersionMatch", "string", "How resourceVersion is meant: `Exact` or `NotOlderThan`.");
const INITIAL_EVENTS: Parameter = (
    "sendInitialEvents",
    "boolean",
    "A watch begins with the present state, and a bookmark behind it.",
);
const TIMEOUT: Parameter = ("timeoutSeconds", "integer", "The longest a list or watch lasts.");
const WATCH: Parameter = ("watch", "boolean", "Changes are sent as they happen.");
const BOOKMARKS: Parameter =
    ("allowWatchBookmarks", "boolean", "A watch may send BOOKMARK events.");
const UNREADABLE: Parameter = (
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "Deletes an object that cannot be read any more.",
);

const LISTING: &[Parameter] = &[
    BOOKMARKS,
    CONTINUE,
    FIELD_SELECTOR,
    LABEL_SELECTOR,
    LIMIT,
    REVISION,
    REVISION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
    WATCH,
];
const WRITING: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCHING: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const DELETING: &[Parameter] = &[DRY_RUN, GRACE, UNREADABLE, ORPHAN, PROPAGATION];
const CLEARING: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELD_SELECTOR,
    GRACE,
    UNREADABLE,
    LABEL_SELECTOR,
    LIMIT,
    ORPHAN,
    PROPAGATION,
    REVISION,
    REVISION_MATCH,
    INITIAL_EVENTS,
    TIMEOUT,
];

/// The paths of one group and version; `root` is `apis/apps/v1`.
pub(super) fn paths(root: &str, served: Served<'_>) -> Value {
    let mut paths = Map::new();
    let version = served.version;
    if !served.kinds.iter().all(|kind| kind.is_custom()) {
        paths.insert(format!("/{root}/"), of_group_version(served.group, version));
    }
    for kind in served.kinds {
        Writer { paths: &mut paths, root, kind, version }.kind();
    }
    Value::Object(paths)
}

fn of_group_version(group: &str, version: &str) -> Value {
    let (id, tag) = names(group, version);
    let list = schemas::reference(RESOURCE_LIST);
    json!({ "get": {
        "description": "get available resources",
        "operationId": format!("get{id}APIResources"),
        "responses": responses(&[("200", "OK")], ANSWERS, &list),
        "tags": [tag],
    } })
}

/// `RbacAuthorizationV1` and `rbacAuthorization_v1`.
fn names(group: &str, version: &str) -> (String, String) {
    let group = match group {
        "" => "core",
        group => group.strip_suffix(".k8s.io").unwrap_or(group),
    };
    let words: String = group.split(['.', '-']).map(capital).collect();
    let mut letters = words.chars();
    let lower: String = letters.next().into_iter().flat_map(char::to_lowercase).collect();
    (words.clone() + &capital(version), format!("{lower}{}_{version}", letters.as_str()))
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    first + letters.as_str()
}

fn responses(codes: &[(&str, &str)], types: &[&str], schema: &Value) -> Value {
    let content: Map<String, Value> =
        types.iter().map(|ty| (ty.to_string(), json!({ "schema": schema }))).collect();
    let mut all: Map<String, Value> = codes
        .iter()
        .map(|(code, text)| (code.to_string(), json!({ "content": content, "description": text })))
        .collect();
    all.insert("401".into(), json!({ "description": "Unauthorized" }));
    Value::Object(all)
}

fn body(types: &[&str], schema: &Value) -> Value {
    let content: Map<String, Value> =
        types.iter().map(|ty| (ty.to_string(), json!({ "schema": schema }))).collect();
    json!({ "content": content })
}

fn query((name, ty, text): &Parameter) -> Value {
    json!({
        "name": name, "in": "query", "description": text,
        "schema": { "type": ty, "uniqueItems": true },
    })
}

fn in_path(name: &str, text: &str) -> Value {
    json!({
        "name": name, "in": "path", "description": text, "required": true,
        "schema": { "type": "string", "uniqueItems": true },
    })
}

/// One operation before it is written.
struct Operation<'a> {
    method: &'a str,
    action: &'a str,
    /// Stands before and behind the group and version in the operation's id.
    id: (String, String),
    text: String,
    parameters: &'a [Parameter],
    body: Option<Value>,
    responses: Value,
}

struct Writer<'a> {
    paths: &'a mut Map<String, Value>,
    root: &'a str,
    kind: &'a Kind,
    version: &'a str,
}

impl Writer<'_> {
    fn kind(&mut self) {
        let (plural, root) = (self.kind.plural, self.root);
        let place = if self.kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{root}{place}/{plural}");
        let verbs = catalog::verbs(self.kind);
        let has = |verb: &&str| verbs.contains(verb);
        let of = |wanted: &[&'static str]| -> Vec<&'static str> {
            wanted.iter().copied().filter(|verb| has(verb)).collect()
        };
        for verb in of(&["list", "create", "deletecollection"]) {
            self.put(&collection, self.operation(verb, "", ""), None);
        }
        let item = format!("{collection}/{{name}}");
        for verb in of(&["get", "update", "patch", "delete"]) {
            self.put(&item, self.operation(verb, "", ""), None);
        }
        if self.kind.namespaced && verbs.contains(&"list") {
            let everywhere = format!("/{root}/{plural}");
            self.put(&everywhere, self.operation("list", "", "ForAllNamespaces"), None);
        }
        // Upstream has a request of its own for a watch of built-in kinds alone.
        if verbs.contains(&"watch") && !self.kind.is_custom() {
            let single = format!("/{root}/watch{place}/{plural}/{{name}}");
            self.put(&single, self.watch("watch", "", ""), None);
            let list = format!("/{root}/watch{place}/{plural}");
            self.put(&list, self.watch("watchlist", "List", ""), None);
            if self.kind.namespaced {
                let everywhere = format!("/{root}/watch/{plural}");
                let operation = self.watch("watchlist", "List", "ForAllNamespaces");
                self.put(&everywhere, operation, None);
            }
        }
        for subresource in self.kind.subresources {
            self.subresource(&item, subresource);
        }
    }

    fn subresource(&mut self, item: &str, subresource: &Subresource) {
        let name = catalog::subresource_name(subresource);
        let path = format!("{item}/{name}");
        let (group, version, kind) = body_kind(self.kind, self.version, subresource);
        let gvk = json!({ "group": group, "version": version, "kind": kind });
        let gvk = Some(gvk).filter(|_| !self.kind.is_custom());
        let schema = match subresource {
            Subresource::Status => schemas::kind_reference(self.kind, self.version),
            Subresource::Scale { .. } => schemas::reference(&schemas::name("autoscaling.v1.Scale")),
            Subresource::Named { schema: "", .. } => {
                schemas::kind_reference(self.kind, self.version)
            }
            Subresource::Named { schema, .. } => schemas::reference(&schemas::name(schema)),
        };
        for verb in catalog::subresource_verbs(subresource) {
            if matches!(name, "exec" | "attach" | "portforward" | "proxy") {
                let method = method(verb);
                let operation = self.connect(method, name, false);
                self.put(&path, operation, gvk.clone());
                if name == "proxy" {
                    let operation = self.connect(method, name, true);
                    self.put(&format!("{path}/{{path}}"), operation, gvk.clone());
                }
                continue;
            }
            let mut operation = self.operation(verb, name, "");
            let text = name == "log";
            let shown = if text { json!({ "type": "string" }) } else { schema.clone() };
            let types = if text { TEXTS } else { self.types(ANSWERS) };
            operation.responses = responses(self.codes(verb), types, &shown);
            if matches!(*verb, "create" | "update") {
                operation.body = Some(body(self.types(ANY), &schema));
            }
            self.put(&path, operation, gvk.clone());
        }
    }

    /// `usual`, but for a custom kind.
    fn types(&self, usual: &'static [&'static str]) -> &'static [&'static str] {
        if self.kind.is_custom() { CUSTOM } else { usual }
    }

    fn codes(&self, verb: &str) -> &'static [(&'static str, &'static str)] {
        match verb {
            "patch" if self.kind.is_custom() => codes("get"),
            verb => codes(verb),
        }
    }

    /// `NamespacedPod` with what stands before and behind.
    fn id(&self, verb: &str, subresource: &str, suffix: &str) -> (String, String) {
        let placed = self.kind.namespaced && suffix != "ForAllNamespaces";
        let place = if placed { "Namespaced" } else { "" };
        let kind = self.kind.kind;
        (verb.to_string(), format!("{place}{kind}{}{suffix}", capital(subresource)))
    }

    fn operation(&self, verb: &str, subresource: &str, suffix: &str) -> Operation<'static> {
        let kind = self.kind.kind;
        let schema = schemas::kind_reference(self.kind, self.version);
        let list = schemas::list_reference(self.kind, self.version);
        let what = match subresource {
            "" => format!("the specified {kind}"),
            subresource => format!("{subresource} of the specified {kind}"),
        };
        let patches = PATCHES.len() - usize::from(self.kind.is_custom());
        let patch = || body(&PATCHES[..patches], &schemas::reference(PATCH));
        let options = || body(self.types(ANY), &schemas::reference(DELETE_OPTIONS));
        let whole = || body(self.types(ANY), &schema);
        let status = schemas::reference(STATUS);
        let id = |verb: &str| self.id(verb, subresource, suffix);
        let (method, action, id, text, parameters, body, shown): (_, _, _, _, &[Parameter], _, _) =
            match verb {
                "get" => ("get", "get", id("read"), format!("read {what}"), &[], None, &schema),
                "list" => {
                    let text = format!("list or watch objects of kind {kind}");
                    ("get", "list", id("list"), text, LISTING, None, &list)
                }
                "create" => {
                    let text = match subresource {
                        "" => format!("create a {kind}"),
                        subresource => format!("create {subresource} of a {kind}"),
                    };
                    ("post", "post", id("create"), text, WRITING, Some(whole()), &schema)
                }
                "update" => {
                    let text = format!("replace {what}");
                    ("put", "put", id("replace"), text, WRITING, Some(whole()), &schema)
                }
                "patch" => {
                    let text = format!("partially update {what}");
                    ("patch", "patch", id("patch"), text, PATCHING, Some(patch()), &schema)
                }
                "delete" => {
                    let text = format!("delete a {kind}");
                    ("delete", "delete", id("delete"), text, DELETING, Some(options()), &status)
                }
                _ => {
                    let (before, behind) = id("delete");
                    let id = (before, format!("Collection{behind}"));
                    let text = format!("delete collection of {kind}");
                    let action = "deletecollection";
                    // Of a custom kind, upstream tells no more than of its list.
                    let (parameters, body) = match self.kind.is_custom() {
                        true => (LISTING, None),
                        false => (CLEARING, Some(options())),
                    };
                    ("delete", action, id, text, parameters, body, &status)
                }
            };
        let types = self.types(if verb == "list" { STREAMS } else { ANSWERS });
        let responses = responses(self.codes(verb), types, shown);
        Operation { method, action, id, text, parameters, body, responses }
    }

    fn watch(&self, action: &'static str, list: &str, suffix: &str) -> Operation<'static> {
        let kind = self.kind.kind;
        let (before, behind) = self.id("watch", "", suffix);
        let behind = match suffix {
            "" => format!("{behind}{list}"),
            suffix => behind.replace(suffix, &format!("{list}{suffix}")),
        };
        let what = if list.is_empty() { "an object" } else { "a list" };
        Operation {
            method: "get",
            action,
            id: (before, behind),
            text: format!(
                "watch changes to {what} of kind {kind}; deprecated: use the 'watch' parameter with a \
                 list operation instead"
            ),
            parameters: LISTING,
            body: None,
            responses: responses(&[("200", "OK")], STREAMS, &schemas::reference(WATCH_EVENT)),
        }
    }

    fn connect(&self, method: &'static str, subresource: &str, deep: bool) -> Operation<'static> {
        let kind = self.kind.kind;
        let suffix = if deep { "WithPath" } else { "" };
        let (_, behind) = self.id("", subresource, suffix);
        let upper = method.to_uppercase();
        Operation {
            method,
            action: "connect",
            id: ("connect".into(), format!("{}{behind}", capital(method))),
            text: format!("connect {upper} requests to {subresource} of {kind}"),
            parameters: &[],
            body: None,
            responses: responses(&[("200", "OK")], &["*/*"], &json!({ "type": "string" })),
        }
    }

    fn put(&mut self, path: &str, operation: Operation<'_>, gvk: Option<Value>) {
        let (id, tag) = names(self.kind.group, self.version);
        let (before, behind) = operation.id;
        let own = json!({
            "group": self.kind.group, "version": self.version, "kind": self.kind.kind,
        });
        let mut written = json!({
            "description": operation.text,
            "operationId": format!("{before}{id}{behind}"),
            "responses": operation.responses,
            "tags": [tag],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": gvk.unwrap_or(own),
        });
        if !operation.parameters.is_empty() {
            written["parameters"] = operation.parameters.iter().map(query).collect();
        }
        if let Some(body) = operation.body {
            written["requestBody"] = body;
        }
        let item = self.paths.entry(path).or_insert_with(|| item(path, operation.action));
        item[operation.method] = written;
    }
}

fn method(verb: &str) -> &'static str {
    match verb {
        "create" => "post",
        "update" => "put",
        "patch" => "patch",
        "delete" => "delete",
        _ => "get",
    }
}

fn codes(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "create" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "update" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    }
}

/// A path with what all its operations share.
fn item(path: &str, action: &str) -> Value {
    let mut shared = Vec::new();
    if path.contains("{name}") {
        shared.push(in_path("name", "name of the object"));
    }
    if path.contains("{namespace}") {
        shared.push(in_path(
            "namespace",
            "object name and auth scope, such as for teams and projects",
        ));
    }
    if path.contains("{path}") {
        shared.push(in_path("path", "path to the resource"));
    }
    if action != "connect" {
        shared.push(query(&PRETTY));
    }
    json!({ "parameters": shared })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn operations_have_upstreams_names() {
        let catalog = Catalog::built_in();
        let mut told = Vec::new();
        for (root, group, plurals) in [
            ("api/v1", "", &["namespaces"][..]),
            ("apis/rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io", &["roles"]),
        ] {
            let kinds: Vec<Kind> =
                plurals.iter().filter_map(|plural| catalog.find(group, "v1", plural)).collect();
            let served = Served { group, version: "v1", kinds: &kinds };
            for (path, item) in paths(root, served).as_object().expect("paths") {
                for (method, operation) in item.as_object().expect("a path") {
                    let gvk = &operation["x-kubernetes-group-version-kind"]["kind"];
                    let id = operation["operationId"].as_str().unwrap_or_default();
                    if method != "parameters" {
                        told.push(format!("{method} {path} {id} {}", gvk.as_str().unwrap_or("")));
                    }
                }
            }
        }
        insta::assert_snapshot!(told.join("\n"));
        let pods: Vec<Kind> = catalog.find("", "v1", "pods").into_iter().collect();
        let pods = paths("api/v1", Served { group: "", version: "v1", kinds: &pods });
        let exec = &pods["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["post"];
        assert_eq!(exec["operationId"], "connectCoreV1PostNamespacedPodExec");
        let path = "/api/v1/namespaces/{namespace}/pods/{name}/proxy/{path}";
        assert_eq!(pods[path]["get"]["x-kubernetes-action"], "connect");
    }
}
