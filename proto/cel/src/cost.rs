//! What a step costs, counted while evaluating and estimated from the sizes types declare. Numbers are
//! cel-go's (common/cost.go) and Kubernetes' (k8s.io/apiserver/pkg/cel/library/cost.go): which rules a
//! CustomResourceDefinition may have depends on them.

use crate::{
    Kind, Type, Value,
    ast::{Access, Call, Expr, ExprKind, Literal, Loop, LoopKind, Means},
    value::{List, Opaque},
};

pub(crate) const LIST: u64 = 10;
pub(crate) const MAP: u64 = 30;
pub(crate) const OBJECT: u64 = 40;
/// Per byte of a string that is walked.
const STRING: f64 = 0.1;
/// Per byte of a pattern: an operator about every four.
const REGEX: f64 = 0.25;
/// An authorization check: two fit into one evaluation.
const CHECK: u64 = 350_000;
/// The longest pattern of a named format.
const FORMAT_REGEX: u64 = 128;

/// At least and at most; of costs and of sizes alike. `u64::MAX`: no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub min: u64,
    pub max: u64,
}

const UNKNOWN: Cost = Cost { min: 0, max: u64::MAX };
const ONE: Cost = Cost::fixed(1);

impl Cost {
    const fn fixed(cost: u64) -> Cost {
        Cost { min: cost, max: cost }
    }

    fn up_to(max: u64) -> Cost {
        Cost { min: 0, max }
    }

    fn plus(self, other: Cost) -> Cost {
        let sum = |a: u64, b: u64| a.saturating_add(b);
        Cost { min: sum(self.min, other.min), max: sum(self.max, other.max) }
    }

    fn times(self, other: Cost) -> Cost {
        let product = |a: u64, b: u64| a.saturating_mul(b);
        Cost { min: product(self.min, other.min), max: product(self.max, other.max) }
    }

    /// Rounded up.
    fn by(self, factor: f64) -> Cost {
        Cost { min: traversal(self.min, factor), max: traversal(self.max, factor) }
    }

    fn union(self, other: Cost) -> Cost {
        Cost { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

pub(crate) fn traversal(size: u64, factor: f64) -> u64 {
    if size == u64::MAX {
        return u64::MAX;
    }
    (size as f64 * factor).ceil() as u64
}

/// What a call costs, before it is made; `None`: known only from its result.
pub(crate) fn of_call(function: &str, args: &[Value<'_>]) -> Option<u64> {
    let size = |index: usize| args.get(index).map_or(1, Value::size);
    Some(match function {
        "check" => CHECK,
        "fieldSelector" | "labelSelector" => selector(Cost::fixed(size(1))).max,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            let mut nodes = crate::PER_CALL_LIMIT;
            args.first().map_or(0, |first| tree(first, &mut nodes))
        }
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => traversal(size(0), STRING),
        "ip" => match args.first() {
            Some(Value::String(_)) => traversal(size(0), STRING),
            _ => 1,
        },
        "replace" | "split" | "ip.isCanonical" => traversal(size(0), 2.0 * STRING),
        "join" => return None,
        "find" | "findAll" | "matches" => {
            traversal(size(0) + 1, STRING).saturating_mul(traversal(size(1), REGEX))
        }
        "containsIP" | "containsCIDR" => contained(function, args),
        "validate" => {
            let pattern = match args.first() {
                Some(Value::Opaque(Opaque::Format(format))) => format.regex_bytes,
                _ => FORMAT_REGEX,
            };
            traversal(size(1) + 1, STRING).saturating_mul(traversal(pattern, REGEX))
        }
        "startsWith" | "endsWith" => traversal(size(1), STRING),
        "format" | "strings.quote" => traversal(size(0), STRING),
        "bytes" | "string" if matches!(args, [Value::String(_) | Value::Bytes(_)]) => {
            traversal(size(0), STRING)
        }
        "@in" => match args.get(1) {
            Some(Value::List(list)) => list.len() as u64,
            _ => 1,
        },
        "_==_" | "_!=_" if matches!(args, [Value::Opaque(_), ..]) => 1,
        "_==_" | "_!=_" => traversal(size(0).min(size(1)), STRING),
        "_<_" | "_<=_" | "_>_" | "_>=_" if is_text(args.first()) => {
            traversal(size(0).min(size(1)), STRING)
        }
        "_+_" if is_text(args.first()) => traversal(size(0) + size(1), STRING),
        "contains" => traversal(size(0), STRING).saturating_mul(traversal(size(1), STRING)),
        "sets.contains" | "sets.intersects" => size(0).saturating_mul(size(1)).max(1),
        "sets.equivalent" => size(0).saturating_mul(size(1)).saturating_mul(2).max(1),
        "distinct" => size(0).saturating_mul(size(0)).max(1),
        "flatten" | "reverse" | "sort" | "slice" => size(0).max(1),
        "lists.range" => match args.first() {
            Some(Value::Int(count)) => u64::try_from(*count).unwrap_or(1).max(1),
            _ => 1,
        },
        _ => 1,
    })
}

fn is_text(value: Option<&Value<'_>>) -> bool {
    matches!(value, Some(Value::String(_) | Value::Bytes(_)))
}

fn contained(function: &str, args: &[Value<'_>]) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Value::size);
    let mut cost = traversal(2 * size(0), STRING);
    if function == "containsCIDR" {
        cost += traversal(size(0), STRING) + 1;
    }
    if is_text(args.get(1)) {
        cost += traversal(size(1), STRING);
    }
    cost
}

/// A walk through all of a value. What is in it twice is walked twice, so it may be longer than anybody
/// can wait: beyond so many nodes it costs more than any evaluation may.
fn tree(value: &Value<'_>, nodes: &mut u64) -> u64 {
    if *nodes == 0 {
        return crate::PER_CALL_LIMIT + 1;
    }
    *nodes -= 1;
    match value {
        Value::String(text) => (text.as_str().len() as f64 * STRING) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * STRING) as u64,
        // Of JSON only its elements are walked: sorting and summing go no deeper.
        Value::List(List::Json(items, _)) => items
            .iter()
            .map(|item| match item {
                serde_json::Value::String(text) => (text.len() as f64 * STRING) as u64,
                _ => 1,
            })
            .sum(),
        Value::List(list) => {
            let cost = |sum: u64, item: Result<Value<'_>, _>| {
                sum.saturating_add(item.as_ref().map_or(1, |item| tree(item, nodes)))
            };
            list.iter().fold(0, cost)
        }
        Value::Map(map) => map.len() as u64,
        _ => 1,
    }
}

/// Parsing a selector: one requirement per two bytes, each a list and a struct.
fn selector(length: Cost) -> Cost {
    let requirements = length.by(0.5).by((LIST + OBJECT) as f64);
    Cost::fixed(LIST).plus(length.by(STRING)).plus(requirements)
}

/// At least and at most for any value of the declared sizes.
pub(crate) fn estimate(root: &Expr) -> Cost {
    Estimator.node(root).0
}

/// Cost, and the size of the value where an operation tells it.
type Estimate = (Cost, Option<Cost>);

struct Estimator;

impl Estimator {
    fn node(&self, expr: &Expr) -> Estimate {
        match &expr.kind {
            ExprKind::Literal(literal) => (Cost::fixed(0), Some(literal_size(literal))),
            // `type(x) == int`: upstream has no size for the name of a type, and takes that of `self`,
            // which for objects is none.
            ExprKind::Ident { means: Means::TypeName(_), .. } => (ONE, Some(Cost::fixed(0))),
            ExprKind::Ident { .. } => (ONE, declared(expr)),
            ExprKind::Select { operand, how, .. } => {
                let (cost, _) = self.node(operand);
                let own = if *how == Access::Test { 0 } else { 1 };
                (cost.plus(Cost::fixed(own)), declared(expr))
            }
            ExprKind::Index { operand, index, .. } => {
                let cost = self.node(operand).0.plus(self.node(index).0);
                (cost.plus(ONE), declared(expr))
            }
            ExprKind::Call(call) => self.call(call),
            ExprKind::And(all) | ExprKind::Or(all) => {
                let costs: Vec<Cost> = all.iter().map(|one| self.node(one).0).collect();
                let sum = costs.iter().copied().fold(Cost::fixed(0), Cost::plus);
                (Cost { min: costs.first().map_or(0, |first| first.min), max: sum.max }, Some(ONE))
            }
            ExprKind::Ternary(all) => {
                let [condition, then, otherwise] = all.each_ref().map(|one| self.node(one));
                let size = match (then.1, otherwise.1) {
                    (Some(a), Some(b)) => Some(a.union(b)),
                    _ => None,
                };
                (condition.0.plus(then.0.union(otherwise.0)), size)
            }
            ExprKind::List(items) => {
                let size = Cost::fixed(items.len() as u64);
                (self.sum(expr).plus(Cost::fixed(LIST)), Some(size))
            }
            ExprKind::Map(entries) => {
                let size = Cost::fixed(entries.len() as u64);
                (self.sum(expr).plus(Cost::fixed(MAP)), Some(size))
            }
            ExprKind::Object { .. } => (self.sum(expr).plus(Cost::fixed(OBJECT)), Some(ONE)),
            ExprKind::Loop(all) => self.repeat(all),
        }
    }

    fn sum(&self, expr: &Expr) -> Cost {
        let children = expr.children();
        children.into_iter().map(|child| self.node(child).0).fold(Cost::fixed(0), Cost::plus)
    }

    /// Size of the value of a node that was estimated.
    fn size(&self, expr: &Expr, estimate: &Estimate) -> Cost {
        estimate.1.unwrap_or_else(|| fallback(&expr.ty))
    }

    fn repeat(&self, all: &Loop) -> Estimate {
        let range = self.node(&all.range);
        let body = self.node(&all.body);
        if matches!(all.kind, LoopKind::OptMap | LoopKind::OptFlatMap) {
            let cost = Cost { min: 0, max: body.0.max };
            return (range.0.plus(cost).plus(Cost::fixed(2)), body.1);
        }
        let count = self.size(&all.range, &range);
        let filter = all.filter.as_ref().map_or(Cost::fixed(0), |filter| self.node(filter).0);
        let either = |cost: u64| ONE.union(Cost::fixed(cost));
        let (start, step, end) = match all.kind {
            LoopKind::All => (0, Cost { min: 3, max: body.0.max.saturating_add(3) }, 1),
            LoopKind::Exists => (0, Cost { min: 4, max: body.0.max.saturating_add(4) }, 1),
            LoopKind::ExistsOne => (0, body.0.plus(either(2)), 2),
            LoopKind::Filter => (LIST, body.0.plus(either(LIST + 3)), 1),
            LoopKind::TransformMap | LoopKind::TransformEntry => {
                let step = Cost::fixed(2).plus(body.0);
                (MAP, if all.filter.is_some() { filter.plus(step.union(ONE)) } else { step }, 1)
            }
            _ => {
                let step = Cost::fixed(LIST + 2).plus(body.0);
                (LIST, if all.filter.is_some() { filter.plus(step.union(ONE)) } else { step }, 1)
            }
        };
        let cost = range.0.plus(Cost::fixed(start + end)).plus(count.times(step));
        let size = match all.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => ONE,
            LoopKind::Map if all.filter.is_none() => count,
            LoopKind::SortBy => count,
            _ => Cost::up_to(count.max),
        };
        (cost, Some(size))
    }

    fn call(&self, call: &Call) -> Estimate {
        let args: Vec<Estimate> = call.args.iter().map(|arg| self.node(arg)).collect();
        let sizes: Vec<Cost> =
            call.args.iter().zip(&args).map(|(arg, one)| self.size(arg, one)).collect();
        let sum = args.iter().map(|one| one.0).fold(Cost::fixed(0), Cost::plus);
        let (cost, size) = estimate_call(call, &sizes);
        (sum.plus(cost), size)
    }
}

fn literal_size(literal: &Literal) -> Cost {
    Cost::fixed(match literal {
        Literal::String(text) => text.chars().count() as u64,
        Literal::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    })
}

/// The size a declaration gives a value that is reached by names alone.
fn declared(expr: &Expr) -> Option<Cost> {
    expr.ty.max.map(Cost::up_to)
}

fn fallback(ty: &Type) -> Cost {
    match ty.max {
        Some(max) => Cost::up_to(max),
        None if ty.is_scalar() => ONE,
        None => UNKNOWN,
    }
}

/// Of the call alone: cost, and the size of what it gives.
fn estimate_call(call: &Call, sizes: &[Cost]) -> Estimate {
    let size = |index: usize| sizes.get(index).copied().unwrap_or(ONE);
    let ty = |index: usize| call.args.get(index).map_or(Type::DYN, |arg| arg.ty.clone());
    let is_string = |index: usize| matches!(ty(index).kind, Kind::String | Kind::Bytes);
    match call.function.as_str() {
        "check" => (Cost::fixed(CHECK), None),
        "fieldSelector" | "labelSelector" => (selector(size(1)), None),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            (estimate_walk(&ty(0), size(0)), None)
        }
        "url" | "jsonpatch.escapeKey" | "lowerAscii" | "upperAscii" | "substring" | "trim" => {
            (size(0).by(STRING), Some(size(0)))
        }
        "replace" => (size(0).by(2.0 * STRING), Some(replaced(size(0), size(1), size(2)))),
        "split" => {
            let max = match call.args.get(2).map(|limit| &limit.kind) {
                Some(ExprKind::Literal(Literal::Int(limit))) => *limit as u64,
                _ => size(0).max,
            };
            (size(0).by(2.0 * STRING), Some(Cost::up_to(max)))
        }
        "join" => {
            let joined = joined(&ty(0), size(0), sizes.get(1).copied());
            (joined.by(STRING), Some(joined))
        }
        "find" | "findAll" => {
            let cost = size(0).plus(ONE).by(STRING).times(size(1).by(REGEX));
            (cost, Some(Cost::up_to(size(0).max)))
        }
        "matches" => (size(0).plus(ONE).by(STRING).times(size(1).by(REGEX)), None),
        "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            (size(0).by(STRING), None)
        }
        "ip" if !is_string(0) && !ty(0).is_dyn() => (ONE, None),
        "ip" => (size(0).by(STRING), None),
        "ip.isCanonical" => (size(0).by(2.0 * STRING), None),
        "containsIP" | "containsCIDR" => {
            let addresses = Cost { min: 4, max: 16 };
            let mut cost = addresses.plus(addresses).by(STRING);
            if call.function == "containsCIDR" {
                cost = cost.plus(addresses.by(STRING)).plus(ONE);
            }
            if is_string(1) {
                cost = cost.plus(size(1).by(STRING));
            }
            (cost, None)
        }
        "validate" => (size(1).by(STRING).by(FORMAT_REGEX as f64 * REGEX), None),
        _ => estimate_standard(call, sizes),
    }
}

/// cel-go's own functions.
fn estimate_standard(call: &Call, sizes: &[Cost]) -> Estimate {
    let size = |index: usize| sizes.get(index).copied().unwrap_or(ONE);
    let ty = |index: usize| call.args.get(index).map_or(Type::DYN, |arg| arg.ty.clone());
    let is_text = |index: usize| matches!(ty(index).kind, Kind::String | Kind::Bytes);
    match call.function.as_str() {
        "_==_" if matches!(ty(0).kind, Kind::Opaque("kubernetes.URL")) && ty(0) == ty(1) => {
            (Cost { min: 1, max: size(1).max }.by(STRING), None)
        }
        "_==_" if matches!(ty(0).kind, Kind::Opaque(_)) && ty(0) == ty(1) => (ONE, None),
        "_==_" | "_!=_" => (Cost::up_to(size(0).max.min(size(1).max)).by(STRING), None),
        "_<_" | "_<=_" | "_>_" | "_>=_" if is_text(0) => {
            (Cost::up_to(size(0).max.min(size(1).max)).by(STRING), None)
        }
        "_+_" if is_text(0) => {
            let sum = size(0).plus(size(1));
            (sum.by(STRING), Some(sum))
        }
        "_+_" if matches!(ty(0).kind, Kind::List(_)) => (ONE, Some(size(0).plus(size(1)))),
        "@in" if matches!(ty(1).kind, Kind::Map(_)) => (ONE, None),
        "@in" => (size(1), None),
        "contains" => (size(0).by(STRING).times(size(1).by(STRING)), None),
        "startsWith" | "endsWith" => (size(1).by(STRING), None),
        "string" | "bytes" if is_text(0) => (size(0).by(STRING), Some(size(0))),
        "format" => (size(0).by(STRING), None),
        "sets.contains" | "sets.intersects" => (size(0).times(size(1)), None),
        "sets.equivalent" => (size(0).times(size(1)).times(Cost::fixed(2)), None),
        "distinct" => (size(0).times(size(0)), Some(Cost::up_to(size(0).max))),
        "reverse" | "sort" => (size(0), Some(size(0))),
        "slice" => (size(0), Some(Cost::up_to(size(0).max))),
        "flatten" => (size(0), None),
        "lists.range" => {
            let count = match call.args.first().map(|count| &count.kind) {
                Some(ExprKind::Literal(Literal::Int(count))) => {
                    Cost::fixed(u64::try_from(*count).unwrap_or(0))
                }
                _ => UNKNOWN,
            };
            (count.plus(ONE), Some(count))
        }
        "dyn" | "value" | "orValue" | "optional.of" => (ONE, sizes.first().copied()),
        _ => (ONE, None),
    }
}

/// Comparing all elements, strings among them byte by byte.
fn estimate_walk(ty: &Type, size: Cost) -> Cost {
    match &ty.kind {
        Kind::List(list) => {
            let mut each = ONE;
            if matches!(list.element.kind, Kind::String | Kind::Bytes) {
                each = each.plus(fallback(&list.element).by(STRING));
            }
            size.times(each)
        }
        _ => size.by(STRING),
    }
}

/// The length of a text in which the longest possible replacement was made as often as possible.
fn replaced(text: Cost, from: Cost, to: Cost) -> Cost {
    let times = |length: u64, by: u64| {
        if length == u64::MAX { length } else { length.div_ceil(by) }
    };
    let most = if from.min == 0 {
        text.max.saturating_add(1).saturating_mul(to.max).saturating_add(text.max)
    } else if to.max <= from.min {
        text.max
    } else {
        times(text.max, from.min).saturating_mul(to.max)
    };
    let least = if from.max == 0 {
        text.min.saturating_add(1).saturating_mul(to.min).saturating_add(text.min)
    } else if from.max <= to.min {
        text.min
    } else {
        times(text.min, from.max).saturating_mul(to.min)
    };
    Cost { min: least, max: most }
}

fn joined(list: &Type, count: Cost, separator: Option<Cost>) -> Cost {
    let elements = match list.element() {
        Some(element) => count.times(fallback(element)),
        None => Cost::fixed(0),
    };
    let between = Cost { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
    elements.plus(separator.map_or(Cost::fixed(0), |separator| separator.times(between)))
}
