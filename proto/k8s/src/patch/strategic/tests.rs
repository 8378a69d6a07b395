use super::*;
use proptest::prelude::*;
use serde_json::json;

fn patched(ty: &str, doc: Value, patch: Value) -> Result<Value, PatchError> {
    let schema = Schema::built_in();
    strategic(schema, schema.get(ty).unwrap(), doc, &patch)
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": spec})
}

/// The `spec` of a pod after a patch of its `spec`.
fn spec(doc: Value, patch: Value) -> Value {
    patched("core.v1.Pod", pod(doc), json!({"spec": patch})).unwrap()["spec"].take()
}

#[test]
fn keyed_lists_are_merged_entry_by_entry() {
    let before = json!({"containers": [
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]},
        {"name": "b", "image": "1"},
    ]});
    let after = spec(
        before,
        json!({"containers": [
            {"name": "b", "image": "2"},
            {"name": "c", "image": "3"},
            {"name": "a", "env": [{"name": "Y", "value": "2"}], "image": null},
        ]}),
    );
    insta::assert_json_snapshot!(after);
}

#[test]
fn entries_are_deleted_and_lists_replaced_by_directive() {
    let before = json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeSelector": {"x": "1"}});
    let after = spec(before.clone(), json!({"containers": [{"name": "a", "$patch": "delete"}]}));
    assert_eq!(after["containers"], json!([{"name": "b"}]));
    let replace = json!({"containers": [{"$patch": "replace"}, {"name": "c"}]});
    assert_eq!(spec(before.clone(), replace)["containers"], json!([{"name": "c"}]));
    let after = spec(before.clone(), json!({"nodeSelector": {"$patch": "replace", "y": "2"}}));
    assert_eq!(after["nodeSelector"], json!({"y": "2"}));
    let after = spec(before.clone(), json!({"nodeSelector": {"$patch": "delete"}}));
    assert_eq!(after["nodeSelector"], json!({}));
    let after = spec(before, json!({"nodeSelector": null, "hostNetwork": null}));
    assert_eq!(after, json!({"containers": [{"name": "a"}, {"name": "b"}]}));
}

#[test]
fn what_is_new_takes_the_place_of_what_is_gone() {
    let before = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "x"}]});
    let patch = json!({
        "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}],
        "containers": [{"name": "c"}, {"name": "a", "$patch": "delete"}],
    });
    // The server's own entry stays before the new one, as with upstream's edit in place.
    let after = json!([{"name": "b"}, {"name": "x"}, {"name": "c"}]);
    assert_eq!(spec(before, patch)["containers"], after);
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let before =
        json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["x"]}]});
    let after = spec(
        before,
        json!({
            "tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}],
        }),
    );
    assert_eq!(
        after,
        json!({
            "tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["y"]}],
        })
    );
}

#[test]
fn scalar_lists_are_merged_as_sets() {
    let doc = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let patch = |metadata: Value| {
        let mut after = patched("core.v1.Pod", doc.clone(), json!({"metadata": metadata})).unwrap();
        after["metadata"]["finalizers"].take()
    };
    assert_eq!(patch(json!({"finalizers": ["d", "b"]})), json!(["d", "a", "b", "c"]));
    let delete = json!({"$deleteFromPrimitiveList/finalizers": ["a", "x"]});
    assert_eq!(patch(delete), json!(["b", "c"]));
    let order = json!({
        "$setElementOrder/finalizers": ["d", "c", "b"], "finalizers": ["d"],
        "$deleteFromPrimitiveList/finalizers": ["a"],
    });
    assert_eq!(patch(order), json!(["d", "c", "b"]));
}

#[test]
fn the_order_of_the_patch_is_kept() {
    let before = json!({"containers": [{"name": "a"}, {"name": "server"}, {"name": "b"}]});
    let after = spec(
        before.clone(),
        json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
            "containers": [{"name": "b", "image": "2"}],
        }),
    );
    insta::assert_json_snapshot!(after);
    // Without entries of its own the order alone is applied.
    let after =
        spec(before, json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}));
    let names: Vec<_> = after["containers"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names[0]["name"], "server");
}

#[test]
fn retained_keys_clear_what_they_do_not_name() {
    let doc =
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let after = patched("apps.v1.Deployment", doc.clone(), patch).unwrap();
    assert_eq!(after["spec"]["strategy"], json!({"type": "Recreate"}));
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let error = patched("apps.v1.Deployment", doc, patch).unwrap_err();
    assert_eq!(error, PatchError::BadRequest("invalid patch format of retainKeys".into()));
}

#[test]
fn free_form_values_are_merged_as_maps() {
    let doc = json!({"data": {"a": {"b": 1}}});
    let patch = json!({"data": {"a": {"c": [1, 2]}}});
    let after = patched("apps.v1.ControllerRevision", doc, patch).unwrap();
    assert_eq!(after["data"], json!({"a": {"b": 1, "c": [1, 2]}}));
}

#[test]
fn refusals_have_the_words_of_upstream() {
    let doc = || pod(json!({"containers": [{"name": "a"}], "nodeSelector": {"x": "1"}}));
    let cases = [
        json!([]),
        json!({"spec": {"containers": [{"image": "x", "ports": []}]}}),
        json!({"spec": {"containers": ["x"]}}),
        json!({"spec": {"containers": [["x"]]}}),
        json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
        json!({"spec": {"containers": [{"name": "a", "$patch": "heap"}]}}),
        json!({"spec": {"nodeSelector": {"$patch": "merge"}}}),
        json!({"spec": {"$retainKeys": "x"}}),
        json!({"spec": {"$deleteFromPrimitiveList": ["x"]}}),
        json!({"spec": {"$setElementOrder": ["x"]}}),
        json!({"spec": {"$setElementOrder/bogus": ["x"]}}),
        json!({"spec": {"$setElementOrder/containers": "x"}}),
        json!({"spec": {
            "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a"}],
        }}),
    ];
    let texts = cases.map(|patch| {
        let error = patched("core.v1.Pod", doc(), patch).unwrap_err();
        let status = error.status();
        format!("{} {}: {error}", status.code, status.reason)
    });
    insta::assert_snapshot!(texts.join("\n"));
}

fn containers() -> impl Strategy<Value = Value> {
    let container = ("[a-d]", "[0-9]", prop::collection::btree_map("[x-z]", "[0-9]", 0..3));
    let container = container.prop_map(|(name, image, env)| {
        let env: Vec<Value> =
            env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({"name": name, "image": image, "env": env})
    });
    prop::collection::vec(container, 0..4).prop_map(|mut list| {
        let mut seen = Vec::new();
        list.retain(|entry| {
            let name = entry["name"].clone();
            !seen.contains(&name) && {
                seen.push(name);
                true
            }
        });
        Value::from(list)
    })
}

fn directive() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        "[a-b]".prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "$patch",
        "$retainKeys",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/args",
        "containers",
        "name",
        "env",
        "args",
        "nodeSelector",
        "spec",
        "volumes",
    ]);
    leaf.prop_recursive(5, 30, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key.clone(), inner, 0..4).prop_map(|map| {
                Value::Object(map.into_iter().map(|(key, value)| (key.into(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_patch_applied_twice_is_applied_once(old in containers(), change in containers()) {
        let patch = json!({"containers": change});
        let once = spec(json!({"containers": old}), patch.clone());
        prop_assert_eq!(spec(once.clone(), patch), once);
    }

    #[test]
    fn every_entry_of_both_sides_is_there(old in containers(), change in containers()) {
        let after = spec(json!({"containers": old}), json!({"containers": change}));
        let merged = after["containers"].as_array().unwrap();
        for entry in old.as_array().unwrap().iter().chain(change.as_array().unwrap()) {
            let found = merged.iter().filter(|merged| merged["name"] == entry["name"]).count();
            prop_assert_eq!(found, 1);
        }
        for entry in change.as_array().unwrap() {
            prop_assert!(merged.iter().any(|merged| merged["image"] == entry["image"]));
        }
    }

    #[test]
    fn no_patch_panics(patch in directive()) {
        let doc = pod(json!({
            "containers": [{"name": "a", "args": ["a"]}, {"name": "b"}], "nodeSelector": {"x": "1"},
        }));
        let _ = patched("core.v1.Pod", doc.clone(), patch.clone());
        let _ = patched("core.v1.Pod", doc, json!({"spec": patch}));
    }
}
