//! What makes an `openAPIV3Schema` unfit: that it is not structural (KEP-1904), that its defaults do
//! not fit it, or that it asks for what no server supports. Reads the schema as it was sent, because
//! what is wrong with it is what [`Node`] has no place for.

use super::{FieldPath, Node, Target, prune, validate};
use crate::FieldError;
use regex::Regex;
use serde_json::{Map, Value, json};

/// Everything wrong with `schema`, which stands at `path`. `with_status`: the version has the status
/// subresource, so that the root may only say what is not lost when `status` is looked at alone.
pub fn check(schema: &Value, path: &str, with_status: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if with_status {
        check_root(schema, path, &mut errors);
    }
    if is_true(schema, "nullable") {
        let why = "nullable cannot be true at the root";
        errors.push(FieldError::forbidden(format!("{path}.nullable"), why));
    }
    let unsupported = first_unsupported(schema);
    if unsupported.is_none() {
        let mut found = Vec::new();
        invariants(schema, Level::Root, path, &mut found);
        complete(schema, Some(schema), path, path, &mut found);
        found.sort_by_key(ToString::to_string);
        if found.is_empty() {
            defaults(schema, path, true, &mut found);
        }
        errors.extend(found);
    }
    let walk = Walk { defaults_forbidden: None, inside_meta: false };
    walk.schema(schema, path, true, &mut errors);
    if errors.is_empty()
        && let Some(why) = unsupported
    {
        errors.push(FieldError::invalid(path, "".into(), why));
    }
    errors
}

// -- reading ---------------------------------------------------------------------------------------

fn text<'a>(schema: &'a Value, field: &str) -> &'a str {
    schema.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn is_true(schema: &Value, field: &str) -> bool {
    schema.get(field) == Some(&Value::Bool(true))
}

fn list<'a>(schema: &'a Value, field: &str) -> &'a [Value] {
    schema.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn properties(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let map = schema.get("properties").and_then(Value::as_object);
    map.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema))
}

/// The one schema of all items.
fn items(schema: &Value) -> Option<&Value> {
    schema.get("items").filter(|items| items.is_object())
}

/// The schema of additional properties; `None` if there is none, or a flag.
fn additional(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|it| it.is_object())
}

fn is_set(schema: &Value, field: &str) -> bool {
    match schema.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Bool(flag)) => *flag,
        Some(Value::Number(_)) => true,
    }
}

/// Fields no structural schema has anywhere.
fn first_unsupported(schema: &Value) -> Option<String> {
    for field in ["id", "schema", "$ref", "patternProperties", "dependencies", "definitions"] {
        let json = if field == "schema" { "$schema" } else { field };
        if is_set(schema, json) {
            return Some(format!("OpenAPIV3Schema '{field}' is not supported"));
        }
    }
    if schema.get("additionalItems").is_some_and(|it| !it.is_null()) {
        return Some("OpenAPIV3Schema 'additionalItems' is not supported".into());
    }
    if schema.get("items").is_some_and(Value::is_array) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    children(schema).find_map(first_unsupported)
}

/// Every schema directly below, those of value validation included.
fn children(schema: &Value) -> impl Iterator<Item = &Value> {
    let nested = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|field| list(schema, field));
    let not = schema.get("not").filter(|not| not.is_object());
    let fields = properties(schema).map(|(_, schema)| schema);
    fields.chain(items(schema)).chain(additional(schema)).chain(nested).chain(not)
}

// -- the root under the status subresource ---------------------------------------------------------

const AT_ROOT: &[(&str, &str)] = &[
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

fn check_root(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let ty = text(schema, "type");
    if !ty.is_empty() && ty != "object" {
        let why = "only \"object\" is allowed as the type at the root of the schema if the status \
                   subresource is enabled";
        return errors.push(FieldError::invalid(format!("{path}.type"), ty.into(), why));
    }
    let fields = schema.as_object().into_iter().flat_map(Map::keys);
    let allowed = |field: &&String| AT_ROOT.iter().any(|(json, _)| json == field);
    if fields.filter(|field| is_set(schema, field)).any(|field| !allowed(&field)) {
        let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is \
             enabled",
            names.join(" ")
        );
        errors.push(FieldError::invalid(path, schema.clone(), why));
    }
}

// -- structural ------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

fn invariants(schema: &Value, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let at = |field: &str| format!("{path}.{field}");
    if text(schema, "type") == "array" && items(schema).is_none() {
        errors.push(FieldError::required(at("items"), "must be specified"));
    }
    if let Some(items) = items(schema) {
        invariants(items, Level::Item, &at("items"), errors);
    }
    for (name, field) in properties(schema) {
        invariants(field, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    if schema.get("additionalProperties").is_some_and(|it| !it.is_null()) {
        if level == Level::Root {
            let why = "must not be used at the root";
            errors.push(FieldError::forbidden(at("additionalProperties"), why));
        }
        if let Some(each) = additional(schema) {
            invariants(each, Level::Field, &at("additionalProperties"), errors);
        }
    }
    extensions(schema, path, errors);
    let skip_any = is_int_or_string(list(schema, "anyOf"));
    let skip_all =
        list(schema, "allOf").first().is_some_and(|first| is_int_or_string(list(first, "anyOf")));
    value_validation(schema, skip_any, skip_all, path, errors);
    type_rules(schema, level, path, errors);
    resource_rules(schema, level, path, errors);
}

/// `anyOf: [{type: integer}, {type: string}]`: the one place where a nested type is structural.
fn is_int_or_string(any_of: &[Value]) -> bool {
    any_of == [json!({ "type": "integer" }), json!({ "type": "string" })]
}

fn extensions(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if !is_true(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for field in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if is_true(schema, field) {
            let why = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(format!("{path}.{field}"), true.into(), why));
        }
    }
}

fn type_rules(schema: &Value, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let (ty, at) = (text(schema, "type"), format!("{path}.type"));
    let embedded = is_true(schema, "x-kubernetes-embedded-resource");
    let free = is_true(schema, "x-kubernetes-int-or-string")
        || is_true(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && ty != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match ty {
            "" => FieldError::required(&at, why),
            ty => FieldError::invalid(&at, ty.into(), why),
        });
    } else if ty.is_empty() && !free {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&at, why));
    }
    if embedded && schema.get("additionalProperties").is_some_and(|it| !it.is_null()) {
        let why = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), why));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(FieldError::invalid(at, ty.into(), "must be object at the root"));
    }
}

/// What a schema may say of `apiVersion`, `kind` and `metadata`.
fn resource_rules(schema: &Value, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let embedded = is_true(schema, "x-kubernetes-embedded-resource");
    let resource = level == Level::Root || embedded;
    for (name, field) in properties(schema) {
        let at = format!("{path}.properties[{name}]");
        let ty = text(field, "type");
        match name {
            "kind" | "apiVersion" if resource && ty != "string" => {
                let at = format!("{at}.type");
                errors.push(FieldError::invalid(at, ty.into(), "must be string"));
            }
            "metadata" => {
                if resource && ty != "object" {
                    let at = format!("{at}.type");
                    errors.push(FieldError::invalid(at, ty.into(), "must be object"));
                }
                if level == Level::Root && !only_names(field) {
                    let why = "must not specify anything other than name and generateName, but \
                               metadata is implicitly specified";
                    errors.push(FieldError::forbidden(at, why));
                }
            }
            _ => {}
        }
    }
    let kept = is_true(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && !kept && properties(schema).next().is_none() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{path}.properties"), why));
    }
}

fn only_names(metadata: &Value) -> bool {
    let fields = metadata.as_object().into_iter().flat_map(Map::keys);
    let said = fields.filter(|field| is_set(metadata, field));
    said.into_iter().all(|field| matches!(field.as_str(), "type" | "properties" | "default"))
        && properties(metadata).all(|(name, _)| matches!(name, "name" | "generateName"))
}

fn value_validation(
    schema: &Value,
    skip_any: bool,
    skip_first_all: bool,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if !skip_any {
        for (index, nested) in list(schema, "anyOf").iter().enumerate() {
            nested_validation(nested, false, &format!("{path}.anyOf[{index}]"), errors);
        }
    }
    for (index, nested) in list(schema, "allOf").iter().enumerate() {
        let skip = skip_first_all && index == 0;
        nested_validation(nested, skip, &format!("{path}.allOf[{index}]"), errors);
    }
    for (index, nested) in list(schema, "oneOf").iter().enumerate() {
        nested_validation(nested, false, &format!("{path}.oneOf[{index}]"), errors);
    }
    if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
        nested_validation(not, false, &format!("{path}.not"), errors);
    }
    let pattern = text(schema, "pattern");
    if let Err(error) = Regex::new(pattern) {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern.into(), why));
    }
}

/// Below a logical junctor only values are limited; nothing says how they are built.
fn nested_validation(schema: &Value, skip_any: bool, path: &str, errors: &mut Vec<FieldError>) {
    const FORBIDDEN: &[(&str, &str)] = &[
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    value_validation(schema, skip_any, false, path, errors);
    if let Some(items) = items(schema) {
        nested_validation(items, false, &format!("{path}.items"), errors);
    }
    for (name, field) in properties(schema) {
        let at = format!("{path}.properties[{name}]");
        nested_validation(field, false, &at, errors);
        if name == "metadata" {
            let why = "must not be specified in a nested context";
            errors.push(FieldError::forbidden(at, why));
        }
    }
    for (field, why) in FORBIDDEN {
        let set = match *field {
            "default" => schema.get(*field).is_some_and(|value| !value.is_null()),
            // An empty schema forbids nothing, but is there.
            "additionalProperties" => {
                schema.get(*field).is_some_and(|it| it.is_object() || *it == Value::Bool(true))
            }
            field => is_set(schema, field),
        };
        if set {
            errors.push(FieldError::forbidden(format!("{path}.{field}"), *why));
        }
    }
}

/// Whatever is limited below a junctor is declared outside of it too.
fn complete(
    schema: &Value,
    structure: Option<&Value>,
    structure_path: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, nested) in list(schema, field).iter().enumerate() {
            let at = format!("{path}.{field}[{index}]");
            nested_complete(nested, structure, structure_path, &at, errors);
        }
    }
    if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
        nested_complete(not, structure, structure_path, &format!("{path}.not"), errors);
    }
    // Inner structures have limits of their own.
    let Some(structure) = structure.filter(|structure| std::ptr::eq(*structure, schema)) else {
        return;
    };
    for (name, field) in properties(structure) {
        let at = format!("{path}.properties[{name}]");
        complete(field, Some(field), &at, &at, errors);
    }
    if let Some(items) = items(structure) {
        let at = format!("{path}.items");
        complete(items, Some(items), &at, &at, errors);
    }
}

fn nested_complete(
    schema: &Value,
    structure: Option<&Value>,
    structure_path: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(structure) = structure else {
        let why = format!("because it is defined in {path}");
        return errors.push(FieldError::required(structure_path, why));
    };
    complete(schema, Some(structure), structure_path, path, errors);
    if let Some(nested) = items(schema) {
        let (own, at) = (format!("{structure_path}.items"), format!("{path}.items"));
        nested_complete(nested, items(structure), &own, &at, errors);
    }
    for (name, nested) in properties(schema) {
        let own = format!("{structure_path}.properties[{name}]");
        let at = format!("{path}.properties[{name}]");
        let declared = structure.get("properties").and_then(|fields| fields.get(name));
        nested_complete(nested, declared, &own, &at, errors);
    }
}

// -- defaults --------------------------------------------------------------------------------------

/// Defaults fit their own schema and have no unknown fields.
fn defaults(schema: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    if let Some(value) = schema.get("default").filter(|value| !value.is_null()) {
        let (node, at) = (Node::read(schema), format!("{path}.default"));
        let mut pruned = value.clone();
        prune(&mut pruned, &node, node.embedded_resource);
        if pruned != *value {
            let why = "must not have unknown fields";
            errors.push(FieldError::invalid(&at, value.clone(), why));
        }
        errors.extend(validate(value, &node, Target { prefix: &at, old: None }));
    }
    if let Some(items) = items(schema) {
        defaults(items, &format!("{path}.items"), false, errors);
    }
    for (name, field) in properties(schema) {
        // Those of metadata are forbidden at the root, which is told elsewhere.
        if !(root && matches!(name, "metadata" | "apiVersion" | "kind")) {
            defaults(field, &format!("{path}.properties[{name}]"), false, errors);
        }
    }
}

// -- what OpenAPI allows and Kubernetes does not ---------------------------------------------------

#[derive(Clone)]
struct Walk {
    /// Why there may be no defaults here.
    defaults_forbidden: Option<String>,
    inside_meta: bool,
}

impl Walk {
    fn schema(&self, schema: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
        self.own(schema, path, errors);
        if is_true(schema, "uniqueItems") {
            let why =
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), why));
        }
        self.additional(schema, path, errors);
        let resource = root || is_true(schema, "x-kubernetes-embedded-resource");
        for (name, field) in properties(schema) {
            let mut below = self.clone();
            if resource && matches!(name, "metadata" | "kind" | "apiVersion") {
                below.inside_meta = true;
                if root {
                    below.defaults_forbidden = Some(format!("in top-level {name}"));
                }
            }
            below.schema(field, &format!("{path}.properties[{name}]"), false, errors);
        }
        if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
            self.schema(not, &format!("{path}.not"), false, errors);
        }
        for field in ["allOf", "oneOf", "anyOf"] {
            for (index, nested) in list(schema, field).iter().enumerate() {
                self.schema(nested, &format!("{path}.{field}[{index}]"), false, errors);
            }
        }
        if let Some(items) = items(schema) {
            self.schema(items, &format!("{path}.items"), false, errors);
        }
        kept_fields(schema, path, errors);
        map_type(schema, path, errors);
        list_type(schema, path, errors);
        map_keys(schema, path, errors);
        rules(schema, path, errors);
    }

    fn own(&self, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
        const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
        let ty = text(schema, "type");
        if !ty.is_empty() && !TYPES.contains(&ty) {
            let at = format!("{path}.type");
            errors.push(FieldError::not_supported(at, ty.into(), &TYPES));
        }
        let mut forbid = |field: &str, why: String| {
            errors.push(FieldError::forbidden(format!("{path}.{field}"), why));
        };
        if let Some(reason) = &self.defaults_forbidden
            && schema.get("default").is_some_and(|value| !value.is_null())
        {
            forbid("default", format!("must not be set {reason}"));
        }
        for field in ["id", "patternProperties", "definitions", "dependencies", "$ref"] {
            if is_set(schema, field) {
                forbid(field, format!("{field} is not supported"));
            }
        }
        if schema.get("additionalItems").is_some_and(|it| !it.is_null()) {
            forbid("additionalItems", "additionalItems is not supported".into());
        }
        if ty == "null" {
            let why = "type cannot be set to null, use nullable as an alternative";
            forbid("type", why.into());
        }
        if schema.get("items").is_some_and(Value::is_array) {
            forbid("items", "items must be a schema object and not an array".into());
        }
        if self.inside_meta && is_true(schema, "x-kubernetes-embedded-resource") {
            let why = "must not be used inside of resource meta";
            forbid("x-kubernetes-embedded-resource", why.into());
        }
    }

    fn additional(&self, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
        let Some(value) = schema.get("additionalProperties").filter(|it| !it.is_null()) else {
            return;
        };
        let at = format!("{path}.additionalProperties");
        if properties(schema).next().is_some() && *value != Value::Bool(true) {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(&at, why));
        }
        let Some(each) = additional(schema) else { return };
        let mut below = self.clone();
        if self.inside_meta {
            let why = "inside additionalProperties applying to object metadata";
            below.defaults_forbidden = Some(why.into());
        }
        below.schema(each, &at, false, errors);
    }
}

fn kept_fields(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "x-kubernetes-preserve-unknown-fields";
    if schema.get(FIELD) == Some(&Value::Bool(false)) {
        let why = "must be true or undefined";
        errors.push(FieldError::invalid(format!("{path}.{FIELD}"), false.into(), why));
    }
}

/// A type that does not go with the extension beside it.
fn needs_type(
    schema: &Value,
    wanted: &str,
    extension: &str,
    path: &str,
    errors: &mut Vec<FieldError>,
) -> bool {
    let ty = text(schema, "type");
    if ty == wanted {
        return true;
    }
    let (at, why) =
        (format!("{path}.type"), format!("must be {wanted} if {extension} is specified"));
    errors.push(match ty {
        "" => FieldError::required(at, why),
        ty => FieldError::invalid(at, ty.into(), why),
    });
    false
}

fn map_type(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "x-kubernetes-map-type";
    let Some(said) = schema.get(FIELD).and_then(Value::as_str) else { return };
    needs_type(schema, "object", FIELD, path, errors);
    let valid = ["atomic", "granular"];
    if !valid.contains(&said) {
        let at = format!("{path}.{FIELD}");
        errors.push(FieldError::not_supported(at, said.into(), &valid));
    }
}

fn list_type(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "x-kubernetes-list-type";
    let Some(said) = schema.get(FIELD).and_then(Value::as_str) else { return };
    let is_list = needs_type(schema, "array", FIELD, path, errors);
    if is_list
        && said == "set"
        && let Some(items) = items(schema)
    {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let (field, atomic) = match text(items, "type") {
            "array" => (FIELD, matches!(text(items, FIELD), "" | "atomic")),
            "object" => ("x-kubernetes-map-type", text(items, "x-kubernetes-map-type") == "atomic"),
            _ => ("", true),
        };
        if !atomic {
            let value = items.get(FIELD).cloned().unwrap_or_default();
            errors.push(FieldError::invalid(format!("{path}.items.{field}"), value, why));
        }
    }
    let valid = ["atomic", "set", "map"];
    if !valid.contains(&said) {
        let at = format!("{path}.{FIELD}");
        errors.push(FieldError::not_supported(at, said.into(), &valid));
    }
}

fn map_keys(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const KEYS: &str = "x-kubernetes-list-map-keys";
    const TYPE: &str = "x-kubernetes-list-type";
    let (keys, said) = (list(schema, KEYS), schema.get(TYPE).and_then(Value::as_str));
    if !keys.is_empty() && said != Some("map") {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        let at = format!("{path}.{TYPE}");
        errors.push(match said {
            None => FieldError::required(at, why),
            Some(said) => FieldError::invalid(at, said.into(), why),
        });
    }
    if matches!(said, Some("set" | "map"))
        && items(schema).is_some_and(|it| is_true(it, "nullable"))
    {
        let why =
            format!("cannot be nullable when x-kubernetes-list-type is {}", text(schema, TYPE));
        errors.push(FieldError::forbidden(format!("{path}.items.nullable"), why));
    }
    if said != Some("map") {
        return;
    }
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(format!("{path}.{KEYS}"), why));
    }
    let Some(items) = items(schema) else {
        let why = "must have a schema if x-kubernetes-list-type is map";
        return errors.push(FieldError::required(format!("{path}.items"), why));
    };
    if text(items, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        let at = format!("{path}.items.type");
        return errors.push(FieldError::invalid(at, text(items, "type").into(), why));
    }
    for (index, key) in keys.iter().enumerate() {
        if keys[..index].contains(key) {
            let why = "must not contain duplicate entries";
            errors.push(FieldError::invalid(format!("{path}.{KEYS}"), json!(keys), why));
        }
        map_key(items, key.as_str().unwrap_or_default(), keys, path, errors);
    }
}

fn map_key(items: &Value, key: &str, keys: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let Some(field) = items.get("properties").and_then(|fields| fields.get(key)) else {
        let why = "entries must all be names of item properties";
        let at = format!("{path}.x-kubernetes-list-map-keys");
        return errors.push(FieldError::invalid(at, json!(keys), why));
    };
    let at = format!("{path}.items.properties[{key}]");
    if matches!(text(field, "type"), "array" | "object") {
        let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
        let ty = text(items, "type");
        errors.push(FieldError::invalid(format!("{at}.type"), ty.into(), why));
    }
    let required = list(items, "required").iter().any(|name| name.as_str() == Some(key));
    if !required && field.get("default").is_none_or(Value::is_null) {
        let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be \
                   a required property";
        errors.push(FieldError::required(format!("{at}.default"), why));
    }
    if is_true(field, "nullable") {
        let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
        errors.push(FieldError::forbidden(format!("{at}.nullable"), why));
    }
}

/// The form of CEL rules; what they say is for their compiler.
fn rules(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (index, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        let at = |field: &str| format!("{path}.x-kubernetes-validations[{index}].{field}");
        let (source, message) = (text(rule, "rule"), text(rule, "message"));
        if source.trim().is_empty() {
            errors.push(FieldError::required(at("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            let why = "must be non-empty if specified";
            errors.push(FieldError::invalid(at("message"), message.into(), why));
        } else if breaks(message.trim()) {
            let why = "must not contain line breaks";
            errors.push(FieldError::invalid(at("message"), message.into(), why));
        } else if breaks(source.trim()) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(at("message"), why));
        }
        let expression = text(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(at("messageExpression"), why));
        }
        if let Some(reason) = rule.get("reason").and_then(Value::as_str)
            && !REASONS.contains(&reason)
        {
            errors.push(FieldError::not_supported(at("reason"), reason.into(), &REASONS));
        }
        let field_path = text(rule, "fieldPath");
        if field_path.is_empty() {
            continue;
        }
        let mut refuse =
            |why: &str| errors.push(FieldError::invalid(at("fieldPath"), field_path.into(), why));
        if field_path.trim().is_empty() {
            refuse("must be non-empty if specified");
        }
        if breaks(field_path) {
            refuse("must not contain line breaks");
        }
        let leads = FieldPath::parse(field_path, true)
            .and_then(|path| path.resolve(&Node::read(schema)).map(|_| ()));
        if leads.is_err() {
            refuse("must be a valid path");
        }
    }
}
