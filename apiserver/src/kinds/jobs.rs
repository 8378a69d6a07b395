//! Jobs: pods that run to their end.

use super::{
    Column, KindDef, SelectableField, Subresource,
    common::{
        self, child, children,
        field::{At, Errors, IMMUTABLE, same},
        job_spec, job_status, labels, made, pod_spec, print, set_default, set_text, workload,
    },
};
use jiff::Timestamp;
use k8s::{FieldError, Object, names};
use serde_json::{Map, Value};

pub(super) const KIND: KindDef = KindDef {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    categories: &["all"],
    schema: "batch.v1.Job",
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::text("Status", |o, _| status(o)),
        Column::text("Completions", |o, _| completions(o)),
        Column::text("Duration", duration),
        Column::AGE,
        Column::text("Containers", |o, _| print::containers(o, "/spec/template/spec")).wide(),
        Column::text("Images", |o, _| print::images(o, "/spec/template/spec")).wide(),
        Column::text("Selector", |o, _| print::selector(o.at("/spec/selector")).into()).wide(),
    ],
    selectable: &[SelectableField::text("status.successful", |o| {
        o.int_at("/status/succeeded").unwrap_or(0).to_string()
    })],
    prepare_update: common::keep_status,
    generation: true,
    default,
    prepare_create,
    validate,
    validate_status: job_status::validate,
    warnings: workload::warnings,
    ..KindDef::BASE
};

fn status(object: &Object) -> Value {
    let conditions = print::list(object, "/status/conditions");
    let has = |kind: &str| {
        conditions
            .iter()
            .any(|c| print::field(c, "type") == kind && print::field(c, "status") == "True")
    };
    let word = match () {
        _ if has("Complete") => "Complete",
        _ if has("Failed") => "Failed",
        _ if object.deletion_timestamp().is_some() => "Terminating",
        _ if has("Suspended") => "Suspended",
        _ if has("FailureTarget") => "FailureTarget",
        _ if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        _ => "Running",
    };
    word.into()
}

fn completions(object: &Object) -> Value {
    let succeeded = object.int_at("/status/succeeded").unwrap_or(0);
    if let Some(completions) = object.int_at("/spec/completions") {
        return format!("{succeeded}/{completions}").into();
    }
    match object.int_at("/spec/parallelism").unwrap_or(0) {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}").into(),
        _ => format!("{succeeded}/1").into(),
    }
}

fn duration(object: &Object, now: Timestamp) -> Value {
    let Ok(start) = object.str_at("/status/startTime").parse::<Timestamp>() else {
        return "".into();
    };
    let end = object.str_at("/status/completionTime").parse().unwrap_or(now);
    print::human_duration(end.as_second() - start.as_second()).into()
}

fn default(job: &mut Object) {
    let spec = job.map_mut("spec");
    default_spec(spec);
    let labels = child(spec, "template")
        .and_then(|template| child(template, "metadata")?.get("labels").cloned());
    let bare = job.labels().next().is_none();
    if let (Some(labels), true) = (labels, bare) {
        set_default(job.metadata_mut(), "labels", labels);
    }
}

/// Of a Job; a CronJob's template gets the pod's part only.
fn default_spec(spec: &mut Map<String, Value>) {
    if spec.get("completions").is_none_or(Value::is_null)
        && spec.get("parallelism").is_none_or(Value::is_null)
    {
        spec.insert("completions".into(), 1.into());
    }
    set_default(spec, "parallelism", 1);
    let rules = spec.get("podFailurePolicy").is_some();
    let per_index = spec.get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null());
    set_default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set_text(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    set_text(spec, "podReplacementPolicy", if rules { "Failed" } else { "TerminatingOrFailed" });
    if let Some(policy) = child(spec, "podFailurePolicy") {
        for rule in children(policy, "rules") {
            children(rule, "onPodConditions").for_each(|on| set_text(on, "status", "True"));
        }
    }
    workload::default_template(spec);
}

const OWNER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// What they were called before.
const OLD_OWNER_UID: &str = "controller-uid";
const OLD_JOB_NAME: &str = "job-name";

/// A job selects the pods that carry its uid, so the core has set that before. Labels that a client
/// set otherwise stay, to be refused.
fn prepare_create(job: &mut Object) {
    common::drop_status(job);
    let (uid, name) = (job.uid().to_string(), job.name().to_string());
    let spec = job.map_mut("spec");
    if spec.get("manualSelector").and_then(Value::as_bool).unwrap_or(false) {
        return;
    }
    let template = made(spec, "template").and_then(|template| made(template, "metadata"));
    if let Some(labels) = template.and_then(|metadata| made(metadata, "labels")) {
        for (key, value) in
            [(OWNER_UID, &uid), (OLD_OWNER_UID, &uid), (JOB_NAME, &name), (OLD_JOB_NAME, &name)]
        {
            labels.entry(key).or_insert_with(|| value.clone().into());
        }
    }
    if let Some(labels) = made(spec, "selector").and_then(|selector| made(selector, "matchLabels"))
    {
        labels.entry(OWNER_UID).or_insert_with(|| uid.into());
    }
    // What was generated counts as the template's when the job has no labels of its own.
    default(job);
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    if old.is_none() {
        generated_selector(new, &mut errors);
    }
    job_spec::validate(&spec, &mut errors);
    let selector = spec.field("selector");
    if !selector.exists() {
        errors.required(&selector, "");
    }
    labels::validate_selector(&selector, &mut errors);
    pod_spec::template_matches(&spec.field("template"), &selector, &mut errors);
    match old {
        None => host_names(new, &mut errors),
        Some(old) => update(new, old, &mut errors),
    }
    errors.0
}

/// Pods of an indexed job have hosts' names with their index.
fn host_names(new: &Object, errors: &mut Errors) {
    let last = new.int_at("/spec/completions").filter(|count| *count > 0);
    if let (Some(count), "Indexed") = (last, new.str_at("/spec/completionMode")) {
        let host = format!("{}-{}", new.name(), count - 1);
        if !names::is_dns1123_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.invalid(&At::top(new, "metadata").field("name"), detail);
        }
    }
}

/// The labels that this job's pods are found by are on its template.
fn generated_selector(job: &Object, errors: &mut Errors) {
    let spec = At::top(job, "spec");
    if spec.field("manualSelector").flag() || !spec.field("selector").exists() {
        return;
    }
    let metadata = spec.field("template");
    let metadata = metadata.field("metadata");
    let labels = metadata.field("labels");
    let own = [
        (OWNER_UID, job.uid()),
        (JOB_NAME, job.name()),
        (OLD_OWNER_UID, job.uid()),
        (OLD_JOB_NAME, job.name()),
    ];
    for (key, value) in own {
        let at = labels.key(key);
        let detail = format!("must be '{value}'");
        if !at.exists() {
            errors.required(&at, &detail);
        } else if at.text() != value {
            errors.invalid_value(&at, labels.owned(), detail);
        }
    }
    let selector = spec.field("selector");
    let parsed = selector.value().map(k8s::selector::LabelSelector::from_value);
    let label = |key: &str| own.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
    if let Some(Ok(parsed)) = parsed
        && !parsed.matches(label)
    {
        errors.invalid(&selector, "`selector` not auto-generated");
    }
}

fn update(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, was) = (At::top(new, "spec"), At::top(old, "spec"));
    validate_completions(&spec, &was, errors);
    errors.immutable(&spec.field("selector"), &was.field("selector"));
    let template = spec.field("template");
    let mut now = template.owned();
    if may_be_placed(old) {
        restore_placement(&mut now, &was.field("template").owned());
    }
    if !same(Some(&now), was.field("template").value()) {
        errors.invalid(&template, IMMUTABLE);
    }
    for field in
        ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        errors.immutable(&spec.field(field), &was.field(field));
    }
}

/// An indexed job grows and shrinks in both numbers at once (KEP-3715).
fn validate_completions(spec: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let (now, before) = (spec.field("completions"), was.field("completions"));
    let indexed = spec.field("completionMode").text() == "Indexed";
    if now.value() == before.value() {
        return;
    }
    if !indexed || now.int().is_none() || before.int().is_none() {
        errors.immutable(&now, &before);
    } else if now.int() != spec.field("parallelism").int() {
        errors.invalid(&now, "can only be modified in tandem with spec.parallelism");
    }
}

/// True while the job is suspended and no pod of it is left: then its pods may be told other places
/// (KEP-2926) and sizes (KEP-5440).
fn may_be_placed(old: &Object) -> bool {
    let suspended = print::list(old, "/status/conditions").iter().any(|condition| {
        print::field(condition, "type") == "Suspended"
            && print::field(condition, "status") == "True"
    });
    let idle = old.str_at("/status/startTime").is_empty()
        || (suspended && old.int_at("/status/active").unwrap_or(0) == 0);
    print::boolean(old, "/spec/suspend") && idle
}

fn restore_placement(now: &mut Value, old: &Value) {
    const PLACES: [(&str, &str); 6] = [
        ("/metadata", "annotations"),
        ("/metadata", "labels"),
        ("/spec", "nodeSelector"),
        ("/spec", "tolerations"),
        ("/spec", "schedulingGates"),
        ("/spec/affinity", "nodeAffinity"),
    ];
    let mut put = |parent: &str, field: &str| {
        let was = old.pointer(parent).and_then(|parent| parent.get(field)).cloned();
        if let Some(map) = now.pointer_mut(parent).and_then(Value::as_object_mut) {
            match was {
                Some(was) => map.insert(field.into(), was),
                None => map.remove(field),
            };
        }
    };
    PLACES.into_iter().for_each(|(parent, field)| put(parent, field));
    for list in ["containers", "initContainers"] {
        let count =
            old.pointer(&format!("/spec/{list}")).and_then(Value::as_array).map_or(0, Vec::len);
        (0..count).for_each(|at| put(&format!("/spec/{list}/{at}"), "resources"));
    }
}
