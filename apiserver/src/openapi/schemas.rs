//! Component schemas: the schema table in OpenAPI's words, without prose. Shape and the extensions
//! clients merge by; `kubectl explain` shows fields without descriptions.

use crate::kinds::KindDef;
use k8s::schema::{Element, Field, ListType, Schema, Shape, Type, TypeId};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// All that the kinds of one group version are made of, by upstream's names.
pub(super) fn components(kinds: &[&KindDef], version: &str) -> Map<String, Value> {
    let schema = Schema::built_in();
    let mut out = Map::new();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<TypeId> = Vec::new();
    for kind in kinds {
        todo.extend(schema.get(kind.schema));
        todo.extend(schema.get(&format!("{}List", kind.schema)));
    }
    todo.extend(
        ["meta.v1.DeleteOptions", "meta.v1.Status"].iter().filter_map(|name| schema.get(name)),
    );
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        let ty = schema.ty(id);
        todo.extend(ty.properties().iter().filter_map(used));
        let top = kinds.iter().find(|kind| kind.schema == &*ty.name);
        out.insert(name(&ty.name), object(schema, ty, top.map(|kind| gvk(kind, version))));
    }
    for (name, schema) in SPECIAL {
        let schema = serde_json::from_str(schema).expect("JSON literals");
        out.insert(name.to_string(), schema);
    }
    out
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

fn gvk(kind: &KindDef, version: &str) -> Value {
    json!([{ "group": kind.group, "version": version, "kind": kind.kind }])
}

/// `io.k8s.api.core.v1.Pod` for `core.v1.Pod`.
fn name(table: &str) -> String {
    let home = match table.split('.').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis",
        _ => "io.k8s.api",
    };
    format!("{home}.{table}")
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn object(schema: &Schema, ty: &Type, top: Option<Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    if top.is_some() || ty.has_type_meta() {
        for field in ["apiVersion", "kind"] {
            properties.insert(field.into(), json!({ "type": "string" }));
        }
    }
    for field in ty.properties() {
        properties.insert(field.json.to_string(), property(schema, field));
        if field.required || !(field.optional || field.omit_empty || field.omit_zero) {
            required.push(field.json.to_string());
        }
    }
    let mut out = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        out["required"] = required.into();
    }
    if ty.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    if let Some(top) = top {
        out["x-kubernetes-group-version-kind"] = top;
    }
    out
}

fn property(schema: &Schema, field: &Field) -> Value {
    let element = element(schema, field.element);
    let mut out = match field.shape {
        Shape::One => element,
        Shape::List => json!({ "type": "array", "items": element }),
        Shape::Map => json!({ "type": "object", "additionalProperties": element }),
    };
    let mut more = Map::new();
    if !field.values.is_empty() && field.shape == Shape::One {
        more.insert("enum".into(), json!(field.values));
    }
    if let Some(default) = &field.default {
        more.insert("default".into(), default.clone());
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
    if !more.is_empty() && out.get("$ref").is_some() {
        // What stands beside a reference does not count.
        out = json!({ "allOf": [out] });
    }
    if let Value::Object(out) = &mut out {
        out.extend(more);
    }
    out
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
pub(super) fn kind_reference(kind: &KindDef) -> Value {
    reference(&name(kind.schema))
}
