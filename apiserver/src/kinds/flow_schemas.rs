//! FlowSchemas: which requests belong to which priority level.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors, same},
        print, set_default,
    },
};
use k8s::{FieldError, Object, apply::Scope, names};
use serde_json::{Value, json};

pub(super) const KIND: KindDef = KindDef {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    namespaced: false,
    schema: "flowcontrol.v1.FlowSchema",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("PriorityLevel", |o, _| {
            print::text(o, "/spec/priorityLevelConfiguration/name")
        }),
        Column::text("MatchingPrecedence", |o, _| print::int(o, "/spec/matchingPrecedence")),
        Column::text("DistinguisherMethod", |o, _| {
            print::text_or_none(o, "/spec/distinguisherMethod/type")
        }),
        Column::AGE,
        Column::text("MissingPL", |o, _| dangling(o)),
    ],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    status_scope: Scope::STATUS_ALONE,
    default,
    validate,
    validate_status,
    ..KindDef::BASE
};

fn dangling(object: &Object) -> Value {
    let conditions = print::list(object, "/status/conditions");
    let dangling =
        conditions.iter().find(|condition| print::field(condition, "type") == "Dangling");
    dangling.map_or("?", |condition| print::field(condition, "status")).into()
}

fn default(schema: &mut Object) {
    set_default(schema.map_mut("spec"), "matchingPrecedence", 1000);
}

const PRECEDENCE_MAX: i64 = 10_000;

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let precedence = spec.field("matchingPrecedence");
    let value = precedence.int().unwrap_or(0);
    if value <= 0 {
        errors.invalid_value(&precedence, value, "must be a positive value");
    }
    if value > PRECEDENCE_MAX {
        errors.invalid(&precedence, format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if value == 1 && new.name() != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        errors.invalid(&precedence, detail);
    }
    let method = spec.field("distinguisherMethod");
    let kind = method.field("type");
    if method.exists() && !matches!(kind.text(), "ByNamespace" | "ByUser") {
        errors.not_supported_value(&kind, kind.text(), &["ByNamespace", "ByUser"]);
    }
    let level = spec.field("priorityLevelConfiguration");
    let level = level.field("name");
    match level.text() {
        "" => errors.required(&level, "must reference a priority level"),
        _ => errors.subdomain(&level),
    }
    for rule in spec.field("rules").items() {
        validate_rule(&rule, &mut errors);
    }
    mandatory(new, &mut errors);
    errors.0
}

/// Two schemas are the server's own, and stay as they are.
fn mandatory(schema: &Object, errors: &mut Errors) {
    let any = json!({ "apiGroups": ["*"], "clusterScope": true, "namespaces": ["*"], "resources": ["*"], "verbs": ["*"] });
    let urls = json!({ "nonResourceURLs": ["*"], "verbs": ["*"] });
    let group = |name: &str| json!({ "kind": "Group", "group": { "name": name } });
    let wanted = match schema.name() {
        "exempt" => json!({
            "matchingPrecedence": 1,
            "priorityLevelConfiguration": { "name": "exempt" },
            "rules": [{
                "subjects": [group("system:masters")],
                "resourceRules": [any],
                "nonResourceRules": [urls],
            }],
        }),
        "catch-all" => json!({
            "matchingPrecedence": 10000,
            "priorityLevelConfiguration": { "name": "catch-all" },
            "distinguisherMethod": { "type": "ByUser" },
            "rules": [{
                "subjects": [group("system:unauthenticated"), group("system:authenticated")],
                "resourceRules": [any],
                "nonResourceRules": [urls],
            }],
        }),
        _ => return,
    };
    let spec = At::top(schema, "spec");
    if !same(spec.value(), Some(&wanted)) {
        let detail = format!("spec of '{}' must equal the fixed value", schema.name());
        errors.invalid(&spec, detail);
    }
}

fn validate_rule(rule: &At<'_, '_>, errors: &mut Errors) {
    let subjects = rule.field("subjects");
    if subjects.count() == 0 {
        errors.required(&subjects, "subjects must contain at least one value");
    }
    for subject in subjects.items() {
        validate_subject(&subject, errors);
    }
    let (resources, urls) = (rule.field("resourceRules"), rule.field("nonResourceRules"));
    if resources.count() + urls.count() == 0 {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.required(rule, detail);
    }
    for resource in resources.items() {
        verbs(&resource.field("verbs"), errors);
        let lists = [
            ("apiGroups", "resource rules must supply at least one api group", "api groups"),
            ("resources", "resource rules must supply at least one resource", "resources"),
        ];
        for (field, detail, what) in lists {
            let list = resource.field(field);
            match list.count() {
                0 => errors.required(&list, detail),
                1 => (),
                _ if list.has("*") => {
                    errors.invalid(
                        &list,
                        format!("if '*' is present, must not specify other {what}"),
                    );
                }
                _ => (),
            }
        }
        let namespaces = resource.field("namespaces");
        if namespaces.count() == 0 && !resource.field("clusterScope").flag() {
            let detail = "resource rules that are not cluster scoped must supply at least one \
                          namespace";
            errors.required(&namespaces, detail);
        } else if namespaces.count() > 1 && namespaces.has("*") {
            let detail = "if '*' is present, must not specify other namespaces";
            errors.invalid(&namespaces, detail);
        }
        for namespace in namespaces.items().filter(|namespace| namespace.text() != "*") {
            errors.label(&namespace);
        }
    }
    for url in urls.items() {
        verbs(&url.field("verbs"), errors);
        let paths = url.field("nonResourceURLs");
        match paths.count() {
            0 => errors.required(&paths, "nonResourceURLs must contain at least one value"),
            1 => (),
            _ if paths.has("*") => {
                let detail = "if '*' is present, must not specify other non-resource URLs";
                errors.invalid(&paths, detail);
            }
            _ => (),
        }
        for path in paths.items().filter(|path| path.text() != "*") {
            validate_path(&path, errors);
        }
    }
}

fn validate_path(at: &At<'_, '_>, errors: &mut Errors) {
    let path = at.text();
    match path {
        "" => errors.invalid(at, "must not be empty"),
        "/" => (),
        _ if !path.starts_with('/') => errors.invalid(at, "must start with slash"),
        _ if path.contains(' ') => errors.invalid(at, "must not contain white-space"),
        _ if path.contains("//") => errors.invalid(at, "must not contain double slash"),
        _ if path.trim_end_matches('*').contains('*') || path.ends_with("**") => {
            errors.invalid(at, "wildcard can only do suffix matching");
        }
        _ if path.ends_with('*') && !path.ends_with("/*") => {
            errors.invalid(at, "wildcard can only do suffix matching");
        }
        _ => (),
    }
}

const VERBS: [&str; 9] =
    ["*", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update"];

fn verbs(verbs: &At<'_, '_>, errors: &mut Errors) {
    if verbs.count() == 0 {
        return errors.required(verbs, "verbs must contain at least one value");
    }
    if verbs.has("*") {
        if verbs.count() > 1 {
            errors.invalid(verbs, "if '*' is present, must not specify other verbs");
        }
        return;
    }
    if verbs.texts().any(|verb| !VERBS.contains(&verb) && verb != "watch") {
        let mut known = VERBS.to_vec();
        known.push("watch");
        errors.not_supported(verbs, &known);
    }
}

const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn validate_subject(subject: &At<'_, '_>, errors: &mut Errors) {
    let kind = subject.field("kind");
    let Some((_, own)) = SUBJECTS.into_iter().find(|(name, _)| *name == kind.text()) else {
        errors.not_supported_value(&kind, kind.text(), &["Group", "ServiceAccount", "User"]);
        return;
    };
    for (name, field) in SUBJECTS {
        let at = subject.field(field);
        if field == own && !at.exists() {
            let detail = format!("{field} is required when subject kind is '{}'", kind.text());
            errors.required(&at, &detail);
        } else if field != own && at.exists() {
            let detail = format!("{field} is forbidden when subject kind is not '{name}'");
            errors.forbidden(&at, detail);
        }
    }
    let at = subject.field(own);
    if !at.exists() {
        return;
    }
    let name = at.field("name");
    match own {
        "serviceAccount" => {
            if errors.needs_text(&name) && name.text() != "*" {
                errors.invalid_each(&name, names::is_dns1123_subdomain(name.text()));
            }
            let namespace = at.field("namespace");
            match namespace.text() {
                "" => errors.required(&namespace, "must specify namespace for service account"),
                _ => errors.label(&namespace),
            }
        }
        _ => _ = errors.needs_text(&name),
    }
}

fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    conditions(&At::top(new, "status"), &mut errors);
    errors.0
}

/// Each type once, none without one.
pub(super) fn conditions(status: &At<'_, '_>, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for condition in status.field("conditions").items() {
        let kind = condition.field("type");
        if errors.needs_text(&kind) && !seen.insert(kind.text()) {
            errors.duplicate(&kind);
        }
    }
}
