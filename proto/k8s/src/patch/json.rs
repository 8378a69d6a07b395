//! JSON patch (RFC 6902) with upstream's bounds and its negative list indexes.

use super::PatchError;
use json_patch::PatchOperation;
use serde_json::Value;

/// Operations in one patch, upstream's bound.
pub const OPERATIONS_MAX: usize = 10_000;
/// What all `copy` operations of one patch may add, in bytes of JSON; upstream's bound.
pub const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// `doc` changed by the operations of `patch`: all of them or none.
pub fn json(doc: Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Array(operations) = patch else {
        return Err(not_a_patch(patch, "jsonpatch.Patch"));
    };
    if let Some(other) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(not_a_patch(other, "jsonpatch.Operation"));
    }
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let mut doc = doc;
    let mut copied_bytes = 0;
    for operation in operations {
        apply(&mut doc, operation, &mut copied_bytes)?;
    }
    Ok(doc)
}

fn not_a_patch(value: &Value, wanted: &str) -> PatchError {
    let got = crate::decode::go_kind(value);
    PatchError::BadRequest(format!("json: cannot unmarshal {got} into Go value of type {wanted}"))
}

fn apply(doc: &mut Value, operation: &Value, copied_bytes: &mut usize) -> Result<(), PatchError> {
    let mut operation = operation.clone();
    let adds = matches!(operation["op"].as_str(), Some("add" | "copy" | "move"));
    resolve_index(doc, &mut operation, "path", adds);
    resolve_index(doc, &mut operation, "from", false);
    if is_test_for_absence(doc, &operation) {
        return Ok(());
    }
    let operation: PatchOperation = serde_json::from_value(operation)
        .map_err(|error| PatchError::Unprocessable(error.to_string()))?;
    if let PatchOperation::Copy(copy) = &operation {
        let bytes = doc.pointer(copy.from.as_str()).map_or(0, json_bytes);
        *copied_bytes = copied_bytes.saturating_add(bytes);
        if *copied_bytes > COPIED_BYTES_MAX {
            return Err(PatchError::Unprocessable(format!(
                "Unable to complete the copy, the accumulated size increase of copy is \
                 {copied_bytes}, exceeding the limit {COPIED_BYTES_MAX}"
            )));
        }
    }
    json_patch::patch_unsafe(doc, std::slice::from_ref(&operation))
        .map_err(|error| PatchError::Unprocessable(error.to_string()))
}

fn json_bytes(value: &Value) -> usize {
    serde_json::to_vec(value).map_or(0, |text| text.len())
}

/// Upstream counts negative indexes from the end of a list; for an addition `-1` is behind it.
fn resolve_index(doc: &Value, operation: &mut Value, field: &str, adds: bool) {
    let Some(path) = operation.get(field).and_then(Value::as_str) else { return };
    let Some((parent, last)) = path.rsplit_once('/') else { return };
    let Some(back) = last.strip_prefix('-').and_then(|back| back.parse::<usize>().ok()) else {
        return;
    };
    let Some(Value::Array(list)) = doc.pointer(parent) else { return };
    let length = if adds { list.len() + 1 } else { list.len() };
    if let Some(index) = length.checked_sub(back) {
        operation[field] = format!("{parent}/{index}").into();
    }
}

/// Upstream's `test` for `null` also holds where there is nothing.
fn is_test_for_absence(doc: &Value, operation: &Value) -> bool {
    operation["op"] == "test"
        && operation.get("value").is_none_or(Value::is_null)
        && operation["path"].as_str().is_some_and(|path| match path.rsplit_once('/') {
            Some((parent, _)) => {
                doc.pointer(path).is_none() && doc.pointer(parent).is_some_and(Value::is_object)
            }
            None => false,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn patched(doc: Value, patch: Value) -> String {
        match json(doc, &patch) {
            Ok(value) => value.to_string(),
            Err(error) => format!("{}: {error}", error.status().code),
        }
    }

    #[test]
    fn operations_do_as_upstream_does() {
        let doc = json!({"a": [1, 2, 3], "b": {"c": "d"}});
        let cases = [
            (json!([{"op": "add", "path": "/a/-", "value": 4}]), "[1,2,3,4]"),
            (json!([{"op": "add", "path": "/a/-1", "value": 4}]), "[1,2,3,4]"),
            (json!([{"op": "remove", "path": "/a/-1"}]), "[1,2]"),
            (json!([{"op": "replace", "path": "/a/-3", "value": 9}]), "[9,2,3]"),
            (json!([{"op": "move", "from": "/a/0", "path": "/a/2"}]), "[2,3,1]"),
            (json!([{"op": "copy", "from": "/b/c", "path": "/a/0"}]), "[\"d\",1,2,3]"),
            (json!([{"op": "test", "path": "/b/x", "value": null}]), "[1,2,3]"),
        ];
        for (patch, wanted) in cases {
            let value = json(doc.clone(), &patch).unwrap();
            assert_eq!(value["a"].to_string(), wanted, "{patch}");
        }
    }

    #[test]
    fn refusals_have_upstreams_codes() {
        let doc = json!({"a": [1]});
        let many = Value::Array(vec![json!({"op": "test"}); OPERATIONS_MAX + 1]);
        let texts = [
            patched(doc.clone(), json!({"a": 1})),
            patched(doc.clone(), json!(["x"])),
            patched(doc.clone(), many),
            patched(doc.clone(), json!([{"op": "heap", "path": "/a"}])),
            patched(doc.clone(), json!([{"op": "remove", "path": "/b"}])),
            patched(doc.clone(), json!([{"op": "remove", "path": "/a/-2"}])),
            patched(doc.clone(), json!([{"op": "test", "path": "/a/0", "value": 2}])),
            patched(doc, json!([{"op": "add", "path": "/b/c", "value": 2}])),
        ];
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn copies_cannot_grow_without_end() {
        let doc = json!({"a": "x".repeat(1 << 20)});
        let copies: Vec<Value> =
            (0..4).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/b{n}")})).collect();
        let error = json(doc, &copies.into()).unwrap_err();
        assert!(error.to_string().contains("exceeding the limit"), "{error}");
    }

    proptest! {
        #[test]
        fn nothing_panics(
            op in "add|remove|replace|move|copy|test",
            path in "(/[ab~01-]{0,2}){0,3}",
            from in "(/[ab~01-]{0,2}){0,3}",
        ) {
            let doc = json!({"a": [1, {"b": 2}], "b": {"a": null}, "": []});
            let operation = json!({"op": op, "path": path, "from": from, "value": 1});
            let _ = json(doc, &json!([operation]));
        }
    }
}
