//! Label selectors of typed objects.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// Whether `labels` satisfy every part of `selector`; an empty selector matches everything.
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let exact = selector.match_labels.iter().flatten();
    let all_equal = exact.into_iter().all(|(key, want)| value(key) == Some(want));
    let mut requirements = selector.match_expressions.iter().flatten();
    all_equal && requirements.all(|requirement| requirement_matches(requirement, labels))
}

/// `In`, `NotIn`, `Exists`, `DoesNotExist`; an unknown operator matches nothing.
pub fn requirement_matches(
    requirement: &LabelSelectorRequirement,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let value = labels.and_then(|labels| labels.get(&requirement.key));
    let listed = || {
        let values = requirement.values.as_deref().unwrap_or_default();
        value.is_some_and(|value| values.contains(value))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirement(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
        LabelSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: Some(values.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn each_operator() {
        let labels = BTreeMap::from([("app".to_string(), "web".to_string())]);
        let holds = |key, operator, values: &[&str]| {
            requirement_matches(&requirement(key, operator, values), Some(&labels))
        };
        assert!(holds("app", "In", &["web", "db"]));
        assert!(!holds("app", "In", &["db"]));
        assert!(!holds("tier", "In", &["web"]));
        assert!(holds("app", "NotIn", &["db"]));
        assert!(holds("tier", "NotIn", &["db"]), "an absent key is not in any list");
        assert!(!holds("app", "NotIn", &["web"]));
        assert!(holds("app", "Exists", &[]) && !holds("tier", "Exists", &[]));
        assert!(holds("tier", "DoesNotExist", &[]) && !holds("app", "DoesNotExist", &[]));
        assert!(!holds("app", "Resembles", &["web"]));
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let labels = BTreeMap::from([("app".to_string(), "web".to_string())]);
        let mut selector = LabelSelector::default();
        assert!(matches(&selector, None), "the empty selector selects everything");
        selector.match_labels = Some(labels.clone());
        assert!(matches(&selector, Some(&labels)) && !matches(&selector, None));
        selector.match_expressions = Some(vec![requirement("tier", "Exists", &[])]);
        assert!(!matches(&selector, Some(&labels)));
    }
}
