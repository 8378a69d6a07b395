//! Nobody may give what they do not have: checked on every write of an RBAC object.

use super::{
    Attributes, Decision,
    rbac::{self, Rule},
};
use crate::{
    identity::{Identity, SYSTEM_MASTERS},
    view::View,
};
use k8s::{Object, Resource, Status};
use std::collections::{BTreeMap, BTreeSet};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a Role or ClusterRole with rules that `user` neither has nor may `escalate` to, and a
/// binding to a role whose rules `user` neither has nor may `bind`. Anything else passes.
pub(crate) fn check(
    view: &dyn View,
    user: &Identity,
    resource: &Resource,
    new: &Object,
    old: Option<&Object>,
) -> Result<(), Status> {
    if resource.group != GROUP || user.in_group(SYSTEM_MASTERS) {
        return Ok(());
    }
    let namespace = new.namespace();
    let unchanged = |field: &str| old.is_some_and(|old| old.0.get(field) == new.0.get(field));
    let asked = |verb: &'static str, resource: &'static str, name: &str| {
        let attributes = Attributes {
            user,
            verb,
            group: GROUP,
            version: "v1",
            resource,
            subresource: "",
            namespace,
            name,
            field_selector: "",
            path: "",
        };
        rbac::authorize(view, &attributes) == Decision::Allow
    };
    let wanted = match &*resource.plural {
        plural @ ("roles" | "clusterroles") => {
            if unchanged("rules") && unchanged("aggregationRule") {
                return Ok(());
            }
            let plural = if plural == "roles" { "roles" } else { "clusterroles" };
            if asked("escalate", plural, new.name()) {
                return Ok(());
            }
            let mut rules = Rule::list(new);
            if new.0.contains_key("aggregationRule") {
                rules.push(all_resources());
            }
            rules
        }
        "rolebindings" | "clusterrolebindings" => {
            if unchanged("subjects") && unchanged("roleRef") {
                return Ok(());
            }
            let cluster = new.str_at("/roleRef/kind") == "ClusterRole";
            let plural = if cluster { "clusterroles" } else { "roles" };
            let role = new.str_at("/roleRef/name");
            if asked("bind", plural, role) {
                return Ok(());
            }
            rbac::role_rules(view, cluster, namespace, role)
                .ok_or_else(|| Status::not_found(&Resource::new(GROUP, "v1", plural), role))?
        }
        _ => return Ok(()),
    };
    match missing(&rbac::rules_of(view, user, namespace), &wanted) {
        lines if lines.is_empty() => Ok(()),
        lines => Err(Status::forbidden(resource, new.name(), refusal(user, &lines))),
    }
}

/// Whoever makes a role of others could be given anything by them.
fn all_resources() -> Rule {
    let star = || vec!["*".to_string()];
    Rule { verbs: star(), api_groups: star(), resources: star(), ..Rule::default() }
}

fn refusal(user: &Identity, lines: &[String]) -> String {
    format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.user,
        quoted(&user.groups),
        lines.join("\n")
    )
}

/// `["a" "b"]`
fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// The parts of `wanted` that no rule of `owned` covers, verbs of the same thing on one line.
fn missing(owned: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let mut verbs: BTreeMap<Rule, BTreeSet<String>> = BTreeMap::new();
    for mut atom in wanted.iter().flat_map(Rule::atoms) {
        if !owned.iter().any(|rule| rule.covers(&atom)) {
            let atom_verbs = std::mem::take(&mut atom.verbs);
            verbs.entry(atom).or_default().extend(atom_verbs);
        }
    }
    verbs
        .into_iter()
        .map(|(rule, verbs)| {
            let verbs: Vec<String> = verbs.into_iter().collect();
            let fields = [
                ("APIGroups", &rule.api_groups),
                ("Resources", &rule.resources),
                ("NonResourceURLs", &rule.non_resource_urls),
                ("ResourceNames", &rule.resource_names),
                ("Verbs", &verbs),
            ];
            let shown = fields.iter().filter(|(_, list)| !list.is_empty());
            let shown: Vec<String> =
                shown.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
            format!("{{{}}}", shown.join(", "))
        })
        .collect()
}
