//! JSON merge patch (RFC 7386).

use super::PatchError;
use serde_json::{Map, Value};

/// `doc` changed by `patch`, which must be an object.
pub fn merge(doc: Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        let got = crate::decode::go_kind(patch);
        return Err(PatchError::BadRequest(format!(
            "error decoding patch: json: cannot unmarshal {got} into Go value of type \
             map[string]interface {{}}"
        )));
    }
    let mut doc = doc;
    apply(&mut doc, patch);
    Ok(doc)
}

fn apply(doc: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *doc = patch.clone();
        return;
    };
    if !doc.is_object() {
        *doc = Value::Object(Map::new());
    }
    let Value::Object(object) = doc else { return };
    for (key, change) in changes {
        if change.is_null() {
            object.remove(key);
        } else {
            apply(object.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// The smallest merge patch from `old` to `new`; `None` if there is none because `new` holds a
/// `null`, which a merge patch cannot say.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (!has_null(new)).then(|| new.clone());
    };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        match old.get(key) {
            Some(before) if before == value => {}
            Some(before) => {
                patch.insert(key.clone(), merge_diff(before, value)?);
            }
            None if has_null(value) => return None,
            None => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Some(Value::Object(patch))
}

/// In an array `null` is a value like any other.
fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().any(has_null),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc() {
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (doc, patch, wanted) in cases {
            assert_eq!(merge(doc.clone(), &patch), Ok(wanted), "{doc} {patch}");
        }
    }

    #[test]
    fn a_patch_must_be_an_object() {
        let error = merge(json!({}), &json!([1])).unwrap_err().status();
        assert_eq!(error.code, 400);
        insta::assert_snapshot!(error.message);
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-c]", tree(), 0..3)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_difference_applied_gives_the_new_value(old in object(), new in object()) {
            let patch = merge_diff(&old, &new).unwrap();
            prop_assert_eq!(merge(old, &patch), Ok(new));
        }

        #[test]
        fn a_patch_applied_twice_is_applied_once(doc in object(), patch in object()) {
            let once = merge(doc, &patch).unwrap();
            prop_assert_eq!(merge(once.clone(), &patch), Ok(once));
        }
    }
}
