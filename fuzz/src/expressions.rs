//! Expressions of crate kcel, on an object read by its type and as it is.

use kcel::{Budget, Env, Kind, Program, Type, Value, Vars};
use serde_json::{Value as Json, json};
use std::sync::LazyLock;

/// A name, by which the corpus is found, and what runs under it.
pub(crate) const TARGET: (&str, fn(&[u8])) = ("cel", cel);

/// What one input may cost: a hundredth of what a policy may.
const COST: u64 = kcel::RUNTIME_BUDGET / 100;

static OBJECT: LazyLock<Json> = LazyLock::new(|| {
    json!({
        "name": "web", "replicas": 3, "share": 0.5, "on": true, "nothing": null,
        "labels": { "app": "web", "a/b": "c" }, "ports": [80, 443],
        "items": [{ "key": "a", "value": 1 }, { "key": "b" }],
        "since": "2026-01-01T00:00:00Z", "every": "1h", "data": "YWJj",
    })
});

static TYPE: LazyLock<Type> = LazyLock::new(|| {
    let text = json!({ "type": "string" });
    let schema = json!({ "type": "object", "properties": {
        "name": text, "replicas": { "type": "integer" }, "share": { "type": "number" },
        "on": { "type": "boolean" }, "nothing": { "type": "string", "nullable": true },
        "labels": { "type": "object", "additionalProperties": text },
        "ports": { "type": "array", "items": { "type": "integer" }, "x-kubernetes-list-type": "set" },
        "items": {
            "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["key"],
            "items": { "type": "object", "properties": {
                "key": text, "value": { "type": "integer" },
            } },
        },
        "since": { "type": "string", "format": "date-time" },
        "every": { "type": "string", "format": "duration" },
        "data": { "type": "string", "format": "byte" },
    } });
    kcel::of_open_api("self", &schema, false).expect("a type")
});

fn cel(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    static DYN: Type = Type::DYN;
    attempt(&source, &DYN);
    attempt(&source, &TYPE);
}

/// Whatever the text, there is no panic; and a value is of the type that was told before.
fn attempt(source: &str, ty: &Type) {
    let env = Env::kubernetes().var("self", ty.clone()).var("oldSelf", ty.clone());
    let program = match Program::compile(&env, source) {
        Ok(program) => program,
        Err(errors) => {
            assert!(!kcel::report(&errors).is_empty());
            return;
        }
    };
    let estimate = program.estimate();
    assert!(estimate.min <= estimate.max, "{estimate:?}");
    let object = Value::typed(&OBJECT, ty).expect("it fits its type");
    let mut budget = Budget::new(COST);
    let vars = Vars::new().with("self", object.clone()).with("oldSelf", object);
    let Ok(value) = program.eval(&vars, &mut budget) else { return };
    match program.output().kind {
        Kind::Bool => assert!(value.as_bool().is_some(), "{value:?}"),
        Kind::String => assert!(value.as_str().is_some(), "{value:?}"),
        _ => {}
    }
    // Either may find it too large.
    let _ = value.to_json();
    let _ = value.check_levels(64, &mut budget);
}
