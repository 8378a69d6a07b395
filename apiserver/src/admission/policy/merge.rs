//! What an ApplyConfiguration of a MutatingAdmissionPolicy does to an object: fields are set, maps and
//! lists with keys merged, sets united. Atomic lists, maps and structs may not be touched: what the
//! author leaves out would be lost.

use k8s::schema::{Element, Field, ListType, Schema, Shape, TypeId};
use serde_json::{Map, Value as Json};

/// `live` with `patch` in it; without a type every list is atomic.
pub(super) fn apply(
    ty: Option<(&Schema, TypeId)>,
    mut live: Json,
    patch: &Json,
) -> Result<Json, String> {
    let Some(patch) = patch.as_object() else {
        return Err("the configuration is no object".into());
    };
    let mut merge = Merge { atomics: Vec::new() };
    let Some(object) = live.as_object_mut() else { return Err("nothing to apply to".into()) };
    match ty {
        Some((schema, id)) => merge.message(schema, id, object, patch, "")?,
        None => merge.untyped(object, patch, ""),
    }
    match merge.atomics.is_empty() {
        true => Ok(live),
        false => Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            merge.atomics.join(", ")
        )),
    }
}

struct Merge {
    /// Paths of what may not be touched.
    atomics: Vec<String>,
}

impl Merge {
    fn message(
        &mut self,
        schema: &Schema,
        id: TypeId,
        live: &mut Map<String, Json>,
        patch: &Map<String, Json>,
        path: &str,
    ) -> Result<(), String> {
        let ty = schema.ty(id);
        for (name, value) in patch {
            let at = format!("{path}.{name}");
            if path.is_empty() && (name == "apiVersion" || name == "kind") {
                continue;
            }
            let Some(field) = ty.field(name) else {
                return Err(format!(
                    "failed to convert patch object to typed object: {at}: field not declared in schema"
                ));
            };
            self.field(schema, field, live, name, value, &at)?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        schema: &Schema,
        field: &Field,
        live: &mut Map<String, Json>,
        name: &str,
        value: &Json,
        at: &str,
    ) -> Result<(), String> {
        let slot = live.entry(name.to_string()).or_insert(Json::Null);
        match (field.shape, value) {
            (Shape::One, Json::Object(patch)) => {
                let atomic = field.atomic
                    || field.message().is_some_and(|message| schema.ty(message).atomic);
                match field.message() {
                    _ if atomic => self.atomics.push(at.to_string()),
                    Some(message) => {
                        self.message(schema, message, map_in(slot), patch, at)?;
                    }
                    None => *slot = value.clone(),
                }
            }
            (Shape::Map, Json::Object(patch)) => {
                if field.atomic {
                    self.atomics.push(at.to_string());
                }
                self.entries(schema, field, map_in(slot), patch, at)?;
            }
            (Shape::List, Json::Array(patch)) => self.list(schema, field, slot, patch, at)?,
            _ => *slot = value.clone(),
        }
        Ok(())
    }

    fn entries(
        &mut self,
        schema: &Schema,
        field: &Field,
        live: &mut Map<String, Json>,
        patch: &Map<String, Json>,
        path: &str,
    ) -> Result<(), String> {
        for (key, value) in patch {
            let slot = live.entry(key.clone()).or_insert(Json::Null);
            match (field.element, value) {
                (Element::Message(message), Json::Object(patch)) => {
                    let at = format!("{path}.{key}");
                    self.message(schema, message, map_in(slot), patch, &at)?;
                }
                _ => *slot = value.clone(),
            }
        }
        Ok(())
    }

    fn list(
        &mut self,
        schema: &Schema,
        field: &Field,
        slot: &mut Json,
        patch: &[Json],
        at: &str,
    ) -> Result<(), String> {
        if !slot.is_array() {
            *slot = Json::Array(Vec::new());
        }
        let Json::Array(live) = slot else { return Ok(()) };
        match field.list_type.unwrap_or_default() {
            ListType::Atomic => self.atomics.push(at.to_string()),
            ListType::Set => {
                for value in patch {
                    if !live.contains(value) {
                        live.push(value.clone());
                    }
                }
            }
            ListType::Map => {
                for (index, value) in patch.iter().enumerate() {
                    let at = format!("{at}[{index}]");
                    self.keyed(schema, field, live, value, &at)?;
                }
            }
        }
        Ok(())
    }

    fn keyed(
        &mut self,
        schema: &Schema,
        field: &Field,
        live: &mut Vec<Json>,
        value: &Json,
        at: &str,
    ) -> Result<(), String> {
        let (Some(patch), Some(message)) = (value.as_object(), field.message()) else {
            return Err(format!(
                "failed to convert patch object to typed object: {at}: expected map"
            ));
        };
        let ty = schema.ty(message);
        let key = |one: &Json, name: &str| {
            let default = ty.field(name).and_then(|field| field.default.clone());
            one.get(name).cloned().or(default)
        };
        let missing = field.list_map_keys.iter().find(|name| key(value, name.as_ref()).is_none());
        if let Some(name) = missing {
            return Err(format!(
                "failed to convert patch object to typed object: {at}: associative list with keys \
                 has an element that omits key field {name:?} (and doesn't have default value)"
            ));
        }
        let same =
            |one: &Json| field.list_map_keys.iter().all(|name| key(one, name) == key(value, name));
        let place = live.iter().position(same).unwrap_or_else(|| {
            live.push(Json::Object(Map::new()));
            live.len() - 1
        });
        self.message(schema, message, map_in(&mut live[place]), patch, at)
    }

    /// Of a kind without schema only maps are merged.
    fn untyped(&mut self, live: &mut Map<String, Json>, patch: &Map<String, Json>, path: &str) {
        for (name, value) in patch {
            let at = format!("{path}.{name}");
            let slot = live.entry(name.clone()).or_insert(Json::Null);
            match value {
                Json::Object(patch) => self.untyped(map_in(slot), patch, &at),
                Json::Array(_) => self.atomics.push(at),
                _ => *slot = value.clone(),
            }
        }
    }
}

/// The map in a slot, which is made one if it is none.
fn map_in(slot: &mut Json) -> &mut Map<String, Json> {
    if !slot.is_object() {
        *slot = Json::Object(Map::new());
    }
    match slot {
        Json::Object(map) => map,
        _ => unreachable!("made one above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(ty: &str, live: Json, patch: Json) -> String {
        let schema = Schema::built_in();
        let id = schema.get(ty).expect("a type");
        match apply(Some((schema, id)), live, &patch) {
            Ok(object) => object.to_string(),
            Err(why) => why,
        }
    }

    #[test]
    fn fields_are_set_and_lists_merged_by_their_keys() {
        let live = json!({
            "metadata": {"labels": {"a": "1"}, "finalizers": ["x"]},
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"},
        });
        let patch = json!({
            "metadata": {"labels": {"b": "2"}, "finalizers": ["y", "x"]},
            "spec": {
                "containers": [{"name": "c", "image": "j"}, {"name": "d"}],
                "hostNetwork": true,
            },
        });
        assert_eq!(
            merged("core.v1.Pod", live, patch),
            json!({
                "metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["x", "y"]},
                "spec": {
                    "containers": [{"name": "c", "image": "j"}, {"name": "d"}],
                    "hostNetwork": true, "nodeName": "n",
                },
            })
            .to_string()
        );
    }

    #[test]
    fn what_is_owned_as_a_whole_is_not_touched() {
        let patch = json!({"spec": {"containers": [{"name": "c", "command": ["x"]}]}});
        assert_eq!(
            merged("core.v1.Pod", json!({}), patch),
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.containers[0].command"
        );
        let patch = json!({"spec": {"nonsense": 1}});
        assert_eq!(
            merged("core.v1.Pod", json!({}), patch),
            "failed to convert patch object to typed object: .spec.nonsense: field not declared in \
             schema"
        );
    }
}
