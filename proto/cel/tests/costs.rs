//! Costs: what upstream's tests say an expression is estimated at and costs, what hostile expressions
//! may cost at most, and that nothing panics.

use kcel::{Budget, Env, EvalError, Program, RUNTIME_BUDGET, Type, Value, Vars};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// Estimate at least, at most, and the cost of evaluating it.
fn cost(source: &str) -> (u64, u64, u64) {
    let program = Program::compile(&Env::kubernetes(), source).expect(source);
    let mut budget = Budget::new(RUNTIME_BUDGET);
    program.eval(&Vars::new(), &mut budget).expect(source);
    let estimate = program.estimate();
    (estimate.min, estimate.max, RUNTIME_BUDGET - budget.remaining())
}

/// Facts of k8s.io/apiserver/pkg/cel/library/cost_test.go.
#[test]
fn costs_are_upstreams() {
    let ints = "[1, 2, 3, 4, 5]";
    let cases = [
        (format!("{ints}.sum()"), (15, 15, 15)),
        (format!("{ints}.isSorted()"), (15, 15, 15)),
        (format!("{ints}.indexOf(3)"), (15, 15, 15)),
        ("'01234567890123456789012345678901234567890123456789'.indexOf('123')".into(), (5, 5, 5)),
        ("url('https:://kubernetes.io/').getHost()".into(), (4, 4, 4)),
        ("url('https:://kubernetes.io/') == url('http://x.b')".into(), (5, 5, 5)),
        ("ip('192.168.0.1').family()".into(), (3, 3, 3)),
        ("ip.isCanonical('2001:db8:3333:4444:5555:6666:7777:8888')".into(), (8, 8, 8)),
        (
            "quantity(\"200M\") == quantity(\"0.2G\") && quantity(\"0.2G\") == quantity(\"200M\")"
                .into(),
            (3, 6, 6),
        ),
        ("quantity(\"50k\").sub(20) == quantity(\"49980\")".into(), (4, 4, 4)),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|(source, wanted)| (source, *wanted, cost(source)))
        .filter(|(_, a, b)| a != b)
        .collect();
    assert!(wrong.is_empty(), "wanted, found: {wrong:#?}");
}

fn estimate(schema: &Json, rule: &str) -> u64 {
    let ty = kcel::of_open_api("selfType", schema, false).expect("a type");
    let env = Env::kubernetes().var("self", ty);
    Program::compile(&env, rule).expect(rule).estimate().max
}

/// Facts of k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/compilation_test.go: no bound, and
/// with a bound.
#[test]
fn estimates_of_schemas_are_upstreams() {
    let array = |items: Json| json!({"type": "array", "items": items});
    let map = |values: Json| json!({"type": "object", "additionalProperties": values});
    let plain = |ty: &str| json!({"type": ty});
    let cases = [
        (array(array(plain("number"))), "self.all(x, true)", 3145727, 100, 302),
        (map(plain("number")), "self.all(x, true)", 1348169, 10, 32),
        (map(plain("string")), "self.all(x, true)", 1179647, 3, 11),
        (map(plain("boolean")), "self.all(x, true)", 943718, 100, 302),
        (plain("string"), "self.contains('test')", 314574, 10, 5),
        (plain("string"), "self.startsWith('test')", 2, 15, 2),
        (plain("string"), "size(self + \"hello\") > size(\"hello\")", 314578, 4, 7),
        (array(plain("number")), "self[1] == 0.0", 2, 5000, 2),
        (array(plain("string")), "self[1] == self[1]", 314577, 8, 314577),
        (plain("string"), "self.matches(\"x\")", 314574, 50, 22),
        (plain("string"), "\"\".matches(\"(((((((((())))))))))[0-9]\")", 7, 10, 7),
        (plain("string"), "self.matches(\"\")", 1, 100, 1),
        (map(plain("number")), "self[\"x\"] == 0.0", 2, 0, 2),
        (plain("string"), "self == \"x\"", 2, 0, 1),
        (array(plain("number")), "self.all(x, x == 0.0)", 6291454, 3 * 1024 * 2048, 25165826),
        (array(json!({"x-kubernetes-int-or-string": true})), "self.all(x, true)", 4718591, 10, 32),
        (array(json!({"x-kubernetes-int-or-string": true})), "self[0] == 5", 3, 10, 3),
        (array(plain("boolean")), "self[0] == false", 2, 25, 2),
        (array(map(plain("number"))), "self[0].x > 2.0", 4, 3000, 4),
    ];
    let mut wrong = Vec::new();
    for (schema, rule, unbounded, max, bounded) in cases {
        let mut limited = schema.clone();
        for bound in ["maxItems", "maxLength", "maxProperties"] {
            limited[bound] = max.into();
        }
        let found = (estimate(&schema, rule), estimate(&limited, rule));
        if found != (unbounded, bounded) {
            wrong.push((rule, (unbounded, bounded), found));
        }
    }
    assert!(wrong.is_empty(), "wanted, found: {wrong:#?}");
    let squares = estimate(&array(plain("number")), "self.all(x, self.all(y, true))");
    assert!(squares > kcel::ESTIMATE_LIMIT);
}

#[test]
fn hostile_expressions_end() {
    let numbers: Vec<u32> = (0..300).collect();
    let object = json!({"l": numbers, "s": "a".repeat(100_000)});
    let env = Env::kubernetes().var("o", Type::DYN);
    let cases = [
        "o.l.all(x, o.l.all(y, o.l.all(z, x + y + z >= 0)))",
        "o.l.map(x, o.s + o.s).map(x, x + x).size() > 0",
        "o.l.all(x, o.l.all(y, o == o))",
        "lists.range(100000000).size() > 0",
        "o.l.map(x, o.l).flatten().map(x, o.l).flatten().size() > 0",
        "o.l.map(x, o.s).join(o.s).size() > 0",
        "o.s.replace('', o.s).size() > 0",
    ];
    for source in cases {
        let program = Program::compile(&env, source).expect(source);
        let vars = Vars::new().with("o", Value::json(&object));
        let result = program.eval(&vars, &mut Budget::new(RUNTIME_BUDGET));
        assert_eq!(result.err(), Some(EvalError::CostLimit), "{source}");
    }
    let mut small = Budget::new(10);
    let program = Program::compile(&env, "o.l.all(x, x >= 0)").expect("compiles");
    let vars = Vars::new().with("o", Value::json(&object));
    assert_eq!(program.eval(&vars, &mut small).err(), Some(EvalError::OutOfBudget));
    for source in [
        "(".repeat(100_000),
        "-".repeat(1000) + "1",
        "[".repeat(300),
        "1+".repeat(5000) + "1",
        "a.".repeat(2000) + "a",
        "x".repeat(200_000),
        "!".repeat(99_999) + "true",
    ] {
        let _ = Program::compile(&env, &source);
    }
    let long = vec!["1 == 1"; 8000].join(" || ");
    assert!(Program::compile(&env, &long).is_ok());
    // As deep as it may be, with a test's small stack.
    let (open, close) = ("[".repeat(60), "]".repeat(60));
    for (source, fine) in [
        (format!("{open}1{close} == {open}1{close}"), true),
        (format!("{}true{}", "[1].all(x, ".repeat(60), ")".repeat(60)), true),
        (format!("{}1", "1 + ".repeat(120)), true),
        (format!("{}1{}", "(".repeat(60), ")".repeat(60)), true),
        (format!("{}1{}", "size([".repeat(30), "])".repeat(30)), true),
        (format!("{}1", "1 + ".repeat(300)), false),
    ] {
        let program = Program::compile(&env, &source);
        assert_eq!(program.is_ok(), fine, "{source}");
        if let Ok(program) = program {
            program.estimate();
            let value = program.eval(&Vars::new(), &mut Budget::new(RUNTIME_BUDGET));
            assert!(value.is_ok_and(|value| value.to_json().is_ok()), "{source}");
        }
    }
}

/// Words of the language, put together at random.
fn sources() -> impl Strategy<Value = String> {
    let words = [
        "o",
        "x",
        "1",
        "2u",
        "1.5",
        "'a'",
        "b'x'",
        "true",
        "null",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ".",
        ",",
        ":",
        "?",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "<",
        "&&",
        "||",
        "!",
        " in ",
        "o.l",
        "o.s",
        ".all(x, ",
        ".map(x, ",
        ".exists(x, ",
        ".filter(x, ",
        ".?m",
        "[?",
        "size(",
        "has(o.",
        "type(",
        "string(",
        "int(",
        ".join(",
        ".split('a')",
        "timestamp('2020-01-01T00:00:00Z')",
        "duration('1h')",
        "quantity('1')",
        ".sum()",
        ".sort()",
        "optional.of(",
        "optional.none()",
        ".format(",
        "ip('1.2.3.4')",
        "cidr('1.2.3.4/8')",
        "semver('1.2.3')",
        "url('/a')",
        ".transformMap(k, v, ",
        ".optMap(x, ",
        ".substring(1)",
        ".replace('', ",
        "lists.range(",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 1..12).prop_map(|all| all.concat())
}

proptest! {
    #[test]
    fn nothing_panics(source in sources(), other in "\\PC{0,40}") {
        let object = json!({"l": [1, 2, "x"], "s": "aé", "m": {"k": null}});
        let env = Env::kubernetes().var("o", Type::DYN);
        for source in [&source, &other] {
            match Program::compile(&env, source) {
                Ok(program) => {
                    program.estimate();
                    let vars = Vars::new().with("o", Value::json(&object));
                    if let Ok(value) = program.eval(&vars, &mut Budget::new(100_000)) {
                        let _ = value.to_json();
                    }
                }
                Err(errors) => prop_assert!(!kcel::report(&errors).is_empty()),
            }
        }
    }
}
