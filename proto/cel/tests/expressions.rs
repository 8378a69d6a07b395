//! Tables of expressions with their values. A line is `expression => value`, the value as JSON, or
//! `=> ! message` of an evaluation that fails, or `=> ? message` of an expression that does not compile
//! (its first error). Facts are those of cel-spec and of k8s.io/apiserver/pkg/cel/library.

use kcel::{Budget, Env, EvalError, Program, Type, Value, Vars};
use serde_json::{Value as Json, json};

fn object() -> Json {
    json!({
        "name": "web", "replicas": 3, "ratio": 0.5, "flag": true, "nothing": null,
        "labels": {"app": "web", "a/b": "x"},
        "list": [1, 2, 3], "names": ["a", "b", "c"], "mixed": [1, "a", true],
        "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "nested": {"deep": {"value": 7}},
        "empty": {}, "none": []
    })
}

/// What an expression gives, as the tables write it.
fn outcome(source: &str, object: &Json) -> String {
    let env = Env::kubernetes().var("object", Type::DYN);
    let program = match Program::compile(&env, source) {
        Ok(program) => program,
        Err(errors) => return format!("? {}", errors[0].message),
    };
    let vars = Vars::new().with("object", Value::json(object));
    match program.eval(&vars, &mut Budget::new(kcel::RUNTIME_BUDGET)) {
        Err(EvalError::Failed(why)) => format!("! {why}"),
        Err(error) => format!("! {error}"),
        Ok(value) => match value.to_json() {
            Ok(json) => json.to_string(),
            Err(error) => format!("! {error}"),
        },
    }
}

fn check(table: &str) {
    let object = object();
    let mut wrong = String::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (source, wanted) = line.split_once(" => ").expect("an arrow");
        let found = outcome(source, &object);
        if found != wanted.trim() {
            wrong.push_str(&format!("{source}\n  wanted {wanted}\n  found  {found}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_language() {
    check(include_str!("tables/language.txt"));
}

#[test]
fn the_libraries() {
    check(include_str!("tables/libraries.txt"));
}

#[test]
fn the_types() {
    check(include_str!("tables/types.txt"));
}
