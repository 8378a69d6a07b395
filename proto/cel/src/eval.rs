//! A checked tree and variables into a value. Every step is charged as cel-go charges it; work that
//! cel-go does for free (comparing whole objects, joining lists) is bounded apart.

use crate::{
    EVAL_DEPTH_MAX, EvalError, PER_CALL_LIMIT, Type, Value,
    ast::{Access, Call, Expr, ExprKind, Literal, Loop, LoopKind, Means},
    cost,
    functions::{literals::Kept, regex::Patterns},
    value::{Key, List, Map, whole},
};
use std::{collections::BTreeMap, rc::Rc};

/// Work of one evaluation beyond its cost: a second's worth of nodes compared and 64-byte blocks scanned.
const WORK_MAX: u64 = 20_000_000;
/// Work a budget pays for per cost: two seconds' worth for a policy or an object.
const WORK_PER_COST: u64 = 4;
/// Work of keeping one more value: it is some thirty bytes, and an entry of a map three times as many,
/// so that what evaluations hold stays below some hundreds of megabytes.
pub(crate) const KEEP: u64 = 16;

/// What several evaluations may cost together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    remaining: u64,
    work: u64,
    /// Levels under evaluation.
    depth: u16,
}

impl Budget {
    pub fn new(cost: u64) -> Budget {
        Budget { remaining: cost, work: cost.saturating_mul(WORK_PER_COST), depth: 0 }
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes work that has no cost, such as walking a value.
    pub(crate) fn work(&mut self, units: u64) -> Result<(), EvalError> {
        self.work = self.work.checked_sub(units).ok_or(EvalError::OutOfBudget)?;
        Ok(())
    }

    /// Takes `cost`, or fails and leaves nothing.
    pub fn take(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.remaining.checked_sub(cost) {
            Some(remaining) => {
                self.remaining = remaining;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(EvalError::OutOfBudget)
            }
        }
    }
}

/// The variables of an evaluation.
#[derive(Clone, Debug, Default)]
pub struct Vars<'a> {
    all: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Vars<'a> {
    pub fn new() -> Vars<'a> {
        Vars::default()
    }

    pub fn with(mut self, name: &'a str, value: Value<'a>) -> Vars<'a> {
        self.all.push((name, value));
        self
    }

    fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.all.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

pub(crate) type Evaluated<'a> = Result<Value<'a>, EvalError>;

/// One evaluation under way.
pub(crate) struct Cx<'a, 'b> {
    vars: &'b Vars<'a>,
    pub(crate) budget: &'b mut Budget,
    spent: u64,
    work: u64,
    locals: Vec<Value<'a>>,
    pub(crate) patterns: Patterns,
    /// Those that came with the expression.
    pub(crate) known: &'a Kept,
}

pub(crate) fn run<'a>(
    expr: &'a Expr,
    known: &'a Kept,
    vars: &Vars<'a>,
    budget: &mut Budget,
) -> Evaluated<'a> {
    let patterns = Patterns::default();
    let mut cx = Cx { vars, budget, spent: 0, work: 0, locals: Vec::new(), patterns, known };
    let result = cx.eval(expr);
    let spent = cx.spent.min(PER_CALL_LIMIT);
    budget.take(spent)?;
    result
}

impl<'a> Cx<'a, '_> {
    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > PER_CALL_LIMIT { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    /// Work that costs nothing upstream and must end all the same.
    pub(crate) fn work(&mut self, units: u64) -> Result<(), EvalError> {
        self.work = self.work.saturating_add(units);
        if self.work > WORK_MAX {
            return Err(EvalError::CostLimit);
        }
        self.budget.work(units)
    }

    /// Walking a text.
    pub(crate) fn scan(&mut self, text: &str) -> Result<(), EvalError> {
        self.work(text.len() as u64 / 64)
    }

    /// Bytes of a document are decoded whenever they are asked for.
    fn decoded(&mut self, value: Option<Value<'a>>) -> Result<Option<Value<'a>>, EvalError> {
        if let Some(Value::Bytes(bytes)) = &value {
            self.work(bytes.len() as u64 / 4)?;
        }
        Ok(value)
    }

    fn eval(&mut self, expr: &'a Expr) -> Evaluated<'a> {
        if self.budget.depth >= EVAL_DEPTH_MAX {
            return Err(EvalError::new("expressions are nested too deeply"));
        }
        self.budget.depth += 1;
        let value = self.value(expr);
        self.budget.depth -= 1;
        value
    }

    fn value(&mut self, expr: &'a Expr) -> Evaluated<'a> {
        match &expr.kind {
            ExprKind::Literal(literal) => {
                if let Literal::Bytes(bytes) = literal {
                    self.work(bytes.len() as u64 / 4)?;
                }
                Ok(constant(literal))
            }
            ExprKind::Ident { name, means } => self.ident(name, means),
            ExprKind::Select { operand, field, how } => self.select(operand, field, *how),
            ExprKind::Index { operand, index, optional } => self.index(operand, index, *optional),
            ExprKind::Call(call) => self.call(call),
            ExprKind::And(all) => self.logic(all, false),
            ExprKind::Or(all) => self.logic(all, true),
            ExprKind::Ternary(all) => match self.eval(&all[0])? {
                Value::Bool(true) => self.eval(&all[1]),
                Value::Bool(false) => self.eval(&all[2]),
                _ => Err(EvalError::no_such_overload()),
            },
            ExprKind::List(items) => self.list(items),
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Object { name, fields } => self.object(name, fields),
            ExprKind::Loop(all) => self.repeat(all),
        }
    }

    fn ident(&mut self, name: &str, means: &Means) -> Evaluated<'a> {
        self.charge(1)?;
        match means {
            Means::Local(place) => self.locals.get(*place).cloned(),
            Means::TypeName(ty) => Some(Value::Type(type_value(ty))),
            Means::Variable | Means::Unknown => self.vars.get(name).cloned(),
        }
        .ok_or_else(|| EvalError::new(format!("no such attribute(s): {name}")))
    }

    fn select(&mut self, operand: &'a Expr, field: &'a str, how: Access) -> Evaluated<'a> {
        let of = self.eval(operand)?;
        if how != Access::Test {
            self.charge(1)?;
        }
        match of {
            // Selections go on inside an optional.
            Value::Optional(None) if how == Access::Test => Ok(Value::Bool(false)),
            Value::Optional(None) => Ok(Value::NONE),
            Value::Optional(Some(inner)) => {
                let found = self.member(&inner, field)?;
                Ok(match how {
                    Access::Test => Value::Bool(found.is_some()),
                    _ => Value::Optional(found.map(Rc::new)),
                })
            }
            of => {
                let found = self.member(&of, field)?;
                match how {
                    Access::Test => Ok(Value::Bool(found.is_some())),
                    Access::Optional => Ok(Value::Optional(found.map(Rc::new))),
                    Access::Plain => found.ok_or_else(|| EvalError::no_such_key(field)),
                }
            }
        }
    }

    fn member(&mut self, of: &Value<'a>, field: &str) -> Result<Option<Value<'a>>, EvalError> {
        self.scan(field)?;
        let found = match of {
            Value::Map(map) => map.member(field, self.budget).transpose()?,
            _ => return Err(EvalError::no_such_overload()),
        };
        self.decoded(found)
    }

    fn index(&mut self, operand: &'a Expr, index: &'a Expr, optional: bool) -> Evaluated<'a> {
        let of = self.eval(operand)?;
        let index = self.eval(index)?;
        self.charge(1)?;
        match of {
            Value::Optional(None) => Ok(Value::NONE),
            Value::Optional(Some(inner)) => {
                Ok(Value::Optional(self.at(&inner, &index, true)?.map(Rc::new)))
            }
            of if optional => Ok(Value::Optional(self.at(&of, &index, true)?.map(Rc::new))),
            of => match self.at(&of, &index, false)? {
                Some(value) => Ok(value),
                None => Err(EvalError::no_such_key(functions_text(&index))),
            },
        }
    }

    fn at(
        &mut self,
        of: &Value<'a>,
        index: &Value<'a>,
        optional: bool,
    ) -> Result<Option<Value<'a>>, EvalError> {
        if let Value::String(text) = index {
            self.scan(text.as_str())?;
        }
        let found = match of {
            Value::Map(map) => map.get(index, self.budget).transpose()?,
            Value::List(list) => {
                let Some(number) = whole(index) else {
                    let name = index.type_name();
                    return Err(EvalError::new(format!("unsupported index type '{name}' in list")));
                };
                let found = usize::try_from(number).ok().and_then(|number| list.get(number));
                if found.is_none() && !optional {
                    return Err(EvalError::new(format!("index out of bounds: {number}")));
                }
                found.transpose()?
            }
            _ => return Err(EvalError::no_such_overload()),
        };
        self.decoded(found)
    }

    fn call(&mut self, call: &'a Call) -> Evaluated<'a> {
        let Some(function) = call.to else { return Err(EvalError::no_such_overload()) };
        if function.name == "or" || function.name == "orValue" {
            return self.or_else(function.name, &call.args);
        }
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.eval(arg)?);
        }
        // Some functions walk their texts for nothing.
        if !matches!(function.name, "startsWith" | "endsWith") {
            args.iter().filter_map(Value::as_str).try_for_each(|text| self.scan(text))?;
        }
        // What a call would cost is known before but for `join`, whose result is its cost.
        if let Some(cost) = cost::of_call(function.name, &args) {
            self.charge(cost)?;
        }
        let value = (function.run)(self, &args)?;
        if function.name == "join" {
            self.charge(cost::traversal(value.size(), 0.2))?;
        }
        Ok(value)
    }

    /// The other is evaluated only where the optional has no value.
    fn or_else(&mut self, name: &str, args: &'a [Expr]) -> Evaluated<'a> {
        let [first, second] = args else { return Err(EvalError::no_such_overload()) };
        let first = self.eval(first)?;
        self.charge(1)?;
        match first {
            Value::Optional(Some(value)) if name == "orValue" => Ok((*value).clone()),
            Value::Optional(Some(value)) => Ok(Value::Optional(Some(value))),
            Value::Optional(None) => self.eval(second),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// `decides`: the value that ends it; errors count only if nothing decides.
    fn logic(&mut self, all: &'a [Expr], decides: bool) -> Evaluated<'a> {
        let mut failed = None;
        for one in all {
            let result = match self.eval(one) {
                Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => continue,
                Ok(_) => Err(EvalError::no_such_overload()),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => Err(error),
            };
            failed = failed.or(Some(result));
        }
        failed.unwrap_or(Ok(Value::Bool(!decides)))
    }

    /// `None`: an optional entry without value.
    fn entry(&mut self, expr: &'a Expr, optional: bool) -> Result<Option<Value<'a>>, EvalError> {
        match (self.eval(expr)?, optional) {
            (Value::Optional(value), true) => Ok(value.map(|value| (*value).clone())),
            (_, true) => Err(EvalError::no_such_overload()),
            (value, false) => Ok(Some(value)),
        }
    }

    fn list(&mut self, items: &'a [(Expr, bool)]) -> Evaluated<'a> {
        self.work(KEEP * items.len() as u64)?;
        let mut built = Vec::with_capacity(items.len());
        for (item, optional) in items {
            built.extend(self.entry(item, *optional)?);
        }
        self.charge(cost::LIST)?;
        Ok(Value::list(built))
    }

    fn map(&mut self, entries: &'a [(Expr, Expr, bool)]) -> Evaluated<'a> {
        self.work(3 * KEEP * entries.len() as u64)?;
        let mut built = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            if let Some(value) = self.entry(value, *optional)?
                && built.insert(Key::of(&key)?, value).is_some()
            {
                return Err(EvalError::new("Failed with repeated key"));
            }
        }
        self.charge(cost::MAP)?;
        Ok(Value::Map(Map::Built(Rc::new(built))))
    }

    fn object(&mut self, name: &'a str, fields: &'a [(String, Expr, bool)]) -> Evaluated<'a> {
        self.work(3 * KEEP * fields.len() as u64)?;
        let mut built = BTreeMap::new();
        for (field, value, optional) in fields {
            if let Some(value) = self.entry(value, *optional)? {
                built.insert(field.clone(), value);
            }
        }
        self.charge(cost::OBJECT)?;
        Ok(Value::Map(Map::Object(name.into(), Rc::new(built))))
    }

    fn repeat(&mut self, all: &'a Loop) -> Evaluated<'a> {
        let range = self.eval(&all.range)?;
        match all.kind {
            LoopKind::OptMap | LoopKind::OptFlatMap => self.opt_map(all, range),
            LoopKind::All => self.decide(all, &range, false),
            LoopKind::Exists => self.decide(all, &range, true),
            LoopKind::ExistsOne => self.exists_one(all, &range),
            LoopKind::Map | LoopKind::Filter | LoopKind::SortBy => self.collect(all, &range),
            LoopKind::TransformMap | LoopKind::TransformEntry => self.transform(all, &range),
        }
    }

    /// Runs `body` once per element of the range, with the names bound, until it says stop.
    fn each(
        &mut self,
        all: &'a Loop,
        range: &Value<'a>,
        body: &mut dyn FnMut(&mut Self, &Value<'a>, &Value<'a>) -> Result<bool, EvalError>,
    ) -> Result<(), EvalError> {
        let mut step = |cx: &mut Self, key: Value<'a>, value: Value<'a>| {
            let base = cx.locals.len();
            // One name is the element of a list and the key of a map.
            let keyed = all.second.is_some() || matches!(range, Value::Map(_));
            cx.locals.push(if keyed { key.clone() } else { value.clone() });
            if all.second.is_some() {
                cx.locals.push(value.clone());
            }
            let goes_on = body(cx, &key, &value);
            cx.locals.truncate(base);
            goes_on
        };
        match range {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    if let Value::Bytes(bytes) = item.as_ref().unwrap_or(&Value::Null) {
                        self.work(bytes.len() as u64 / 4)?;
                    }
                    if !step(self, Value::Int(index as i64), item?)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                self.work(map.len() as u64)?;
                for key in map.keys() {
                    let value = map.get(&key, self.budget).transpose()?;
                    let value = self.decoded(value)?.unwrap_or(Value::Null);
                    if !step(self, key, value)? {
                        break;
                    }
                }
            }
            other => {
                let name = other.type_name();
                return Err(EvalError::new(format!("got '{name}', expected iterable type")));
            }
        }
        Ok(())
    }

    /// `all` and `exists`: ends at the first `decides`; errors count only if nothing decides.
    fn decide(&mut self, all: &'a Loop, range: &Value<'a>, decides: bool) -> Evaluated<'a> {
        let (mut failed, mut decided) = (None, false);
        // The condition costs two steps, of `exists` three; the joining with what was, one.
        let check = 2 + u64::from(decides);
        self.each(all, range, &mut |cx, _, _| {
            cx.charge(check + 1)?;
            match cx.eval(&all.body) {
                Ok(Value::Bool(value)) => decided = value == decides,
                Ok(_) => failed = failed.take().or(Some(EvalError::no_such_overload())),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => failed = failed.take().or(Some(error)),
            }
            if decided {
                cx.charge(check)?;
            }
            Ok(!decided)
        })?;
        self.charge(1)?;
        match failed {
            Some(error) if !decided => Err(error),
            _ => Ok(Value::Bool(decided == decides)),
        }
    }

    fn holds(&mut self, condition: &'a Expr) -> Result<bool, EvalError> {
        self.eval(condition)?.as_bool().ok_or_else(EvalError::no_such_overload)
    }

    fn exists_one(&mut self, all: &'a Loop, range: &Value<'a>) -> Evaluated<'a> {
        let mut count = 0;
        self.each(all, range, &mut |cx, _, _| {
            let holds = cx.holds(&all.body)?;
            count += u64::from(holds);
            cx.charge(1 + u64::from(holds))?;
            Ok(true)
        })?;
        self.charge(2)?;
        Ok(Value::Bool(count == 1))
    }

    /// `map`, `filter`, `sortBy`: a list of what the body gives or lets through.
    fn collect(&mut self, all: &'a Loop, range: &Value<'a>) -> Evaluated<'a> {
        self.charge(cost::LIST)?;
        let (mut built, mut keys) = (Vec::new(), Vec::new());
        let two = all.second.is_some();
        let of_map = matches!(range, Value::Map(_));
        self.each(all, range, &mut |cx, key, value| {
            let element = if of_map && !two { key } else { value };
            let passes = match (&all.filter, all.kind) {
                (_, LoopKind::Filter) => cx.holds(&all.body)?,
                (Some(filter), _) => cx.holds(filter)?,
                (None, _) => true,
            };
            if !passes {
                cx.charge(1)?;
                return Ok(true);
            }
            cx.charge(cost::LIST + 2)?;
            match all.kind {
                LoopKind::Map => built.push(cx.eval(&all.body)?),
                LoopKind::Filter => {
                    cx.charge(1)?;
                    built.push(element.clone());
                }
                _ => {
                    keys.push(cx.eval(&all.body)?);
                    built.push(element.clone());
                }
            }
            Ok(true)
        })?;
        self.charge(1)?;
        if all.kind == LoopKind::SortBy {
            self.charge(built.len() as u64)?;
            return crate::functions::lists::sorted_by(self, &built, &keys);
        }
        Ok(Value::list(built))
    }

    fn transform(&mut self, all: &'a Loop, range: &Value<'a>) -> Evaluated<'a> {
        self.charge(cost::MAP)?;
        let mut built = BTreeMap::new();
        self.each(all, range, &mut |cx, key, _| {
            cx.charge(2)?;
            if let Some(filter) = &all.filter
                && !cx.holds(filter)?
            {
                return Ok(true);
            }
            let value = cx.eval(&all.body)?;
            let entries = match (all.kind, value) {
                (LoopKind::TransformEntry, Value::Map(Map::Built(entries))) => (*entries).clone(),
                (LoopKind::TransformEntry, _) => return Err(EvalError::no_such_overload()),
                (_, value) => BTreeMap::from([(Key::of(key)?, value)]),
            };
            cx.work(3 * KEEP * entries.len() as u64)?;
            for (key, value) in entries {
                let shown = functions_text(&key.value());
                if built.insert(key, value).is_some() {
                    return Err(EvalError::new(format!(
                        "insert failed: key {shown} already exists"
                    )));
                }
            }
            Ok(true)
        })?;
        self.charge(1)?;
        Ok(Value::Map(Map::Built(Rc::new(built))))
    }

    fn opt_map(&mut self, all: &'a Loop, range: Value<'a>) -> Evaluated<'a> {
        self.charge(2)?;
        let inner = match range {
            Value::Optional(Some(inner)) => inner,
            Value::Optional(None) => return Ok(Value::NONE),
            _ => return Err(EvalError::no_such_overload()),
        };
        self.locals.push((*inner).clone());
        let value = self.eval(&all.body);
        self.locals.pop();
        match (all.kind, value?) {
            (LoopKind::OptMap, value) => Ok(Value::some(value)),
            (_, value @ Value::Optional(_)) => Ok(value),
            _ => Err(EvalError::no_such_overload()),
        }
    }
}

fn constant<'a>(literal: &'a Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(number) => Value::Int(*number),
        Literal::Uint(number) => Value::Uint(*number),
        Literal::Double(number) => Value::Double(*number),
        Literal::String(text) => Value::str(text),
        Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
    }
}

/// The name `type(x)` gives a value of this type.
fn type_value(ty: &Type) -> Rc<str> {
    use crate::Kind;
    match &ty.kind {
        Kind::Null => "null_type".into(),
        Kind::Timestamp => "google.protobuf.Timestamp".into(),
        Kind::Duration => "google.protobuf.Duration".into(),
        Kind::List(_) => "list".into(),
        Kind::Map(_) => "map".into(),
        Kind::TypeOf(_) => "type".into(),
        Kind::Optional(_) => "optional_type".into(),
        _ => ty.to_string().into(),
    }
}

/// A key as messages show it; of a long one only its beginning.
fn functions_text(key: &Value<'_>) -> String {
    const SHOWN_CHARS_MAX: usize = 512;
    match key {
        Value::String(text) => text.as_str().chars().take(SHOWN_CHARS_MAX).collect(),
        key => {
            let text = crate::functions::strings::text_of(key);
            text.unwrap_or_else(|| key.type_name().to_string())
        }
    }
}

/// Elements of a list that must be one.
pub(crate) fn list_of<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>, EvalError> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(EvalError::no_such_overload()),
    }
}
