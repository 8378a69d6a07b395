//! What admission policies and their bindings share: defaults and validation (upstream's
//! `pkg/apis/admissionregistration/validation`). Expressions are compiled as they will be.

use super::{
    child,
    field::{At, Errors},
    labels, set_text, webhooks,
};
use crate::admission::policy::{Compiled, Scope};
use k8s::{FieldError, Object, names};
use kcel::Type;
use std::collections::BTreeSet;

const CONDITIONS_MAX: usize = 64;
const ANNOTATIONS_MAX: usize = 20;
/// Ours, not upstream's: a policy is compiled while its writer waits, and each of its expressions knows
/// all variables.
const VARIABLES_MAX: usize = 256;
const RULES_MAX: usize = 1024;
/// Bytes of an expression that makes an audit annotation.
const ANNOTATION_EXPRESSION_BYTES_MAX: usize = 5 * 1024;

pub(in crate::kinds) fn default(policy: &mut Object) {
    let spec = policy.map_mut("spec");
    set_text(spec, "failurePolicy", "Fail");
    if let Some(matches) = child(spec, "matchConstraints") {
        super::default_match(matches);
    }
}

pub(in crate::kinds) fn validate_validating(policy: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(policy, "spec");
    let mut scope = validate_policy(&spec, false, &mut errors);
    let (validations, annotations) = (spec.field("validations"), spec.field("auditAnnotations"));
    if validations.count() == 0 && annotations.count() == 0 {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.required(&validations, detail);
        errors.required(&annotations, detail);
        return errors.0;
    }
    too_many(&validations, RULES_MAX, &mut errors);
    for validation in validations.items().take(RULES_MAX) {
        validate_validation(&validation, &mut scope, &mut errors);
    }
    if annotations.count() > ANNOTATIONS_MAX {
        let detail = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.invalid(&annotations, detail);
    }
    let mut keys = BTreeSet::new();
    for annotation in annotations.items().take(ANNOTATIONS_MAX) {
        validate_annotation(policy.name(), &annotation, &scope, &mut errors);
        let key = annotation.field("key");
        if !keys.insert(key.text().to_string()) {
            errors.duplicate(&key);
        }
    }
    errors.0
}

pub(in crate::kinds) fn validate_mutating(policy: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(policy, "spec");
    let scope = validate_policy(&spec, true, &mut errors);
    let mutations = spec.field("mutations");
    if mutations.count() == 0 {
        errors.required(&mutations, "mutations must contain at least one item");
    }
    too_many(&mutations, RULES_MAX, &mut errors);
    for mutation in mutations.items().take(RULES_MAX) {
        validate_mutation(&mutation, &scope, &mut errors);
    }
    errors.one_of(&spec.field("reinvocationPolicy"), &["IfNeeded", "Never"], true);
    errors.0
}

/// What both kinds of policies have; gives the scope of their expressions.
fn validate_policy(spec: &At<'_, '_>, patches: bool, errors: &mut Errors) -> Scope {
    errors.one_of(&spec.field("failurePolicy"), &["Fail", "Ignore"], true);
    let kind = spec.field("paramKind");
    let mut scope = Scope { params: kind.exists(), authorizer: true, patches, ..Scope::default() };
    if kind.exists() {
        validate_param_kind(&kind, errors);
    }
    let matches = spec.field("matchConstraints");
    if matches.exists() {
        validate_match(&matches, errors);
        let rules = matches.field("resourceRules");
        if rules.count() == 0 {
            errors.required(&rules, "");
        }
    } else {
        errors.required(&matches, "");
    }
    validate_conditions(&spec.field("matchConditions"), scope.params, errors);
    let variables = spec.field("variables");
    too_many(&variables, VARIABLES_MAX, errors);
    for variable in variables.items().take(VARIABLES_MAX) {
        validate_variable(&variable, &mut scope, errors);
    }
    scope
}

fn too_many(list: &At<'_, '_>, max: usize, errors: &mut Errors) {
    if list.count() > max {
        errors.0.push(FieldError::too_many(list.to_string(), list.count(), max));
    }
}

fn validate_param_kind(kind: &At<'_, '_>, errors: &mut Errors) {
    let api_version = kind.field("apiVersion");
    let text = api_version.text();
    let (group, version) = text.split_once('/').unwrap_or(("", text));
    if text.is_empty() {
        errors.required(&api_version, "");
    } else if version.contains('/') {
        errors.invalid(&api_version, format!("unexpected GroupVersion string: {text}"));
    } else {
        let wrong = names::is_dns1123_subdomain(group);
        if !group.is_empty() && !wrong.is_empty() {
            errors.invalid_value(&api_version, group, wrong.join(","));
        }
        let wrong = names::is_dns1035_label(version);
        if version.is_empty() {
            errors.invalid(&api_version, "version must be specified");
        } else if !wrong.is_empty() {
            errors.invalid_value(&api_version, version, wrong.join(","));
        }
    }
    let kind = kind.field("kind");
    let wrong = names::is_dns1035_label(&kind.text().to_lowercase());
    if kind.text().is_empty() {
        errors.required(&kind, "");
    } else if !wrong.is_empty() {
        let detail = "may have mixed case, but should otherwise match: ";
        errors.invalid(&kind, format!("{detail}{}", wrong.join(",")));
    }
}

fn validate_match(matches: &At<'_, '_>, errors: &mut Errors) {
    errors.one_of(&matches.field("matchPolicy"), &["Equivalent", "Exact"], true);
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = matches.field(field);
        if selector.exists() {
            labels::validate_selector(&selector, errors);
        } else {
            errors.required(&selector, "");
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for rule in matches.field(field).items() {
            let mut seen = BTreeSet::new();
            for name in rule.field("resourceNames").items() {
                errors.invalid_each(&name, names::is_path_segment_name(name.text()));
                if !seen.insert(name.text().to_string()) {
                    errors.duplicate(&name);
                }
            }
            webhooks::validate_rule(&rule, errors);
        }
    }
}

/// The `matchConditions` of a policy or a webhook.
pub(in crate::kinds) fn validate_conditions(
    conditions: &At<'_, '_>,
    params: bool,
    errors: &mut Errors,
) {
    let scope = Scope { params, authorizer: true, ..Scope::default() };
    too_many(conditions, CONDITIONS_MAX, errors);
    let mut seen = BTreeSet::new();
    for condition in conditions.items().take(CONDITIONS_MAX) {
        let expression = condition.field("expression");
        let source = expression.text().trim();
        if source.is_empty() {
            errors.required(&expression, "");
        } else {
            report(&expression, source, scope.compile(source, &[Type::BOOL]), errors);
        }
        let name = condition.field("name");
        if name.text().is_empty() {
            errors.required(&name, "");
            continue;
        }
        errors.invalid_each(&name, names::is_qualified_name(name.text()));
        if !seen.insert(name.text().to_string()) {
            errors.duplicate(&name);
        }
    }
}

fn report(at: &At<'_, '_>, source: &str, compiled: Compiled, errors: &mut Errors) {
    if let Err(why) = compiled {
        errors.invalid_value(at, source, why);
    }
}

fn validate_variable(variable: &At<'_, '_>, scope: &mut Scope, errors: &mut Errors) {
    let (name, expression) = (variable.field("name"), variable.field("expression"));
    if name.text().trim().is_empty() {
        errors.required(&name, "name is not specified");
    } else if !is_identifier(name.text()) {
        errors.invalid(&name, "name is not a valid CEL identifier");
    }
    if expression.text().trim().is_empty() {
        return errors.required(&expression, "expression is not specified");
    }
    let compiled = scope.compile(expression.text(), &[]);
    scope.declare(name.text(), &compiled);
    report(&expression, expression.text(), compiled, errors);
}

fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c == '_' || c.is_ascii_alphabetic();
    name.starts_with(letter)
        && name.chars().all(|c| letter(c) || c.is_ascii_digit())
        // A reserved word has an escaped form.
        && kcel::escape(name).is_some_and(|escaped| escaped == name || name.contains("__"))
}

fn validate_validation(validation: &At<'_, '_>, scope: &mut Scope, errors: &mut Errors) {
    let expression = validation.field("expression");
    if expression.text().trim().is_empty() {
        errors.required(&expression, "expression is not specified");
    } else {
        let compiled = scope.compile(expression.text(), &[Type::BOOL]);
        report(&expression, expression.text(), compiled, errors);
    }
    let message = validation.field("messageExpression");
    if !message.text().is_empty() && message.text().trim().is_empty() {
        errors.invalid(&message, "must be non-empty if specified");
    } else if !message.text().is_empty() {
        // Upstream does not let messages ask the authorizer.
        scope.authorizer = false;
        let compiled = scope.compile(message.text(), &[Type::STRING]);
        scope.authorizer = true;
        report(&message, message.text(), compiled, errors);
    }
    let fixed = validation.field("message");
    if !fixed.text().is_empty() && fixed.text().trim().is_empty() {
        errors.invalid(&fixed, "message must be non-empty if specified");
    } else if fixed.text().trim().contains(['\n', '\r']) {
        errors.invalid(&fixed, "message must not contain line breaks");
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    errors.one_of(&validation.field("reason"), &reasons, false);
}

fn validate_annotation(policy: &str, annotation: &At<'_, '_>, scope: &Scope, errors: &mut Errors) {
    let (key, value) = (annotation.field("key"), annotation.field("valueExpression"));
    if policy.is_empty() {
        errors.invalid(&key, "requires metadata.name be non-empty");
    } else {
        let whole = format!("{policy}/{}", key.text());
        for detail in names::is_qualified_name(&whole) {
            errors.invalid_value(&key, whole.as_str(), detail);
        }
    }
    let source = value.text().trim();
    if source.is_empty() {
        errors.required(&value, "valueExpression is not specified");
    } else if source.len() > ANNOTATION_EXPRESSION_BYTES_MAX {
        let detail = format!("must not exceed {ANNOTATION_EXPRESSION_BYTES_MAX} bytes in length");
        errors.required(&value, &detail);
    } else {
        let compiled = scope.compile(source, &[Type::STRING, Type::NULL]);
        report(&value, value.text(), compiled, errors);
    }
}

fn validate_mutation(mutation: &At<'_, '_>, scope: &Scope, errors: &mut Errors) {
    let kind = mutation.field("patchType");
    errors.one_of(&kind, &["ApplyConfiguration", "JSONPatch"], true);
    let (field, other, wanted) = match kind.text() {
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Type::open_object("Object")),
        "JSONPatch" => {
            ("jsonPatch", "applyConfiguration", Type::list(Type::open_object("JSONPatch")))
        }
        _ => return,
    };
    let detail = |what: &str| format!("must {what} when patchType is {}", kind.text());
    let (own, other) = (mutation.field(field), mutation.field(other));
    if !own.exists() {
        errors.required(&own, &detail("be specified"));
    } else {
        let expression = own.field("expression");
        if expression.text().trim().is_empty() {
            errors.required(&expression, "expression is not specified");
        } else {
            let compiled = scope.compile(expression.text(), &[wanted]);
            report(&expression, expression.text(), compiled, errors);
        }
    }
    if other.exists() {
        errors.forbidden(&other, detail("not be specified"));
    }
}

pub(in crate::kinds) fn validate_binding(binding: &Object, validating: bool) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(binding, "spec");
    let policy = spec.field("policyName");
    if policy.text().is_empty() {
        errors.required(&policy, "");
    } else {
        errors.invalid_each(&policy, names::is_dns1123_subdomain(policy.text()));
    }
    let param = spec.field("paramRef");
    if param.exists() {
        validate_param_ref(&param, &mut errors);
    }
    let matches = spec.field("matchResources");
    if matches.exists() {
        validate_match(&matches, &mut errors);
    }
    if validating {
        validate_actions(&spec.field("validationActions"), &mut errors);
    }
    errors.0
}

fn validate_param_ref(param: &At<'_, '_>, errors: &mut Errors) {
    let (name, selector) = (param.field("name"), param.field("selector"));
    let both = !name.text().is_empty() && selector.exists();
    if !name.text().is_empty() {
        errors.invalid_each(&name, names::is_path_segment_name(name.text()));
    }
    if both {
        errors.forbidden(&name, "name and selector are mutually exclusive");
    }
    if selector.exists() {
        labels::validate_selector(&selector, errors);
    }
    if both {
        errors.forbidden(&selector, "name and selector are mutually exclusive");
    }
    if name.text().is_empty() && !selector.exists() {
        errors.required(param, "one of name or selector must be specified");
    }
    let action = param.field("parameterNotFoundAction");
    errors.one_of(&action, &["Deny", "Allow"], true);
}

fn validate_actions(actions: &At<'_, '_>, errors: &mut Errors) {
    let known = ["Audit", "Deny", "Warn"];
    let mut seen = BTreeSet::new();
    for action in actions.items() {
        if !known.contains(&action.text()) {
            errors.not_supported(&action, &known);
        }
        if !seen.insert(action.text().to_string()) {
            errors.duplicate(&action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure \
                      information in the API response and headers serves no purpose)";
        errors.invalid(actions, detail);
    }
    if seen.is_empty() {
        errors.required(actions, "at least one validation action is required");
    }
}
