//! `additionalPrinterColumns`: what `kubectl get` shows of a custom kind.

use crate::kinds::common::print;
use jiff::Timestamp;
use k8s::{Object, jsonpath::JsonPath, text::go_text};
use serde_json::{Value, json};

/// All columns but the name's.
pub(crate) struct Columns(Vec<Column>);

struct Column {
    definition: Value,
    kind: String,
    /// `None` where the path is none this server understands: the cells stay empty.
    path: Option<JsonPath>,
}

impl Columns {
    /// The age alone, where the definition names none.
    pub(crate) fn read(list: &Value) -> Columns {
        let list = list.as_array().map_or(&[][..], Vec::as_slice);
        if list.is_empty() {
            let age = json!({
                "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
                "description": "CreationTimestamp is a timestamp representing the server time when \
                                this object was created.",
            });
            return Columns(vec![Column::read(&age)]);
        }
        Columns(list.iter().map(Column::read).collect())
    }

    pub(crate) fn definitions(&self) -> Vec<Value> {
        let name = json!({
            "name": "Name", "type": "string", "format": "name", "description": "", "priority": 0,
        });
        let others = self.0.iter().map(|column| column.definition.clone());
        std::iter::once(name).chain(others).collect()
    }

    pub(crate) fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let value = Value::Object(object.0.clone());
        let others = self.0.iter().map(|column| column.cell(&value, now));
        std::iter::once(object.name().into()).chain(others).collect()
    }
}

impl Column {
    fn read(column: &Value) -> Column {
        let text = |field: &str| column[field].as_str().unwrap_or_default();
        let path = text("jsonPath");
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {path}"),
            own => own.to_string(),
        };
        Column {
            definition: json!({
                "name": text("name"),
                "type": text("type"),
                "format": text("format"),
                "description": description,
                "priority": column["priority"].as_i64().unwrap_or(0),
            }),
            kind: text("type").to_string(),
            path: JsonPath::parse(path).ok(),
        }
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.as_ref().map(|path| path.find(object)).unwrap_or_default();
        let Some(value) = found.first().filter(|value| !value.is_null()) else {
            return Value::Null;
        };
        match (self.kind.as_str(), value) {
            ("string", Value::String(text)) => text.as_str().into(),
            ("string", Value::Array(_) | Value::Object(_)) => value.to_string().into(),
            ("string", value) => go_text(value).into(),
            ("integer", Value::Number(number)) => match number.as_f64() {
                Some(float) if !number.is_i64() => (float as i64).into(),
                _ => (*value).clone(),
            },
            ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => (*value).clone(),
            ("date", Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(_) => print::since(text, now).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_follow_the_type_of_their_column() {
        let column = |name: &str, ty: &str, path: &str| json!({ "name": name, "type": ty, "jsonPath": path });
        let columns = Columns::read(&json!([
            column("Size", "integer", ".spec.size"),
            column("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#),
            column("Tags", "string", ".spec.tags"),
            column("Since", "date", ".status.since"),
            column("Bad", "date", ".spec.size"),
            column("None", "string", ".absent"),
        ]));
        let object = Object::from_value(json!({
            "metadata": { "name": "a" },
            "spec": { "size": 5, "tags": ["x"] },
            "status": {
                "since": "2026-01-01T00:00:00Z",
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        }));
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
        let cells = columns.cells(&object.expect("an object"), now);
        assert_eq!(json!(cells), json!(["a", 5, "True", "[\"x\"]", "60m", null, null]));
        assert_eq!(Columns::read(&Value::Null).definitions()[1]["name"], "Age");
    }
}
