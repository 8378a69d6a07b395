//! OpenAPI documents as the protobuf of gnostic's models (`openapi.v2` and `openapi.v3`), which older
//! clients ask for. The messages are a table: JSON name, number, form.

use k8s::protobuf::{double_field, field_head, varint_field};
use serde_json::{Map, Value};

/// Which of the two models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    V2,
    V3,
}

/// How one value is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Bool,
    Int,
    Double,
    /// Anything, as YAML.
    Any,
    /// The message of that name.
    Sub(&'static str),
    /// Each entry of an array.
    Each(&'static Form),
}

use Form::{Any, Bool, Double, Each, Int, Sub, Text};

const TEXTS: Form = Each(&Text);
const ANYS: Form = Each(&Any);

/// A message: its fields by JSON name, where the entries of any other name go (each a pair of name
/// and value), and where those of `x-…` go.
struct Message {
    name: &'static str,
    fields: &'static [(&'static str, u32, Form)],
    rest: Option<(u32, &'static str)>,
    extensions: u32,
}

const fn message(
    name: &'static str,
    extensions: u32,
    fields: &'static [(&'static str, u32, Form)],
) -> Message {
    Message { name, fields, rest: None, extensions }
}

/// A message that is a map.
const fn map(name: &'static str, number: u32, value: &'static str) -> Message {
    Message { name, fields: &[], rest: Some((number, value)), extensions: 0 }
}

const V2: &[Message] = &[
    message(
        "Document",
        16,
        &[
            ("swagger", 1, Text),
            ("info", 2, Sub("Info")),
            ("paths", 8, Sub("Paths")),
            ("definitions", 9, Sub("Definitions")),
            ("security", 12, Each(&Sub("SecurityRequirement"))),
            ("securityDefinitions", 13, Sub("SecurityDefinitions")),
        ],
    ),
    message("Info", 7, &[("title", 1, Text), ("version", 2, Text)]),
    map("Paths", 2, "PathItem"),
    message(
        "PathItem",
        10,
        &[
            ("get", 2, Sub("Operation")),
            ("put", 3, Sub("Operation")),
            ("post", 4, Sub("Operation")),
            ("delete", 5, Sub("Operation")),
            ("options", 6, Sub("Operation")),
            ("head", 7, Sub("Operation")),
            ("patch", 8, Sub("Operation")),
            ("parameters", 9, Each(&Sub("ParametersItem"))),
        ],
    ),
    message(
        "Operation",
        13,
        &[
            ("tags", 1, TEXTS),
            ("description", 3, Text),
            ("operationId", 5, Text),
            ("produces", 6, TEXTS),
            ("consumes", 7, TEXTS),
            ("parameters", 8, Each(&Sub("ParametersItem"))),
            ("responses", 9, Sub("Responses")),
            ("schemes", 10, TEXTS),
        ],
    ),
    message(
        "BodyParameter",
        6,
        &[
            ("description", 1, Text),
            ("name", 2, Text),
            ("in", 3, Text),
            ("required", 4, Bool),
            ("schema", 5, Sub("Schema")),
        ],
    ),
    message(
        "QueryParameter",
        23,
        &[
            ("required", 1, Bool),
            ("in", 2, Text),
            ("description", 3, Text),
            ("name", 4, Text),
            ("type", 6, Text),
            ("uniqueItems", 20, Bool),
        ],
    ),
    message(
        "PathParameter",
        22,
        &[
            ("required", 1, Bool),
            ("in", 2, Text),
            ("description", 3, Text),
            ("name", 4, Text),
            ("type", 5, Text),
            ("uniqueItems", 19, Bool),
        ],
    ),
    map("Responses", 1, "ResponseValue"),
    message("Response", 5, &[("description", 1, Text), ("schema", 2, Sub("SchemaItem"))]),
    map("Definitions", 1, "Schema"),
    map("Properties", 1, "Schema"),
    message(
        "Schema",
        31,
        &[
            ("$ref", 1, Text),
            ("format", 2, Text),
            ("title", 3, Text),
            ("description", 4, Text),
            ("default", 5, Any),
            ("multipleOf", 6, Double),
            ("maximum", 7, Double),
            ("exclusiveMaximum", 8, Bool),
            ("minimum", 9, Double),
            ("exclusiveMinimum", 10, Bool),
            ("maxLength", 11, Int),
            ("minLength", 12, Int),
            ("pattern", 13, Text),
            ("maxItems", 14, Int),
            ("minItems", 15, Int),
            ("uniqueItems", 16, Bool),
            ("maxProperties", 17, Int),
            ("minProperties", 18, Int),
            ("required", 19, TEXTS),
            ("enum", 20, ANYS),
            ("additionalProperties", 21, Sub("AdditionalPropertiesItem")),
            ("type", 22, Sub("TypeItem")),
            ("items", 23, Sub("ItemsItem")),
            ("allOf", 24, Each(&Sub("Schema"))),
            ("properties", 25, Sub("Properties")),
            ("example", 30, Any),
        ],
    ),
    map("SecurityRequirement", 1, "StringArray"),
    map("SecurityDefinitions", 1, "SecurityDefinitionsItem"),
    message(
        "ApiKeySecurity",
        5,
        &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)],
    ),
];

const V3: &[Message] = &[
    message(
        "Document",
        9,
        &[
            ("openapi", 1, Text),
            ("info", 2, Sub("Info")),
            ("paths", 4, Sub("Paths")),
            ("components", 5, Sub("Components")),
        ],
    ),
    message("Info", 7, &[("title", 1, Text), ("version", 6, Text)]),
    map("Paths", 1, "PathItem"),
    message(
        "PathItem",
        14,
        &[
            ("get", 4, Sub("Operation")),
            ("put", 5, Sub("Operation")),
            ("post", 6, Sub("Operation")),
            ("delete", 7, Sub("Operation")),
            ("options", 8, Sub("Operation")),
            ("head", 9, Sub("Operation")),
            ("patch", 10, Sub("Operation")),
            ("parameters", 13, Each(&Sub("ParameterOrReference"))),
        ],
    ),
    message(
        "Operation",
        13,
        &[
            ("tags", 1, TEXTS),
            ("description", 3, Text),
            ("operationId", 5, Text),
            ("parameters", 6, Each(&Sub("ParameterOrReference"))),
            ("requestBody", 7, Sub("RequestBodyOrReference")),
            ("responses", 8, Sub("Responses")),
        ],
    ),
    message(
        "Parameter",
        14,
        &[
            ("name", 1, Text),
            ("in", 2, Text),
            ("description", 3, Text),
            ("required", 4, Bool),
            ("schema", 10, Sub("SchemaOrReference")),
        ],
    ),
    message("RequestBody", 4, &[("content", 2, Sub("MediaTypes")), ("required", 3, Bool)]),
    map("Responses", 2, "ResponseOrReference"),
    message("Response", 5, &[("description", 1, Text), ("content", 3, Sub("MediaTypes"))]),
    map("MediaTypes", 1, "MediaType"),
    message("MediaType", 5, &[("schema", 1, Sub("SchemaOrReference"))]),
    message(
        "Components",
        10,
        &[("schemas", 1, Sub("Schemas")), ("securitySchemes", 7, Sub("SecuritySchemes"))],
    ),
    map("Schemas", 1, "SchemaOrReference"),
    map("Properties", 1, "SchemaOrReference"),
    map("SecuritySchemes", 1, "SecuritySchemeOrReference"),
    message(
        "SecurityScheme",
        9,
        &[("type", 1, Text), ("description", 2, Text), ("name", 3, Text), ("in", 4, Text)],
    ),
    message("Reference", 0, &[("$ref", 1, Text), ("description", 3, Text)]),
    message(
        "Schema",
        36,
        &[
            ("nullable", 1, Bool),
            ("example", 7, Any),
            ("title", 9, Text),
            ("multipleOf", 10, Double),
            ("maximum", 11, Double),
            ("exclusiveMaximum", 12, Bool),
            ("minimum", 13, Double),
            ("exclusiveMinimum", 14, Bool),
            ("maxLength", 15, Int),
            ("minLength", 16, Int),
            ("pattern", 17, Text),
            ("maxItems", 18, Int),
            ("minItems", 19, Int),
            ("uniqueItems", 20, Bool),
            ("maxProperties", 21, Int),
            ("minProperties", 22, Int),
            ("required", 23, TEXTS),
            ("enum", 24, ANYS),
            ("type", 25, Text),
            ("allOf", 26, Each(&Sub("SchemaOrReference"))),
            ("oneOf", 27, Each(&Sub("SchemaOrReference"))),
            ("anyOf", 28, Each(&Sub("SchemaOrReference"))),
            ("not", 29, Sub("Schema")),
            ("items", 30, Sub("ItemsItem")),
            ("properties", 31, Sub("Properties")),
            ("additionalProperties", 32, Sub("AdditionalPropertiesItem")),
            ("default", 33, Sub("DefaultType")),
            ("description", 34, Text),
            ("format", 35, Text),
        ],
    ),
];

/// Messages that hold one of several things: which, by the value. `None`: nothing can be said.
fn choice(model: Model, name: &str, value: &Value) -> Option<(u32, Form)> {
    let plain = |schema: &'static str| {
        if value.is_boolean() { (2, Bool) } else { (1, Sub(schema)) }
    };
    let or_reference = |name: &'static str| {
        if value.get("$ref").is_some() { (2, Sub("Reference")) } else { (1, Sub(name)) }
    };
    Some(match (model, name) {
        (Model::V2, "ParametersItem") => (1, Sub("ParameterItem")),
        (_, "ParameterItem") if value["in"] == "body" => (1, Sub("BodyParameter")),
        (_, "ParameterItem") => (2, Sub("NonBodyParameter")),
        (_, "NonBodyParameter") if value["in"] == "path" => (4, Sub("PathParameter")),
        (_, "NonBodyParameter") => (3, Sub("QueryParameter")),
        (_, "ResponseValue") => (1, Sub("Response")),
        (_, "SchemaItem") => (1, Sub("Schema")),
        (_, "TypeItem") => (1, Text),
        (_, "StringArray") => (1, TEXTS),
        (_, "SecurityDefinitionsItem") => (2, Sub("ApiKeySecurity")),
        (Model::V2, "ItemsItem") => (1, Sub("Schema")),
        (Model::V3, "ItemsItem") => (1, Sub("SchemaOrReference")),
        (Model::V2, "AdditionalPropertiesItem") => plain("Schema"),
        (Model::V3, "AdditionalPropertiesItem") => plain("SchemaOrReference"),
        (_, "SchemaOrReference") => or_reference("Schema"),
        (_, "ParameterOrReference") => or_reference("Parameter"),
        (_, "RequestBodyOrReference") => or_reference("RequestBody"),
        (_, "ResponseOrReference") => or_reference("Response"),
        (_, "SecuritySchemeOrReference") => or_reference("SecurityScheme"),
        (_, "DefaultType") if value.is_number() => (1, Double),
        (_, "DefaultType") if value.is_boolean() => (2, Bool),
        (_, "DefaultType") if value.is_string() => (3, Text),
        _ => return None,
    })
}

/// A document's bytes.
pub(super) fn encode(model: Model, document: &Value) -> Vec<u8> {
    body(model, "Document", document)
}

fn body(model: Model, name: &'static str, value: &Value) -> Vec<u8> {
    let table = if model == Model::V2 { V2 } else { V3 };
    let mut out = Vec::new();
    match (table.iter().find(|message| message.name == name), value) {
        (Some(message), Value::Object(object)) => fields(&mut out, model, message, object),
        (Some(_), _) => {}
        (None, value) => {
            if let Some((number, form)) = choice(model, name, value) {
                put(&mut out, model, number, form, value);
            }
        }
    }
    out
}

fn fields(out: &mut Vec<u8>, model: Model, message: &Message, object: &Map<String, Value>) {
    for (name, number, form) in message.fields {
        if let Some(value) = object.get(*name) {
            put(out, model, *number, *form, value);
        }
    }
    for (name, value) in object {
        let extension = name.starts_with("x-");
        let pair = match message.rest {
            Some((number, form)) => Some((number, Sub(form))),
            None if extension && message.extensions > 0 => Some((message.extensions, Any)),
            None => None,
        };
        let Some((number, form)) = pair else { continue };
        let mut entry = Vec::new();
        put(&mut entry, model, 1, Text, &Value::from(name.as_str()));
        put(&mut entry, model, 2, form, value);
        bytes(out, number, &entry);
    }
}

fn put(out: &mut Vec<u8>, model: Model, number: u32, form: Form, value: &Value) {
    match form {
        Text => bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Bool => out.extend(varint_field(number, u64::from(value == &Value::Bool(true)))),
        Int => out.extend(varint_field(number, value.as_i64().unwrap_or(0) as u64)),
        Double => out.extend(double_field(number, value.as_f64().unwrap_or(0.0))),
        Any => {
            let (mut yaml, mut any) = (Vec::new(), Vec::new());
            k8s::yaml::write(&mut yaml, value);
            bytes(&mut any, 2, &yaml);
            bytes(out, number, &any);
        }
        Sub(name) => bytes(out, number, &body(model, name, value)),
        Each(form) => {
            for item in value.as_array().into_iter().flatten() {
                put(out, model, number, *form, item);
            }
        }
    }
}

fn bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    out.extend(field_head(number, content.len()));
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, content.len() as u8], content].concat()
    }

    #[test]
    fn a_definition_is_a_named_schema() {
        let document = json!({
            "swagger": "2.0",
            "definitions": { "a.B": { "type": "object", "x-list": ["m"] } },
        });
        let any = field(2, b"- m\n");
        let extension = [field(1, b"x-list"), field(2, &any)].concat();
        // Numbers above 15 take two bytes of tag.
        let schema = [vec![0xb2, 1, 8], field(1, b"object"), vec![0xfa, 1, extension.len() as u8]];
        let schema = [schema.concat(), extension].concat();
        let named = [field(1, b"a.B"), field(2, &schema)].concat();
        let expected = [field(1, b"2.0"), field(9, &field(1, &named))].concat();
        assert_eq!(encode(Model::V2, &document), expected);
    }

    #[test]
    fn a_reference_is_told_from_a_schema() {
        let document = json!({
            "paths": {
                "/a": { "get": { "responses": { "200": { "content": { "m": {
                    "schema": { "$ref": "r" },
                } } } } } },
            },
        });
        let reference = field(2, &field(1, b"r"));
        let media = [field(1, b"m"), field(2, &field(1, &reference))].concat();
        let response = field(1, &field(3, &field(1, &media)));
        let responses = field(2, &[field(1, b"200"), field(2, &response)].concat());
        let path = [field(1, b"/a"), field(2, &field(4, &field(8, &responses)))].concat();
        assert_eq!(encode(Model::V3, &document), field(4, &field(1, &path)));
    }
}
