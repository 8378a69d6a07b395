//! Which requests a policy or a binding is about (`matchConstraints`, `matchResources`).

use crate::admission::{
    Cx, Operation,
    webhook::{Rule, of_namespace},
};
use k8s::{Object, Status, selector::LabelSelector};
use serde_json::Value as Json;

pub(super) struct Selection {
    rules: Vec<Named>,
    excluded: Vec<Named>,
    /// `matchPolicy: Equivalent`.
    equivalent: bool,
    /// What is wrong with a selector lets the policy fail.
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
}

/// A rule, perhaps for some names only.
struct Named {
    rule: Rule,
    names: Vec<String>,
}

impl Named {
    fn of(rule: &Json) -> Named {
        let names = rule.get("resourceNames").and_then(Json::as_array).into_iter().flatten();
        Named {
            rule: Rule::of(rule),
            names: names.filter_map(|name| name.as_str().map(str::to_string)).collect(),
        }
    }

    fn matches(&self, cx: &Cx<'_>, version: &str) -> bool {
        let named = self.names.is_empty() || self.names.iter().any(|name| name == cx.name);
        named && self.rule.matches(cx, version)
    }
}

impl Selection {
    pub(super) fn of(value: &Json) -> Selection {
        let selector = |field: &str| match value.get(field).filter(|value| !value.is_null()) {
            Some(selector) => LabelSelector::from_value(selector),
            None => Ok(LabelSelector::everything()),
        };
        let rules = |field: &str| {
            let rules = value.get(field).and_then(Json::as_array).into_iter().flatten();
            rules.map(Named::of).collect()
        };
        Selection {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            equivalent: value.get("matchPolicy").and_then(Json::as_str) != Some("Exact"),
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The version in which the policy wants to see the object; `None`: it is not concerned.
    pub(super) fn version<'a>(
        &self,
        cx: &Cx<'a>,
        object: &Object,
    ) -> Result<Option<&'a str>, Outcome> {
        if !self.selected(cx, object)? || self.by(cx, &self.excluded).is_some() {
            return Ok(None);
        }
        if self.rules.is_empty() {
            return Ok(Some(cx.version));
        }
        Ok(self.by(cx, &self.rules))
    }

    fn by<'a>(&self, cx: &Cx<'a>, rules: &[Named]) -> Option<&'a str> {
        if rules.iter().any(|rule| rule.matches(cx, cx.version)) {
            return Some(cx.version);
        }
        if !self.equivalent {
            return None;
        }
        let others = cx.kind.equivalents(cx.version);
        let found = |rule: &Named| others.iter().find(|version| rule.matches(cx, version)).copied();
        rules.iter().find_map(found)
    }

    fn selected(&self, cx: &Cx<'_>, object: &Object) -> Result<bool, Outcome> {
        let namespaces = self.namespaces.as_ref().map_err(|why| Outcome::Broken(why.clone()))?;
        let deletes = cx.operation == Operation::Delete;
        let new = Some(object).filter(|_| !deletes);
        if !namespaces.is_everything()
            && !of_namespace(cx, namespaces, new).map_err(Outcome::Refused)?
        {
            return Ok(false);
        }
        let objects = self.objects.as_ref().map_err(|why| Outcome::Broken(why.clone()))?;
        Ok(objects.is_everything()
            || new.into_iter().chain(cx.old).any(|object| objects.matches_object(object)))
    }
}

/// Why nothing can be said.
pub(super) enum Outcome {
    /// The policy is not as it should be: its failure policy decides.
    Broken(String),
    /// The request cannot be answered.
    Refused(Status),
}
