//! `authorizer.group("apps").resource("deployments").namespace("x").check("create").allowed()`
//! (KEP-3488). Who decides is handed in.

use super::{Declared, strings::text};
use crate::{
    EvalError, Value,
    eval::{Cx, Evaluated},
    value::Opaque,
};
use std::rc::Rc;

/// Decides for the user of a request, or for a service account.
pub trait Authorizer {
    /// Must not wait: an expression is evaluated in one go.
    fn check(&self, attributes: &Attributes) -> Decision;
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Namespace and name, if not for the request's own user.
    pub service_account: Option<(String, String)>,
    /// Not empty: no resource is asked for, but this path.
    pub path: String,
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why nobody could decide.
    pub error: Option<String>,
}

/// A question being put together, or its answer.
#[derive(Clone)]
pub struct Check<'a> {
    authorizer: &'a dyn Authorizer,
    stage: Stage,
    attributes: Attributes,
    decision: Decision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decision,
}

impl<'a> Check<'a> {
    pub(crate) fn new(authorizer: &'a dyn Authorizer) -> Check<'a> {
        let (attributes, decision) = (Attributes::default(), Decision::default());
        Check { authorizer, stage: Stage::Authorizer, attributes, decision }
    }

    pub(crate) fn resource(authorizer: &'a dyn Authorizer, attributes: Attributes) -> Check<'a> {
        Check { attributes, stage: Stage::Resource, ..Check::new(authorizer) }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decision => "kubernetes.authorization.Decision",
        }
    }
}

impl std::fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple(self.type_name()).field(&self.attributes).finish()
    }
}

impl PartialEq for Check<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.stage, &self.attributes, &self.decision)
            == (other.stage, &other.attributes, &other.decision)
    }
}

pub(super) const FUNCTIONS: &[Declared] = &[
    ("path", "Authorizer.(string) PathCheck", |_, args| {
        let path = named(args, "path")?;
        step(args, Stage::Authorizer, Stage::Path, |asked| asked.path = path)
    }),
    ("group", "Authorizer.(string) GroupCheck", |_, args| {
        let group = text(args, 1)?.to_string();
        step(args, Stage::Authorizer, Stage::Group, |asked| asked.group = group)
    }),
    ("serviceAccount", "Authorizer.(string,string) Authorizer", service_account),
    ("resource", "GroupCheck.(string) ResourceCheck", |_, args| {
        let resource = named(args, "resource")?;
        step(args, Stage::Group, Stage::Resource, |asked| asked.resource = resource)
    }),
    ("subresource", NARROWS, |_, args| narrow(args, |asked| &mut asked.subresource)),
    ("namespace", NARROWS, |_, args| narrow(args, |asked| &mut asked.namespace)),
    ("name", NARROWS, |_, args| narrow(args, |asked| &mut asked.name)),
    ("fieldSelector", NARROWS, |_, args| narrow(args, |asked| &mut asked.field_selector)),
    ("labelSelector", NARROWS, |_, args| narrow(args, |asked| &mut asked.label_selector)),
    ("check", "PathCheck.(string) Decision | ResourceCheck.(string) Decision", check),
    ("allowed", "Decision.() bool", |_, args| Ok(Value::Bool(decision(args)?.allowed))),
    ("reason", "Decision.() string", |_, args| Ok(Value::string(decision(args)?.reason.as_str()))),
    ("errored", "Decision.() bool", |_, args| Ok(Value::Bool(decision(args)?.error.is_some()))),
    ("error", "Decision.() string", |_, args| {
        Ok(Value::string(decision(args)?.error.clone().unwrap_or_default()))
    }),
];

const NARROWS: &str = "ResourceCheck.(string) ResourceCheck";

fn asked<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v Check<'a>, EvalError> {
    match args.first() {
        Some(Value::Opaque(Opaque::Check(check))) => Ok(check),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, EvalError> {
    let check = asked(args)?;
    match check.stage {
        Stage::Decision => Ok(&check.decision),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn named(args: &[Value<'_>], what: &str) -> Result<String, EvalError> {
    let name = text(args, 1)?;
    if name.trim().is_empty() {
        return Err(EvalError::new(format!("{what} must not be empty")));
    }
    Ok(name.to_string())
}

fn step<'a>(
    args: &[Value<'a>],
    from: Stage,
    to: Stage,
    change: impl FnOnce(&mut Attributes),
) -> Evaluated<'a> {
    let mut check = asked(args)?.clone();
    if check.stage != from {
        return Err(EvalError::no_such_overload());
    }
    check.stage = to;
    change(&mut check.attributes);
    Ok(Value::Opaque(Opaque::Check(Rc::new(check))))
}

fn narrow<'a>(args: &[Value<'a>], field: fn(&mut Attributes) -> &mut String) -> Evaluated<'a> {
    let to = text(args, 1)?.to_string();
    step(args, Stage::Resource, Stage::Resource, |asked| *field(asked) = to)
}

fn service_account<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (namespace, name) = (text(args, 1)?.to_string(), text(args, 2)?.to_string());
    let wrong = |what: &str, found: Vec<String>| {
        let all = found.join(", ");
        EvalError::new(format!("Invalid service account {what}: {all}"))
    };
    let found = k8s::names::is_dns1123_subdomain(&name);
    if !found.is_empty() {
        return Err(wrong("name", found));
    }
    let found = k8s::names::is_dns1123_label(&namespace);
    if !found.is_empty() {
        return Err(wrong("namespace", found));
    }
    step(args, Stage::Authorizer, Stage::Authorizer, |asked| {
        asked.service_account = Some((namespace, name));
    })
}

fn check<'a>(_: &mut Cx<'a, '_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut check = asked(args)?.clone();
    if !matches!(check.stage, Stage::Path | Stage::Resource) {
        return Err(EvalError::no_such_overload());
    }
    check.attributes.verb = text(args, 1)?.to_string();
    check.decision = check.authorizer.check(&check.attributes);
    check.stage = Stage::Decision;
    Ok(Value::Opaque(Opaque::Check(Rc::new(check))))
}
