//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: requests refused or changed by expressions
//! (<https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/>). All on
//! values at hand; each evaluation is bounded by its cost.

mod compiled;
mod env;
mod inputs;
mod invocations;
mod mutating;
mod params;
mod selection;
mod served;
#[cfg(test)]
mod tests;
mod typecheck;
mod validating;

pub(super) use compiled::{Expression, conditions};
pub(crate) use env::{Compiled, Scope};
pub(super) use inputs::conditions_met;
pub(super) use mutating::{Invoked, Round, Rounded, mutate};
pub(super) use typecheck::settle;
pub(super) use validating::validate;

pub(super) const MUTATING: &str = "MutatingAdmissionPolicy";
pub(super) const VALIDATING: &str = "ValidatingAdmissionPolicy";
