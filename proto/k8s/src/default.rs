//! What the schema itself says about absent fields.

use crate::Object;
use crate::schema::{Element, Field, Schema, Shape, Type, TypeId};
use serde_json::{Map, Value};

/// Sets every absent field that has a default in the schema, wherever its parent is there. A kind's
/// other defaults (those that depend on more than one field) are its own.
pub fn apply(schema: &Schema, ty: TypeId, object: &mut Object) {
    let fill = |field: &Field| field.default.clone();
    Walk { schema, fill: &fill }.object(schema.ty(ty), &mut object.0);
}

/// Sets what upstream always prints: structs that are no pointers (`status: {}`, `resources: {}`) and
/// zero values of fields without `omitempty`. Where upstream prints `null`, nothing is set.
pub fn zero_values(schema: &Schema, ty: TypeId, object: &mut Object) {
    Walk { schema, fill: &zero }.object(schema.ty(ty), &mut object.0);
}

fn zero(field: &Field) -> Option<Value> {
    if field.pointer || field.omit_zero || field.shape != Shape::One {
        return None;
    }
    match field.element {
        // Go's omitempty does not leave out a struct.
        Element::Message(_) => Some(Value::Object(Map::new())),
        _ if field.omit_empty => None,
        Element::String => Some("".into()),
        Element::Bool => Some(false.into()),
        Element::Int32 | Element::Int64 | Element::Float64 | Element::IntOrString => Some(0.into()),
        Element::Quantity => Some("0".into()),
        _ => None,
    }
}

struct Walk<'s> {
    schema: &'s Schema,
    fill: &'s dyn Fn(&Field) -> Option<Value>,
}

impl Walk<'_> {
    fn object(&self, ty: &Type, object: &mut Map<String, Value>) {
        for field in ty.properties() {
            if !object.contains_key(&*field.json) {
                let Some(value) = (self.fill)(field) else { continue };
                object.insert(field.json.to_string(), value);
            }
            let Some(inner) = field.message() else { continue };
            let Some(value) = object.get_mut(&*field.json) else { continue };
            let inner = self.schema.ty(inner);
            match value {
                Value::Array(list) => {
                    for entry in list.iter_mut().filter_map(Value::as_object_mut) {
                        self.object(inner, entry);
                    }
                }
                Value::Object(map) if field.shape == Shape::Map => {
                    for entry in map.values_mut().filter_map(Value::as_object_mut) {
                        self.object(inner, entry);
                    }
                }
                Value::Object(map) if field.shape == Shape::One => self.object(inner, map),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn changed(name: &str, value: Value, change: fn(&Schema, TypeId, &mut Object)) -> Value {
        let schema = Schema::built_in();
        let mut object = Object::from_value(value).unwrap();
        change(schema, schema.get(name).unwrap(), &mut object);
        object.into_value()
    }

    #[test]
    fn defaults_are_set_where_the_parent_is() {
        let service = json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}});
        let service = changed("core.v1.Service", service, apply);
        assert_eq!(service["spec"]["ports"][0]["protocol"], "TCP");
        assert_eq!(service["spec"]["ports"][1]["protocol"], "UDP");
        let volume = json!({"spec": {"volumes": [{"name": "a", "azureDisk": {"diskName": "d"}}]}});
        let pod = changed("core.v1.Pod", volume, apply);
        let disk = &pod["spec"]["volumes"][0]["azureDisk"];
        assert_eq!(disk["cachingMode"], "ReadWrite");
        assert_eq!(disk["fsType"], "ext4");
        assert_eq!(changed("core.v1.Pod", json!({}), apply), json!({}));
    }

    #[test]
    fn what_upstream_always_prints_is_there() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}]}});
        let pod = changed("core.v1.Pod", pod, zero_values);
        assert_eq!(pod["status"], json!({}));
        assert_eq!(pod["metadata"], json!({"name": "a"}));
        assert_eq!(pod["spec"]["containers"][0], json!({"name": "a", "resources": {}}));
        let service = changed("core.v1.Service", json!({"spec": {}}), zero_values);
        assert_eq!(service["status"], json!({"loadBalancer": {}}));
    }
}
