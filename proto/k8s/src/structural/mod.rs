//! The schemas of CustomResourceDefinitions (`openAPIV3Schema`, structural in the sense of
//! KEP-1904) as a tree that pruning, defaulting, validation and CEL rules walk, and their
//! translation into the [`Schema`](crate::schema::Schema) that everything generic walks.
//!
//! Bounded by construction: a schema is JSON and nests as deep as JSON may; no reference leads
//! back up; patterns are compiled once and match in linear time.

mod check;
mod default;
mod fieldpath;
mod format;
mod lists;
mod lower;
mod prune;
mod validate;

pub use check::check;
pub use default::default;
pub use fieldpath::FieldPath;
pub use format::is_known as is_known_format;
pub use lists::{Counterparts, unique_errors};
pub use prune::{prune, prune_nulls};
pub use validate::{Target, validate};

use crate::schema::ListType;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// What `type` says; `Any` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ty {
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Ty {
    fn read(name: &str) -> Ty {
        match name {
            "object" => Ty::Object,
            "array" => Ty::Array,
            "string" => Ty::String,
            "integer" => Ty::Integer,
            "number" => Ty::Number,
            "boolean" => Ty::Boolean,
            _ => Ty::Any,
        }
    }

    /// As the schema writes it; empty for `Any`.
    pub fn name(self) -> &'static str {
        match self {
            Ty::Any => "",
            Ty::Object => "object",
            Ty::Array => "array",
            Ty::String => "string",
            Ty::Integer => "integer",
            Ty::Number => "number",
            Ty::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`.
#[derive(Clone, Debug, Default)]
pub enum Additional {
    #[default]
    Unsaid,
    /// `true`: anything, which is not looked into.
    Allowed,
    /// `false`
    Forbidden,
    /// The schema of every value.
    Each(Box<Node>),
}

/// The schema of one value.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub ty: Ty,
    pub nullable: bool,
    pub default: Option<Value>,
    /// By name.
    pub properties: BTreeMap<Box<str>, Node>,
    pub items: Option<Box<Node>>,
    pub additional: Additional,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown_fields: bool,
    /// `x-kubernetes-embedded-resource`: has `apiVersion`, `kind` and `metadata` of its own.
    pub embedded_resource: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-list-type`; atomic where nothing is said.
    pub list_type: Option<ListType>,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<Box<str>>,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    /// What values may be, beyond their structure.
    pub limits: Limits,
    /// `x-kubernetes-validations`, in order.
    pub rules: Vec<Rule>,
}

/// Value validation: everything that does not say how a value is built. Schemas below `all_of` and
/// its like only limit values; their structure is that of the schema they stand in.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Only formats this server checks; empty otherwise.
    pub format: Box<str>,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    /// In characters.
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub multiple_of: Option<f64>,
    /// Empty: any value.
    pub values: Vec<Value>,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub required: Vec<Box<str>>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
}

/// A regular expression with its text; `regex` is `Err` with the reason where it is none.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub text: Box<str>,
    pub regex: Result<Regex, String>,
}

/// One of `x-kubernetes-validations` (KEP-2876).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    pub rule: String,
    /// Empty if not given.
    pub message: String,
    /// A CEL expression; empty if not given.
    pub message_expression: String,
    /// `FieldValueInvalid` if not given.
    pub reason: Option<String>,
    /// A JSON path below the value the rule is about; empty if not given.
    pub field_path: String,
    /// `oldSelf` is an optional, and the rule runs on creation too.
    pub optional_old_self: Option<bool>,
}

impl Node {
    /// Reads a `JSONSchemaProps`. Total: what makes a schema unfit is for [`check()`] to find, and
    /// what it would refuse is read as if it were not there.
    pub fn read(schema: &Value) -> Node {
        let text = |field: &str| schema.get(field).and_then(Value::as_str).unwrap_or_default();
        let flag = |field: &str| schema.get(field) == Some(&Value::Bool(true));
        let ty = Ty::read(text("type"));
        let int_or_string = flag("x-kubernetes-int-or-string");
        let properties = schema.get("properties").and_then(Value::as_object);
        let properties = properties.into_iter().flatten();
        Node {
            ty,
            nullable: flag("nullable"),
            default: schema.get("default").filter(|value| !value.is_null()).cloned(),
            properties: properties
                .map(|(name, schema)| (name.as_str().into(), Node::read(schema)))
                .collect(),
            items: schema.get("items").filter(|it| it.is_object()).map(Node::boxed),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(true)) => Additional::Allowed,
                Some(Value::Bool(false)) => Additional::Forbidden,
                Some(schema @ Value::Object(_)) => Additional::Each(Node::boxed(schema)),
                _ => Additional::Unsaid,
            },
            preserve_unknown_fields: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            int_or_string,
            list_type: match text("x-kubernetes-list-type") {
                "set" => Some(ListType::Set),
                "map" => Some(ListType::Map),
                "atomic" => Some(ListType::Atomic),
                _ => None,
            },
            list_map_keys: names(schema.get("x-kubernetes-list-map-keys")),
            atomic: text("x-kubernetes-map-type") == "atomic",
            limits: Limits::read(schema, if int_or_string { Ty::Any } else { ty }),
            rules: rules(schema),
        }
    }

    fn boxed(schema: &Value) -> Box<Node> {
        Box::new(Node::read(schema))
    }

    /// The schema of a field, declared or additional; `None`: nothing is known of it.
    pub fn field(&self, name: &str) -> Option<&Node> {
        match (self.properties.get(name), &self.additional) {
            (Some(node), _) => Some(node),
            (None, Additional::Each(node)) => Some(node),
            _ => None,
        }
    }

    /// True for this node or any below it, value validation excepted.
    pub fn any(&self, test: &dyn Fn(&Node) -> bool) -> bool {
        let additional = match &self.additional {
            Additional::Each(node) => Some(node),
            _ => None,
        };
        test(self)
            || self.properties.values().any(|node| node.any(test))
            || self.items.iter().chain(additional).any(|node| node.any(test))
    }
}

impl Limits {
    fn read(schema: &Value, ty: Ty) -> Limits {
        let text = |field: &str| schema.get(field).and_then(Value::as_str).unwrap_or_default();
        let flag = |field: &str| schema.get(field) == Some(&Value::Bool(true));
        let number = |field: &str| schema.get(field).and_then(Value::as_f64);
        let count = |field: &str| schema.get(field).and_then(Value::as_i64);
        let list = |field: &str| schema.get(field).and_then(Value::as_array).into_iter().flatten();
        let nested = |field: &str| list(field).map(Node::read).collect();
        let format = text("format");
        let pattern = text("pattern");
        Limits {
            format: if format::is_known(format, ty) { format.into() } else { "".into() },
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: (!pattern.is_empty()).then(|| Pattern::new(pattern)),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            multiple_of: number("multipleOf"),
            values: list("enum").cloned().collect(),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: names(schema.get("required")),
            all_of: nested("allOf"),
            any_of: nested("anyOf"),
            one_of: nested("oneOf"),
            not: schema.get("not").filter(|not| not.is_object()).map(Node::boxed),
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Pattern {
        Pattern { text: text.into(), regex: Regex::new(text).map_err(|error| error.to_string()) }
    }
}

fn names(list: Option<&Value>) -> Vec<Box<str>> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(Into::into).collect()
}

fn rules(schema: &Value) -> Vec<Rule> {
    let list = schema.get("x-kubernetes-validations").and_then(Value::as_array);
    let rule = |rule: &Value| {
        let text =
            |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
        Rule {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: rule.get("reason").and_then(Value::as_str).map(str::to_string),
            field_path: text("fieldPath"),
            optional_old_self: rule.get("optionalOldSelf").and_then(Value::as_bool),
        }
    };
    list.into_iter().flatten().map(rule).collect()
}

/// Where in an object: rendered only when something is wrong there.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

/// One step of a [`Path`].
#[derive(Clone, Copy)]
pub enum Step<'a> {
    /// The root, under a name of its own or none.
    Root(&'a str),
    /// `.name`
    Field(&'a str),
    /// `[name]`, as upstream writes map keys in some places.
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// Where a path begins, under a name of its own or none.
    pub fn root(name: &'a str) -> Path<'a> {
        Path { parent: None, step: Step::Root(name) }
    }

    pub fn below(&'a self, step: Step<'a>) -> Path<'a> {
        Path { parent: Some(self), step }
    }

    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(path) = at {
            steps.push(path.step);
            at = path.parent;
        }
        let mut empty = true;
        for step in steps.into_iter().rev() {
            match step {
                Step::Root(name) => {
                    f.write_str(name)?;
                    empty = name.is_empty();
                }
                Step::Field(name) => {
                    if !std::mem::take(&mut empty) {
                        f.write_str(".")?;
                    }
                    f.write_str(name)?;
                }
                Step::Key(name) => write!(f, "[{name}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
