//! ClusterRole aggregation: a role with an `aggregationRule` has the rules of the roles it selects,
//! those of the first by name first.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use reconcile::{Context, Controller, Key, Plan, Root, Wake, World, Write, kinds, matches};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "clusterrole_aggregation",
    component: "clusterrole-aggregation-controller",
    root: Root::Each(kinds::CLUSTER_ROLES),
    // Any role may be a part of any other; there are some hundred.
    wakes: &[(kinds::CLUSTER_ROLES, Wake::All)],
    plan,
    ..Controller::BASE
};

fn plan(world: &World, key: &Key, _: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let Some(role) = world.get::<ClusterRole>(key) else { return plan };
    let Some(rule) = &role.aggregation_rule else { return plan };
    if role.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let mut parts: Vec<&ClusterRole> = world.list::<ClusterRole>().collect();
    parts.sort_by_key(|part| part.metadata.name.clone());
    let mut rules: Vec<PolicyRule> = Vec::new();
    for part in parts {
        let itself = part.metadata.name == role.metadata.name;
        let labels = part.metadata.labels.as_ref();
        let selectors = rule.cluster_role_selectors.iter().flatten();
        if itself || !selectors.into_iter().any(|selector| matches(selector, labels)) {
            continue;
        }
        for rule in part.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    let same = role.rules.as_deref().unwrap_or_default() == rules.as_slice();
    if !same {
        plan.write(Write::patch(role, &ClusterRole { rules: Some(rules), ..role.clone() }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::CONTROLLER;
    use crate::testing::plan;

    const ROLES: &str = r#"apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {part: "yes"}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: b, labels: {part: "yes"}}
rules: [{verbs: [get], apiGroups: [""], resources: [pods]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: a, labels: {part: "yes"}}
rules: [{verbs: [get], apiGroups: [""], resources: [nodes]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: c}
rules: [{verbs: ["*"], apiGroups: [""], resources: [secrets]}]
"#;

    #[test]
    fn a_role_has_the_rules_of_its_parts_and_no_others() {
        let text = plan(CONTROLLER, ROLES, "", "all");
        assert!(text.starts_with("patch clusterroles.rbac.authorization.k8s.io all"), "{text}");
        let (nodes, pods) = (text.find("nodes"), text.find("pods"));
        assert!(nodes.is_some() && nodes < pods && !text.contains("secrets"), "{text}");
        let settled = ROLES.replace(
            "metadata: {name: all}",
            r#"metadata: {name: all}
rules: [{verbs: [get], apiGroups: [""], resources: [nodes]}, {verbs: [get], apiGroups: [""], resources: [pods]}]"#,
        );
        assert_eq!(plan(CONTROLLER, &settled, "", "all"), "nothing\n");
        assert_eq!(plan(CONTROLLER, ROLES, "", "a"), "nothing\n");
    }
}
