//! The variables of an evaluation: the request's objects as documents, the parameter, the namespace,
//! and what the policy itself computes when it is asked for.

use super::{
    compiled::Expression,
    env::{Compiled, NAMESPACE},
};
use crate::{
    admission::{Cx, Operation, webhook},
    authz,
    identity::{AUTHENTICATED, Identity},
};
use k8s::Object;
use kcel::{Attributes, Budget, Decision, EvalError, Fields, Value, Vars};
use serde_json::{Map, Value as Json};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

/// Variables that ask for variables that ask for … deeper than this are an error: each is some stack.
const NESTED_MAX: u32 = 32;

/// Lists and maps within each other that a variable may have made: each may hold the one before.
const LEVELS_MAX: u16 = 64;

/// What a request is, as documents in one version.
pub(crate) struct Documents {
    object: Json,
    old: Json,
    request: Json,
    namespace: Json,
}

impl Documents {
    /// `object` is the new one, or the options of a connection; nothing on delete.
    pub(crate) fn new(cx: &Cx<'_>, version: &str, object: &Object) -> Documents {
        let shown = |object: &Object| webhook::document(cx, version, object);
        let deletes = cx.operation == Operation::Delete;
        Documents {
            object: if deletes { Json::Null } else { shown(object) },
            old: webhook::old_document(cx, version).unwrap_or_default(),
            request: webhook::request(cx, version),
            namespace: namespace(cx).unwrap_or_default(),
        }
    }
}

impl Documents {
    /// The object as it is now.
    pub(crate) fn object(&self) -> &Json {
        &self.object
    }
}

/// The namespace of the request, without what is nobody's business.
fn namespace(cx: &Cx<'_>) -> Option<Json> {
    let is_namespace = cx.kind.group.is_empty() && cx.kind.plural == "namespaces";
    if cx.namespace.is_empty() || is_namespace {
        return None;
    }
    let namespace = cx.view.object("namespaces", cx.namespace)?;
    const SHOWN: &[&str] = &[
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "name",
        "resourceVersion",
        "uid",
    ];
    let metadata: Map<String, Json> = namespace
        .metadata()?
        .iter()
        .filter(|(field, _)| SHOWN.contains(&field.as_str()))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    let mut shown = Map::from_iter([("metadata".to_string(), Json::Object(metadata))]);
    for part in ["spec", "status"] {
        if let Some(value) = namespace.0.get(part) {
            shown.insert(part.into(), value.clone());
        }
    }
    Some(Json::Object(shown))
}

/// Who decides for `authorizer`.
pub(crate) struct Authorizer<'a> {
    pub(crate) cx: &'a Cx<'a>,
}

impl kcel::Authorizer for Authorizer<'_> {
    fn check(&self, asked: &Attributes) -> Decision {
        let account = asked.service_account.as_ref().map(|(namespace, name)| Identity {
            user: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                AUTHENTICATED.into(),
            ],
            ..Identity::default()
        });
        let decision = self.cx.authorizer.authorize(&authz::Attributes {
            user: account.as_ref().unwrap_or(self.cx.identity),
            verb: &asked.verb,
            group: &asked.group,
            version: if asked.path.is_empty() { "*" } else { "" },
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name: &asked.name,
            field_selector: &asked.field_selector,
            path: &asked.path,
        });
        let (allowed, reason) = match decision {
            authz::Decision::Allow => (true, String::new()),
            authz::Decision::Deny { reason } | authz::Decision::NoOpinion { reason } => {
                (false, reason)
            }
        };
        Decision { allowed, reason, error: None }
    }
}

/// The variables of one policy for one request and one parameter.
pub(crate) struct Inputs<'a> {
    vars: Vars<'a>,
    variables: &'a [(String, Compiled)],
    known: RefCell<BTreeMap<&'a str, Result<Value<'a>, EvalError>>>,
    nested: Cell<u32>,
}

impl<'a> Inputs<'a> {
    pub(crate) fn new(
        documents: &'a Documents,
        param: Option<&'a Json>,
        authorizer: &'a Authorizer<'a>,
        variables: &'a [(String, Compiled)],
    ) -> Inputs<'a> {
        let cx = authorizer.cx;
        let itself = Attributes {
            group: cx.kind.group.into(),
            resource: cx.kind.plural.into(),
            subresource: cx.subresource.into(),
            namespace: cx.namespace.into(),
            name: cx.name.into(),
            ..Attributes::default()
        };
        let namespace = match &documents.namespace {
            Json::Null => Ok(Value::Null),
            namespace => Value::typed(namespace, &NAMESPACE),
        };
        let vars = Vars::new()
            .with("object", Value::json(&documents.object))
            .with("oldObject", Value::json(&documents.old))
            .with("request", Value::json(&documents.request))
            .with("namespaceObject", namespace.unwrap_or(Value::Null))
            .with("params", param.map_or(Value::Null, Value::json))
            .with("authorizer", Value::authorizer(authorizer))
            .with("authorizer.requestResource", Value::resource_check(authorizer, itself));
        let (known, nested) = (RefCell::default(), Cell::new(0));
        Inputs { vars, variables, known, nested }
    }

    pub(crate) fn vars(&'a self) -> Vars<'a> {
        self.vars.clone().with("variables", Value::lazy(self))
    }
}

impl<'a> Fields<'a> for Inputs<'a> {
    fn get(&'a self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, EvalError>> {
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        let (name, compiled) = self.variables.iter().find(|(known, _)| known == name)?;
        if self.nested.get() >= NESTED_MAX {
            return Some(Err(EvalError::Failed("variables are nested too deeply".into())));
        }
        self.nested.set(self.nested.get() + 1);
        let value = match compiled {
            Ok(program) => program.eval(&self.vars(), budget).and_then(|value| {
                value.check_levels(LEVELS_MAX, budget)?;
                Ok(value)
            }),
            Err(why) => Err(EvalError::Failed(format!(
                "composited variable {name:?} fails to compile: {why}"
            ))),
        };
        self.nested.set(self.nested.get() - 1);
        let value = value.map_err(|error| match error {
            EvalError::Failed(why) => {
                EvalError::Failed(format!("composited variable {name:?} fails to evaluate: {why}"))
            }
            other => other,
        });
        self.known.borrow_mut().insert(name, value.clone());
        Some(value)
    }
}

impl Expression {
    /// Its value, or what upstream says of its failure; `Err`: nothing more may be evaluated.
    pub(crate) fn evaluate<'a>(
        &'a self,
        vars: &Vars<'a>,
        budget: &mut Budget,
    ) -> Result<Result<Value<'a>, String>, String> {
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        match program.eval(vars, budget) {
            Err(error @ EvalError::OutOfBudget) => Err(error.to_string()),
            result => Ok(result.map_err(|error| {
                format!("expression '{}' resulted in error: {error}", self.source)
            })),
        }
    }
}

/// Whether all hold. One that does not decides at once; of what failed the failure policy decides.
pub(crate) fn conditions_hold<'a>(
    conditions: &'a [Expression],
    vars: &Vars<'a>,
    must_work: bool,
) -> Result<bool, String> {
    let mut budget = Budget::new(kcel::MATCH_CONDITIONS_BUDGET);
    let mut failed = Vec::new();
    for condition in conditions {
        match condition.evaluate(vars, &mut budget) {
            Ok(Ok(Value::Bool(true))) => {}
            Ok(Ok(_)) => return Ok(false),
            Ok(Err(why)) => failed.push(why),
            Err(why) if must_work => return Err(why),
            Err(_) => return Ok(false),
        }
    }
    match failed.len() {
        0 => Ok(true),
        _ if !must_work => Ok(false),
        1 => Err(failed.remove(0)),
        _ => Err(format!("[{}]", failed.join(", "))),
    }
}

/// Whether the match conditions of a webhook hold for a request in this version.
pub(in crate::admission) fn conditions_met(
    cx: &Cx<'_>,
    version: &str,
    object: Option<&Object>,
    conditions: &[Expression],
    must_work: bool,
) -> Result<bool, String> {
    if conditions.is_empty() {
        return Ok(true);
    }
    let nothing = Object::default();
    let documents = Documents::new(cx, version, object.or(cx.old).unwrap_or(&nothing));
    let authorizer = Authorizer { cx };
    let inputs = Inputs::new(&documents, None, &authorizer, &[]);
    let vars = inputs.vars();
    conditions_hold(conditions, &vars, must_work)
}
