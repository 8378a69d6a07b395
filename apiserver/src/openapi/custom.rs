//! Components of kinds that users define: their schema as it was written, with what every object has.

use super::schemas::{name as component, reference};
use crate::custom::CustomKind;
use k8s_docs::Descriptions;
use serde_json::{Map, Value, json};

const GVK: &str = "x-kubernetes-group-version-kind";
const KEEPS: &str = "x-kubernetes-preserve-unknown-fields";

/// `com.example.v1.Widget`: the group the other way round.
pub(super) fn name(custom: &CustomKind, kind: &str) -> String {
    let mut group: Vec<&str> = custom.def.group.split('.').collect();
    group.reverse();
    format!("{}.{}.{kind}", group.join("."), custom.version().name)
}

/// Of the kind and its list.
pub(super) fn components(custom: &CustomKind, descriptions: &Descriptions) -> [(String, Value); 2] {
    let (def, version) = (&custom.def, custom.version());
    let (kind, list_kind) = (def.kind, def.list_kind());
    let gvk = |kind: &str| json!([{ "group": def.group, "version": version.name, "kind": kind }]);
    let mut one = version.source.clone();
    if !one.is_object() {
        one = json!({ "type": "object" });
    }
    embed(&mut one, descriptions, true);
    let mut list = Map::new();
    add_type(&mut list, descriptions);
    let items = "List of ".to_string()
        + def.plural
        + ". More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
    let of = reference(&name(custom, kind));
    list.insert("items".into(), json!({ "type": "array", "items": of, "description": items }));
    list.insert("metadata".into(), metadata("ListMeta", "PodList", descriptions));
    let mut list = json!({
        "type": "object", "required": ["items"], "properties": list,
        "description": format!("{list_kind} is a list of {kind}"),
    });
    one[GVK] = gvk(kind);
    list[GVK] = gvk(&list_kind);
    if !version.selectable.is_empty() {
        let fields = version.selectable.iter().map(|(name, _)| json!({ "fieldPath": name }));
        one["x-kubernetes-selectable-fields"] = fields.collect();
    }
    [(name(custom, kind), one), (name(custom, &list_kind), list)]
}

/// Puts into objects, at the root and within, what their schema need not say.
fn embed(schema: &mut Value, descriptions: &Descriptions, root: bool) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Object(fields)) = map.get_mut("properties") {
        fields.values_mut().for_each(|field| embed(field, descriptions, false));
    }
    for field in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(field) {
            embed(inner, descriptions, false);
        }
    }
    let embedded = map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
    if !root && !embedded {
        return;
    }
    if let Value::Object(fields) = map.entry("properties").or_insert(json!({})) {
        add_type(fields, descriptions);
        fields.insert("metadata".into(), metadata("ObjectMeta", "Pod", descriptions));
    }
    if let (true, Value::Array(required)) = (embedded, map.entry("required").or_insert(json!([]))) {
        for field in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == field) {
                required.push(field.into());
            }
        }
    }
    if map.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        map.remove("required");
    }
}

/// Upstream says the same of these fields of every kind.
fn text(kind: &str, field: &str, descriptions: &Descriptions) -> Option<String> {
    let kind = component(&format!("core.v1.{kind}"));
    descriptions.field(&kind, field).map(str::to_string)
}

fn add_type(fields: &mut Map<String, Value>, descriptions: &Descriptions) {
    for field in ["apiVersion", "kind"] {
        let mut schema = json!({ "type": "string" });
        if let Some(text) = text("Pod", field, descriptions) {
            schema["description"] = text.into();
        }
        fields.insert(field.into(), schema);
    }
}

fn metadata(ty: &str, like: &str, descriptions: &Descriptions) -> Value {
    let of = reference(&component(&format!("meta.v1.{ty}")));
    let mut schema = json!({ "allOf": [of], "default": {} });
    if let Some(text) = text(like, "metadata", descriptions) {
        schema["description"] = text.into();
    }
    schema
}

/// What a schema of these kinds leaves out in OpenAPI 2, where kubectl takes declared fields for all
/// there are, and knows no null.
pub(super) fn plain(out: &mut Map<String, Value>, schema: &Map<String, Value>) {
    let is = |field: &str| schema.get(field) == Some(&Value::Bool(true));
    let (nullable, keeps) = (is("nullable"), is(KEEPS));
    if keeps && schema.contains_key(GVK) {
        out.retain(|key, _| key == GVK);
        out.insert("type".into(), "object".into());
        return;
    }
    if nullable || keeps {
        out.remove("items");
        out.remove("properties");
    }
    let ty = out.get("type").and_then(Value::as_str);
    let unsaid = nullable
        || keeps && ty == Some("object")
        || ty == Some("array") && !out.contains_key("items");
    if unsaid {
        out.remove("type");
    }
    let can_be_null = |name: &Value| {
        let field = schema.get("properties").and_then(|fields| fields.get(name.as_str()?));
        field.is_some_and(|field| field["nullable"] == true)
    };
    if let Some(Value::Array(required)) = out.get_mut("required") {
        required.retain(|name| !can_be_null(name));
        if required.is_empty() {
            out.remove("required");
        }
    }
}
