//! Selectors of labels.

use super::parse;
use crate::text::go_quote;
use crate::{FieldError, Object, names};
use serde_json::{Map, Value};
use std::fmt;

/// How a label relates to the values of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    /// Both sides are integers.
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, each once.
    values: Vec<String>,
}

impl Requirement {
    /// Checks key, number of values and values; the text is upstream's.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let mut wrong: Vec<String> = Vec::new();
        let listed = || Value::from(values.clone());
        let mut refuse = |path: &str, value: Value, why: &str| {
            wrong.push(FieldError::invalid(path, value, why).to_string());
        };
        let key_errors = names::is_qualified_name(key);
        if !key_errors.is_empty() {
            refuse("key", key.into(), &key_errors.join("; "));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                refuse(
                    "values",
                    listed(),
                    "for 'in', 'notin' operators, values set can't be empty",
                );
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals
                if values.len() != 1 =>
            {
                refuse("values", listed(), "exact-match compatibility requires one single value");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                let why = "values set must be empty for exists and does not exist";
                refuse("values", listed(), why);
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    let why = "for 'Gt', 'Lt' operators, exactly one value is required";
                    refuse("values", listed(), why);
                }
                for (index, value) in values.iter().enumerate() {
                    if value.parse::<i64>().is_err() {
                        let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                        refuse(&format!("values[{index}]"), value.as_str().into(), why);
                    }
                }
            }
            _ => {}
        }
        for (index, value) in values.iter().enumerate() {
            let errors = names::is_label_value(value);
            if !errors.is_empty() {
                let path = format!("values[{index}][{key}]");
                refuse(&path, value.as_str().into(), &errors.join("; "));
            }
        }
        match wrong.as_slice() {
            [] => Ok(Requirement { key: key.to_string(), operator, values }),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// `value` is that of the label of this key, if there is one.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|listed| listed == value);
        let compare = |holds: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|bound| bound.parse().ok());
            let value = value.and_then(|value| value.parse().ok());
            bound.zip(value).is_some_and(|(bound, value)| holds(value, bound))
        };
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(|value, bound| value > bound),
            Operator::LessThan => compare(|value, bound| value < bound),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// All requirements hold; or nothing is selected at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// By key.
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// Selects no object: an absent `metav1.LabelSelector`.
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    pub fn new(mut requirements: Vec<Requirement>) -> LabelSelector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }

    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`; empty selects everything.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        parse::labels(text).map(LabelSelector::new)
    }

    /// Each of the labels must be there with its value, as in a Service's selector. An empty map
    /// selects everything. Values are not checked.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let requirement = |(key, value): (&str, &str)| Requirement {
            key: key.to_string(),
            operator: Operator::Equals,
            values: vec![value.to_string()],
        };
        LabelSelector::new(labels.into_iter().map(requirement).collect())
    }

    /// Reads a `metav1.LabelSelector`; `null` selects nothing, `{}` everything.
    pub fn from_value(value: &Value) -> Result<LabelSelector, String> {
        let Value::Object(selector) = value else {
            return Ok(LabelSelector::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in members(selector, "matchLabels") {
            let value = value.as_str().unwrap_or_default().to_string();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in entries(selector, "matchExpressions") {
            let (key, operator, values) = parts(expression);
            let operator = match operator {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let other = go_quote(other);
                    return Err(format!("{other} is not a valid label selector operator"));
                }
            };
            let mut values: Vec<String> = values.into_iter().map(String::from).collect();
            values.sort();
            values.dedup();
            requirements.push(Requirement::new(key, operator, values)?);
        }
        Ok(LabelSelector::new(requirements))
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// True if it selects every object.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// `lookup` gives the value of a label.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|one| one.matches(lookup(&one.key)))
    }

    pub fn matches_object(&self, object: &Object) -> bool {
        self.matches(|key| object.label(key))
    }

    /// `labels` is a JSON object of strings; anything else has no labels.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        self.matches(|key| labels.get(key).and_then(Value::as_str))
    }

    pub fn matches_map(&self, labels: &std::collections::BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl std::str::FromStr for LabelSelector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        LabelSelector::parse(text)
    }
}

/// Everything wrong with a `metav1.LabelSelector` at `path`.
pub fn validate_selector(selector: &Value, path: &str) -> Vec<FieldError> {
    let Value::Object(selector) = selector else {
        return Vec::new();
    };
    let labels = selector.get("matchLabels").unwrap_or(&Value::Null);
    let mut errors = validate_labels(labels, &format!("{path}.matchLabels"));
    for (index, expression) in entries(selector, "matchExpressions").enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let (key, operator, values) = parts(expression);
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(FieldError::invalid(
                format!("{path}.operator"),
                other.into(),
                "not a valid selector operator",
            )),
        }
        for why in names::is_qualified_name(key) {
            errors.push(FieldError::invalid(format!("{path}.key"), key.into(), why));
        }
        for (index, value) in values.into_iter().enumerate() {
            for why in names::is_label_value(value) {
                let path = format!("{path}.values[{index}]");
                errors.push(FieldError::invalid(path, value.into(), why));
            }
        }
    }
    errors
}

/// Everything wrong with a map of labels at `path`.
pub fn validate_labels(labels: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        for why in names::is_qualified_name(key) {
            errors.push(FieldError::invalid(path, key.as_str().into(), why));
        }
        for why in names::is_label_value(value.as_str().unwrap_or_default()) {
            errors.push(FieldError::invalid(path, value.clone(), why));
        }
    }
    errors
}

fn members<'a>(
    map: &'a Map<String, Value>,
    field: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    map.get(field).and_then(Value::as_object).into_iter().flatten()
}

fn entries<'a>(map: &'a Map<String, Value>, field: &str) -> impl Iterator<Item = &'a Value> {
    map.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn parts(expression: &Value) -> (&str, &str, Vec<&str>) {
    let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
    let values = expression.get("values").and_then(Value::as_array);
    let values = values.into_iter().flatten().filter_map(Value::as_str);
    (text("key"), text("operator"), values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_whole_grammar_is_read() {
        let texts = [
            "",
            "a",
            "!a",
            "! a",
            "a=b",
            "a==b",
            "a!=b",
            "a=",
            "a=,b",
            "a in (b, c)",
            "a notin (c,b,c)",
            "a in (,)",
            "a in ()",
            "a in (b,,c)",
            "x.y/z>1,b<5",
            "b,a , !c",
            "in in (in,notin)",
            "notin",
            " a = b ",
        ];
        let printed: Vec<String> = texts
            .iter()
            .map(|text| format!("{text:?} -> {}", LabelSelector::parse(text).unwrap()))
            .collect();
        insta::assert_snapshot!(printed.join("\n"));
    }

    #[test]
    fn refusals_have_the_words_of_upstream() {
        let texts = [
            "a b",
            "a=b c",
            "=b",
            ",a",
            "a,",
            "a,,b",
            "a in b",
            "a in (b",
            "a in (b c)",
            "a in (b=c)",
            "a=!b",
            "a!b",
            "!a=b",
            "a>b",
            "a>1 2",
            "-a=b",
            "a=-b",
            "a in (-b,ok)",
            "a/b/c",
            "(a)",
            "!!a",
        ];
        let printed: Vec<String> = texts
            .iter()
            .map(|text| format!("{text:?} -> {}", LabelSelector::parse(text).unwrap_err()))
            .collect();
        insta::assert_snapshot!(printed.join("\n"));
    }

    #[test]
    fn selection_is_that_of_upstream() {
        let labels = json!({"app": "web", "n": "5", "e": ""});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app!=web", false),
            ("x!=web", true),
            ("app in (a,web)", true),
            ("x notin (a)", true),
            ("app notin (web)", false),
            ("app", true),
            ("!app", false),
            ("!x", true),
            ("n>4", true),
            ("n<5", false),
            ("app>4", false),
            ("e=", true),
            ("x=", false),
            ("app=web,n=6", false),
        ];
        for (text, wanted) in cases {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches_labels(&labels), wanted, "{text}");
        }
    }

    #[test]
    fn objects_hold_selectors() {
        assert_eq!(LabelSelector::from_value(&Value::Null), Ok(LabelSelector::nothing()));
        assert!(!LabelSelector::nothing().matches(|_| Some("x")));
        assert!(LabelSelector::from_value(&json!({})).unwrap().is_everything());
        let selector = json!({
            "matchLabels": {"z": "1", "b": "2"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["y", "x"]},
                {"key": "c", "operator": "Exists"},
            ],
        });
        let read = LabelSelector::from_value(&selector).unwrap();
        assert_eq!(read.to_string(), "a in (x,y),b=2,c,z=1");
        assert_eq!(validate_selector(&selector, "spec.selector"), []);
        let service = LabelSelector::from_labels([("b", "2"), ("a", "1")]);
        assert_eq!(service.to_string(), "a=1,b=2");
    }

    #[test]
    fn wrong_selectors_of_objects_name_the_field() {
        let selector = json!({
            "matchLabels": {"-a": "b", "c": "-d"},
            "matchExpressions": [
                {"key": "a", "operator": "In"},
                {"key": "a", "operator": "Exists", "values": ["x"]},
                {"key": "a", "operator": "Equals", "values": ["-x"]},
                {"operator": "Exists"},
            ],
        });
        let errors = validate_selector(&selector, "spec.selector");
        let lines: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        insta::assert_snapshot!(lines.join("\n"));
        let error = LabelSelector::from_value(&json!({"matchExpressions": [{"operator": "Is"}]}));
        assert_eq!(error.unwrap_err(), "\"Is\" is not a valid label selector operator");
    }

    proptest! {
        #[test]
        fn printing_and_reading_is_the_same_selector(
            text in "([a-c]{1,2}(=|==|!=| in | notin |>|<)?(\\(?[a-c1,]{0,4}\\)?)?,?){1,3}"
        ) {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}|[a-b=!(),<> in]{0,20}") {
            let _ = LabelSelector::parse(&text).map(|selector| selector.matches(|_| Some("1")));
        }
    }
}
