//! What the ApplyConfiguration of a MutatingAdmissionPolicy does to an object: it is merged as an applied
//! one, but nobody owns it. What is owned as a whole may not be touched, or what the author leaves out
//! would be lost (KEP-3962).

use super::{
    fields,
    merge::merge,
    place::{Form, ListKind, Place},
};
use serde_json::Value;

/// Lays `config` over `live`, or says what is wrong with it in upstream's words. Its `apiVersion` and
/// `kind` are not looked at.
pub fn overlay<'s, P: Place<'s>>(
    place: P,
    live: &mut Value,
    mut config: Value,
) -> Result<(), String> {
    if let Value::Object(config) = &mut config {
        config.remove("apiVersion");
        config.remove("kind");
    }
    fields::validate(place, &config)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let mut wholes = Vec::new();
    find_wholes(place, &config, &mut String::new(), &mut wholes);
    if !wholes.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            wholes.join(", ")
        ));
    }
    merge(place, live, &config);
    Ok(())
}

/// Paths of what `value` names that is owned as a whole. Below maps of any key upstream looks no
/// further.
fn find_wholes<'s, P: Place<'s>>(
    place: P,
    value: &Value,
    path: &mut String,
    found: &mut Vec<String>,
) {
    let form = place.form();
    match value {
        Value::Object(map) => {
            if matches!(form, Form::Map { atomic: true } | Form::Whole) {
                found.push(path.clone());
            }
            for (name, value) in map.iter().filter(|(name, _)| place.names(name)) {
                let Some(inner) = place.field(name) else { continue };
                below(path, &format!(".{name}"), |path| find_wholes(inner, value, path, found));
            }
        }
        Value::Array(list) => {
            let (element, whole) = match form {
                Form::List { element, kind } => (Some(element), kind == ListKind::Atomic),
                form => (None, matches!(form, Form::Deduced | Form::Whole)),
            };
            if whole {
                found.push(path.clone());
            }
            let Some(element) = element else { return };
            for (index, value) in list.iter().enumerate() {
                below(path, &format!("[{index}]"), |path| {
                    find_wholes(element, value, path, found);
                });
            }
        }
        _ => (),
    }
}

fn below(path: &mut String, step: &str, walk: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push_str(step);
    walk(path);
    path.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{apply::BuiltIn, schema::Schema};
    use serde_json::json;

    fn laid(ty: &str, mut live: Value, config: Value) -> String {
        let schema = Schema::built_in();
        let place = BuiltIn::new(schema, schema.get(ty).expect("a type"));
        match overlay(place, &mut live, config) {
            Ok(()) => live.to_string(),
            Err(why) => why,
        }
    }

    #[test]
    fn fields_are_set_and_lists_merged_by_their_keys() {
        let live = json!({
            "metadata": {"labels": {"a": "1"}, "finalizers": ["x"]},
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"},
        });
        let config = json!({
            "apiVersion": 1,
            "metadata": {"labels": {"b": "2"}, "finalizers": ["y", "x"]},
            "spec": {
                "containers": [{"name": "d"}, {"name": "c", "image": "j"}],
                "hostNetwork": true,
            },
        });
        assert_eq!(
            laid("core.v1.Pod", live, config),
            json!({
                "metadata": {"labels": {"a": "1", "b": "2"}, "finalizers": ["y", "x"]},
                "spec": {
                    "containers": [{"name": "d"}, {"name": "c", "image": "j"}],
                    "hostNetwork": true, "nodeName": "n",
                },
            })
            .to_string()
        );
    }

    #[test]
    fn what_is_owned_as_a_whole_is_not_touched() {
        let config = json!({"spec": {
            "containers": [{"name": "c", "command": ["x"]}],
            "nodeSelector": {"a": "b"},
        }});
        assert_eq!(
            laid("core.v1.Pod", json!({}), config),
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.containers[0].command, .spec.nodeSelector"
        );
        let config = json!({"spec": {"nonsense": 1}});
        assert_eq!(
            laid("core.v1.Pod", json!({}), config),
            "failed to convert patch object to typed object: .spec.nonsense: field not declared in \
             schema"
        );
    }
}
