//! One ResourceQuota as a value: what it limits, what is used of it, and whom it concerns.

use super::usage;
use crate::admission::resources::{List, list};
use k8s::{
    Object,
    selector::{Operator, Requirement},
};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) struct Quota {
    pub(super) name: String,
    /// What the user wants limited.
    pub(super) wanted: List,
    /// What is limited: `status.hard`.
    pub(super) hard: List,
    pub(super) used: List,
    scopes: Vec<Scope>,
}

/// One of `spec.scopes` or of `spec.scopeSelector.matchExpressions`.
struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl Quota {
    pub(super) fn of(object: &Object) -> Quota {
        let scopes = object.at("/spec/scopes").and_then(Value::as_array).into_iter().flatten();
        let plain = scopes.filter_map(Value::as_str).map(|name| Scope {
            name: name.to_string(),
            operator: "Exists".to_string(),
            values: Vec::new(),
        });
        let selector = object.at("/spec/scopeSelector/matchExpressions").and_then(Value::as_array);
        let text = |value: &Value, field: &str| {
            value.get(field).and_then(Value::as_str).unwrap_or_default().to_string()
        };
        let selected = selector.into_iter().flatten().map(|one| Scope {
            name: text(one, "scopeName"),
            operator: text(one, "operator"),
            values: one
                .get("values")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|value| value.as_str().map(str::to_string))
                .collect(),
        });
        Quota {
            name: object.name().to_string(),
            wanted: list(object.at("/spec/hard")),
            hard: list(object.at("/status/hard")),
            used: list(object.at("/status/used")),
            scopes: plain.chain(selected).collect(),
        }
    }

    /// What it limits of objects in `space`, of the names in `hard`.
    pub(super) fn tracked<'a>(hard: &'a List, space: &str) -> BTreeSet<&'a str> {
        hard.keys().map(String::as_str).filter(|name| usage::tracks(space, name)).collect()
    }

    /// Whether it has all of its scopes; without any, everything is in it.
    pub(super) fn covers(&self, space: &str, object: &Object) -> bool {
        self.scopes.iter().all(|scope| scope.holds(space, object))
    }

    pub(super) fn has_scopes(&self) -> bool {
        !self.scopes.is_empty()
    }
}

impl Scope {
    fn holds(&self, space: &str, object: &Object) -> bool {
        match (space, self.name.as_str()) {
            ("pods", "Terminating") => is_terminating(object),
            ("pods", "NotTerminating") => !is_terminating(object),
            ("pods", "BestEffort") => is_best_effort(object),
            ("pods", "NotBestEffort") => !is_best_effort(object),
            ("pods", "PriorityClass") => self.selects(object.str_at("/spec/priorityClassName")),
            ("pods", "CrossNamespacePodAffinity") => is_affine_across_namespaces(object),
            ("persistentvolumeclaims", "VolumeAttributesClass") => {
                let named = ["/spec", "/status"].into_iter().flat_map(|part| {
                    [
                        object.str_at(&format!("{part}/volumeAttributesClassName")),
                        object.str_at(&format!("{part}/currentVolumeAttributesClassName")),
                    ]
                });
                let named: BTreeSet<&str> = named.filter(|name| !name.is_empty()).collect();
                match named.is_empty() {
                    true => self.selects(""),
                    false => named.into_iter().any(|name| self.selects(name)),
                }
            }
            _ => false,
        }
    }

    fn selects(&self, name: &str) -> bool {
        let operator = match self.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => Operator::Exists,
        };
        let requirement = Requirement::new("class", operator, self.values.clone());
        let value = Some(name).filter(|name| !name.is_empty());
        requirement.is_ok_and(|requirement| requirement.matches(value))
    }
}

fn is_terminating(pod: &Object) -> bool {
    pod.int_at("/spec/activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Object) -> bool {
    let spoken = ["/spec/resources/requests", "/spec/resources/limits"];
    let spoken = spoken.iter().any(|pointer| {
        let amounts = list(pod.at(pointer));
        amounts
            .iter()
            .any(|(name, amount)| matches!(name.as_str(), "cpu" | "memory") && !amount.is_zero())
    });
    !spoken && crate::kinds::common::pod_spec::qos_class(pod) == "BestEffort"
}

fn is_affine_across_namespaces(pod: &Object) -> bool {
    let crosses = |term: &Value| {
        let names = term.get("namespaces").and_then(Value::as_array);
        names.is_some_and(|names| !names.is_empty())
            || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |field: &str| {
            let list = pod.at(&format!("/spec/affinity/{kind}/{field}"));
            list.and_then(Value::as_array).into_iter().flatten()
        };
        terms("requiredDuringSchedulingIgnoredDuringExecution").any(crosses)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .filter_map(|term| term.get("podAffinityTerm"))
                .any(crosses)
    })
}
