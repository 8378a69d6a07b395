//! What a schema does to values, and what makes a schema unfit.

use super::*;
use crate::schema::{Element, Schema, Shape};
use insta::assert_snapshot;
use serde_json::json;

fn lines(errors: &[crate::FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What `value` is told under `schema`.
fn told(schema: Value, value: Value) -> String {
    lines(&validate(&value, &Node::read(&schema), Target::default()))
}

/// The same for an update of `old`.
fn told_update(schema: Value, old: Value, new: Value) -> String {
    let node = Node::read(&schema);
    lines(&validate(&new, &node, Target { prefix: "", old: Some((&old, &node)) }))
}

fn spec(schema: Value) -> Value {
    json!({"type": "object", "properties": {"spec": schema}})
}

#[test]
fn unknown_fields_are_dropped_and_told() {
    let schema = spec(json!({
        "type": "object",
        "properties": {
            "known": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
            "free": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"strict": {"type": "object", "properties": {"x": {"type": "string"}}}},
            },
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {"type": "string"}}}},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        },
    }));
    let mut value = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"anything": 1}, "extra": 1,
        "spec": {
            "known": [{"a": "b", "c": 1}],
            "free": {"z": 1, "strict": {"x": "x", "w": 1}},
            "map": {"k": {"y": "y", "q": 1}},
            "embedded": {"apiVersion": "v1", "kind": "B", "metadata": {}, "other": 1, "spec": {"n": 1}},
        },
    });
    let unknown = prune(&mut value, &Node::read(&schema), true);
    let told = [
        "extra",
        "spec.embedded.other",
        "spec.embedded.spec.n",
        "spec.free.strict.w",
        "spec.known[0].c",
        "spec.map.k.q",
    ];
    assert_eq!(unknown, told);
    let kept = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"anything": 1},
        "spec": {
            "known": [{"a": "b"}], "free": {"z": 1, "strict": {"x": "x"}}, "map": {"k": {"y": "y"}},
            "embedded": {"apiVersion": "v1", "kind": "B", "metadata": {}, "spec": {}},
        },
    });
    assert_eq!(value, kept);
}

#[test]
fn defaults_are_set_and_nulls_are_absent() {
    let node = Node::read(&spec(json!({
        "type": "object",
        "default": {"replicas": 3},
        "properties": {
            "replicas": {"type": "integer"},
            "mode": {"type": "string", "default": "auto"},
            "maybe": {"type": "string", "nullable": true, "default": "x"},
            "gone": {"type": "string"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
        },
    })));
    let done = |value: Value| {
        let mut value = value;
        prune_nulls(&mut value, Some(&node));
        default(&mut value, &node);
        value
    };
    let all = json!({"spec": {"replicas": 3, "mode": "auto", "maybe": "x"}});
    assert_eq!(done(json!({})), all);
    let nulls = json!({"spec": {"mode": null, "maybe": null, "gone": null, "list": [{}]}});
    assert_eq!(
        done(nulls),
        json!({"spec": {"mode": "auto", "maybe": null, "list": [{"p": "TCP"}]}})
    );
}

#[test]
fn values_are_refused_in_upstreams_words() {
    let schema = spec(json!({
        "type": "object",
        "required": ["name", "size"],
        "maxProperties": 20,
        "properties": {
            "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
            "size": {"type": "integer", "minimum": 1, "maximum": 10, "format": "int32"},
            "share": {"type": "number", "minimum": 0, "exclusiveMinimum": true, "multipleOf": 0.5},
            "mode": {"type": "string", "enum": ["a", "b"]},
            "port": {"x-kubernetes-int-or-string": true},
            "ip": {"type": "string", "format": "ipv4"},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
            "flag": {"type": "boolean"},
            "maybe": {"type": "string", "nullable": true},
            "none": {"type": "object", "additionalProperties": false},
        },
    }));
    let wrong = [
        json!({}),
        json!({"spec": {"name": "x", "size": 0}}),
        json!({"spec": {"name": "abcde", "size": 11}}),
        json!({"spec": {"name": "AB", "size": "5"}}),
        json!({"spec": {"name": "ab", "size": 4294967296i64, "share": 0}}),
        json!({"spec": {"name": "ab", "size": 1.5, "share": 0.3, "mode": "c"}}),
        json!({"spec": {"name": "ab", "size": 1, "port": true, "ip": "1.2.3", "tags": []}}),
        json!({"spec": {"name": "ab", "size": 1, "tags": ["a", 1, "c"], "flag": "yes"}}),
        json!({"spec": {"name": null, "size": 1, "maybe": null, "none": {"a": 1}}}),
    ];
    let found: Vec<String> = wrong.map(|value| told(schema.clone(), value)).into();
    assert_snapshot!(found.join("\n--\n"));
}

#[test]
fn junctions_tell_what_came_closest() {
    let one_of = spec(json!({
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "anyOf": [{"properties": {"a": {"pattern": "^x"}}}, {"properties": {"a": {"enum": ["y"]}}}],
        "not": {"required": ["a", "b"]},
        "allOf": [{"properties": {"b": {"maxLength": 1}}}],
    }));
    let values = [
        json!({"spec": {"a": "x"}}),
        json!({"spec": {}}),
        json!({"spec": {"a": "xx", "b": "b"}}),
        json!({"spec": {"a": "z"}}),
        json!({"spec": {"b": "bb"}}),
    ];
    let found: Vec<String> = values.map(|value| told(one_of.clone(), value)).into();
    assert_snapshot!(found.join("\n--\n"));
}

#[test]
fn what_was_wrong_before_is_forgiven_while_it_stays() {
    let schema = spec(json!({
        "type": "object",
        "properties": {
            "a": {"type": "string", "maxLength": 1},
            "b": {"type": "string", "maxLength": 1},
            "map": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "string", "maxLength": 1}}},
            },
            "list": {"type": "array", "items": {"type": "string", "maxLength": 1}},
        },
    }));
    let old = json!({"spec": {
        "a": "long", "b": "x", "map": [{"k": "1", "v": "long"}], "list": ["long"],
    }});
    let mut new = old.clone();
    new["spec"]["b"] = "y".into();
    new["spec"]["map"] = json!([{"k": "0", "v": "v"}, {"k": "1", "v": "long"}]);
    assert_eq!(told_update(schema.clone(), old.clone(), new.clone()), "");
    new["spec"]["a"] = "longer".into();
    new["spec"]["list"] = json!(["long", "x"]);
    assert_snapshot!(told_update(schema, old, new), @r"
    spec.a: Too long: may not be more than 1 byte
    spec.list[0]: Too long: may not be more than 1 byte
    ");
}

#[test]
fn entries_of_sets_and_keys_of_maps_are_unique() {
    let schema = json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
            "items": {"type": "object"},
        },
    }});
    let value = json!({
        "set": ["x", "y", "x", "x"],
        "map": [{"a": 1, "b": 2, "c": 1}, {"a": 1}, {"a": 1, "b": 2, "c": 2}, {"a": 1}],
    });
    assert_snapshot!(lines(&unique_errors(&value, &Node::read(&schema))), @r#"
    map[2]: Duplicate value: {"a":1,"b":2}
    map[3]: Duplicate value: {"a":1}
    set[2]: Duplicate value: "x"
    "#);
}

fn unfit(schema: Value) -> String {
    lines(&check(&schema, "schema", false))
}

#[test]
fn a_structural_schema_is_fit() {
    let schema = json!({
        "type": "object",
        "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}},
            "spec": {
                "type": "object",
                "properties": {
                    "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "list": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                        "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}},
                    },
                    "free": {"x-kubernetes-preserve-unknown-fields": true},
                },
                "oneOf": [{"required": ["port"]}, {"required": ["list"], "properties": {"list": {"minItems": 1}}}],
            },
        },
    });
    assert_eq!(unfit(schema), "");
}

#[test]
fn what_makes_a_schema_unfit_is_told() {
    let object = |more: Value| {
        let mut schema = json!({"type": "object"});
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        schema
    };
    let field = |schema: Value| object(json!({"properties": {"f": schema}}));
    let schemas = [
        json!({}),
        json!({"type": "array", "items": {}}),
        field(json!({})),
        field(json!({"type": "null"})),
        field(json!({"type": "array"})),
        field(
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
        ),
        field(json!({"type": "string", "pattern": "("})),
        field(json!({"type": "string", "default": 5})),
        field(json!({"type": "object", "default": {"x": 1}})),
        field(json!({"type": "string", "anyOf": [{"type": "string", "default": "a"}]})),
        field(json!({"type": "object", "allOf": [{"properties": {"absent": {"minLength": 1}}}]})),
        field(json!({"type": "string", "x-kubernetes-list-type": "set"})),
        field(
            json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}),
        ),
        field(
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "z"]}),
        ),
        field(json!({"type": "object", "x-kubernetes-embedded-resource": true})),
        field(json!({"type": "string", "uniqueItems": true, "$ref": "#/x"})),
        field(
            json!({"type": "string", "x-kubernetes-validations": [{"rule": " "}, {"rule": "true", "fieldPath": ".x", "reason": "No"}]}),
        ),
        object(
            json!({"properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
        ),
        object(json!({"additionalProperties": {"type": "string"}, "nullable": true})),
    ];
    let found: Vec<String> = schemas.map(unfit).into();
    assert_snapshot!(found.join("\n--\n"));
    let status = check(&object(json!({"anyOf": [{"required": ["a"]}]})), "schema", true);
    assert_eq!(status.len(), 1, "{}", lines(&status));
}

#[test]
fn a_custom_schema_says_what_generic_code_needs() {
    let node = Node::read(&json!({"type": "object", "properties": {
        "kind": {"type": "string"},
        "spec": {"type": "object", "properties": {
            "ports": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}}},
            },
            "nested": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "either": {"x-kubernetes-int-or-string": true},
        }},
    }}));
    let (schema, root) = Schema::custom("example.com.v1.Widget", &node);
    let root = schema.ty(root);
    assert!(root.has_type_meta() && root.field("kind").is_none());
    let field = |ty: &crate::schema::Type, name: &str| ty.field(name).expect("a field").clone();
    let meta = schema.ty(field(root, "metadata").message().expect("a message"));
    assert!(meta.field("ownerReferences").is_some());
    let spec = schema.ty(field(root, "spec").message().expect("a message"));
    let ports = field(spec, "ports");
    assert_eq!((ports.shape, ports.list_type), (Shape::List, Some(ListType::Map)));
    assert_eq!(ports.list_map_keys, ["port".into()]);
    let nested = field(spec, "nested");
    assert_eq!(nested.shape, Shape::Map);
    let whole = schema.ty(nested.message().expect("a message")).whole.clone().expect("no struct");
    assert_eq!((whole.shape, whole.element), (Shape::List, Element::String));
    assert!(schema.ty(field(spec, "free").message().expect("a message")).open);
    assert_eq!(field(spec, "either").element, Element::IntOrString);
}

#[test]
fn field_paths_lead_to_schemas_and_values() {
    let node = Node::read(&spec(json!({"type": "object", "properties": {
        "color": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
    }})));
    let resolve = |text: &str| {
        FieldPath::parse(text, true)
            .and_then(|path| path.resolve(&node).map(|node| node.ty.name().to_string()))
    };
    assert_eq!(resolve(".spec.color"), Ok("string".into()));
    assert_eq!(resolve(".spec.labels['a.b/c']"), Ok("integer".into()));
    assert_eq!(resolve(".spec.absent"), Err("does not refer to a valid field".into()));
    assert_eq!(resolve("spec"), Err("expected [ or . but got: spec".into()));
    assert_eq!(resolve(".spec.color["), Err("expected single quoted string but got ".into()));
    let path = FieldPath::parse(".spec.color", false).expect("a path");
    assert_eq!(path.value(&json!({"spec": {"color": "red"}})), Some(&json!("red")));
    assert!(FieldPath::parse(".a['b']", false).is_err());
}

proptest::proptest! {
    /// Whatever a definition says, reading and checking it ends without a panic.
    #[test]
    fn any_json_can_be_read_as_a_schema(text in r#"[{}\[\]",:a-z0-9 ]{0,80}"#) {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let node = Node::read(&value);
            let _ = check(&value, "x", true);
            let _ = validate(&value, &node, Target::default());
            let _ = Schema::custom("x", &node);
        }
    }
}
