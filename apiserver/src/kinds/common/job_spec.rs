//! Specs of jobs, in Jobs and in the templates of CronJobs.

use super::{
    field::{At, Errors},
    pod_spec,
};
use k8s::FieldError;
use serde_json::Value;
use std::collections::BTreeSet;

/// Upstream's bounds of indexed jobs (KEP-2214, KEP-3850).
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Above so many completions, fewer may fail and run at once.
const COMPLETIONS_SOFT_MAX: i64 = 100_000;
const PARALLELISM_MAX_ABOVE: i64 = 10_000;
const FAILED_INDEXES_MAX_ABOVE: i64 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;

/// All but the selector.
pub(crate) fn validate(spec: &At<'_, '_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.not_negative(&spec.field(field));
    }
    managed_by(&spec.field("managedBy"), errors);
    let mode = spec.field("completionMode");
    errors.one_of(&mode, &["NonIndexed", "Indexed"], false);
    let indexed = mode.text() == "Indexed";
    if indexed {
        indexes(spec, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if spec.field(field).exists() {
                errors.invalid(&spec.field(field), "requires indexed completion mode");
            }
        }
    }
    failure_policy(spec, errors);
    let success = spec.field("successPolicy");
    if success.exists() && !indexed {
        errors.invalid(&success, "requires indexed completion mode");
    } else if success.exists() {
        success_policy(spec, &success, errors);
    }
    let (failures, replacement) =
        (spec.field("podFailurePolicy"), spec.field("podReplacementPolicy"));
    let known: &[&str] =
        if failures.exists() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    errors.one_of(&replacement, known, false);
    pod_spec::validate_any_template(&spec.field("template"), errors);
    restart_policy(spec, errors);
}

/// `example.com/controller`
fn managed_by(at: &At<'_, '_>, errors: &mut Errors) {
    if !at.exists() {
        return;
    }
    errors.domain_path(at);
    if at.text().len() > MANAGED_BY_BYTES_MAX {
        errors.too_long(at, MANAGED_BY_BYTES_MAX);
    }
}

fn indexes(spec: &At<'_, '_>, errors: &mut Errors) {
    let (completions, parallelism) = (spec.field("completions"), spec.field("parallelism"));
    let failed = spec.field("maxFailedIndexes");
    if !completions.exists() {
        errors.required(&completions, "when completion mode is Indexed");
    }
    let mut at_most = |at: &At<'_, '_>, most: i64, rest: &str| {
        if at.int().is_some_and(|value| value > most) {
            errors.invalid(at, format!("must be less than or equal to {most}{rest}"));
        }
    };
    at_most(&parallelism, PARALLELISM_MAX, " when completion mode is Indexed");
    at_most(&failed, FAILED_INDEXES_MAX, "");
    let many = completions.int().unwrap_or(0) > COMPLETIONS_SOFT_MAX;
    if many && spec.field("backoffLimitPerIndex").exists() {
        let rest = format!(
            " when completions are above {COMPLETIONS_SOFT_MAX} and used with backoff limit per index"
        );
        at_most(&parallelism, PARALLELISM_MAX_ABOVE, &rest);
        at_most(&failed, FAILED_INDEXES_MAX_ABOVE, &rest);
        if !failed.exists() {
            let detail =
                format!("must be specified when completions is above {COMPLETIONS_SOFT_MAX}");
            errors.required(&failed, &detail);
        }
    }
    if let (Some(failures), Some(all)) = (failed.int(), completions.int())
        && failures > all
    {
        errors.invalid(&failed, "must be less than or equal to completions");
    }
}

fn restart_policy(spec: &At<'_, '_>, errors: &mut Errors) {
    let template = spec.field("template");
    let pods = template.field("spec");
    let policy = pods.field("restartPolicy");
    let rules = spec.field("podFailurePolicy").exists();
    match policy.text() {
        "Always" | "" => {
            errors.required(&policy, "valid values: \"OnFailure\", \"Never\"");
        }
        "OnFailure" if rules => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&policy, detail);
        }
        "OnFailure" if spec.field("backoffLimitPerIndex").exists() => {
            let detail = "only \"Never\" is supported when backoffLimitPerIndex is specified";
            errors.invalid(&policy, detail);
        }
        "OnFailure" | "Never" => (),
        _ => errors.not_supported(&policy, &["OnFailure", "Never"]),
    }
}

/// An error that shows no value.
fn bare(at: &At<'_, '_>, detail: &str) -> FieldError {
    let error = FieldError::invalid(at.to_string(), Value::Null, detail);
    FieldError { bad_value: None, ..error }
}

const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

fn failure_policy(spec: &At<'_, '_>, errors: &mut Errors) {
    let policy = spec.field("podFailurePolicy");
    let rules = policy.field("rules");
    errors.too_many(&rules, 20);
    let template = spec.field("template");
    let pods = template.field("spec");
    let containers: BTreeSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| {
            pods.field(list).items().map(|c| c.field("name").text()).collect::<Vec<_>>()
        })
        .collect();
    for rule in rules.items() {
        let action = rule.field("action");
        match action.text() {
            "" => {
                let detail = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
                errors.required(&action, detail);
            }
            "FailIndex" if !spec.field("backoffLimitPerIndex").exists() => {
                errors.invalid(&action, "requires the backoffLimitPerIndex to be set");
            }
            known if ACTIONS.contains(&known) => (),
            _ => errors.not_supported(&action, &ACTIONS),
        }
        let (codes, conditions) = (rule.field("onExitCodes"), rule.field("onPodConditions"));
        if codes.exists() {
            exit_codes(&codes, &containers, errors);
        }
        errors.too_many(&conditions, 20);
        for condition in conditions.items() {
            errors.qualified_name(&condition.field("type"));
            let status = condition.field("status");
            match status.text() {
                "" => errors.required(&status, "valid values: [\"False\" \"True\" \"Unknown\"]"),
                "False" | "True" | "Unknown" => (),
                _ => errors.not_supported(&status, &["False", "True", "Unknown"]),
            }
        }
        match (codes.exists(), conditions.count() > 0) {
            (true, true) => errors.0.push(bare(
                &rule,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            )),
            (false, false) => errors
                .0
                .push(bare(&rule, "specifying one of OnExitCodes and OnPodConditions is required")),
            _ => (),
        }
    }
}

fn exit_codes(codes: &At<'_, '_>, containers: &BTreeSet<&str>, errors: &mut Errors) {
    let (operator, values) = (codes.field("operator"), codes.field("values"));
    match operator.text() {
        "" => errors.required(&operator, "valid values: [\"In\" \"NotIn\"]"),
        "In" | "NotIn" => (),
        _ => errors.not_supported(&operator, &["In", "NotIn"]),
    }
    let container = codes.field("containerName");
    if container.exists() && !containers.contains(container.text()) {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&container, detail);
    }
    if values.count() == 0 {
        errors.invalid(&values, "at least one value is required");
    }
    errors.too_many(&values, 255);
    let (mut seen, mut ordered, mut last) = (BTreeSet::new(), true, i64::MIN);
    for value in values.items() {
        let code = value.int().unwrap_or(0);
        if operator.text() == "In" && code == 0 {
            errors.invalid(&value, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&value);
        }
        ordered &= code >= last;
        last = code;
    }
    if !ordered {
        errors.invalid(&values, "must be ordered");
    }
}

const INDEXES_BYTES_MAX: usize = 64 * 1024;

fn success_policy(spec: &At<'_, '_>, policy: &At<'_, '_>, errors: &mut Errors) {
    let rules = policy.field("rules");
    if rules.count() == 0 {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.required(&rules, detail);
    }
    errors.too_many(&rules, 20);
    let completions = spec.field("completions").int().unwrap_or(0);
    for rule in rules.items() {
        let (count, indexes) = (rule.field("succeededCount"), rule.field("succeededIndexes"));
        if !count.exists() && !indexes.exists() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.required(&rule, detail);
        }
        let mut total = None;
        if indexes.exists() {
            if indexes.text().len() > INDEXES_BYTES_MAX {
                errors.too_long(&indexes, INDEXES_BYTES_MAX);
            }
            match count_indexes(indexes.text(), completions) {
                Ok(found) => total = Some(found),
                Err(why) => {
                    errors.invalid(&indexes, format!("error parsing succeededIndexes: {why}"));
                    total = Some(0);
                }
            }
        }
        errors.not_negative(&count);
        let Some(wanted) = count.int() else { continue };
        let mut at_most = |most: i64, what: &str| {
            if wanted > most {
                let detail = format!("must be less than or equal to {most} (the number of {what})");
                errors.invalid(&count, detail);
            }
        };
        at_most(completions, "specified completions");
        if let Some(total) = total {
            at_most(total, "indexes in the specified succeededIndexes field");
        }
    }
}

/// How many indexes `1,3-5` names, in growing order and below the completions.
pub(crate) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total): (Option<i64>, i64) = (None, 0);
    for fragment in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(fragment, completions)?;
        if let Some(last) = last.filter(|last| first <= *last) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The ends of `3-5`, or of `3`.
pub(crate) fn interval(fragment: &str, completions: i64) -> Result<(i64, i64), String> {
    let ends: Vec<&str> = fragment.split('-').collect();
    if ends.len() > 2 {
        return Err(format!(
            "the fragment {fragment:?} violates the requirement that an index interval can have at \
             most two parts separated by '-'"
        ));
    }
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    let first = index(ends[0])?;
    let Some(end) = ends.get(1) else { return Ok((first, first)) };
    let end = index(end)?;
    if first >= end {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
    }
    Ok((first, end))
}
