//! A place in an object while it is validated: the value there and, once something is wrong with
//! it, its path as upstream prints it.

use k8s::{FieldError, Object};
use serde_json::Value;
use std::fmt;

/// A value and where it stands. The path is a chain on the stack; it costs nothing until printed.
#[derive(Clone, Copy)]
pub(crate) struct At<'p, 'v> {
    parent: Option<&'p At<'p, 'v>>,
    step: Step<'v>,
    value: Option<&'v Value>,
}

#[derive(Clone, Copy)]
enum Step<'v> {
    Field(&'static str),
    Index(usize),
    Key(&'v str),
}

impl<'v> At<'_, 'v> {
    /// A top-level field of an object.
    pub(crate) fn top(object: &'v Object, field: &'static str) -> At<'v, 'v> {
        At {
            parent: None,
            step: Step::Field(field),
            value: object.0.get(field).filter(|v| !v.is_null()),
        }
    }

    pub(crate) fn field<'q>(&'q self, field: &'static str) -> At<'q, 'v> {
        let value = self.value.and_then(|value| value.get(field)).filter(|value| !value.is_null());
        At { parent: Some(self), step: Step::Field(field), value }
    }

    /// The entry of a map, printed `path[key]`.
    pub(crate) fn key<'q>(&'q self, key: &'v str) -> At<'q, 'v> {
        let value = self.value.and_then(|value| value.get(key)).filter(|value| !value.is_null());
        At { parent: Some(self), step: Step::Key(key), value }
    }

    /// The entries of a list; none if it is absent.
    pub(crate) fn items<'q>(&'q self) -> impl Iterator<Item = At<'q, 'v>> + use<'q, 'v> {
        let list = self.value.and_then(Value::as_array).into_iter().flatten();
        list.enumerate().map(|(at, value)| At {
            parent: Some(self),
            step: Step::Index(at),
            value: Some(value),
        })
    }

    /// The entries of a map, by key.
    pub(crate) fn entries<'q>(
        &'q self,
    ) -> impl Iterator<Item = (&'v str, At<'q, 'v>)> + use<'q, 'v> {
        let map = self.value.and_then(Value::as_object).into_iter().flatten();
        map.map(|(key, value)| {
            (key.as_str(), At { parent: Some(self), step: Step::Key(key), value: Some(value) })
        })
    }

    pub(crate) fn value(&self) -> Option<&'v Value> {
        self.value
    }

    pub(crate) fn exists(&self) -> bool {
        self.value.is_some()
    }

    /// A copy for an error: null if absent.
    pub(crate) fn owned(&self) -> Value {
        self.value.cloned().unwrap_or(Value::Null)
    }

    /// Empty if absent or not text.
    pub(crate) fn text(&self) -> &'v str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn int(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    pub(crate) fn flag(&self) -> bool {
        self.value.and_then(Value::as_bool).unwrap_or(false)
    }

    /// How many entries the list or map has.
    pub(crate) fn count(&self) -> usize {
        match self.value {
            Some(Value::Array(list)) => list.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }
}

impl fmt::Display for At<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(field) if self.parent.is_some() => write!(f, ".{field}"),
            Step::Field(field) => f.write_str(field),
            Step::Index(at) => write!(f, "[{at}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong so far.
#[derive(Default)]
pub(crate) struct Errors(pub(crate) Vec<FieldError>);

impl Errors {
    pub(crate) fn required(&mut self, at: &At<'_, '_>, detail: &str) {
        self.0.push(FieldError::required(at.to_string(), detail));
    }

    /// The value that is there is wrong.
    pub(crate) fn invalid(&mut self, at: &At<'_, '_>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(at.to_string(), at.owned(), detail));
    }

    /// The same with one error for each text, as the name rules give them.
    pub(crate) fn invalid_each(&mut self, at: &At<'_, '_>, details: Vec<String>) {
        for detail in details {
            self.invalid(at, detail);
        }
    }

    pub(crate) fn invalid_value(
        &mut self,
        at: &At<'_, '_>,
        value: impl Into<Value>,
        detail: impl Into<String>,
    ) {
        self.0.push(FieldError::invalid(at.to_string(), value.into(), detail));
    }

    pub(crate) fn forbidden(&mut self, at: &At<'_, '_>, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(at.to_string(), detail));
    }

    pub(crate) fn duplicate(&mut self, at: &At<'_, '_>) {
        self.0.push(FieldError::duplicate(at.to_string(), at.owned()));
    }

    pub(crate) fn duplicate_value(&mut self, at: &At<'_, '_>, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(at.to_string(), value.into()));
    }

    pub(crate) fn not_found(&mut self, at: &At<'_, '_>) {
        self.0.push(FieldError::not_found(at.to_string(), at.owned()));
    }

    pub(crate) fn too_long(&mut self, at: &At<'_, '_>, max_bytes: usize) {
        self.0.push(FieldError::too_long(at.to_string(), max_bytes));
    }

    pub(crate) fn not_supported(&mut self, at: &At<'_, '_>, valid: &[&str]) {
        self.0.push(FieldError::not_supported(at.to_string(), at.owned(), valid));
    }

    /// Refuses text that is not one of `valid`, and absent text if `needed`.
    pub(crate) fn one_of(&mut self, at: &At<'_, '_>, valid: &[&str], needed: bool) {
        match at.text() {
            "" if needed => self.required(at, ""),
            "" => (),
            text if valid.contains(&text) => (),
            _ => self.not_supported(at, valid),
        }
    }

    /// Refuses absent or empty text; true if there is some.
    pub(crate) fn needs_text(&mut self, at: &At<'_, '_>) -> bool {
        if at.text().is_empty() {
            self.required(at, "");
        }
        !at.text().is_empty()
    }

    pub(crate) fn not_negative(&mut self, at: &At<'_, '_>) {
        if at.int().is_some_and(|value| value < 0) {
            self.invalid(at, NOT_NEGATIVE);
        }
    }

    /// Refuses a change from `old`.
    pub(crate) fn immutable(&mut self, new: &At<'_, '_>, old: &At<'_, '_>) {
        if new.value != old.value {
            self.invalid(new, "field is immutable");
        }
    }

    /// A port number that is there must be one.
    pub(crate) fn port_number(&mut self, at: &At<'_, '_>) {
        if at.int().is_some_and(|port| !(1..=65535).contains(&port)) {
            self.invalid(at, PORT_RANGE);
        }
    }

    /// A port by number or by name.
    pub(crate) fn port(&mut self, at: &At<'_, '_>) {
        match at.value() {
            Some(Value::String(name)) => {
                let wrong = k8s::names::is_port_name(name);
                self.invalid_each(at, wrong);
            }
            Some(value) if value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) => (),
            Some(_) => self.invalid(at, PORT_RANGE),
            None => self.invalid_value(at, 0, PORT_RANGE),
        }
    }
}

pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
