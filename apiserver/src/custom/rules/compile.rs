//! Schemas to rules: what is wrong with an expression, and what all of them may cost at most. Texts and
//! limits are upstream's (apiextensions/validation).

use super::{Compiled, Rules};
use k8s::{
    CauseReason, FieldError,
    schema::ListType,
    structural::{Additional, FieldPath, Node, Rule},
};
use kcel::{Env, Kind, Program, Type};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// How many of the dearest rules are named when all together are too dear.
const DEAREST: usize = 4;

/// The rules of a structural schema, which stands at `path`, and everything wrong with them. `None`: it
/// has no rules. Those that do not compile are among them, and refuse what they are asked about.
pub(crate) fn compile(schema: &Value, node: &Node, path: &str) -> (Option<Rules>, Vec<FieldError>) {
    let mut compiler = Compiler { errors: Vec::new(), total: 0, dear: Vec::new() };
    if !has_rules(node) {
        return (None, compiler.errors);
    }
    let place = Place {
        path: path.to_string(),
        name: "self".to_string(),
        root: true,
        count: Some(1),
        apart: None,
    };
    let ty = kcel::of_open_api(&place.name, schema, true);
    let rules = compiler.schema(schema, node, ty, &place);
    compiler.check_total(path);
    (rules, compiler.errors)
}

fn has_rules(node: &Node) -> bool {
    node.any(&|node| !node.rules.is_empty())
}

struct Compiler {
    errors: Vec<FieldError>,
    /// What all expressions may cost together.
    total: u64,
    /// Those that take at least a hundredth of what all may, and where they stand.
    dear: Vec<(String, u64)>,
}

/// Where the compiler is.
#[derive(Clone)]
struct Place {
    path: String,
    /// Of the type: messages name it, and it differs where schemas do.
    name: String,
    root: bool,
    /// How often a value of this schema may stand in an object; `None`: as often as fits.
    count: Option<u64>,
    /// The schema above whose new values do not correspond to old ones: there is no `oldSelf` below.
    apart: Option<String>,
}

impl Place {
    fn below(&self, step: &str, name: &str) -> Place {
        Place {
            path: format!("{}.{step}", self.path),
            name: format!("{}.{name}", self.name),
            root: false,
            ..self.clone()
        }
    }
}

impl Compiler {
    /// `ty`: as the schema above has it; `None` where that knows none.
    fn schema(
        &mut self,
        schema: &Value,
        node: &Node,
        ty: Option<Type>,
        place: &Place,
    ) -> Option<Rules> {
        if !has_rules(node) {
            return None;
        }
        let resource = place.root || node.embedded_resource;
        let ty = ty.or_else(|| kcel::of_open_api(&place.name, schema, resource));
        let count = place.count.zip(elements(schema, node));
        let count = count.map(|(outer, inner)| outer.saturating_mul(inner));
        let inside = Place { count, ..place.clone() };
        let additional = match &node.additional {
            Additional::Each(each) => {
                let place = inside.below("additionalProperties", "@elem");
                let ty = ty.as_ref().and_then(element);
                self.schema(&schema["additionalProperties"], each, ty, &place)
            }
            _ => None,
        };
        let mut fields = BTreeMap::new();
        for (name, field) in &node.properties {
            let place = inside.below(&format!("properties[{name}]"), name);
            let ty = ty.as_ref().and_then(|ty| member(ty, name));
            if let Some(rules) = self.schema(&schema["properties"][&**name], field, ty, &place) {
                fields.insert(name.clone(), rules);
            }
        }
        let items = node.items.as_ref().and_then(|items| {
            let mut below = inside.below("items", "@idx");
            if node.list_type != Some(ListType::Map) {
                below.apart.get_or_insert_with(|| place.path.clone());
            }
            self.schema(&schema["items"], items, ty.as_ref().and_then(element), &below)
        });
        let own = self.own(schema, node, ty.as_ref(), place);
        let ty = ty.unwrap_or(Type::DYN);
        let (items, additional) = (items.map(Box::new), additional.map(Box::new));
        Some(Rules { ty, own, fields, items, additional })
    }

    fn own(
        &mut self,
        schema: &Value,
        node: &Node,
        ty: Option<&Type>,
        place: &Place,
    ) -> Vec<Compiled> {
        const UNTYPED: &str = "unable to convert structural schema to CEL declarations";
        if node.rules.is_empty() {
            return Vec::new();
        }
        let Some(ty) = ty else {
            self.errors.push(FieldError {
                path: format!("{}.x-kubernetes-validations", place.path),
                reason: CauseReason::InternalError,
                bad_value: None,
                detail: format!(
                    "internal error: failed to construct type information for \
                     x-kubernetes-validations rules: {UNTYPED}"
                ),
            });
            let refused = |rule: &Rule| Compiled::failed(rule, UNTYPED.into());
            return node.rules.iter().map(refused).collect();
        };
        let as_often_as_fits =
            || kcel::REQUEST_BYTES_MAX / (kcel::min_bytes(schema).unwrap_or(0) + 1);
        let count = place.count.unwrap_or_else(as_often_as_fits);
        let plain = Env::kubernetes().var("self", ty.clone()).var("oldSelf", ty.clone());
        let optional =
            Env::kubernetes().var("self", ty.clone()).var("oldSelf", Type::optional(ty.clone()));
        let mut compiled = Vec::with_capacity(node.rules.len());
        for (index, rule) in node.rules.iter().enumerate() {
            let env = if rule.optional_old_self == Some(true) { &optional } else { &plain };
            let at = format!("{}.x-kubernetes-validations[{index}]", place.path);
            compiled.push(self.rule(rule, node, env, count, &at, place.apart.as_deref()));
        }
        compiled
    }

    fn rule(
        &mut self,
        rule: &Rule,
        node: &Node,
        env: &Env,
        count: u64,
        at: &str,
        apart: Option<&str>,
    ) -> Compiled {
        let rule_at = format!("{at}.rule");
        let program = match expression(env, &rule.rule, &Type::BOOL) {
            Ok(program) => program,
            Err(wrong) => {
                let why = match wrong {
                    Wrong::Type => "cel expression must evaluate to a bool".to_string(),
                    Wrong::Text(report) => format!("compilation failed: {report}"),
                };
                self.errors.push(FieldError::invalid(rule_at, shown(rule), &why));
                // Upstream looks at oldSelf all the same, which such a rule does not use.
                self.check_optional(rule, at);
                return Compiled::failed(rule, why);
            }
        };
        let cost = program.estimate().max.saturating_mul(count);
        self.charge("estimated rule cost", cost, rule_at.clone());
        let message = self.message(rule, env, at);
        let is_transition = program.uses("oldSelf");
        match apart {
            Some(apart) if is_transition => {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within \
                     {apart}"
                );
                self.errors.push(FieldError::invalid(rule_at, rule.rule.as_str().into(), why));
            }
            _ if !is_transition => self.check_optional(rule, at),
            _ => {}
        }
        let below = FieldPath::parse(&rule.field_path, true).unwrap_or_default().printed(node);
        Compiled { rule: rule.clone(), program: Ok(program), message, is_transition, below }
    }

    fn check_optional(&mut self, rule: &Rule, at: &str) {
        if let Some(optional) = rule.optional_old_self {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(FieldError::invalid(
                format!("{at}.optionalOldSelf"),
                optional.into(),
                why,
            ));
        }
    }

    fn message(&mut self, rule: &Rule, env: &Env, at: &str) -> Option<Program> {
        if rule.message_expression.is_empty() {
            return None;
        }
        let at = format!("{at}.messageExpression");
        match expression(env, &rule.message_expression, &Type::STRING) {
            Ok(program) => {
                let cost = program.estimate().max;
                self.charge("estimated messageExpression cost", cost, at);
                Some(program)
            }
            Err(wrong) => {
                let why = match wrong {
                    Wrong::Type => "messageExpression must evaluate to a string".to_string(),
                    Wrong::Text(report) => {
                        format!("messageExpression compilation failed: {report}")
                    }
                };
                self.errors.push(FieldError::invalid(at, shown(rule), why));
                None
            }
        }
    }

    fn charge(&mut self, what: &str, cost: u64, at: String) {
        if cost > kcel::ESTIMATE_LIMIT {
            let why = too_dear(what, cost, kcel::ESTIMATE_LIMIT);
            self.errors.push(FieldError::forbidden(&at, why));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= kcel::ESTIMATE_LIMIT_ALL / 100 {
            self.dear.push((at, cost));
            self.dear.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.dear.truncate(DEAREST);
        }
    }

    fn check_total(&mut self, path: &str) {
        if self.total <= kcel::ESTIMATE_LIMIT_ALL {
            return;
        }
        for (at, _) in &self.dear {
            let why = "contributed to estimated rule cost total exceeding cost limit for entire \
                       OpenAPIv3 schema";
            self.errors.push(FieldError::forbidden(at, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let why = too_dear(what, self.total, kcel::ESTIMATE_LIMIT_ALL);
        self.errors.push(FieldError::forbidden(path, why));
    }
}

impl Compiled {
    fn failed(rule: &Rule, why: String) -> Compiled {
        let (message, below) = (None, String::new());
        Compiled { rule: rule.clone(), program: Err(why), message, is_transition: false, below }
    }
}

/// Why an expression is none.
enum Wrong {
    /// It is, of another type.
    Type,
    Text(String),
}

fn expression(env: &Env, source: &str, wanted: &Type) -> Result<Program, Wrong> {
    match Program::compile(env, source) {
        Ok(program) if program.output() == wanted => Ok(program),
        Ok(_) => Err(Wrong::Type),
        Err(errors) => Err(Wrong::Text(kcel::report(&errors))),
    }
}

/// A rule as upstream prints it: the JSON of a Go struct that names no JSON fields.
fn shown(rule: &Rule) -> Value {
    json!({
        "Rule": rule.rule, "Message": rule.message,
        "MessageExpression": rule.message_expression, "Reason": rule.reason,
        "FieldPath": rule.field_path, "OptionalOldSelf": rule.optional_old_self,
    })
}

/// How many values a value of this schema holds of those below; `None`: as many as fit.
fn elements(schema: &Value, node: &Node) -> Option<u64> {
    let limit = |limit: Option<i64>| limit.map(|limit| u64::try_from(limit).unwrap_or(0));
    match schema["type"].as_str() {
        Some("array") => limit(node.limits.max_items),
        Some("object") if !schema["additionalProperties"].is_null() => {
            limit(node.limits.max_properties)
        }
        _ => Some(1),
    }
}

fn element(ty: &Type) -> Option<Type> {
    match &ty.kind {
        Kind::List(list) => Some(list.element.clone()),
        Kind::Map(map) => Some(map.1.clone()),
        _ => None,
    }
}

fn member(ty: &Type, name: &str) -> Option<Type> {
    match &ty.kind {
        Kind::Object(object) => Some(object.fields.get(&kcel::escape(name)?)?.ty.clone()),
        _ => None,
    }
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = match cost as f64 / limit as f64 {
        factor if factor > 100.0 => "more than 100x".to_string(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, \
         maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
