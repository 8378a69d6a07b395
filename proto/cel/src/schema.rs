//! Types from schemas: OpenAPI v3 as CustomResourceDefinitions have it (with the sizes the cost estimate
//! needs), and the table of built-in types. Rules and numbers: k8s.io/apiserver/pkg/cel/common/schemas.go.

use crate::{Field, Identity, Kind, ListType, ObjectType, Type};
use k8s::schema::{Element, ListType as Listing, Schema, Shape, TypeId};
use serde_json::Value as Json;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Bytes of the largest request (`MaxRequestSizeBytes`).
pub const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Levels of a schema that are looked at; a deeper part is not reachable by expressions.
const LEVELS_MAX: u16 = 100;

/// The type of values of a structural OpenAPI v3 schema; `None`: expressions cannot see them (fields of
/// unknown content, lists without `items`). With `resource_root` the fields every object has
/// (`apiVersion`, `kind`, `metadata.name`, `metadata.generateName`) are there even if the schema does
/// not name them. `name` is what messages call the type, and must differ where schemas differ.
pub fn of_open_api(name: &str, schema: &Json, resource_root: bool) -> Option<Type> {
    open_api(name, schema, resource_root, 0).map(|sized| sized.ty)
}

/// The fewest bytes JSON needs for a value of such a schema, by which upstream reckons how often one may
/// stand in a request; `None` as for [`of_open_api`].
pub fn min_bytes(schema: &Json) -> Option<u64> {
    open_api("", schema, false, 0).map(|sized| sized.min_bytes)
}

/// A type, and the fewest bytes JSON needs for a value of it.
struct Sized {
    ty: Type,
    min_bytes: u64,
}

fn flag(schema: &Json, name: &str) -> bool {
    schema.get(name).and_then(Json::as_bool).unwrap_or(false)
}

fn bound(schema: &Json, name: &str) -> Option<u64> {
    let bound = schema.get(name)?.as_i64()?;
    Some(u64::try_from(bound).unwrap_or(0))
}

fn open_api(name: &str, schema: &Json, root: bool, level: u16) -> Option<Sized> {
    if level > LEVELS_MAX {
        return None;
    }
    if flag(schema, "x-kubernetes-int-or-string") {
        let max =
            bound(schema, "maxLength").map_or(REQUEST_BYTES_MAX - 2, |max| max.saturating_mul(4));
        return Some(Sized { ty: Type::DYN.at_most(max), min_bytes: 1 });
    }
    // Upstream's estimate takes what has no elements for nothing to walk.
    let fixed = |ty: Type, min_bytes: u64| Some(Sized { ty: ty.at_most(0), min_bytes });
    match schema.get("type").and_then(Json::as_str)? {
        "array" => array(name, schema, level),
        "object" => object(name, schema, root, level),
        "string" => Some(string(schema)),
        "boolean" => fixed(Type::BOOL, 4),
        "number" => fixed(Type::DOUBLE, 1),
        "integer" => fixed(Type::INT, 1),
        _ => None,
    }
}

fn string(schema: &Json) -> Sized {
    let sized = |ty: Type, max: u64, min_bytes: u64| Sized { ty: ty.at_most(max), min_bytes };
    let unbounded = REQUEST_BYTES_MAX - 2;
    match schema.get("format").and_then(Json::as_str) {
        Some("byte") => sized(Type::BYTES, bound(schema, "maxLength").unwrap_or(unbounded), 2),
        Some("duration") => sized(Type::DURATION, 32, 3),
        Some("date") => sized(Type::TIMESTAMP, 12, 12),
        Some("date-time") => sized(Type::TIMESTAMP, 32, 21),
        _ => {
            let values = schema.get("enum").and_then(Json::as_array);
            let longest = values.filter(|values| !values.is_empty()).map(|values| {
                let lengths = values.iter().filter_map(Json::as_str).map(str::len);
                lengths.max().unwrap_or(0) as u64
            });
            // A code point has up to four bytes.
            let max = bound(schema, "maxLength").map(|max| max.saturating_mul(4)).or(longest);
            sized(Type::STRING, max.unwrap_or(unbounded), 2)
        }
    }
}

fn array(name: &str, schema: &Json, level: u16) -> Option<Sized> {
    let items = schema.get("items")?;
    let embedded = flag(items, "x-kubernetes-embedded-resource");
    let element = open_api(&format!("{name}.@idx"), items, embedded, level + 1)?;
    let max =
        bound(schema, "maxItems").unwrap_or((REQUEST_BYTES_MAX - 2) / (element.min_bytes + 1));
    let keys = || {
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
        keys.into_iter().flatten().filter_map(Json::as_str).map(Into::into).collect()
    };
    let identity = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => Identity::Set,
        Some("map") => Identity::Map(keys()),
        _ => Identity::Atomic,
    };
    Some(Sized { ty: Type::list_of(element.ty, identity).at_most(max), min_bytes: 2 })
}

fn object(name: &str, schema: &Json, root: bool, level: u16) -> Option<Sized> {
    if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
        let embedded = flag(values, "x-kubernetes-embedded-resource");
        let value = open_api(&format!("{name}.@elem"), values, embedded, level + 1)?;
        let max = bound(schema, "maxProperties")
            .unwrap_or((REQUEST_BYTES_MAX - 2) / (value.min_bytes + 6));
        let ty = Type::map(Type::STRING, value.ty).at_most(max);
        return Some(Sized { ty, min_bytes: 2 });
    }
    let required = schema.get("required").and_then(Json::as_array);
    let required: Vec<&str> = required.into_iter().flatten().filter_map(Json::as_str).collect();
    let mut fields = BTreeMap::new();
    let mut min_bytes = 2;
    let own = schema.get("properties").and_then(Json::as_object);
    for (json, property) in own.into_iter().flatten() {
        let embedded = flag(property, "x-kubernetes-embedded-resource");
        let inner = format!("{name}.{json}");
        let Some(found) = open_api(&inner, property, embedded, level + 1) else { continue };
        if required.contains(&json.as_str()) && property.get("default").is_none() {
            min_bytes += json.len() as u64 + found.min_bytes + 4;
        }
        if let Some(escaped) = crate::escape(json) {
            fields.insert(escaped, Field { json: json.as_str().into(), ty: found.ty });
        }
    }
    if root {
        add_root_fields(name, &mut fields);
    }
    let ty = Kind::Object(Arc::new(ObjectType { name: name.into(), fields, open: false })).ty();
    Some(Sized { ty: ty.at_most(0), min_bytes })
}

/// What every object has.
fn add_root_fields(name: &str, fields: &mut BTreeMap<String, Field>) {
    let text = || Type::STRING.at_most(REQUEST_BYTES_MAX - 2);
    for json in ["apiVersion", "kind"] {
        fields.entry(json.into()).or_insert_with(|| Field { json: json.into(), ty: text() });
    }
    let known = fields.get("metadata").map(|field| &field.ty.kind);
    let complete = matches!(known, Some(Kind::Object(object))
        if object.fields.contains_key("name") && object.fields.contains_key("generateName"));
    if !complete {
        let both = ["name", "generateName"].map(|field| (field, text()));
        let ty = Type::object(&format!("{name}.metadata"), both);
        fields.insert("metadata".into(), Field { json: "metadata".into(), ty });
    }
}

/// The type of a built-in, as upstream's OpenAPI describes it. A type within itself is dynamic.
pub fn of_schema(schema: &Schema, id: TypeId) -> Type {
    BuiltIn { schema, known: HashMap::new() }.message(id)
}

struct BuiltIn<'a> {
    schema: &'a Schema,
    /// `None` while it is being made.
    known: HashMap<TypeId, Option<Type>>,
}

impl BuiltIn<'_> {
    fn message(&mut self, id: TypeId) -> Type {
        if let Some(known) = self.known.get(&id) {
            return known.clone().unwrap_or(Type::DYN);
        }
        self.known.insert(id, None);
        let declared = self.schema.ty(id);
        let mut fields = BTreeMap::new();
        for field in declared.properties() {
            let Some(escaped) = crate::escape(&field.json) else { continue };
            let ty = self.field(field);
            fields.insert(escaped, Field { json: field.json.clone(), ty });
        }
        let object = ObjectType { name: declared.name.to_string(), fields, open: false };
        let ty = Kind::Object(Arc::new(object)).ty();
        self.known.insert(id, Some(ty.clone()));
        ty
    }

    fn field(&mut self, field: &k8s::schema::Field) -> Type {
        let element = match field.element {
            // Quantities, and durations in Go's notation, have no format in upstream's OpenAPI.
            Element::String | Element::Quantity | Element::Duration => Type::STRING,
            Element::Bool => Type::BOOL,
            Element::Int32 | Element::Int64 => Type::INT,
            Element::Float64 => Type::DOUBLE,
            Element::Bytes => Type::BYTES,
            Element::Time | Element::MicroTime => Type::TIMESTAMP,
            Element::Message(id) => self.message(id),
            Element::StringList => Type::list(Type::STRING),
            _ => Type::DYN,
        };
        match field.shape {
            Shape::One => element,
            Shape::Map => Type::map(Type::STRING, element),
            Shape::List => {
                let identity = match field.list_type {
                    Some(Listing::Set) => Identity::Set,
                    Some(Listing::Map) => Identity::Map(field.list_map_keys.clone()),
                    _ => Identity::Atomic,
                };
                Kind::List(Arc::new(ListType { element, identity })).ty()
            }
        }
    }
}
