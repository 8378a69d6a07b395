//! Rules against values. One pass over an object, within the cost one object may cause; what it tells is
//! bounded too, because an object may be wrong in a great many places.

use super::{Compiled, Rules};
use k8s::{
    FieldError,
    structural::{Counterparts, Node, Path, Rule, Step, Ty},
    text::go_quote,
};
use kcel::{Budget, EvalError, Program, Value as Cel, Vars};
use serde_json::Value;
use std::cell::Cell;

/// Bytes of errors after which nothing more is looked for.
const TOLD_BYTES_MAX: usize = 1 << 20;

/// What the rules say.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) errors: Vec<FieldError>,
    /// What is wrong, was wrong before, and has not changed.
    pub(crate) forgiven: Vec<String>,
}

/// All rules against `new`, an object or a part of one at `path`. `old`: before an update. `forgives`:
/// what an update leaves alone is only warned of.
pub(crate) fn run(
    rules: &Rules,
    node: &Node,
    path: &str,
    (new, old): (&Value, Option<&Value>),
    forgives: bool,
    budget: &mut Budget,
) -> Verdict {
    let mut run = Run { budget, verdict: Verdict::default(), told_bytes: 0, stopped: false };
    run.value(rules, node, (new, old), None, forgives, &Path::root(path));
    run.verdict
}

struct Run<'b> {
    budget: &'b mut Budget,
    verdict: Verdict,
    told_bytes: usize,
    stopped: bool,
}

/// The nearest new and old value around a place that correspond.
#[derive(Clone, Copy)]
struct Near<'a> {
    new: &'a Value,
    old: &'a Value,
    /// Compared once, however many rules ask.
    equal: &'a Cell<Option<bool>>,
}

impl Near<'_> {
    fn is_unchanged(&self) -> bool {
        let equal = self.equal.get().unwrap_or_else(|| self.new == self.old);
        self.equal.set(Some(equal));
        equal
    }
}

impl Run<'_> {
    /// `forgives`: if the value has not changed.
    fn value(
        &mut self,
        rules: &Rules,
        node: &Node,
        (new, old): (&Value, Option<&Value>),
        near: Option<Near<'_>>,
        forgives: bool,
        path: &Path<'_>,
    ) {
        if new.is_null() {
            return;
        }
        let equal = Cell::new(None);
        let own = old.filter(|_| forgives).map(|old| Near { new, old, equal: &equal });
        let near = own.or(near);
        let old = old.filter(|old| !old.is_null());
        for compiled in &rules.own {
            if self.stopped {
                return;
            }
            self.rule(compiled, rules, node, (new, old), near, path);
        }
        match new {
            Value::Object(object) => {
                for (name, value) in object {
                    let Some((rules, field)) = rules.field(node, name) else { continue };
                    let declared = node.properties.contains_key(name.as_str());
                    let below =
                        path.below(if declared { Step::Field(name) } else { Step::Key(name) });
                    // Of a whole object these cannot change: both sides are in the same version.
                    let typed = path.is_root() && matches!(name.as_str(), "apiVersion" | "kind");
                    let near = near.filter(|_| !typed);
                    let was = old.and_then(|old| old.as_object()?.get(name));
                    self.value(rules, field, (value, was), near, forgives && !typed, &below);
                    if self.stopped {
                        return;
                    }
                }
            }
            Value::Array(list) => self.list(rules, node, (list, old), near, forgives, path),
            _ => {}
        }
    }

    fn list(
        &mut self,
        rules: &Rules,
        node: &Node,
        (list, old): (&[Value], Option<&Value>),
        near: Option<Near<'_>>,
        forgives: bool,
        path: &Path<'_>,
    ) {
        let (Some(rules), Some(items)) = (&rules.items, &node.items) else { return };
        let known = Counterparts::of(old, node);
        for (index, entry) in list.iter().enumerate() {
            let below = path.below(Step::Index(index));
            self.value(rules, items, (entry, known.get(entry)), near, forgives, &below);
            if self.stopped {
                return;
            }
        }
    }

    fn rule(
        &mut self,
        compiled: &Compiled,
        rules: &Rules,
        node: &Node,
        (new, old): (&Value, Option<&Value>),
        near: Option<Near<'_>>,
        path: &Path<'_>,
    ) {
        let rule = &compiled.rule;
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => return self.tell(broken(path, node, format!("rule compile error: {why}"))),
        };
        let optional = rule.optional_old_self == Some(true);
        if compiled.is_transition && old.is_none() && !optional {
            return;
        }
        let vars = variables(rules, new, old, optional);
        let answer = vars.and_then(|vars| match program.eval(&vars, self.budget)?.as_bool() {
            Some(true) => Ok(None),
            _ => Ok(Some(vars)),
        });
        let vars = match answer {
            Ok(None) => return,
            Ok(Some(vars)) => vars,
            Err(error) => return self.failed(rule, node, &error, path),
        };
        let error = self.refusal(compiled, node, new, &vars, path);
        if !compiled.is_transition && near.is_some_and(|near| near.is_unchanged()) {
            self.told_bytes += error.detail.len() + error.path.len();
            self.verdict.forgiven.push(error.to_string());
            self.stopped |= self.told_bytes > TOLD_BYTES_MAX;
        } else {
            self.tell(error);
        }
    }

    fn tell(&mut self, error: FieldError) {
        let value = error.bad_value.as_ref().and_then(Value::as_str).map_or(0, str::len);
        self.told_bytes += error.path.len() + error.detail.len() + value;
        self.stopped |= self.told_bytes > TOLD_BYTES_MAX;
        self.verdict.errors.push(error);
    }

    /// The error of a rule that does not hold, in the words of its author.
    fn refusal<'a>(
        &mut self,
        compiled: &'a Compiled,
        node: &Node,
        new: &Value,
        vars: &Vars<'a>,
        path: &Path<'_>,
    ) -> FieldError {
        let rule = &compiled.rule;
        let at = below(path, &compiled.below);
        // Upstream gives the message an `oldSelf` that is not optional, on which all that it was
        // compiled to do with it fails.
        let fails =
            |program: &&Program| rule.optional_old_self == Some(true) && program.uses("oldSelf");
        let made = match compiled.message.as_ref().filter(|program| !fails(program)) {
            Some(program) => match self.message(program, vars) {
                Ok(made) => made,
                Err(why) => {
                    self.stopped = true;
                    return FieldError::invalid(at, node.ty.name().into(), why);
                }
            },
            None => None,
        };
        let detail = made.unwrap_or_else(|| match rule.message.trim() {
            "" => format!("failed rule: {}", rule.rule.trim()),
            said => said.to_string(),
        });
        // Upstream leaves what may be large out of its messages.
        let value = Some(new.clone()).filter(|_| !matches!(node.ty, Ty::Object | Ty::Array));
        let mut error = match rule.reason.as_deref() {
            Some("FieldValueForbidden") => return FieldError::forbidden(at, detail),
            Some("FieldValueRequired") => return FieldError::required(at, detail),
            Some("FieldValueDuplicate") => FieldError::duplicate(at, Value::Null),
            _ => FieldError::invalid(at, Value::Null, detail),
        };
        error.bad_value = value;
        error
    }

    /// What `messageExpression` says; `None` if it says nothing that can be told, `Err` if it must not go
    /// on.
    fn message<'a>(
        &mut self,
        program: &'a Program,
        vars: &Vars<'a>,
    ) -> Result<Option<String>, String> {
        let said = match program.eval(vars, self.budget) {
            Ok(said) => said,
            Err(EvalError::Failed(_)) => return Ok(None),
            Err(EvalError::CostLimit) => {
                let source = go_quote(program.source());
                return Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for \
                     messageExpression: {source}"
                ));
            }
            Err(EvalError::OutOfBudget) => {
                return Err(
                    "messageExpression evaluation failed due to running out of cost budget, \
                            no further validation rules will be run"
                        .into(),
                );
            }
        };
        let text = said.as_str().map(str::trim).filter(|text| {
            !text.is_empty() && text.len() <= kcel::MESSAGE_BYTES_MAX && !text.contains('\n')
        });
        Ok(text.map(str::to_string))
    }

    /// A rule that gave no answer.
    fn failed(&mut self, rule: &Rule, node: &Node, error: &EvalError, path: &Path<'_>) {
        let named = match rule.message.trim() {
            "" => rule.rule.trim(),
            message => message,
        };
        let detail = match error {
            EvalError::OutOfBudget => error.to_string(),
            EvalError::CostLimit => format!(
                "'{error}': no further validation rules will be run due to call cost exceeds limit \
                 for rule: {named}"
            ),
            EvalError::Failed(text) if text.starts_with("no such overload") => format!(
                "'{text}': call arguments did not match a supported operator, function or macro \
                 signature for rule: {named}"
            ),
            EvalError::Failed(text) => format!("{text} evaluating rule: {named}"),
        };
        self.stopped |= !matches!(error, EvalError::Failed(_));
        self.tell(broken(path, node, detail));
    }
}

/// An error about the rule and not about the value.
fn broken(path: &Path<'_>, node: &Node, detail: String) -> FieldError {
    FieldError::invalid(below(path, ""), node.ty.name().into(), detail)
}

/// `<nil>` is how upstream prints the path of a whole object.
fn below(path: &Path<'_>, field: &str) -> String {
    match (path.to_string(), field) {
        (path, "") if path.is_empty() => "<nil>".into(),
        (path, "") => path,
        (path, field) if path.is_empty() => field.into(),
        (path, field) => format!("{path}.{field}"),
    }
}

fn variables<'a>(
    rules: &'a Rules,
    new: &'a Value,
    old: Option<&'a Value>,
    optional: bool,
) -> Result<Vars<'a>, EvalError> {
    let vars = Vars::new().with("self", Cel::typed(new, &rules.ty)?);
    let old = old.map(|old| Cel::typed(old, &rules.ty)).transpose()?;
    Ok(match (old, optional) {
        (Some(old), true) => vars.with("oldSelf", Cel::some(old)),
        (None, true) => vars.with("oldSelf", Cel::NONE),
        (Some(old), false) => vars.with("oldSelf", old),
        (None, false) => vars,
    })
}
