//! Which names of a definition are accepted, and its conditions: a function of all definitions of a
//! group (upstream's naming, establishing and API-approval controllers).

use super::definition::condition;
use crate::pipeline::meta;
use k8s::Object;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const APPROVAL: &str = "api-approved.kubernetes.io";

/// Names that belong to another definition of the group already.
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// Those that the definitions besides `own` have had accepted.
    pub(super) fn by<'a>(all: impl Iterator<Item = &'a Object>, own: &Object) -> Taken {
        let mut taken = Taken { resources: BTreeSet::new(), kinds: BTreeSet::new() };
        let group = own.str_at("/spec/group");
        for other in all {
            if other.str_at("/spec/group") != group || other.name() == own.name() {
                continue;
            }
            let accepted = other.at("/status/acceptedNames");
            let text = |field: &str| text(accepted, field).to_string();
            taken.resources.extend([text("plural"), text("singular")]);
            taken.resources.extend(list(accepted, "shortNames").map(str::to_string));
            taken.kinds.extend([text("kind"), text("listKind")]);
        }
        taken.resources.remove("");
        taken.kinds.remove("");
        taken
    }
}

fn text<'a>(names: Option<&'a Value>, field: &str) -> &'a str {
    names.and_then(|names| names.get(field)?.as_str()).unwrap_or_default()
}

fn list<'a>(names: Option<&'a Value>, field: &str) -> impl Iterator<Item = &'a str> {
    let list = names.and_then(|names| names.get(field)?.as_array());
    list.into_iter().flatten().filter_map(Value::as_str)
}

/// The definition with its status as it should be; `None` if it is so.
pub(super) fn settled(definition: &Object, taken: &Taken) -> Option<Object> {
    let mut new = definition.clone();
    let (names, conflict) = accepted(definition, taken);
    new.map_mut("status").insert("acceptedNames".into(), Value::Object(names));
    let accepted = conflict.is_none();
    let (reason, message) = conflict.unwrap_or(("NoConflicts", "no conflicts found".to_string()));
    set(&mut new, "NamesAccepted", accepted, reason, &message);
    if condition(definition, "Established") != Some("True") {
        if accepted {
            let message = "the initial names have been accepted";
            set(&mut new, "Established", true, "InitialNamesAccepted", message);
        } else {
            set(&mut new, "Established", false, "NotAccepted", "not all names are accepted");
        }
    }
    approve(&mut new);
    (new != *definition).then_some(new)
}

/// The names that are accepted now, and why some are not.
fn accepted(
    definition: &Object,
    taken: &Taken,
) -> (Map<String, Value>, Option<(&'static str, String)>) {
    let (wanted, had) = (definition.at("/spec/names"), definition.at("/status/acceptedNames"));
    let mut names = had.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut conflict = None;
    for (field, reason) in [
        ("plural", "PluralConflict"),
        ("singular", "SingularConflict"),
        ("shortNames", "ShortNamesConflict"),
        ("kind", "KindConflict"),
        ("listKind", "ListKindConflict"),
    ] {
        let set = if field.ends_with("ind") { &taken.kinds } else { &taken.resources };
        let own =
            |name: &&str| text(had, field) == *name || list(had, field).any(|known| known == *name);
        let asked: Vec<&str> = match field {
            "shortNames" => list(wanted, field).collect(),
            field => vec![text(wanted, field)],
        };
        let clashes: Vec<String> = asked
            .iter()
            .filter(|name| !own(name) && set.contains(**name))
            .map(|name| format!("{name:?} is already in use"))
            .collect();
        if clashes.is_empty() {
            copy(wanted, field, &mut names);
        } else {
            let message = match clashes.as_slice() {
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            conflict = Some((reason, message));
        }
    }
    copy(wanted, "categories", &mut names);
    (names, conflict)
}

fn copy(wanted: Option<&Value>, field: &str, names: &mut Map<String, Value>) {
    match wanted.and_then(|wanted| wanted.get(field)) {
        Some(value) => names.insert(field.into(), value.clone()),
        None => names.remove(field),
    };
}

/// Sets a condition; its time changes with its status only.
pub(crate) fn set(definition: &mut Object, ty: &str, status: bool, reason: &str, message: &str) {
    let status = if status { "True" } else { "False" };
    let conditions = definition.map_mut("status").entry("conditions").or_insert(Value::Null);
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return };
    let found = conditions.iter_mut().find(|condition| condition["type"] == ty);
    let Some(condition) = found else {
        conditions.push(json!({
            "type": ty, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": meta::now(),
        }));
        return;
    };
    if condition["status"] != status {
        condition["lastTransitionTime"] = meta::now().into();
    }
    condition["status"] = status.into();
    condition["reason"] = reason.into();
    condition["message"] = message.into();
}

/// True for groups that only Kubernetes itself may name kinds in.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")))
}

/// What the approval annotation of a protected group says: the reason of its condition, and why.
pub(crate) fn approval(definition: &Object) -> (&'static str, String) {
    let said = definition.annotation(APPROVAL).unwrap_or_default();
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let need = format!("protected groups must have approval annotation {APPROVAL:?}");
    if said.is_empty() {
        return ("MissingAnnotation", format!("{need}, {see}"));
    }
    if said.starts_with("unapproved") {
        return ("UnapprovedAnnotation", format!("not approved: {said:?}"));
    }
    match url::Url::parse(said) {
        Ok(url) if url.has_host() => ("ApprovedAnnotation", format!("approved in {said}")),
        _ => {
            let why =
                format!("{need} with either a URL or a reason starting with \"unapproved\", {see}");
            ("InvalidAnnotation", why)
        }
    }
}

fn approve(definition: &mut Object) {
    if !is_protected(definition.str_at("/spec/group")) {
        return;
    }
    let (reason, message) = approval(definition);
    let approved = reason == "ApprovedAnnotation";
    set(definition, "KubernetesAPIApprovalPolicyConformant", approved, reason, &message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, short: &str) -> Object {
        Object::from_value(json!({
            "metadata": { "name": format!("{plural}.example.com") },
            "spec": { "group": "example.com", "names": {
                "plural": plural, "singular": plural, "kind": "Foo", "listKind": "FooList",
                "shortNames": [short],
            } },
        }))
        .expect("an object")
    }

    #[test]
    fn free_names_are_accepted_and_the_kind_is_established() {
        let first = definition("foos", "f");
        let settled_first = settled(&first, &Taken::by([].into_iter(), &first)).expect("changed");
        assert_eq!(condition(&settled_first, "Established"), Some("True"));
        assert_eq!(settled_first.str_at("/status/acceptedNames/kind"), "Foo");
        let none = Taken::by([].into_iter(), &first);
        assert_eq!(settled(&settled_first, &none), None, "nothing is left to do");
    }

    #[test]
    fn names_of_another_are_not_accepted_until_they_are_free() {
        let first = definition("foos", "f");
        let first = settled(&first, &Taken::by([].into_iter(), &first)).expect("changed");
        let second = definition("bars", "f");
        let taken = Taken::by([&first].into_iter(), &second);
        let refused = settled(&second, &taken).expect("changed");
        assert_eq!(condition(&refused, "NamesAccepted"), Some("False"));
        assert_eq!(condition(&refused, "Established"), Some("False"));
        assert_eq!(refused.str_at("/status/acceptedNames/plural"), "bars");
        assert_eq!(refused.str_at("/status/acceptedNames/kind"), "");
        let free = Taken::by([].into_iter(), &refused);
        let accepted = settled(&refused, &free).expect("changed");
        assert_eq!(condition(&accepted, "Established"), Some("True"));
    }
}
