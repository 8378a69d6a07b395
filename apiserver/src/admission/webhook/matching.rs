//! Which webhooks a request concerns: by rules first, which cost nothing but looking, then by the
//! labels of its namespace and its object.

use super::{
    Part,
    config::{Hook, Hooks, Rule},
};
use crate::{
    admission::{Cx, Operation, policy},
    memo,
};
use k8s::{Object, Resource, Status};
use std::sync::Arc;

/// A webhook whose rules match, and in which version it wants to see the object.
#[derive(Clone)]
pub(in crate::admission) struct Invocation {
    pub(super) hook: Arc<Hook>,
    /// Its place among all webhooks, for audit annotations.
    pub(super) index: usize,
    pub(super) version: String,
}

/// The webhooks whose rules match, in the order of their configurations' names.
pub(in crate::admission) fn concerned(cx: &Cx<'_>, part: Part) -> Vec<Invocation> {
    let configurations = cx.view.range(part.space(), "");
    if configurations.is_empty() || is_exempt(cx) {
        return Vec::new();
    }
    let hooks = configurations.iter().map(|stored| memo::derived(stored, Hooks::of));
    let hooks = hooks.flat_map(|hooks| hooks.0.clone()).enumerate();
    let invocations = hooks.filter_map(|(index, hook)| {
        let version = version(cx, &hook)?.to_string();
        Some(Invocation { hook, index, version })
    });
    invocations.collect()
}

fn is_exempt(cx: &Cx<'_>) -> bool {
    cx.configures_admission()
        // Made by the server itself on behalf of a binding, which has been asked about.
        || (cx.operation == Operation::Update && cx.subresource == "binding")
}

/// The version the webhook is asked in: the request's, or another of the same kind where it takes
/// what is equivalent.
fn version<'a>(cx: &Cx<'a>, hook: &Hook) -> Option<&'a str> {
    if hook.rules.iter().any(|rule| rule.matches(cx, cx.version)) {
        return Some(cx.version);
    }
    if !hook.equivalent {
        return None;
    }
    let others = cx.kind.equivalents(cx.version);
    let found = |rule: &Rule| others.iter().find(|version| rule.matches(cx, version)).copied();
    hook.rules.iter().find_map(found)
}

fn takes(list: &[String], value: &str) -> bool {
    list.iter().any(|entry| entry == "*" || entry == value)
}

impl Rule {
    pub(in crate::admission) fn matches(&self, cx: &Cx<'_>, version: &str) -> bool {
        let namespaced = cx.kind.namespaced && !cx.namespace.is_empty();
        let scope = match self.scope.as_str() {
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => true,
        };
        let resource = |(resource, subresource): &(String, String)| {
            (resource == "*" || resource == cx.kind.plural)
                && (subresource == "*" || subresource == cx.subresource)
        };
        scope
            && takes(&self.operations, cx.operation.name())
            && takes(&self.groups, cx.kind.group)
            && takes(&self.versions, version)
            && self.resources.iter().any(resource)
    }
}

/// Whether the selectors match too.
pub(super) fn selected(cx: &Cx<'_>, hook: &Hook, object: Option<&Object>) -> Result<bool, Status> {
    let bad = |why: &String| Status::internal(format!("webhook {:?}: {why}", hook.name));
    let namespaces = hook.namespaces.as_ref().map_err(bad)?;
    if !namespaces.is_everything() && !of_namespace(cx, namespaces, object)? {
        return Ok(false);
    }
    let objects = hook.objects.as_ref().map_err(bad)?;
    Ok(objects.is_everything()
        || object.into_iter().chain(cx.old).any(|object| objects.matches_object(object)))
}

/// Whether its match conditions hold too.
pub(super) fn met(
    cx: &Cx<'_>,
    invocation: &Invocation,
    object: Option<&Object>,
) -> Result<bool, Status> {
    let hook = &invocation.hook;
    let met =
        policy::conditions_met(cx, &invocation.version, object, &hook.conditions, !hook.may_fail);
    met.map_err(|why| Status::forbidden(&cx.kind.resource(), cx.name, why))
}

pub(in crate::admission) fn of_namespace(
    cx: &Cx<'_>,
    selector: &k8s::selector::LabelSelector,
    object: Option<&Object>,
) -> Result<bool, Status> {
    let is_namespace = cx.kind.group.is_empty() && cx.kind.plural == "namespaces";
    if !is_namespace && (cx.namespace.is_empty() || !cx.kind.namespaced) {
        // What is in no namespace is never exempt by one.
        return Ok(true);
    }
    let writes = matches!(cx.operation, Operation::Create | Operation::Update);
    if is_namespace && writes && cx.subresource.is_empty() {
        return Ok(object.is_some_and(|object| selector.matches_object(object)));
    }
    let name = if is_namespace { cx.name } else { cx.namespace };
    match cx.view.object("namespaces", name) {
        Some(namespace) => Ok(selector.matches_object(&namespace)),
        None => Err(Status::not_found(&Resource::new("", "v1", "namespaces"), name)),
    }
}
