//! What the RBAC kinds share.

use super::{
    children,
    field::{At, Errors},
    set_text,
};
use k8s::Object;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whose names are whose: the API groups that a binding leaves out.
pub(crate) fn default_binding(binding: &mut Object) {
    set_text(binding.map_mut("roleRef"), "apiGroup", GROUP);
    for subject in children(&mut binding.0, "subjects") {
        if matches!(subject.get("kind").and_then(|kind| kind.as_str()), Some("User" | "Group")) {
            set_text(subject, "apiGroup", GROUP);
        }
    }
}

pub(crate) fn validate_rules(rules: &At<'_, '_>, namespaced: bool, errors: &mut Errors) {
    for rule in rules.items() {
        let verbs = rule.field("verbs");
        if verbs.count() == 0 {
            errors.required(&verbs, "verbs must contain at least one value");
        }
        let (urls, groups) = (rule.field("nonResourceURLs"), rule.field("apiGroups"));
        let (resources, names) = (rule.field("resources"), rule.field("resourceNames"));
        if urls.count() > 0 {
            if namespaced {
                errors.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
            }
            if groups.count() + resources.count() + names.count() > 0 {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&urls, detail);
            }
            continue;
        }
        if groups.count() == 0 {
            errors.required(&groups, "resource rules must supply at least one api group");
        }
        if resources.count() == 0 {
            errors.required(&resources, "resource rules must supply at least one resource");
        }
    }
}

/// A binding names one role, for ever, and subjects that can exist.
pub(crate) fn validate_binding(
    new: &Object,
    old: Option<&Object>,
    role_kinds: &[&str],
    errors: &mut Errors,
) {
    let role = At::top(new, "roleRef");
    let group = role.field("apiGroup");
    if group.text() != GROUP {
        errors.not_supported(&group, &[GROUP]);
    }
    let kind = role.field("kind");
    if !role_kinds.contains(&kind.text()) {
        errors.not_supported(&kind, role_kinds);
    }
    errors.needs_text(&role.field("name"));
    for subject in At::top(new, "subjects").items() {
        let (kind, group) = (subject.field("kind"), subject.field("apiGroup"));
        errors.needs_text(&subject.field("name"));
        match kind.text() {
            "ServiceAccount" => {
                if !group.text().is_empty() {
                    errors.not_supported(&group, &[""]);
                }
                // In a RoleBinding it is the binding's own, if it says nothing.
                if new.namespace().is_empty() {
                    errors.needs_text(&subject.field("namespace"));
                }
            }
            "User" | "Group" if group.text() != GROUP => errors.not_supported(&group, &[GROUP]),
            "User" | "Group" => (),
            _ => errors.not_supported(&kind, &["ServiceAccount", "User", "Group"]),
        }
    }
    if old.is_some_and(|old| At::top(old, "roleRef").value() != role.value()) {
        errors.invalid(&role, "cannot change roleRef");
    }
}
