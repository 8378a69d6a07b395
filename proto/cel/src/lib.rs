//! Kubernetes' dialect of the Common Expression Language: parse, check types, estimate and count costs,
//! evaluate over borrowed JSON. Never does IO, never reads a clock, never panics; time and memory are
//! bounded by the cost an expression may use up.
//!
//! ```
//! use kcel::{Budget, Env, Program, Type, Value, Vars};
//! let env = Env::kubernetes().var("self", Type::DYN);
//! let program = Program::compile(&env, "self.replicas <= 5").expect("it compiles");
//! let object = serde_json::json!({"replicas": 3});
//! let vars = Vars::new().with("self", Value::json(&object));
//! let value = program.eval(&vars, &mut Budget::new(kcel::RUNTIME_BUDGET));
//! assert_eq!(value.map(|value| value.as_bool()), Ok(Some(true)));
//! ```

// In the order an expression meets them.
mod ast;
mod check;
mod cost;
mod equality;
mod error;
mod escape;
mod eval;
mod functions;
mod lexer;
mod macros;
mod parse;
mod program;
mod schema;
mod types;
mod value;

pub use cost::Cost;
pub use error::{Error, EvalError, report};
pub use escape::{escape, unescape};
pub use eval::{Budget, Vars};
pub use functions::authorizer::{Attributes, Authorizer, Decision};
pub use program::{Env, Program};
pub use schema::{REQUEST_BYTES_MAX, min_bytes, of_open_api, of_schema};
pub use types::{Field, Identity, Kind, ListType, ObjectType, Type};
pub use value::{Fields, Value};

/// Cost of one evaluation of one expression (k8s.io/apiserver/pkg/apis/cel, `PerCallLimit`).
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// Cost of all evaluations for one custom resource or one policy binding (`RuntimeCELCostBudget`).
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// Cost of all match conditions of one webhook or binding (`RuntimeCELCostBudgetMatchConditions`).
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// Estimated cost of one rule of a CustomResourceDefinition (`StaticEstimatedCostLimit`).
pub const ESTIMATE_LIMIT: u64 = 10_000_000;
/// Estimated cost of all its rules together (`StaticEstimatedCRDCostLimit`).
pub const ESTIMATE_LIMIT_ALL: u64 = 100_000_000;
/// Bytes of a message an expression may make (`MaxEvaluatedMessageExpressionSizeBytes`).
pub const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// cel-go's default bound of an expression, which counts code points there.
pub(crate) const SOURCE_BYTES_MAX: usize = 100_000;
/// Levels of an expression; cel-go's bound is 250, but a thread here has two megabytes of stack and not a
/// gigabyte.
pub(crate) const DEPTH_MAX: u16 = 128;
/// Brackets within brackets: reading one takes more of the stack than evaluating it.
pub(crate) const NESTING_MAX: u16 = 64;
/// Levels that are evaluated within each other, those of variables that ask for variables included.
pub(crate) const EVAL_DEPTH_MAX: u16 = 160;
