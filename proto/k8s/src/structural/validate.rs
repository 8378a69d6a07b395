//! Values against their schema, with upstream's paths and words. On an update, what was wrong
//! before and has not changed is forgiven (KEP-4008).

use super::{Additional, Counterparts, Limits, Node, Path, Step, Ty, format};
use crate::text::{go_float, go_quote};
use crate::{CauseReason, FieldError};
use serde_json::{Map, Number, Value};

/// What is validated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Target<'a> {
    /// Path of the value in its object; empty for a whole object.
    pub prefix: &'a str,
    /// The value before an update, with the schema it is correlated by.
    pub old: Option<(&'a Value, &'a Node)>,
}

/// Everything wrong with `value`.
pub fn validate(value: &Value, node: &Node, target: Target<'_>) -> Vec<FieldError> {
    let walk = Walk { prefix: target.prefix };
    let root = Path::root("");
    walk.ratcheted(value, node, &root, target.old).errors
}

/// What one schema found. `matches` counts checks that passed: of several alternatives that fail,
/// the one with the most is told.
#[derive(Default)]
struct Outcome {
    errors: Vec<FieldError>,
    matches: usize,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        other.errors.into_iter().for_each(|error| self.push(error));
    }

    fn push(&mut self, error: FieldError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

/// The value that was there before, with the schema that says how entries of lists correspond.
type Old<'a> = Option<(&'a Value, &'a Node)>;

struct Walk<'a> {
    prefix: &'a str,
}

/// What Go calls the type and format of a JSON value.
fn kind_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Number(number) if number.is_i64() => ("integer", "int64"),
        Value::Number(_) => ("number", "float64"),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

fn is_whole(value: &Value) -> bool {
    // Beyond 2^53 a float says nothing about whole numbers.
    let whole = |number: f64| number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_991.0;
    value.as_f64().is_some_and(whole)
}

impl Walk<'_> {
    /// Forgives what has not changed.
    fn ratcheted(&self, value: &Value, node: &Node, path: &Path<'_>, old: Old<'_>) -> Outcome {
        let mut outcome = self.value(value, node, path, old);
        if !outcome.is_valid() && old.is_some_and(|(old, _)| old == value) {
            outcome.errors.clear();
        }
        outcome
    }

    fn value(&self, value: &Value, node: &Node, path: &Path<'_>, old: Old<'_>) -> Outcome {
        let limits = &node.limits;
        let mut outcome = Outcome::default();
        match self.type_error(value, node, path) {
            Some(error) => outcome.push(error),
            None => outcome.matches += 1,
        }
        if !value.is_null() {
            outcome.merge(self.junctions(value, limits, path, old));
            match value {
                Value::String(text) => self.text(text, limits, path, &mut outcome),
                Value::Number(number) => self.number(number, node, path, &mut outcome),
                Value::Array(list) => outcome.merge(self.list(list, node, path, old)),
                Value::Object(map) => outcome.merge(self.object(map, node, path, old)),
                _ => {}
            }
        }
        if !limits.values.is_empty() && !limits.values.contains(value) {
            outcome.push(self.not_among(value, limits, path));
        } else {
            outcome.matches += 1;
        }
        outcome
    }

    /// The path of an error; `<nil>` is how upstream prints that of a whole object.
    fn at(&self, path: &Path<'_>) -> String {
        let below = path.to_string();
        match (self.prefix, below.as_str()) {
            ("", "") => "<nil>".into(),
            (prefix, "") => prefix.into(),
            ("", below) => below.into(),
            (prefix, below) if below.starts_with('[') => format!("{prefix}{below}"),
            (prefix, below) => format!("{prefix}.{below}"),
        }
    }

    fn invalid(&self, path: &Path<'_>, value: Value, why: String) -> FieldError {
        FieldError::invalid(self.at(path), value, format!("{path} in body {why}"))
    }

    /// An error without a value and a place: only its text tells where.
    fn composite(&self, why: String) -> FieldError {
        FieldError::invalid(self.at(&Path::root("")), "".into(), why)
    }

    fn wrong_type(&self, path: &Path<'_>, wanted: &str, got: &str) -> FieldError {
        FieldError {
            path: self.at(path),
            reason: CauseReason::FieldValueTypeInvalid,
            bad_value: Some(got.into()),
            detail: format!("{path} in body must be of type {wanted}: {}", go_quote(got)),
        }
    }

    fn type_error(&self, value: &Value, node: &Node, path: &Path<'_>) -> Option<FieldError> {
        let types: &[&str] = match (node.int_or_string, node.ty) {
            (true, _) => &["integer", "string"],
            (false, Ty::Any) => &[],
            (false, ty) => &[ty.name()],
        };
        let format = &*node.limits.format;
        if types.is_empty() && format.is_empty() {
            return None;
        }
        if value.is_null() {
            let refused = !types.is_empty() && !node.nullable;
            return refused.then(|| self.wrong_type(path, &types.join(","), "null"));
        }
        let (kind, got_format) = kind_of(value);
        let numeric = types.contains(&"integer") || types.contains(&"number");
        let converts = kind == "number" && is_whole(value) && types.contains(&"integer")
            || kind == "integer" && types.contains(&"number");
        let fits = types.contains(&kind) || converts;
        let textual = matches!(kind, "string" | "array");
        if !textual && !format.is_empty() && !fits && got_format != format {
            return Some(self.wrong_type(path, format, got_format));
        }
        if !numeric && !format.is_empty() && textual {
            return None;
        }
        (!fits).then(|| self.wrong_type(path, &types.join(","), kind))
    }

    fn not_among(&self, value: &Value, limits: &Limits, path: &Path<'_>) -> FieldError {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let valid: Vec<String> = limits.values.iter().map(text).collect();
        let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
        FieldError::not_supported(self.at(path), value.clone(), &valid)
    }

    /// `anyOf`, `oneOf`, `allOf` and `not`.
    fn junctions(&self, value: &Value, limits: &Limits, path: &Path<'_>, old: Old<'_>) -> Outcome {
        let mut outcome = Outcome { matches: 1, ..Outcome::default() };
        let named = || go_quote(&path.to_string());
        if !limits.any_of.is_empty() {
            let tried = Tried::of(self, &limits.any_of, value, path, old, true);
            if tried.valid == 0 {
                let why = format!("{} must validate at least one schema (anyOf)", named());
                outcome.push(self.composite(why));
            }
            outcome.merge(tried.told);
        }
        if !limits.one_of.is_empty() {
            let tried = Tried::of(self, &limits.one_of, value, path, old, false);
            if tried.valid != 1 {
                let found = match tried.valid {
                    0 => "Found none valid".to_string(),
                    many => format!("Found {many} valid alternatives"),
                };
                let why =
                    format!("{} must validate one and only one schema (oneOf). {found}", named());
                outcome.push(self.composite(why));
            }
            if tried.valid <= 1 {
                outcome.merge(tried.told);
            }
        }
        let mut valid = 0;
        for node in &limits.all_of {
            let found = self.value(value, node, path, old);
            valid += usize::from(found.is_valid());
            outcome.merge(found);
        }
        if valid != limits.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            let why = format!("{} must validate all the schemas (allOf){none}", named());
            outcome.push(self.composite(why));
        }
        if let Some(not) = &limits.not
            && self.value(value, not, path, old).is_valid()
        {
            outcome.push(self.composite(format!("{} must not validate the schema (not)", named())));
        }
        outcome
    }

    /// The first of these that is wrong, as upstream tells them, and the format.
    fn text(&self, text: &str, limits: &Limits, path: &Path<'_>, outcome: &mut Outcome) {
        let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        let found = if let Some(max) = limits.max_length.filter(|max| length() > *max) {
            Some(FieldError::too_long(self.at(path), usize::try_from(max).unwrap_or_default()))
        } else if let Some(min) = limits.min_length.filter(|min| length() < *min) {
            let why = format!("should be at least {min} chars long");
            Some(self.invalid(path, text.into(), why))
        } else {
            limits.pattern.as_ref().and_then(|pattern| match &pattern.regex {
                Ok(regex) if regex.is_match(text) => None,
                Ok(_) => {
                    let why = format!("should match '{}'", pattern.text);
                    Some(self.invalid(path, text.into(), why))
                }
                Err(error) => {
                    let why =
                        format!("should match '{}, but pattern is invalid: {error}'", pattern.text);
                    Some(self.invalid(path, text.into(), why))
                }
            })
        };
        match found {
            Some(error) => outcome.push(error),
            None => outcome.matches += 1,
        }
        let format = &*limits.format;
        if !matches!(format, "" | "int32" | "int64" | "float" | "double")
            && !format::matches(format, text)
        {
            outcome.push(self.wrong_type(path, format, text));
        }
    }

    fn number(&self, number: &Number, node: &Node, path: &Path<'_>, outcome: &mut Outcome) {
        let limits = &node.limits;
        let before = outcome.errors.len();
        if let Some(why) = out_of_range(number, node) {
            outcome.push(self.composite(format!("Checked value must be of type {why} in {path}")));
        }
        let value = Value::Number(number.clone());
        if let Some(factor) = limits.multiple_of {
            // As upstream: beside a whole number, the factor is one too.
            let whole = bound(number, factor);
            if factor <= 0.0 || whole == "0" {
                let why =
                    format!("factor MultipleOf declared for {path} must be positive: {whole}");
                outcome.push(FieldError::invalid(self.at(path), number.clone().into(), why));
            } else if !is_multiple(number, factor) {
                let why = format!("should be a multiple of {whole}");
                outcome.push(self.invalid(path, value.clone(), why));
            }
        }
        if let Some(min) = limits.minimum {
            let below = compare(number, min);
            if below == Some(std::cmp::Ordering::Less)
                || limits.exclusive_minimum && below == Some(std::cmp::Ordering::Equal)
            {
                let or_equal = if limits.exclusive_minimum { "" } else { " or equal to" };
                let why = format!("should be greater than{or_equal} {}", bound(number, min));
                outcome.push(self.invalid(path, value.clone(), why));
            }
        }
        if let Some(max) = limits.maximum {
            let above = compare(number, max);
            if above == Some(std::cmp::Ordering::Greater)
                || limits.exclusive_maximum && above == Some(std::cmp::Ordering::Equal)
            {
                let or_equal = if limits.exclusive_maximum { "" } else { " or equal to" };
                let why = format!("should be less than{or_equal} {}", bound(number, max));
                outcome.push(self.invalid(path, value, why));
            }
        }
        if outcome.errors.len() == before {
            outcome.matches += 1;
        }
    }

    fn list(&self, list: &[Value], node: &Node, path: &Path<'_>, old: Old<'_>) -> Outcome {
        let mut outcome = Outcome { matches: 1, ..Outcome::default() };
        if let Some(items) = &node.items {
            let known = old.and_then(|(old, shape)| {
                Some((Counterparts::of(Some(old), shape), shape.items.as_deref()?))
            });
            for (index, value) in list.iter().enumerate() {
                let below = path.below(Step::Index(index));
                let old = known.as_ref().and_then(|(old, shape)| Some((old.get(value)?, *shape)));
                outcome.merge(self.ratcheted(value, items, &below, old));
            }
        }
        let count = list.len();
        if let Some(min) = node.limits.min_items.filter(|min| (count as i64) < *min) {
            let why = format!("should have at least {min} items");
            outcome.push(self.invalid(path, count.into(), why));
        }
        if let Some(max) = node.limits.max_items.filter(|max| count as i64 > *max) {
            outcome.push(FieldError::too_many(self.at(path), count, max.max(0) as usize));
        }
        outcome
    }

    fn object(
        &self,
        map: &Map<String, Value>,
        node: &Node,
        path: &Path<'_>,
        old: Old<'_>,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let (limits, count) = (&node.limits, map.len());
        if let Some(min) = limits.min_properties.filter(|min| (count as i64) < *min) {
            let why = format!("should have at least {min} properties");
            outcome.push(self.invalid(path, count.into(), why));
        }
        if let Some(max) = limits.max_properties.filter(|max| count as i64 > *max) {
            outcome.push(FieldError::too_many(self.at(path), count, max.max(0) as usize));
        }
        for (name, value) in map {
            let field = match (node.properties.get(name.as_str()), &node.additional) {
                (Some(field), _) => field,
                (None, Additional::Each(each)) => each,
                (None, Additional::Forbidden) => {
                    let why = format!("{path}.{name} in body is a forbidden property");
                    outcome.push(FieldError::invalid(self.at(path), name.as_str().into(), why));
                    continue;
                }
                (None, _) => continue,
            };
            let below = path.below(Step::Field(name));
            // Both sides of an update are in the same version: these cannot have changed.
            let typed = path.parent.is_none() && matches!(name.as_str(), "apiVersion" | "kind");
            let old = old
                .filter(|_| !typed)
                .and_then(|(old, shape)| Some((old.as_object()?.get(name)?, shape.field(name)?)));
            outcome.merge(self.ratcheted(value, field, &below, old));
        }
        for name in limits.required.iter().filter(|name| !map.contains_key(&***name)) {
            let below = path.below(Step::Field(name));
            outcome.push(FieldError::required(self.at(&below), ""));
        }
        outcome
    }
}

/// Alternatives that were tried.
struct Tried {
    valid: usize,
    /// The first that holds, or of those that fail the one that came closest.
    told: Outcome,
}

impl Tried {
    fn of(
        walk: &Walk<'_>,
        nodes: &[Node],
        value: &Value,
        path: &Path<'_>,
        old: Old<'_>,
        first_is_enough: bool,
    ) -> Tried {
        let mut valid = 0;
        let mut told: Option<Outcome> = None;
        for node in nodes {
            let outcome = walk.value(value, node, path, old);
            if outcome.is_valid() {
                valid += 1;
                if valid == 1 {
                    told = Some(outcome);
                }
                if first_is_enough {
                    break;
                }
            } else if valid == 0 && told.as_ref().is_none_or(|best| outcome.matches > best.matches)
            {
                told = Some(outcome);
            }
        }
        Tried { valid, told: told.unwrap_or_default() }
    }
}

/// `integer with format int32` if the number is not one.
fn out_of_range(number: &Number, node: &Node) -> Option<String> {
    if node.int_or_string {
        return None;
    }
    let format = &*node.limits.format;
    let whole = number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        let fits = float.fract() == 0.0 && float.abs() < i64::MAX as f64;
        fits.then_some(float as i64)
    });
    let fits = match (node.ty, format) {
        (Ty::Integer, "int32") => whole.is_some_and(|whole| i32::try_from(whole).is_ok()),
        (Ty::Integer, _) => whole.is_some(),
        (Ty::Number, "float") => {
            number.as_f64().is_some_and(|float| float.abs() <= f64::from(f32::MAX))
        }
        _ => true,
    };
    let with = if format.is_empty() {
        "(default format)".to_string()
    } else {
        format!("with format {format}")
    };
    (!fits).then(|| format!("{} {with}", node.ty.name()))
}

/// As Go compares: whole numbers with whole bounds.
fn compare(number: &Number, bound: f64) -> Option<std::cmp::Ordering> {
    match number.as_i64() {
        Some(whole) => Some(whole.cmp(&(bound as i64))),
        None => number.as_f64()?.partial_cmp(&bound),
    }
}

/// A bound as it is printed beside `number`.
fn bound(number: &Number, bound: f64) -> String {
    if number.is_i64() { (bound as i64).to_string() } else { go_float(bound) }
}

fn is_multiple(number: &Number, factor: f64) -> bool {
    match number.as_i64() {
        Some(whole) => whole % (factor as i64).max(1) == 0,
        None => number.as_f64().is_some_and(|float| (float / factor).fract() == 0.0),
    }
}
