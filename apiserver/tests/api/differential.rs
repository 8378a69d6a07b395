//! Requests and what upstream answers to them, kind by kind and verb by verb, written down in
//! `tests/differential/*.yaml` from the published behaviour. Prints how many agree:
//! `cargo test -p apiserver --test api differential -- --nocapture`

use crate::{
    harness::{Answer, Cluster, read, request},
    operations,
};
use apiserver::kinds::KindDef;
use http::{HeaderValue, Method, header};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
};

const VERBS: [&str; 14] = [
    "create",
    "get",
    "list",
    "table",
    "watch",
    "update",
    "patch",
    "status",
    "scale",
    "resize",
    "ephemeralcontainers",
    "dry",
    "delete",
    "collect",
];

/// At least as many requests are made: a case that is lost is noticed. Raised with the files.
const RECORDED: usize = 1550;

/// How many requests were made of one kind and verb, and how many were answered as upstream does.
#[derive(Clone, Copy, Default)]
struct Count {
    good: usize,
    all: usize,
}

#[derive(Default)]
pub(crate) struct Report {
    counts: BTreeMap<(String, &'static str), Count>,
    differences: Vec<String>,
}

impl Report {
    pub(crate) fn note(&mut self, kind: &str, verb: &'static str, difference: Option<String>) {
        let count = self.counts.entry((kind.to_string(), verb)).or_default();
        count.all += 1;
        match difference {
            None => count.good += 1,
            Some(text) => self.differences.push(format!("{verb} {kind}: {text}")),
        }
    }

    fn table(&self) -> String {
        let mut kinds: Vec<&String> = self.counts.keys().map(|(kind, _)| kind).collect();
        kinds.dedup();
        let width = kinds.iter().map(|kind| kind.len()).max().unwrap_or(0);
        let mut out = format!("{:width$}", "KIND");
        VERBS.iter().for_each(|verb| write!(out, " {verb:>7.7}").expect("memory"));
        let mut total = Count::default();
        for kind in kinds {
            write!(out, "\n{kind:width$}").expect("memory");
            for verb in VERBS {
                let cell = match self.counts.get(&(kind.clone(), verb)) {
                    None => "-".to_string(),
                    Some(Count { good, all }) => {
                        total.good += good;
                        total.all += all;
                        format!("{good}/{all}")
                    }
                };
                write!(out, " {cell:>7}").expect("memory");
            }
        }
        format!(
            "{out}\n{} of {} requests are answered as upstream answers them",
            total.good, total.all
        )
    }
}

/// One kind of the files.
pub(crate) struct Kind<'a> {
    /// With its group, unless that is the core's.
    pub(crate) name: String,
    /// The path of the collection that the object is in.
    pub(crate) collection: String,
    pub(crate) spec: &'a Value,
}

impl Kind<'_> {
    fn list(&self, field: &str) -> impl Iterator<Item = &Value> {
        self.spec.get(field).and_then(Value::as_array).into_iter().flatten()
    }

    /// The path of all objects of the kind.
    pub(crate) fn everywhere(&self) -> String {
        self.collection.replace("/namespaces/default/", "/")
    }

    pub(crate) fn built_in(&self) -> &'static KindDef {
        let (plural, group) = self.name.split_once('.').unwrap_or((&self.name, ""));
        apiserver::kinds::find(group, plural).expect("a kind that is served")
    }

    /// The path of the object.
    pub(crate) fn path(&self) -> String {
        let name = self.spec.pointer("/object/metadata/name").and_then(Value::as_str);
        format!("{}/{}", self.collection, name.unwrap_or_default())
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures go to whoever asked for them")]
async fn differential() {
    let mut cluster = Cluster::start().await;
    let account = json!({ "metadata": { "name": "default" } });
    cluster.post("/api/v1/namespaces/default/serviceaccounts", account).await;
    let mut report = Report::default();
    let mut seen = Vec::new();
    for file in files() {
        let text = std::fs::read(&file).expect("a readable file");
        let document = k8s::decode::yaml_to_value(&text).expect("YAML");
        for (plural, spec) in document["kinds"].as_object().expect("kinds") {
            let kind = of(document["api"].as_str().expect("an API"), plural, spec);
            check(&mut cluster, &kind, &mut report).await;
            seen.push(kind.name);
        }
    }
    cluster.stop().await;
    println!("{}", report.table());
    assert!(report.differences.is_empty(), "{}", report.differences.join("\n"));
    let asked: usize = report.counts.values().map(|count| count.all).sum();
    assert!(asked >= RECORDED, "{asked} requests were made, {RECORDED} are recorded");
    let missing: Vec<String> = served().into_iter().filter(|kind| !seen.contains(kind)).collect();
    assert!(missing.is_empty(), "kinds without a recorded request: {missing:?}");
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential");
    let entries = std::fs::read_dir(folder).expect("the recorded requests");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Every kind that objects can be made of.
fn served() -> Vec<String> {
    let kinds = apiserver::kinds::BUILT_IN.iter();
    let made = kinds.filter(|kind| kind.verbs != apiserver::kinds::Verbs::ReadOnly);
    // A binding is of a pod that waits; see the flows of the scheduler.
    made.filter(|kind| kind.plural != "bindings")
        .map(|kind| name(kind.group, kind.plural))
        .collect()
}

fn name(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_string() } else { format!("{plural}.{group}") }
}

fn of<'a>(api: &str, plural: &str, spec: &'a Value) -> Kind<'a> {
    let group = api.split_once('/').map_or("", |(group, _)| group);
    let root = if group.is_empty() { format!("/api/{api}") } else { format!("/apis/{api}") };
    let collection = match spec.get("namespaced") == Some(&Value::Bool(false)) {
        true => format!("{root}/{plural}"),
        false => format!("{root}/namespaces/default/{plural}"),
    };
    Kind { name: name(group, plural), collection, spec }
}

async fn check(cluster: &mut Cluster, kind: &Kind<'_>, report: &mut Report) {
    let object = &kind.spec["object"];
    for case in kind.list("refused") {
        let answer = cluster.post(&kind.collection, changed(object, &case["change"])).await;
        report.note(&kind.name, "create", differs(&answer, case));
        if answer.code == 201 {
            cluster.delete(&kind.path()).await;
        }
    }
    let made = cluster.post(&kind.collection, object.clone()).await;
    let expected = json!({ "gives": kind.spec["defaults"], "warns": kind.spec["warns"] });
    report.note(&kind.name, "create", differs(&made, &expected));
    if made.code != 201 || kind.spec.get("asked") == Some(&Value::Bool(true)) {
        return;
    }
    reads(cluster, kind, &made, report).await;
    writes(cluster, kind, report).await;
    operations::live(cluster, kind, report).await;
    let gone = cluster.delete(&kind.path()).await;
    let deleted = gone.code == 200 || gone.code == 202;
    report.note(&kind.name, "delete", (!deleted).then(|| gone.body.to_string()));
    operations::collected(cluster, kind, report).await;
}

async fn reads(cluster: &mut Cluster, kind: &Kind<'_>, made: &Answer, report: &mut Report) {
    let one = cluster.get(&kind.path()).await;
    let same = one.body == made.body;
    report.note(&kind.name, "get", (!same).then(|| format!("{} is not {}", one.body, made.body)));
    let all = cluster.get(&kind.collection).await;
    let uid = &made.body["metadata"]["uid"];
    let items = all.body["items"].as_array();
    let listed = items.is_some_and(|items| items.iter().any(|i| &i["metadata"]["uid"] == uid));
    report.note(&kind.name, "list", (!listed).then(|| all.body.to_string()));
    let mut asked = request(Method::GET, &kind.path(), "", "");
    let table = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
    asked.headers_mut().insert(header::ACCEPT, table);
    let response = cluster.send(cluster.admin(), asked).await;
    let table = read(response).await;
    report.note(&kind.name, "table", table_differs(&table, kind));
}

async fn writes(cluster: &mut Cluster, kind: &Kind<'_>, report: &mut Report) {
    let path = kind.path();
    let present = cluster.get(&path).await.body;
    let same = cluster.put(&path, present.clone()).await;
    let untouched = same.body == present;
    let difference = (!untouched).then(|| format!("an update of nothing gave {}", same.body));
    report.note(&kind.name, "update", difference);
    for case in kind.list("updates") {
        let present = cluster.get(&path).await.body;
        let answer = cluster.put(&path, changed(&present, &case["change"])).await;
        report.note(&kind.name, "update", differs(&answer, case));
    }
    let label = json!({ "metadata": { "labels": { "patched": "yes" } } });
    let patched = cluster.merge(&path, label.clone()).await;
    report.note(&kind.name, "patch", differs(&patched, &json!({ "gives": label })));
    for case in kind.list("patches") {
        let answer = cluster.merge(&path, case["change"].clone()).await;
        report.note(&kind.name, "patch", differs(&answer, case));
    }
    for verb in ["status", "scale", "resize", "ephemeralcontainers"] {
        for case in kind.list(verb) {
            let answer = cluster.merge(&format!("{path}/{verb}"), case["change"].clone()).await;
            report.note(&kind.name, verb, differs(&answer, case));
        }
    }
}

/// `object` after a merge patch.
pub(crate) fn changed(object: &Value, change: &Value) -> Value {
    match change.is_null() {
        true => object.clone(),
        false => k8s::patch::merge(object.clone(), change).expect("a merge patch"),
    }
}

/// What is not as the case says: `causes` of a refusal, or what the answer `gives` and `warns` of.
fn differs(answer: &Answer, case: &Value) -> Option<String> {
    if let Some(causes) = case.get("causes").and_then(Value::as_array) {
        let list = answer.body.pointer("/details/causes").and_then(Value::as_array);
        let told: Vec<String> = list
            .into_iter()
            .flatten()
            .map(|cause| {
                let text = |field: &str| cause[field].as_str().unwrap_or_default().to_string();
                format!("{}: {}", text("field"), text("message"))
            })
            .collect();
        let wanted: Vec<String> =
            causes.iter().map(|cause| cause.as_str().unwrap_or_default().to_string()).collect();
        let equal = wanted.len() == told.len()
            && wanted.iter().zip(&told).all(|(wanted, told)| told.starts_with(wanted.as_str()));
        let status = (answer.code, answer.body["reason"].as_str());
        let good = equal && status == (422, Some("Invalid"));
        return (!good)
            .then(|| format!("told {told:?} ({}), not {wanted:?}", answer.body["message"]));
    }
    if answer.code >= 300 {
        return Some(format!("refused: {}", answer.body));
    }
    let mut lacking = Vec::new();
    lacks(&answer.body, &case["gives"], "", &mut lacking);
    for warning in case["warns"].as_array().into_iter().flatten() {
        let text = warning.as_str().unwrap_or_default().replace('"', "\\\"");
        if !answer.warnings.iter().any(|told| told.contains(&text)) {
            lacking.push(format!("no warning {text:?} in {:?}", answer.warnings));
        }
    }
    (!lacking.is_empty()).then(|| lacking.join("; "))
}

/// Where `value` is not what is `wanted` of it; null wants a field to be absent, `*` takes any value.
fn lacks(value: &Value, wanted: &Value, path: &str, lacking: &mut Vec<String>) {
    match wanted {
        Value::Object(map) => {
            for (field, wanted) in map {
                let at = format!("{path}/{field}");
                match value.get(field) {
                    None if wanted.is_null() => (),
                    None => lacking.push(format!("no {at}")),
                    Some(value) => lacks(value, wanted, &at, lacking),
                }
            }
        }
        Value::Array(list) if value.as_array().is_some_and(|own| own.len() == list.len()) => {
            for (place, wanted) in list.iter().enumerate() {
                lacks(&value[place], wanted, &format!("{path}/{place}"), lacking);
            }
        }
        Value::Null if path.is_empty() => (),
        Value::String(any) if any == "*" => (),
        wanted if wanted == value => (),
        wanted => lacking.push(format!("{path} is {value}, not {wanted}")),
    }
}

/// Columns as `Name=cell`, wide ones with a `*` behind their name; a cell may be anything where the
/// file says `*`.
fn table_differs(table: &Answer, kind: &Kind<'_>) -> Option<String> {
    let columns = table.body["columnDefinitions"].as_array().cloned().unwrap_or_default();
    let told: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(place, column)| {
            let wide = if column["priority"] == 1 { "*" } else { "" };
            let cell = match &table.body["rows"][0]["cells"][place] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            format!("{}{wide}={cell}", column["name"].as_str().unwrap_or_default())
        })
        .collect();
    let wanted: Vec<&str> = kind.list("table").filter_map(Value::as_str).collect();
    let equal = |wanted: &str, told: &str| match wanted.strip_suffix("=*") {
        Some(name) => told.starts_with(&format!("{name}=")),
        None => wanted == told,
    };
    let good = wanted.len() == told.len() && wanted.iter().zip(&told).all(|(w, t)| equal(w, t));
    (!good).then(|| format!("shown as {told:?}, not {wanted:?}"))
}
