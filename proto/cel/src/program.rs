//! The seam: an environment of declared variables, and programs compiled in it.

use crate::{
    Budget, Cost, Error, EvalError, Type, Value, Vars,
    ast::{Expr, ExprKind, Means},
    check, cost, eval,
    functions::literals::Kept,
    parse,
};
use std::collections::BTreeMap;

/// What an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Env {
    pub(crate) variables: BTreeMap<String, Type>,
    /// Types that may be made by `Name{…}`.
    pub(crate) objects: BTreeMap<String, Type>,
}

impl Env {
    /// The functions of Kubernetes 1.36 (upstream's base environment), and no variables.
    pub fn kubernetes() -> Env {
        Env::default()
    }

    /// Declares a variable; its name may have dots (`authorizer.requestResource`).
    pub fn var(mut self, name: &str, ty: Type) -> Env {
        self.variables.insert(name.into(), ty);
        self
    }

    /// Lets expressions make objects of this type. Of an open type (see [`Type::open_object`]) those of
    /// its fields too: with `Object` come `Object.spec`, `Object.spec.template` and so on.
    pub fn makes(mut self, name: &str, ty: Type) -> Env {
        self.objects.insert(name.into(), ty);
        self
    }

    pub(crate) fn object(&self, name: &str) -> Option<Type> {
        if let Some(ty) = self.objects.get(name) {
            return Some(ty.clone());
        }
        let (root, _) = name.split_once('.')?;
        match &self.objects.get(root)?.kind {
            crate::Kind::Object(object) if object.open => Some(Type::open_object(name)),
            _ => None,
        }
    }
}

/// A compiled expression. Shared between threads.
#[derive(Debug)]
pub struct Program {
    root: Expr,
    patterns: Kept,
    source: Box<str>,
}

impl Program {
    /// Parses and checks; every error is told, with its place (see [`crate::report`]).
    pub fn compile(env: &Env, source: &str) -> Result<Program, Vec<Error>> {
        let mut root = parse::parse(source).map_err(|error| vec![error])?;
        let patterns = check::check(env, source, &mut root)?;
        Ok(Program { root, patterns, source: source.into() })
    }

    /// The type of its values; [`Type::DYN`] where only evaluating tells.
    pub fn output(&self) -> &Type {
        &self.root.ty
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it may cost at least and at most, by the sizes its types declare
    /// ([`Type::at_most`]).
    pub fn estimate(&self) -> Cost {
        cost::estimate(&self.root)
    }

    /// True if the variable is used anywhere in it, as `oldSelf` makes a transition rule.
    pub fn uses(&self, variable: &str) -> bool {
        uses(&self.root, variable)
    }

    /// Evaluates. Costs at most [`crate::PER_CALL_LIMIT`], which is taken from `budget`.
    pub fn eval<'a>(
        &'a self,
        vars: &Vars<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvalError> {
        eval::run(&self.root, &self.patterns, vars, budget)
    }
}

fn uses(expr: &Expr, variable: &str) -> bool {
    let named =
        matches!(&expr.kind, ExprKind::Ident { name, means: Means::Variable } if name == variable);
    named || expr.children().into_iter().any(|child| uses(child, variable))
}
