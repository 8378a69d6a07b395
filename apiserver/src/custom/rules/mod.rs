//! `x-kubernetes-validations` (KEP-2876): the rules of a schema, compiled once per state of a definition
//! and run for every write of an object, with what an update may keep that was wrong before (KEP-4008).

mod compile;
mod defaults;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use compile::compile;
pub(crate) use defaults::check as check_defaults;
pub(crate) use run::{Verdict, run};

use k8s::structural::{Additional, Node, Rule};
use kcel::{Program, Type};
use std::collections::BTreeMap;

/// The rules of a schema and of those below it, in its shape. Parts without rules are not there.
pub(crate) struct Rules {
    /// Of `self`.
    ty: Type,
    own: Vec<Compiled>,
    fields: BTreeMap<Box<str>, Rules>,
    items: Option<Box<Rules>>,
    additional: Option<Box<Rules>>,
}

struct Compiled {
    rule: Rule,
    /// `Err` says why it does not compile: whatever it guards is refused.
    program: Result<Program, String>,
    /// `messageExpression`
    message: Option<Program>,
    /// It compares with what was there before.
    is_transition: bool,
    /// `fieldPath` as it is printed; empty if the error is about `self`.
    below: String,
}

impl Rules {
    /// The rules of a field with its schema.
    fn field<'a>(&'a self, node: &'a Node, name: &str) -> Option<(&'a Rules, &'a Node)> {
        match (node.properties.get(name), &node.additional) {
            (Some(field), _) => Some((self.fields.get(name)?, field)),
            (None, Additional::Each(each)) => Some((self.additional.as_deref()?, each)),
            _ => None,
        }
    }
}
