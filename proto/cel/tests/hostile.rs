//! Expressions that would take hours or all memory, although their cost is small: they end in an error.
//! And the fuzz target on stable: some thousands of damaged expressions.

#[path = "../../../fuzz/src/expressions.rs"]
mod expressions;
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;

use kcel::{Budget, Env, EvalError, Program, RUNTIME_BUDGET, Type, Value, Vars};
use serde_json::json;
use std::path::Path;

/// What becomes of an expression over `self`, an object with long texts.
fn eval(source: &str, cost: u64) -> Result<(), EvalError> {
    let env = Env::kubernetes().var("self", Type::DYN);
    let program = Program::compile(&env, source).map_err(|errors| kcel::report(&errors));
    let object = json!({ "long": "a".repeat(1_000_000), "same": "b".repeat(1_000_000) });
    let vars = Vars::new().with("self", Value::json(&object));
    program.expect("it compiles").eval(&vars, &mut Budget::new(cost)).map(|_| ())
}

fn doubled(times: usize, then: &str) -> String {
    let twice = ".map(x, dyn([x, x]))".repeat(times);
    format!("dyn([dyn([])]{twice}){then}")
}

#[test]
fn what_costs_little_and_takes_long_ends() {
    let many = "lists.range(60000)";
    let constants = vec!["1"; 4_000].join(", ");
    let endless = [
        format!("{many}.map(i, self.long).sort().size() == 0"),
        format!("{many}.map(i, i).sortBy(i, self.long).size() == 0"),
        format!("{many}.exists(i, self.long.charAt(i) == 'b')"),
        format!("{many}.exists(i, self.long.size() == i)"),
        format!("{many}.exists(i, dyn(self)[self.long] == i)"),
        format!("{many}.exists(i, double(self.long) == 1.0)"),
        format!("{many}.exists(i, 'x'.matches('(ab{{1,500}}){{1,20}}' + string(i)))"),
        format!("{many}.map(i, [{constants}]).size() == 0"),
        "self.long.split('').size() + self.same.split('').size() == 0".into(),
        "self.long.replace('a', self.same).size() == 0".into(),
        format!("[{}].all(x, x == x)", doubled(30, "")),
        doubled(40, ".sum() == 1"),
        format!("'%s'.format([{}]) == ''", doubled(40, "")),
    ];
    for source in endless {
        let shown: String = source.chars().take(80).collect();
        // A twentieth of what a policy has, so that the test is short too.
        let result = eval(&source, RUNTIME_BUDGET / 20);
        let ended = matches!(result, Err(EvalError::CostLimit | EvalError::OutOfBudget));
        assert!(ended, "{shown}: {result:?}");
    }
}

#[test]
fn what_is_honest_is_not_in_the_way() {
    for source in [
        "self.long == self.same",
        "[1, 2, 3].map(i, [i, i]).size() == 3",
        "lists.range(1000).map(i, string(i)).sort().size() == 1000",
        "lists.range(500).exists(i, 'name-400'.matches('^name-' + string(i) + '$'))",
        "self.long.split('b').size() == 1",
        "self.long.matches('^[a-z]+$')",
    ] {
        assert_eq!(eval(source, RUNTIME_BUDGET), Ok(()), "{source}");
    }
}

#[test]
fn a_value_that_is_in_itself_often_has_no_json() {
    let (env, source) = (Env::kubernetes(), doubled(40, ""));
    let program = Program::compile(&env, &source).expect("it compiles");
    let vars = Vars::new();
    let value = program.eval(&vars, &mut Budget::new(RUNTIME_BUDGET)).expect("a value");
    assert_eq!(
        value.to_json().map_err(|error| error.to_string()),
        Err("the value is too large".into())
    );
    let mut budget = Budget::new(RUNTIME_BUDGET / 100);
    let deep = value.check_levels(8, &mut budget);
    assert_eq!(deep, Err(EvalError::Failed("the value is nested too deeply".into())));
    assert_eq!(value.check_levels(64, &mut budget), Err(EvalError::OutOfBudget));
}

#[test]
fn no_expression_breaks() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let (name, target) = expressions::TARGET;
    mutate::run(name, target, &corpus, 2000);
}

/// A set that is asked of each of its elements whether another has it would cost their product.
#[test]
fn large_sets_are_compared_at_once() {
    let set = json!({
        "type": "array", "x-kubernetes-list-type": "set",
        "items": { "type": "string", "maxLength": 9 }, "maxItems": 30_000,
    });
    let ty = kcel::of_open_api("set", &set, false).expect("a type");
    let env = Env::kubernetes().var("self", ty.clone()).var("oldSelf", ty.clone());
    let texts =
        |range: std::ops::Range<usize>| json!(range.map(|n| n.to_string()).collect::<Vec<_>>());
    let (all, fewer) = (texts(0..30_000), texts(0..29_999));
    let turned = json!(all.as_array().expect("a list").iter().rev().collect::<Vec<_>>());
    for (source, old, answer) in [
        ("self == oldSelf", &turned, true),
        ("self != oldSelf", &fewer, true),
        ("(self + oldSelf).size() == 30000", &turned, true),
    ] {
        let program = Program::compile(&env, source).expect("it compiles");
        let value = |value| Value::typed(value, &ty).expect("a value");
        let vars = Vars::new().with("self", value(&all)).with("oldSelf", value(old));
        let found = program.eval(&vars, &mut Budget::new(RUNTIME_BUDGET));
        assert_eq!(found.map(|found| found.as_bool()), Ok(Some(answer)), "{source}");
    }
}
