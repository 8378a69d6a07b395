//! Schemas, values and what the rules say of them.

use super::{check_defaults, compile, run};
use k8s::structural::Node;
use kcel::Budget;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An object whose `spec` has these fields and rules.
fn spec(rules: Value, fields: Value) -> Value {
    let spec = json!({ "type": "object", "x-kubernetes-validations": rules, "properties": fields });
    json!({ "type": "object", "properties": { "spec": spec } })
}

/// What is wrong with the rules or, if nothing is, with the value.
fn told(schema: &Value, new: Value, old: Option<Value>) -> String {
    let node = Node::read(schema);
    let (rules, mut errors) = compile(schema, &node, "schema");
    let mut lines = Vec::new();
    if let (Some(rules), true) = (rules, errors.is_empty()) {
        errors = check_defaults(&rules, &node, "schema");
        let mut budget = Budget::new(kcel::RUNTIME_BUDGET);
        let verdict = run(&rules, &node, "", (&new, old.as_ref()), true, &mut budget);
        errors.extend(verdict.errors);
        lines.extend(verdict.forgiven.iter().map(|text| format!("forgiven: {text}")));
    }
    lines.extend(errors.iter().map(ToString::to_string));
    lines.sort();
    if lines.is_empty() { "fine".into() } else { lines.join("\n") }
}

fn table(schema: &Value, cases: &[(&str, Value, Option<Value>)]) -> String {
    let case = |(what, new, old): &(&str, Value, Option<Value>)| {
        format!("# {what}\n{}", told(schema, new.clone(), old.clone()))
    };
    cases.iter().map(case).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn rules_hold_or_say_why_not() {
    let rules = json!([
        { "rule": "self.min <= self.max", "message": " min is above max ", "fieldPath": ".min" },
        { "rule": "self.name == oldSelf.name", "messageExpression": "'was ' + oldSelf.name" },
        { "rule": "!has(self.labels) || self.labels.all(k, k != 'bad')",
          "reason": "FieldValueForbidden", "fieldPath": ".labels['bad']" },
        { "rule": "!has(self.name) || self.name != 'dup'", "reason": "FieldValueDuplicate" },
        { "rule": "!has(self.name) || self.name != ''", "reason": "FieldValueRequired",
          "messageExpression": "''", "message": "give a name" },
        { "rule": "!has(self.name) || self.name != 'long'",
          "messageExpression": "'a\\nb'", "message": "one line only" },
    ]);
    let schema = spec(
        rules,
        json!({
            "min": { "type": "integer" }, "max": { "type": "integer" },
            "name": { "type": "string", "maxLength": 10 },
            "labels": { "type": "object", "maxProperties": 3,
                        "additionalProperties": { "type": "string" } },
        }),
    );
    let object = |spec: Value| json!({ "spec": spec });
    let good = json!({ "min": 1, "max": 2, "name": "a" });
    let cases = [
        ("good", object(good.clone()), None),
        ("no spec", json!({}), None),
        ("a field of the rule", object(json!({ "min": 3, "max": 2, "name": "a" })), None),
        ("a transition", object(json!({ "min": 1, "max": 2, "name": "b" })), Some(object(good))),
        ("an absent field", object(json!({ "min": 3, "name": "a" })), None),
        ("a key", object(json!({ "min": 1, "max": 2, "labels": { "bad": "x" } })), None),
        ("a duplicate", object(json!({ "min": 1, "max": 2, "name": "dup" })), None),
        ("a message of nothing", object(json!({ "min": 1, "max": 2, "name": "" })), None),
        ("a message of two lines", object(json!({ "min": 1, "max": 2, "name": "long" })), None),
    ];
    insta::assert_snapshot!(table(&schema, &cases));
}

/// An object whose only field `f` is of that type and has that rule.
fn field(mut ty: Value, rule: &str) -> Value {
    ty["x-kubernetes-validations"] = json!([{ "rule": rule }]);
    json!({ "type": "object", "properties": { "f": ty } })
}

#[test]
fn types_are_those_of_the_schema() {
    let string = |format: &str| json!({ "type": "string", "format": format });
    let embedded = json!({
        "type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true,
    });
    let either = json!({ "x-kubernetes-int-or-string": true });
    let set = json!({ "type": "array", "x-kubernetes-list-type": "set", "maxItems": 9,
                      "items": { "type": "string", "maxLength": 9 } });
    let map = json!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        "maxItems": 9, "items": { "type": "object", "required": ["k"], "properties": {
            "k": { "type": "string", "maxLength": 9 }, "v": { "type": "integer" },
        } },
    });
    let is_five = "type(self) == int ? self == 5 : self == '5'";
    let cases = [
        (
            string("date-time"),
            "self > timestamp('2020-01-01T00:00:00Z')",
            json!("2021-02-03T04:05:06Z"),
        ),
        (string("date-time"), "self.getFullYear() == 2020", json!("2021-02-03T04:05:06Z")),
        (string("date"), "self.getDayOfMonth() == 2", json!("2021-02-03")),
        (string("duration"), "self < duration('1h')", json!("30m")),
        (string("byte"), "self == b'abc'", json!("YWJj")),
        (string("password"), "self.startsWith('a')", json!("b")),
        (either.clone(), is_five, json!(5)),
        (either.clone(), is_five, json!("6")),
        (either, "self < 6", json!("x")),
        (json!({ "type": "number" }), "self == 1.0", json!(1)),
        (
            embedded.clone(),
            "self.kind == 'Pod' && self.metadata.name == 'a'",
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" } }),
        ),
        (embedded.clone(), "!has(self.metadata.generateName)", json!({ "metadata": {} })),
        (embedded, "self.spec == 1", json!({ "spec": 1 })),
        (set.clone(), "self == ['b', 'a'] && self + ['a'] == ['a', 'b']", json!(["a", "b"])),
        (set, "self == oldSelf", json!(["a"])),
        (
            map,
            "self == [{'k': 'b'}] || self.exists(e, e.k == 'b' && e.v == 2)",
            json!([{ "k": "b", "v": 1 }]),
        ),
        (
            json!({ "type": "object", "properties": { "a-b": { "type": "string" },
            "namespace": { "type": "string" }, "if": { "type": "integer" } } }),
            "self.a__dash__b == 'x' && self.__namespace__ == 'y' && self.__if__ == 1",
            json!({ "a-b": "x", "namespace": "y", "if": 1 }),
        ),
        (
            json!({ "type": "array", "maxItems": 3, "items": {
            "x-kubernetes-preserve-unknown-fields": true } }),
            "true",
            json!([]),
        ),
        (json!({ "type": "object", "nullable": true }), "false", Value::Null),
        (
            json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true }),
            "has(self.anything)",
            json!({ "anything": 1 }),
        ),
    ];
    let lines = cases.into_iter().map(|(ty, rule, value)| {
        format!("# {rule} of {value}\n{}", told(&field(ty, rule), json!({ "f": value }), None))
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n\n"));
}

#[test]
fn the_root_has_what_every_object_has() {
    let rules = json!([
        { "rule": "self.metadata.name.startsWith('a')", "message": "the name begins with a" },
        { "rule": "self.apiVersion == 'a.b/v1' && self.kind == 'C'" },
    ]);
    let schema = json!({ "type": "object", "x-kubernetes-validations": rules });
    let named =
        |name: &str| json!({ "apiVersion": "a.b/v1", "kind": "C", "metadata": { "name": name } });
    assert_eq!(told(&schema, named("abc"), None), "fine");
    assert_eq!(told(&schema, named("bc"), None), "<nil>: Invalid value: the name begins with a");
}

#[test]
fn rules_that_cannot_be_are_told() {
    let items = |more: Value| {
        let mut list = json!({ "type": "array", "maxItems": 3, "items": {
            "type": "object", "required": ["k"], "properties": { "k": { "type": "string" } },
            "x-kubernetes-validations": [{ "rule": "self == oldSelf" }],
        } });
        list.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        list
    };
    let schema = spec(
        json!([
            { "rule": "self.absent == 1" },
            { "rule": "self.min + 1", "message": "a <b>", "reason": "FieldValueInvalid" },
            { "rule": "self.min ==", "optionalOldSelf": false },
            { "rule": "true", "optionalOldSelf": true },
            { "rule": "true", "messageExpression": "5" },
            { "rule": "true", "messageExpression": "self.absent" },
            { "rule": "self.min == oldSelf.min", "optionalOldSelf": true },
            { "rule": "now() > timestamp('2020-01-01T00:00:00Z')" },
        ]),
        json!({
            "min": { "type": "integer" },
            "atomic": items(json!({})),
            "set": items(json!({ "x-kubernetes-list-type": "set" })),
            "map": items(json!({
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            })),
            "labels": { "type": "object", "maxProperties": 3, "additionalProperties": {
                "type": "string", "maxLength": 9,
                "x-kubernetes-validations": [{ "rule": "self == oldSelf" }] } },
            "unknown": { "x-kubernetes-preserve-unknown-fields": true,
                         "x-kubernetes-validations": [{ "rule": "true" }] },
        }),
    );
    insta::assert_snapshot!(told(&schema, json!({}), None));
}

#[test]
fn entries_are_compared_with_what_they_were() {
    let entry = json!({
        "type": "object", "required": ["k"],
        "properties": { "k": { "type": "string", "maxLength": 9 }, "v": { "type": "integer" } },
        "x-kubernetes-validations": [
            { "rule": "self.v >= oldSelf.v", "message": "v may only grow" },
            // Upstream cannot evaluate such a messageExpression, and says the message.
            { "rule": "oldSelf.hasValue() || self.v == 0", "optionalOldSelf": true,
              "messageExpression": "oldSelf.hasValue() ? 'changed' : 'made'",
              "message": "new ones begin at 0" },
        ],
    });
    let schema = json!({ "type": "object", "properties": {
        "list": {
            "type": "array", "maxItems": 9, "items": entry.clone(),
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
        },
        "map": { "type": "object", "maxProperties": 9, "additionalProperties": entry },
    } });
    let list = |entries: &[(&str, i64)]| {
        let entries = entries.iter().map(|(k, v)| json!({ "k": k, "v": v }));
        json!({ "list": entries.collect::<Vec<_>>() })
    };
    let map = |entries: &[(&str, i64)]| {
        let entries = entries.iter().map(|(k, v)| (k.to_string(), json!({ "k": k, "v": v })));
        json!({ "map": entries.collect::<serde_json::Map<_, _>>() })
    };
    let cases = [
        ("made", list(&[("a", 0), ("b", 1)]), None),
        ("moved", list(&[("b", 2), ("a", 1)]), Some(list(&[("a", 1), ("b", 2)]))),
        ("shrunk", list(&[("c", 0), ("b", 1), ("a", 1)]), Some(list(&[("a", 1), ("b", 2)]))),
        ("of a map", map(&[("a", 0), ("b", 1)]), Some(map(&[("a", 1)]))),
        ("was null", list(&[("a", 0)]), Some(json!({ "list": null }))),
    ];
    insta::assert_snapshot!(table(&schema, &cases));
}

#[test]
fn what_an_update_leaves_alone_is_forgiven() {
    let rule = |rule: &str| json!([{ "rule": rule }]);
    let schema = json!({ "type": "object", "properties": {
        "n": { "type": "integer", "x-kubernetes-validations": rule("self > 5") },
        "pair": { "type": "object", "x-kubernetes-validations": rule("self.a < self.b"),
                  "properties": { "a": { "type": "integer" }, "b": { "type": "integer" } } },
        "list": { "type": "array", "maxItems": 9, "items": {
            "type": "integer", "x-kubernetes-validations": rule("self > 5") } },
        "change": { "type": "integer", "x-kubernetes-validations": rule("self != oldSelf") },
        "kind": { "type": "string", "x-kubernetes-validations": rule("self == 'D'") },
    } });
    let old = json!({ "n": 1, "pair": { "a": 2, "b": 1 }, "list": [1, 9] });
    let with = |more: Value| {
        let mut new = old.clone();
        new.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        new
    };
    let cases = [
        ("nothing changed", old.clone(), Some(old.clone())),
        ("a number", with(json!({ "n": 2 })), Some(old.clone())),
        ("half a pair", with(json!({ "pair": { "a": 3, "b": 1 } })), Some(old.clone())),
        ("another entry of an atomic list", with(json!({ "list": [1, 8] })), Some(old.clone())),
        ("transitions are not", json!({ "change": 1 }), Some(json!({ "change": 1 }))),
        ("nor is the type", json!({ "kind": "C" }), Some(json!({ "kind": "C" }))),
    ];
    insta::assert_snapshot!(table(&schema, &cases));
}

#[test]
fn defaults_keep_the_rules() {
    let schema = spec(
        json!([]),
        json!({
            "good": { "type": "integer", "default": 6,
                      "x-kubernetes-validations": [{ "rule": "self > 5" }] },
            "bad": { "type": "integer", "default": 4,
                     "x-kubernetes-validations": [{ "rule": "self > 5", "message": "too low" }] },
            "new": { "type": "string", "default": "b",
                     "x-kubernetes-validations": [{ "rule": "oldSelf.orValue('a') == self",
                        "optionalOldSelf": true, "message": "begins as a" }] },
        }),
    );
    insta::assert_snapshot!(told(&schema, json!({}), None));
}

#[test]
fn dear_rules_are_refused() {
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    let few = json!({ "type": "array", "maxItems": 20,
                      "items": { "type": "string", "maxLength": 30 } });
    let pairs = "self.list.all(a, self.list.all(b, a != b || a == b))";
    let one = |rule: &str, list: &Value| {
        told(&spec(json!([{ "rule": rule }]), json!({ "list": list })), json!({}), None)
    };
    let rule = |index: usize| json!({ "rule": format!("self.list.all(a, a.contains('{index}'))") });
    let strings_bounded = json!({ "type": "array", "maxItems": 1000, "items": { "type": "string", "maxLength": 20000 } });
    let many: Vec<Value> = (0..15).map(rule).collect();
    let message =
        json!([{ "rule": "true", "messageExpression": "self.list.map(a, a + a).join(',')" }]);
    let within = json!({ "type": "array", "items": { "type": "object", "properties": {
        "list": { "type": "array", "maxItems": 100, "items": {
            "type": "string", "maxLength": 1000,
            "x-kubernetes-validations": [{ "rule": "self.contains('x')" }] } } } } });
    let cases = [
        ("pairs of many", one(pairs, &strings)),
        ("pairs of few", one(pairs, &few)),
        ("as often as fits", told(&spec(json!([]), json!({ "within": within })), json!({}), None)),
        ("together", told(&spec(many.into(), json!({ "list": strings_bounded })), json!({}), None)),
        ("a message", told(&spec(message, json!({ "list": strings })), json!({}), None)),
    ];
    let lines = cases.map(|(what, told)| format!("# {what}\n{told}"));
    insta::assert_snapshot!(lines.join("\n\n"));
}

/// Every rule alone is within its limit, and the object within its size.
#[test]
fn an_object_costs_no_more_than_it_may() {
    let entry = json!({ "type": "string", "maxLength": 3000, "x-kubernetes-validations": [
        { "rule": "self.matches('^(a+)+$')", "message": "only a" },
    ] });
    let list = json!({ "type": "array", "maxItems": 1000, "items": entry });
    let schema = json!({ "type": "object", "properties": { "list": list } });
    let node = Node::read(&schema);
    // What an older server let through is bounded when it runs.
    let (rules, _) = compile(&schema, &node, "schema");
    let value = json!({ "list": vec!["a".repeat(2900) + "b"; 1000] });
    let start = Instant::now();
    let mut budget = Budget::new(100_000);
    let rules = rules.expect("rules");
    let verdict = run(&rules, &node, "", (&value, None), true, &mut budget);
    let last = verdict.errors.last().map(ToString::to_string).unwrap_or_default();
    assert!(last.contains("running out of cost budget"), "{last}");
    assert!(verdict.errors.len() < 1000 && budget.remaining() == 0);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn errors_are_bounded() {
    let schema = json!({ "type": "object", "properties": { "map": {
        "type": "object", "additionalProperties": {
            "type": "object", "additionalProperties": {
                "type": "integer", "x-kubernetes-validations": [{ "rule": "self > 0" }] } } } } });
    let node = Node::read(&schema);
    let (rules, _) = compile(&schema, &node, "schema");
    let rules = rules.expect("rules");
    let inner: serde_json::Map<String, Value> =
        (0..50_000).map(|index| (index.to_string(), json!(0))).collect();
    let value = json!({ "map": { "k".repeat(500_000): inner } });
    for old in [None, Some(&value)] {
        let mut budget = Budget::new(kcel::RUNTIME_BUDGET);
        let verdict = run(&rules, &node, "", (&value, old), true, &mut budget);
        let told = verdict.errors.len() + verdict.forgiven.len();
        assert!((1..10).contains(&told), "{told}");
    }
}

/// Each of many entries asks whether the list around it has changed, and finds what it was before.
#[test]
fn long_lists_are_compared_once() {
    let list = |more: Value| {
        let mut list = json!({ "type": "array", "items": {
            "type": "object", "properties": { "k": { "type": "integer" } },
            "x-kubernetes-validations": [{ "rule": "self.k < 0" }] } });
        list.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        list
    };
    let keyed = json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"] });
    let schema = json!({ "type": "object", "properties": {
        "atomic": list(json!({})), "keyed": list(keyed),
    } });
    let node = Node::read(&schema);
    let (rules, _) = compile(&schema, &node, "schema");
    let rules = rules.expect("rules");
    let entries: Vec<Value> = (0..100_000).map(|k| json!({ "k": k })).collect();
    for field in ["atomic", "keyed"] {
        let value = json!({ field: entries });
        let mut budget = Budget::new(kcel::RUNTIME_BUDGET);
        let verdict = run(&rules, &node, "", (&value, Some(&value)), true, &mut budget);
        assert!(verdict.errors.is_empty() && !verdict.forgiven.is_empty(), "{field}");
    }
}
