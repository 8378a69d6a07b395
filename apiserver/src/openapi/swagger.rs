//! The same documents in OpenAPI 2: all groups in one, parameters and bodies in its words, and only
//! what it can say of a schema.

use serde_json::{Map, Value, json};

/// One document of many.
pub(super) fn merged(documents: impl Iterator<Item = Value>) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for mut document in documents {
        if let Value::Object(items) = document["paths"].take() {
            paths.extend(items.into_iter().map(|(path, item)| (path, path_item(&item))));
        }
        if let Value::Object(schemas) = document["components"]["schemas"].take() {
            for (name, schema) in schemas {
                merge(&mut definitions, name, schema_of(&schema));
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": super::info(),
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": { "BearerToken": super::bearer() },
        "security": [{ "BearerToken": [] }],
    })
}

/// A definition that several documents have is of all the kinds they say it is of.
fn merge(definitions: &mut Map<String, Value>, name: String, schema: Value) {
    const KINDS: &str = "x-kubernetes-group-version-kind";
    let Some(known) = definitions.get_mut(&name) else {
        definitions.insert(name, schema);
        return;
    };
    if let (Some(Value::Array(kinds)), Some(Value::Array(more))) =
        (known.get_mut(KINDS), schema.get(KINDS))
    {
        let new: Vec<Value> = more.iter().filter(|kind| !kinds.contains(kind)).cloned().collect();
        kinds.extend(new);
    } else if let (Some(more), Value::Object(known)) = (schema.get(KINDS), known) {
        known.insert(KINDS.into(), more.clone());
    }
}

fn path_item(item: &Value) -> Value {
    let entries = item.as_object().into_iter().flatten();
    entries
        .map(|(key, value)| match key.as_str() {
            "parameters" => (key.clone(), parameters(value)),
            _ => (key.clone(), operation(value)),
        })
        .collect::<Map<_, _>>()
        .into()
}

fn parameters(list: &Value) -> Value {
    list.as_array().into_iter().flatten().map(parameter).collect()
}

/// The type stands beside the name here.
fn parameter(one: &Value) -> Value {
    let mut out = one.clone();
    if let (Value::Object(schema), Value::Object(out)) = (out["schema"].take(), &mut out) {
        out.remove("schema");
        out.extend(schema);
    }
    out
}

fn operation(operation: &Value) -> Value {
    let mut out = operation.clone();
    let mut list = match parameters(&operation["parameters"]) {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    if let Some(content) = operation["requestBody"]["content"].as_object() {
        let schema = content.values().next().map(|media| schema_of(&media["schema"]));
        list.push(json!({ "in": "body", "name": "body", "required": true, "schema": schema }));
        out["consumes"] = content.keys().cloned().collect();
    }
    if !list.is_empty() {
        out["parameters"] = list.into();
    }
    let mut produces = Vec::new();
    let responses: Map<String, Value> = operation["responses"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(code, response)| {
            let mut plain = json!({ "description": response["description"] });
            if let Some(content) = response["content"].as_object() {
                produces = content.keys().cloned().collect();
                let schema = content.values().next().map(|media| schema_of(&media["schema"]));
                plain["schema"] = schema.into();
            }
            (code.clone(), plain)
        })
        .collect();
    out["responses"] = responses.into();
    out["produces"] = produces.into();
    out["schemes"] = json!(["https"]);
    if let Value::Object(out) = &mut out {
        out.remove("requestBody");
    }
    out
}

/// A schema without what OpenAPI 2 has no word for.
fn schema_of(schema: &Value) -> Value {
    let Value::Object(schema) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (key, value) in schema {
        let value = match key.as_str() {
            "oneOf" | "anyOf" | "not" | "nullable" => continue,
            "$ref" => reference(value),
            "allOf" => match value.as_array().map(Vec::as_slice) {
                // What stands beside a reference counts here.
                Some([one]) if one.get("$ref").is_some() => {
                    out.insert("$ref".into(), reference(&one["$ref"]));
                    continue;
                }
                _ => continue,
            },
            "default" if value.as_object().is_some_and(Map::is_empty) => continue,
            "properties" => each(value),
            "items" | "additionalProperties" => schema_of(value),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    let choice = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    let either = schema.contains_key("x-kubernetes-int-or-string");
    if !either && !out.contains_key("type") && schema.get("oneOf").is_some_and(choice) {
        // A number or a string: the one that can write both.
        out.insert("type".into(), "string".into());
    }
    super::custom::plain(&mut out, schema);
    Value::Object(out)
}

fn each(schemas: &Value) -> Value {
    let entries = schemas.as_object().into_iter().flatten();
    entries.map(|(name, one)| (name.clone(), schema_of(one))).collect::<Map<_, _>>().into()
}

fn reference(value: &Value) -> Value {
    let name = value.as_str().unwrap_or_default();
    name.replacen("#/components/schemas/", "#/definitions/", 1).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_said_in_the_older_words() {
        let document = json!({
            "paths": { "/a": {
                "parameters": [{ "name": "name", "in": "path", "required": true,
                    "schema": { "type": "string", "uniqueItems": true } }],
                "post": {
                    "operationId": "createA",
                    "requestBody": { "content": { "*/*": {
                        "schema": { "$ref": "#/components/schemas/A" } } } },
                    "responses": { "200": { "description": "OK", "content": {
                        "application/json": { "schema": { "$ref": "#/components/schemas/A" } },
                    } } },
                },
            } },
            "components": { "schemas": { "A": {
                "type": "object",
                "properties": {
                    "port": { "oneOf": [{ "type": "integer" }, { "type": "string" }],
                        "format": "int-or-string" },
                    "spec": { "allOf": [{ "$ref": "#/components/schemas/A" }], "default": {},
                        "description": "what is wanted" },
                },
            } } },
        });
        let merged = merged(std::iter::once(document));
        let shown = json!({ "paths": merged["paths"], "definitions": merged["definitions"] });
        insta::assert_snapshot!(serde_json::to_string_pretty(&shown).expect("JSON"));
    }
}
