//! What is wrong with an expression, or went wrong in it, in upstream's words.

use crate::ast::Pos;

/// An expression that does not parse or whose types do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Line, from 1.
    pub line: usize,
    /// Character of the line, from 1.
    pub column: usize,
    /// Alone, without the place.
    pub message: String,
    /// The line it is in.
    pub source_line: String,
}

impl Error {
    pub(crate) fn at(source: &str, pos: Pos, message: impl Into<String>) -> Error {
        let pos = (pos as usize).min(source.len());
        let before = source.get(..pos).unwrap_or(source);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Error {
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
            message: message.into(),
            source_line: source[start..].lines().next().unwrap_or_default().into(),
        }
    }

    /// As cel-go shows it: place, message, the line and a pointer below it.
    pub fn report(&self) -> String {
        let Error { line, column, message, source_line } = self;
        // Tabs would move the pointer.
        let shown = source_line.replace('\t', " ");
        let dots = ".".repeat(column - 1);
        format!("ERROR: <input>:{line}:{column}: {message}\n | {shown}\n | {dots}^")
    }
}

/// Several of them as upstream's messages hold them.
pub fn report(errors: &[Error]) -> String {
    errors.iter().map(Error::report).collect::<Vec<_>>().join("\n")
}

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The expression's own: `no such key: x`. Absorbed by `&&` and `||`.
    #[error("{0}")]
    Failed(String),
    /// This evaluation alone cost more than one may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// The budget of all evaluations together is used up.
    #[error(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    )]
    OutOfBudget,
}

impl EvalError {
    pub(crate) fn new(message: impl Into<String>) -> EvalError {
        EvalError::Failed(message.into())
    }

    pub(crate) fn no_such_overload() -> EvalError {
        EvalError::new("no such overload")
    }

    pub(crate) fn no_such_key(key: impl std::fmt::Display) -> EvalError {
        EvalError::new(format!("no such key: {key}"))
    }

    /// No operator may go on.
    pub(crate) fn is_fatal(&self) -> bool {
        !matches!(self, EvalError::Failed(_))
    }
}
