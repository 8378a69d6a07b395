//! Label requirements, parsed once from the API's selectors and matched many times.

use k8s_openapi::api::core::v1::NodeSelectorRequirement;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::{BTreeMap, BTreeSet};

pub type Labels = BTreeMap<String, String>;

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(BTreeSet<String>),
    /// Also true where the label is absent.
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
    /// An operator or operand that validation should have refused.
    Never,
}

impl Requirement {
    pub fn equals(key: &str, value: &str) -> Requirement {
        Requirement { key: key.into(), test: Test::In([value.to_string()].into()) }
    }

    pub fn differs(key: &str, value: &str) -> Requirement {
        Requirement { key: key.into(), test: Test::NotIn([value.to_string()].into()) }
    }

    fn new(key: &str, operator: &str, values: Option<&[String]>) -> Requirement {
        let values = values.unwrap_or_default();
        let number = || values.first().and_then(|value| value.parse().ok());
        let test = match operator {
            "In" => Test::In(values.iter().cloned().collect()),
            "NotIn" => Test::NotIn(values.iter().cloned().collect()),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::Absent,
            "Gt" => number().map_or(Test::Never, Test::Above),
            "Lt" => number().map_or(Test::Never, Test::Below),
            _ => Test::Never,
        };
        Requirement { key: key.into(), test }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.allows(labels.get(&self.key).map(String::as_str))
    }

    /// Whether a label with this value (`None`: absent) meets the condition.
    pub fn allows(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Above(bound) => number().is_some_and(|number| number > *bound),
            Test::Below(bound) => number().is_some_and(|number| number < *bound),
            Test::Never => false,
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }
}

impl From<&NodeSelectorRequirement> for Requirement {
    fn from(from: &NodeSelectorRequirement) -> Requirement {
        Requirement::new(&from.key, &from.operator, from.values.as_deref())
    }
}

impl From<&LabelSelectorRequirement> for Requirement {
    fn from(from: &LabelSelectorRequirement) -> Requirement {
        Requirement::new(&from.key, &from.operator, from.values.as_deref())
    }
}

/// All of its requirements hold; with none it matches every object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Matches no object, as an absent `labelSelector` does.
    pub fn nothing() -> Selector {
        Selector(vec![Requirement { key: String::new(), test: Test::Never }])
    }

    pub fn of_labels(labels: &Labels) -> Selector {
        Selector(labels.iter().map(|(key, value)| Requirement::equals(key, value)).collect())
    }

    pub fn of(selector: Option<&LabelSelector>) -> Selector {
        let Some(selector) = selector else { return Selector::nothing() };
        let labels = selector.match_labels.iter().flatten();
        let mut all: Vec<_> = labels.map(|(key, value)| Requirement::equals(key, value)).collect();
        all.extend(selector.match_expressions.iter().flatten().map(Requirement::from));
        Selector(all)
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }
}
