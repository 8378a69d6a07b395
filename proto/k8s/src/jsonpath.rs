//! The JSONPath of kubectl and of printer columns: `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Bounded: a path has at most [`STEPS_MAX`] steps, and a walk stops after [`VISITS_MAX`] values, so
//! that no column of a hostile definition can hold up a list.

use serde_json::Value;

/// Far more than any column that somebody reads.
const STEPS_MAX: usize = 64;
/// Values looked at per path and object, in all.
const VISITS_MAX: usize = 10_000;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// `[*]`, `.*`
    Every,
    /// `..`: the value and everything below it.
    Below,
    Index(i64),
    /// `[start:end:step]`
    Slice(Option<i64>, Option<i64>, usize),
    /// `['a','b']`, `[0,1]`
    Union(Vec<Step>),
    Filter(Box<Filter>),
}

/// `[?(left op right)]`; without an operator, whether the left side is there.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    comparison: Option<(Comparison, Operand)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// Below the entry that is tested.
    Path(Vec<Step>),
    Literal(Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl JsonPath {
    /// Reads `.a.b[0]`, with or without the `$` in front.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let mut parser = Parser { rest: text.strip_prefix('$').unwrap_or(text), steps: 0 };
        let steps = parser.steps(false)?;
        match parser.rest {
            "" => Ok(JsonPath { steps }),
            rest => Err(format!("unrecognized character in path: {rest}")),
        }
    }

    /// Every value the path leads to, in order; none where a step leads nowhere.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut visits = VISITS_MAX;
        walk(&self.steps, vec![root], &mut visits)
    }
}

fn walk<'a>(steps: &[Step], from: Vec<&'a Value>, visits: &mut usize) -> Vec<&'a Value> {
    let mut values = from;
    for step in steps {
        let mut next = Vec::new();
        for value in values {
            apply(step, value, &mut next, visits);
        }
        values = next;
    }
    values
}

fn apply<'a>(step: &Step, value: &'a Value, into: &mut Vec<&'a Value>, visits: &mut usize) {
    if *visits == 0 {
        return;
    }
    *visits -= 1;
    match (step, value) {
        (Step::Field(name), Value::Object(map)) => into.extend(map.get(name)),
        (Step::Every, Value::Object(map)) => into.extend(map.values()),
        (Step::Every, Value::Array(list)) => into.extend(list),
        (Step::Below, _) => below(value, into, visits),
        (Step::Index(index), Value::Array(list)) => {
            into.extend(place(*index, list.len()).and_then(|index| list.get(index)));
        }
        (Step::Slice(start, end, by), Value::Array(list)) => {
            let bound = |at: Option<i64>, otherwise: usize| match at {
                None => otherwise,
                Some(at) if at < 0 => list.len().saturating_sub(at.unsigned_abs() as usize),
                Some(at) => (at as usize).min(list.len()),
            };
            let (start, end) = (bound(*start, 0), bound(*end, list.len()));
            into.extend(list.get(start..end).into_iter().flatten().step_by(*by));
        }
        (Step::Union(steps), _) => steps.iter().for_each(|step| apply(step, value, into, visits)),
        (Step::Filter(filter), Value::Array(list)) => {
            into.extend(list.iter().filter(|entry| filter.holds(entry, visits)));
        }
        _ => {}
    }
}

fn below<'a>(value: &'a Value, into: &mut Vec<&'a Value>, visits: &mut usize) {
    if *visits == 0 {
        return;
    }
    *visits -= 1;
    into.push(value);
    match value {
        Value::Object(map) => map.values().for_each(|value| below(value, into, visits)),
        Value::Array(list) => list.iter().for_each(|value| below(value, into, visits)),
        _ => {}
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        return length.checked_sub(index.unsigned_abs() as usize);
    }
    usize::try_from(index).ok()
}

impl Filter {
    fn holds(&self, entry: &Value, visits: &mut usize) -> bool {
        let left = self.left.value(entry, visits);
        let Some((comparison, right)) = &self.comparison else { return left.is_some() };
        let (Some(left), Some(right)) = (left, right.value(entry, visits)) else { return false };
        let ordering = match (&left, &right) {
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().partial_cmp(&right.as_f64())
            }
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            _ => None,
        };
        use std::cmp::Ordering::{Equal, Greater, Less};
        match comparison {
            Comparison::Equal => ordering == Some(Equal),
            Comparison::NotEqual => ordering != Some(Equal),
            Comparison::Less => ordering == Some(Less),
            Comparison::LessEqual => matches!(ordering, Some(Less | Equal)),
            Comparison::Greater => ordering == Some(Greater),
            Comparison::GreaterEqual => matches!(ordering, Some(Greater | Equal)),
        }
    }
}

impl Operand {
    fn value(&self, entry: &Value, visits: &mut usize) -> Option<Value> {
        match self {
            Operand::Literal(value) => Some(value.clone()),
            Operand::Path(steps) => walk(steps, vec![entry], visits).first().copied().cloned(),
        }
    }
}

struct Parser<'t> {
    rest: &'t str,
    steps: usize,
}

impl<'t> Parser<'t> {
    /// Steps up to the end; in a filter, up to what is no step.
    fn steps(&mut self, in_filter: bool) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        loop {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(format!("a path may have at most {STEPS_MAX} steps"));
            }
            if self.eat("..") {
                steps.push(Step::Below);
                if !self.rest.starts_with('[') {
                    steps.push(self.name(in_filter)?);
                }
            } else if self.eat(".") {
                // `.` alone is the value itself.
                if !self.rest.is_empty() && !self.rest.starts_with('[') {
                    steps.push(self.name(in_filter)?);
                }
            } else if self.eat("[") {
                steps.push(self.brackets()?);
            } else {
                return Ok(steps);
            }
        }
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// A field; `\.` is a dot within its name.
    fn name(&mut self, in_filter: bool) -> Result<Step, String> {
        if self.eat("*") {
            return Ok(Step::Every);
        }
        let ends = |c: char| match c {
            '.' | '[' | ']' => true,
            ' ' | '=' | '!' | '<' | '>' | ')' => in_filter,
            _ => false,
        };
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                c if ends(c) => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        if name.is_empty() { Err("empty field name".into()) } else { Ok(Step::Field(name)) }
    }

    /// What stands in brackets, and the closing one.
    fn brackets(&mut self) -> Result<Step, String> {
        if self.eat("?(") {
            let filter = self.filter()?;
            self.spaces();
            return match self.eat(")]") {
                true => Ok(Step::Filter(Box::new(filter))),
                false => Err("unterminated filter".into()),
            };
        }
        let mut steps = Vec::new();
        loop {
            self.spaces();
            steps.push(self.subscript()?);
            self.spaces();
            if self.eat("]") {
                return Ok(if steps.len() == 1 { steps.remove(0) } else { Step::Union(steps) });
            }
            if !self.eat(",") || steps.len() >= STEPS_MAX {
                return Err("unterminated array".into());
            }
        }
    }

    fn subscript(&mut self) -> Result<Step, String> {
        if self.eat("*") {
            return Ok(Step::Every);
        }
        if self.rest.starts_with(['\'', '"']) {
            return self.quoted().map(Step::Field);
        }
        let end = self.rest.find([',', ']']).ok_or("unterminated array")?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number = |text: &str| match text.trim() {
            "" => Ok(None),
            text => {
                text.parse::<i64>().map(Some).map_err(|_| format!("invalid array index {text}"))
            }
        };
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [index] => Ok(Step::Index(number(index)?.ok_or("empty array index")?)),
            [start, end] => Ok(Step::Slice(number(start)?, number(end)?, 1)),
            [start, end, by] => match number(by)? {
                None => Ok(Step::Slice(number(start)?, number(end)?, 1)),
                Some(by) if by > 0 => Ok(Step::Slice(number(start)?, number(end)?, by as usize)),
                Some(_) => Err("step must be > 0".into()),
            },
            _ => Err(format!("invalid array index {text}")),
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, c)| c).ok_or("unterminated quoted string")?;
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err("unterminated quoted string".into())
    }

    fn filter(&mut self) -> Result<Filter, String> {
        const COMPARISONS: &[(&str, Comparison)] = &[
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessEqual),
            (">=", Comparison::GreaterEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        let left = self.operand()?;
        self.spaces();
        let found = COMPARISONS.iter().find(|(text, _)| self.eat(text));
        let comparison = match found {
            Some((_, comparison)) => Some((*comparison, self.operand()?)),
            None => None,
        };
        Ok(Filter { left, comparison })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.spaces();
        if self.eat("@") {
            return self.steps(true).map(Operand::Path);
        }
        if self.rest.starts_with(['\'', '"']) {
            return self.quoted().map(|text| Operand::Literal(text.into()));
        }
        let end = self.rest.find([' ', ')', '=', '!', '<', '>']).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        serde_json::from_str(text)
            .map(Operand::Literal)
            .map_err(|_| format!("unrecognized operand {text:?} in a filter"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(path: &str) -> String {
        let value = json!({
            "spec": {"ports": [80, 81, 82], "a.b/c": "dotted"},
            "status": {"conditions": [
                {"type": "Ready", "status": "True", "n": 1},
                {"type": "Old", "status": "False", "n": 5},
            ]},
        });
        match JsonPath::parse(path) {
            Ok(path) => json!(path.find(&value)).to_string(),
            Err(error) => error,
        }
    }

    #[test]
    fn paths_lead_where_kubectl_says() {
        assert_eq!(find(".spec.ports[0]"), "[80]");
        assert_eq!(find(".spec.ports[-1]"), "[82]");
        assert_eq!(find(".spec.ports[1:]"), "[81,82]");
        assert_eq!(find(".spec.ports[0,2]"), "[80,82]");
        assert_eq!(find(".spec.ports[*]"), "[80,81,82]");
        assert_eq!(find(".spec['a.b/c']"), r#"["dotted"]"#);
        assert_eq!(find(".spec.a\\.b/c"), r#"["dotted"]"#);
        assert_eq!(find(r#".status.conditions[?(@.type=="Ready")].status"#), r#"["True"]"#);
        assert_eq!(find(r#".status.conditions[?(@.type != 'Ready')].type"#), r#"["Old"]"#);
        assert_eq!(find(".status.conditions[?(@.n > 2)].type"), r#"["Old"]"#);
        assert_eq!(find("..status"), find("$..status"));
        assert_eq!(find(".absent.path"), "[]");
    }

    #[test]
    fn what_is_no_path_is_told() {
        for bad in [".a[", ".a[x]", ".a[?(@.b]", "a", ".a..", ".a['b", ".a[1:2:0]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
        assert!(JsonPath::parse(&".a".repeat(STEPS_MAX + 1)).is_err());
    }

    #[test]
    fn a_walk_is_bounded() {
        let wide = Value::Array(vec![json!([1, 2, 3]); 200]);
        let path = JsonPath::parse("..[*]").expect("a path");
        assert!(path.find(&wide).len() <= VISITS_MAX * 3);
    }
}
