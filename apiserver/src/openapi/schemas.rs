//! Component schemas: the schema table in OpenAPI's words, with upstream's descriptions and the
//! extensions clients merge by.

use super::{Served, custom};
use crate::{catalog::Catalog, kind::Kind, kinds::Subresource};
use k8s::schema::{Element, Field, ListType, Schema, Shape, Type, TypeId};
use k8s_docs::Descriptions;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const RESOURCE_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";

/// Types that operations of every group refer to.
const COMMON: &[&str] = &[
    "meta.v1.APIResourceList",
    "meta.v1.DeleteOptions",
    "meta.v1.Patch",
    "meta.v1.Status",
    "meta.v1.WatchEvent",
];

/// All that the kinds of one group version are made of, by upstream's names.
pub(super) fn components(served: Served<'_>, descriptions: &Descriptions) -> Map<String, Value> {
    let schema = Schema::built_in();
    let writer = Writer { schema, descriptions };
    let mut out = Map::new();
    let mut seen = BTreeSet::new();
    let mut tops: Vec<(TypeId, Value)> = Vec::new();
    let mut todo: Vec<TypeId> = COMMON.iter().filter_map(|name| schema.get(name)).collect();
    for kind in served.kinds {
        if let Some(kind) = kind.custom() {
            out.extend(custom::components(kind, descriptions));
            let metas = ["meta.v1.ObjectMeta", "meta.v1.ListMeta"];
            todo.extend(metas.iter().filter_map(|name| schema.get(name)));
        }
        let whole = type_name(kind, served.version);
        for (name, suffix) in [(whole.clone(), ""), (format!("{whole}List"), "List")] {
            let Some(id) = schema.get(&name) else { continue };
            tops.push((id, gvk(kind, served.version, suffix)));
            todo.push(id);
        }
        todo.extend(kind.subresources.iter().filter_map(|one| schema.get(body(one))));
    }
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let ty = schema.ty(id);
        todo.extend(ty.properties().iter().filter_map(used));
        let mut of: Vec<Value> =
            tops.iter().filter(|top| top.0 == id).map(|top| top.1.clone()).collect();
        of.extend(common_kinds(&ty.name));
        out.insert(name(&ty.name), writer.object(ty, of));
    }
    for (name, schema) in SPECIAL {
        let mut schema: Value = serde_json::from_str(schema).expect("JSON literals");
        if let Some(text) = descriptions.of(name) {
            schema["description"] = text.into();
        }
        out.insert(name.to_string(), schema);
    }
    out
}

/// The table's name of a subresource's body.
fn body(subresource: &Subresource) -> &str {
    match subresource {
        Subresource::Status => "",
        Subresource::Scale { .. } => "autoscaling.v1.Scale",
        Subresource::Named { schema, .. } => schema,
    }
}

/// The table's name of `kind` in `version`.
fn type_name(kind: &Kind, version: &str) -> String {
    match kind.schema(version) {
        Some((schema, ty)) => schema.ty(ty).name.to_string(),
        None => kind.schema.to_string(),
    }
}

/// Kinds that are of no resource: options and events are of every built-in group and version (not of
/// custom ones, so that no document changes when one of those comes).
fn common_kinds(name: &str) -> Vec<Value> {
    let one =
        |group: &str, kind: &str| vec![json!({ "group": group, "version": "v1", "kind": kind })];
    let kind = match name {
        "meta.v1.DeleteOptions" => "DeleteOptions",
        "meta.v1.WatchEvent" => "WatchEvent",
        "meta.v1.Status" => return one("", "Status"),
        "meta.v1.APIResourceList" => return one("", "APIResourceList"),
        "autoscaling.v1.Scale" => return one("autoscaling", "Scale"),
        "policy.v1.Eviction" => return one("policy", "Eviction"),
        _ => return Vec::new(),
    };
    let catalog = Catalog::built_in();
    let groups = catalog.groups().iter();
    let all = groups.flat_map(|group| group.versions.iter().map(move |version| (group, version)));
    let gvk =
        |group: &str, version: &str| json!({ "group": group, "version": version, "kind": kind });
    all.map(|(group, version)| gvk(group.name, version)).collect()
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";

/// Types whose JSON is not that of a struct.
const SPECIAL: &[(&str, &str)] = &[
    (QUANTITY, r#"{"oneOf":[{"type":"string"},{"type":"number"}]}"#),
    (INT_OR_STRING, r#"{"format":"int-or-string","oneOf":[{"type":"integer"},{"type":"string"}]}"#),
    (TIME, r#"{"type":"string","format":"date-time"}"#),
    (MICRO_TIME, r#"{"type":"string","format":"date-time"}"#),
    (RAW, r#"{"type":"object"}"#),
    (FIELDS, r#"{"type":"object"}"#),
];

fn used(field: &Field) -> Option<TypeId> {
    match field.element {
        Element::SchemaOrBool(id)
        | Element::SchemaOrArray(id)
        | Element::SchemaOrStringArray(id) => Some(id),
        _ => field.message(),
    }
}

fn gvk(kind: &Kind, version: &str, suffix: &str) -> Value {
    let name = format!("{}{suffix}", kind.kind);
    json!({ "group": kind.group, "version": version, "kind": name })
}

/// `io.k8s.api.core.v1.Pod` for `core.v1.Pod`.
pub(super) fn name(table: &str) -> String {
    let home = match table.split('.').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis",
        _ => "io.k8s.api",
    };
    format!("{home}.{table}")
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

struct Writer<'a> {
    schema: &'a Schema,
    descriptions: &'a Descriptions,
}

impl Writer<'_> {
    fn object(&self, ty: &Type, kinds: Vec<Value>) -> Value {
        let component = name(&ty.name);
        let mut properties = Map::new();
        let mut required = Vec::new();
        if ty.has_type_meta() {
            for field in ["apiVersion", "kind"] {
                properties.insert(field.into(), json!({ "type": "string" }));
            }
        }
        for field in ty.properties() {
            properties.insert(field.json.to_string(), self.property(field));
            if field.required || !(field.optional || field.omit_empty || field.omit_zero) {
                required.push(field.json.to_string());
            }
        }
        for (field, property) in &mut properties {
            if let Some(text) = self.descriptions.field(&component, field) {
                describe(property, text);
            }
        }
        let mut out = json!({ "type": "object" });
        if !properties.is_empty() {
            out["properties"] = properties.into();
        }
        if !required.is_empty() {
            out["required"] = required.into();
        }
        if let Some(text) = self.descriptions.of(&component) {
            out["description"] = text.into();
        }
        if ty.atomic {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        if !kinds.is_empty() {
            out["x-kubernetes-group-version-kind"] = kinds.into();
        }
        out
    }

    fn property(&self, field: &Field) -> Value {
        let one = element(self.schema, field.element);
        let mut out = match field.shape {
            Shape::One => one,
            Shape::List => json!({ "type": "array", "items": one }),
            Shape::Map => json!({ "type": "object", "additionalProperties": one }),
        };
        let more = extensions(field);
        if !more.is_empty() && out.get("$ref").is_some() {
            out = beside(out);
        }
        if let Value::Object(out) = &mut out {
            out.extend(more);
        }
        out
    }
}

/// What stands beside a reference does not count, so the reference goes into an `allOf`.
fn beside(reference: Value) -> Value {
    json!({ "allOf": [reference] })
}

fn describe(property: &mut Value, text: &str) {
    if property.get("$ref").is_some() {
        *property = beside(property.take());
    }
    property["description"] = text.into();
}

fn extensions(field: &Field) -> Map<String, Value> {
    let mut more = Map::new();
    if !field.values.is_empty() && field.shape == Shape::One {
        more.insert("enum".into(), json!(field.values));
    }
    if let Some(default) = default(field) {
        more.insert("default".into(), default);
    }
    match field.list_type {
        Some(ListType::Map) => {
            more.insert("x-kubernetes-list-type".into(), "map".into());
            more.insert("x-kubernetes-list-map-keys".into(), json!(field.list_map_keys));
        }
        Some(ListType::Set) => {
            more.insert("x-kubernetes-list-type".into(), "set".into());
        }
        Some(ListType::Atomic) => {
            more.insert("x-kubernetes-list-type".into(), "atomic".into());
        }
        None if field.atomic => {
            more.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
        None if field.granular => {
            more.insert("x-kubernetes-map-type".into(), "granular".into());
        }
        None => {}
    }
    if let Some(key) = &field.patch_merge_key {
        more.insert("x-kubernetes-patch-merge-key".into(), json!(key));
    }
    let patch = &field.patch;
    let flags =
        [(patch.merge, "merge"), (patch.replace, "replace"), (patch.retain_keys, "retainKeys")];
    let strategy: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    if !strategy.is_empty() {
        more.insert("x-kubernetes-patch-strategy".into(), strategy.join(",").into());
    }
    more
}

/// Upstream's generator names the zero value of whatever is always there.
fn default(field: &Field) -> Option<Value> {
    if field.default.is_some() || field.pointer || field.shape != Shape::One {
        return field.default.clone();
    }
    match field.element {
        Element::Message(_) => Some(json!({})),
        _ if field.omit_empty || field.omit_zero => None,
        Element::String if field.values.is_empty() => Some("".into()),
        Element::Bool => Some(false.into()),
        Element::Int32 | Element::Int64 | Element::Float64 => Some(0.into()),
        _ => None,
    }
}

fn element(schema: &Schema, element: Element) -> Value {
    match element {
        Element::String | Element::Duration => json!({ "type": "string" }),
        Element::Bool => json!({ "type": "boolean" }),
        Element::Int32 => json!({ "type": "integer", "format": "int32" }),
        Element::Int64 => json!({ "type": "integer", "format": "int64" }),
        Element::Float64 => json!({ "type": "number", "format": "double" }),
        Element::Bytes => json!({ "type": "string", "format": "byte" }),
        Element::Message(id) => reference(&name(&schema.ty(id).name)),
        Element::Time => reference(TIME),
        Element::MicroTime => reference(MICRO_TIME),
        Element::IntOrString => reference(INT_OR_STRING),
        Element::Quantity => reference(QUANTITY),
        Element::RawExtension => reference(RAW),
        Element::FieldsV1 => reference(FIELDS),
        Element::StringList => json!({ "type": "array", "items": { "type": "string" } }),
        _ => json!({}),
    }
}

/// The component of a kind.
pub(super) fn kind_reference(kind: &Kind, version: &str) -> Value {
    if let Some(custom) = kind.custom() {
        return reference(&custom::name(custom, kind.kind));
    }
    reference(&name(&type_name(kind, version)))
}

/// The component of its list.
pub(super) fn list_reference(kind: &Kind, version: &str) -> Value {
    if let Some(custom) = kind.custom() {
        return reference(&custom::name(custom, &kind.list_kind()));
    }
    reference(&name(&format!("{}List", type_name(kind, version))))
}
