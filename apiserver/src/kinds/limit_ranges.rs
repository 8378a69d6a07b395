//! LimitRanges: default and extreme requests in a namespace.

use super::{
    KindDef,
    common::{
        child, children,
        field::{At, Errors},
        made,
        resources::{self, Whose},
    },
};
use k8s::{FieldError, Object, names, quantity::Quantity};
use serde_json::Value;
use std::collections::BTreeSet;

pub(super) const KIND: KindDef = KindDef {
    kind: "LimitRange",
    plural: "limitranges",
    short_names: &["limits"],
    schema: "core.v1.LimitRange",
    create_on_update: true,
    default,
    validate,
    ..KindDef::BASE
};

/// A container's default limit is its maximum, its default request that limit or the minimum.
fn default(range: &mut Object) {
    for item in children(range.map_mut("spec"), "limits") {
        if item.get("type").and_then(Value::as_str) != Some("Container") {
            continue;
        }
        for (field, sources) in [("default", &["max"][..]), ("defaultRequest", &["default", "min"])]
        {
            for source in sources {
                let Some(from) = child(item, source).map(|map| map.clone()) else { continue };
                let Some(to) = made(item, field) else { continue };
                for (resource, quantity) in from {
                    to.entry(resource).or_insert(quantity);
                }
            }
        }
    }
}

fn validate(new: &Object, _: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let mut types = BTreeSet::new();
    for limit in At::top(new, "spec").field("limits").items() {
        let kind = limit.field("type");
        match names::is_qualified_name(kind.text()) {
            wrong if !wrong.is_empty() => errors.invalid_each(&kind, wrong),
            _ if !kind.text().contains('/')
                && !matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim") =>
            {
                errors.invalid(&kind, "must be a standard limit type or fully qualified");
            }
            _ => (),
        }
        if !types.insert(kind.text()) {
            errors.duplicate(&kind);
        }
        item(&limit, kind.text(), &mut errors);
    }
    errors.0
}

fn item(limit: &At<'_, '_>, kind: &str, errors: &mut Errors) {
    let whose = if matches!(kind, "Pod" | "Container") { Whose::Container } else { Whose::Any };
    let mut resources = BTreeSet::new();
    for field in ["max", "min", "default", "defaultRequest"] {
        let amounts = limit.field(field);
        if kind == "Pod" && field.starts_with("default") {
            if amounts.count() > 0 {
                errors.forbidden(&amounts, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, at) in amounts.entries() {
            resources::validate_name(name, &at, whose, errors);
            resources.insert(name);
        }
    }
    if kind == "PersistentVolumeClaim"
        && ["min", "max"].into_iter().all(|field| !limit.field(field).has("storage"))
    {
        let detail =
            "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&limit.field("limits"), detail);
    }
    for (name, at) in limit.field("maxLimitRequestRatio").entries() {
        resources::validate_name(name, &at, whose, errors);
        resources.insert(name);
    }
    for name in resources {
        in_order(limit, name, kind == "Pod", errors);
        ratio(limit, name, errors);
    }
}

/// The minimum is not above the default request, that not above the default, that not above the
/// maximum.
fn in_order(limit: &At<'_, '_>, name: &str, of_pod: bool, errors: &mut Errors) {
    let amount = |field: &'static str| match of_pod && field.starts_with("default") {
        true => None,
        false => limit.field(field).key(name).quantity(),
    };
    let rules = [
        ("min", "max", "min", "min", "min value {low} is greater than max value {high}"),
        (
            "min",
            "defaultRequest",
            "defaultRequest",
            "defaultRequest",
            "min value {low} is greater than default request value {high}",
        ),
        (
            "defaultRequest",
            "max",
            "defaultRequest",
            "defaultRequest",
            "default request value {low} is greater than max value {high}",
        ),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "defaultRequest",
            "default request value {low} is greater than default limit value {high}",
        ),
        (
            "min",
            "default",
            "default",
            "min",
            "min value {low} is greater than default value {high}",
        ),
        (
            "default",
            "max",
            "default",
            "max",
            "default value {low} is greater than max value {high}",
        ),
    ];
    for (low, high, at, shown, text) in rules {
        let (Some(less), Some(more)) = (amount(low), amount(high)) else { continue };
        if less > more {
            let detail =
                text.replace("{low}", &less.to_string()).replace("{high}", &more.to_string());
            let value = amount(shown).unwrap_or_default().to_string();
            errors.invalid_value(&limit.field(at).key(name), value, detail);
        }
    }
    if let (Some(default), Some(request)) = (amount("default"), amount("defaultRequest"))
        && !resources::may_overcommit(name)
        && default != request
    {
        let detail = format!(
            "default value {default} must equal to defaultRequest value {request} in {name}"
        );
        errors.invalid_value(&limit.field("defaultRequest").key(name), request.to_string(), detail);
    }
}

fn ratio(limit: &At<'_, '_>, name: &str, errors: &mut Errors) {
    let ratios = limit.field("maxLimitRequestRatio");
    let at = ratios.key(name);
    let Some(ratio) = at.quantity() else { return };
    if ratio < Quantity::from_milli(1000) {
        errors.invalid_value(&at, ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
    let amount = |field: &'static str| limit.field(field).key(name).quantity();
    let (Some(min), Some(max)) = (amount("min"), amount("max")) else { return };
    let most = max.milli_value() as f64 / min.milli_value() as f64;
    if ratio.milli_value() as f64 / 1000.0 > most {
        let detail = format!("ratio {ratio} is greater than max/min = {most:.6}");
        errors.invalid_value(&at, ratio.to_string(), detail);
    }
}
