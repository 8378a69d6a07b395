//! Policies and bindings as the server reads them: compiled once per version of the object.

use super::env::{Compiled, Scope, patch_type};
use super::selection::Selection;
use k8s::{Object, selector::LabelSelector};
use kcel::Type;
use serde_json::Value as Json;

/// A ValidatingAdmissionPolicy or MutatingAdmissionPolicy.
pub(super) struct Policy {
    pub(super) name: String,
    /// `failurePolicy: Fail`.
    pub(super) must_work: bool,
    pub(super) selection: Selection,
    pub(super) param_kind: Option<ParamKind>,
    pub(super) conditions: Vec<Expression>,
    pub(super) variables: Vec<(String, Compiled)>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<Annotation>,
    pub(super) mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`.
    pub(super) again: bool,
}

pub(super) struct ParamKind {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// An expression with its source, for messages.
pub(crate) struct Expression {
    pub(crate) source: String,
    pub(crate) program: Compiled,
}

pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    /// Empty: `Invalid`.
    pub(super) reason: String,
}

pub(super) struct Annotation {
    pub(super) key: String,
    pub(super) expression: Expression,
}

pub(super) struct Mutation {
    /// An object to merge; else a list of patches.
    pub(super) applies: bool,
    pub(super) expression: Expression,
}

pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    /// `None`: wherever the policy applies.
    pub(super) selection: Option<Selection>,
    pub(super) params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`.
    pub(super) actions: Vec<String>,
}

/// Which objects of the parameter kind.
pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) selector: Option<Result<LabelSelector, String>>,
    /// `parameterNotFoundAction: Deny`.
    pub(super) needed: bool,
}

pub(super) fn text(value: &Json, pointer: &str) -> String {
    value.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_string()
}

pub(super) fn items<'a>(value: &'a Json, field: &str) -> impl Iterator<Item = &'a Json> {
    value.get(field).and_then(Json::as_array).into_iter().flatten()
}

impl Expression {
    pub(crate) fn new(scope: &Scope, source: &str, wanted: &[Type]) -> Expression {
        Expression { source: source.to_string(), program: scope.compile(source, wanted) }
    }
}

/// The `matchConditions` of a policy or a webhook.
pub(crate) fn conditions(value: &Json, params: bool) -> Vec<Expression> {
    let scope = Scope { params, authorizer: true, ..Scope::default() };
    let conditions = items(value, "matchConditions").map(|condition| {
        Expression::new(&scope, text(condition, "/expression").trim(), &[Type::BOOL])
    });
    conditions.collect()
}

impl Policy {
    pub(super) fn of(policy: &Object) -> Policy {
        let null = Json::Null;
        let spec = policy.at("/spec").unwrap_or(&null);
        let param_kind = spec.get("paramKind").filter(|kind| !kind.is_null());
        let params = param_kind.is_some();
        let mutates = spec.get("mutations").is_some_and(|mutations| !mutations.is_null());
        let mut scope = Scope { params, authorizer: true, patches: mutates, ..Scope::default() };
        let mut variables = Vec::new();
        for variable in items(spec, "variables") {
            let compiled = scope.compile(&text(variable, "/expression"), &[]);
            scope.declare(&text(variable, "/name"), &compiled);
            variables.push((text(variable, "/name"), compiled));
        }
        let messages = Scope { authorizer: false, ..scope.clone() };
        Policy {
            name: policy.name().to_string(),
            must_work: text(spec, "/failurePolicy") != "Ignore",
            selection: Selection::of(spec.get("matchConstraints").unwrap_or(&null)),
            param_kind: param_kind.map(|kind| ParamKind {
                api_version: text(kind, "/apiVersion"),
                kind: text(kind, "/kind"),
            }),
            conditions: conditions(spec, params),
            variables,
            validations: items(spec, "validations")
                .map(|validation| Validation::of(&scope, &messages, validation))
                .collect(),
            annotations: items(spec, "auditAnnotations")
                .map(|annotation| Annotation {
                    key: text(annotation, "/key"),
                    expression: Expression::new(
                        &scope,
                        text(annotation, "/valueExpression").trim(),
                        &[Type::STRING, Type::NULL],
                    ),
                })
                .collect(),
            mutations: items(spec, "mutations").map(|it| Mutation::of(&scope, it)).collect(),
            again: text(spec, "/reinvocationPolicy") == "IfNeeded",
        }
    }
}

impl Validation {
    fn of(scope: &Scope, messages: &Scope, validation: &Json) -> Validation {
        let message = text(validation, "/messageExpression");
        Validation {
            expression: Expression::new(scope, &text(validation, "/expression"), &[Type::BOOL]),
            message: text(validation, "/message").trim().to_string(),
            message_expression: Some(message)
                .filter(|message| !message.trim().is_empty())
                .map(|message| Expression::new(messages, &message, &[Type::STRING])),
            reason: text(validation, "/reason"),
        }
    }
}

impl Mutation {
    fn of(scope: &Scope, mutation: &Json) -> Mutation {
        let applies = text(mutation, "/patchType") != "JSONPatch";
        let (field, wanted) = if applies {
            ("/applyConfiguration/expression", Type::open_object("Object"))
        } else {
            ("/jsonPatch/expression", Type::list(patch_type()))
        };
        let expression = Expression::new(scope, &text(mutation, field), &[wanted]);
        Mutation { applies, expression }
    }
}

impl Binding {
    pub(super) fn of(binding: &Object) -> Binding {
        let null = Json::Null;
        let spec = binding.at("/spec").unwrap_or(&null);
        let given = |field: &str| spec.get(field).filter(|value| !value.is_null());
        Binding {
            name: binding.name().to_string(),
            policy: text(spec, "/policyName"),
            selection: given("matchResources").map(Selection::of),
            params: given("paramRef").map(ParamRef::of),
            actions: items(spec, "validationActions")
                .filter_map(|action| action.as_str().map(str::to_string))
                .collect(),
        }
    }
}

impl ParamRef {
    fn of(param: &Json) -> ParamRef {
        let selector = param.get("selector").filter(|selector| !selector.is_null());
        ParamRef {
            name: text(param, "/name"),
            namespace: text(param, "/namespace"),
            selector: selector.map(LabelSelector::from_value),
            needed: text(param, "/parameterNotFoundAction") == "Deny",
        }
    }
}
