//! Priority: the number behind a pod's priority class, and at most one default class.

use super::{Cx, Operation};
use k8s::{Object, Status};
use serde_json::Value;
use std::sync::Arc;

const CLASSES: &str = "scheduling.k8s.io/priorityclasses";
const FIELDS: [&str; 2] = ["priority", "preemptionPolicy"];

pub(super) fn admit(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    if !cx.is("", "pods") {
        return Ok(());
    }
    match (cx.operation, cx.old) {
        (Operation::Create, _) => create(cx, pod),
        (Operation::Update, Some(old)) => {
            for field in FIELDS {
                let had = old.at("/spec").and_then(|spec| spec.get(field));
                if let (Some(had), None) = (had, pod.at("/spec").and_then(|spec| spec.get(field))) {
                    pod.map_mut("spec").insert(field.into(), had.clone());
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn create(cx: &Cx<'_>, pod: &mut Object) -> Result<(), Status> {
    let named = pod.str_at("/spec/priorityClassName").to_string();
    let class = match named.as_str() {
        "" => default_class(cx),
        name => match cx.view.object(CLASSES, name) {
            Some(class) => Some(class),
            None => {
                let why = format!("no PriorityClass with name {name} was found");
                return Err(cx.forbidden(pod, why));
            }
        },
    };
    let value = class.as_ref().and_then(|class| class.int_at("/value")).unwrap_or(0);
    let policy = match class.as_ref().map_or("", |class| class.str_at("/preemptionPolicy")) {
        "" => "PreemptLowerPriority",
        policy => policy,
    }
    .to_string();
    let by = "priority admission controller computed";
    let from = "from the given PriorityClass name";
    if let Some(given) = pod.int_at("/spec/priority").filter(|&given| given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; {by} {value} {from}"
        );
        return Err(cx.forbidden(pod, why));
    }
    match pod.str_at("/spec/preemptionPolicy") {
        "" => (),
        given if given == policy => (),
        given => {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; {by} {policy} {from}"
            );
            return Err(cx.forbidden(pod, why));
        }
    }
    let spec = pod.map_mut("spec");
    if let (true, Some(class)) = (named.is_empty(), class) {
        spec.insert("priorityClassName".into(), class.name().into());
    }
    spec.insert("priority".into(), value.into());
    spec.insert("preemptionPolicy".into(), policy.into());
    Ok(())
}

fn is_default(class: &Object) -> bool {
    class.0.get("globalDefault").and_then(Value::as_bool).unwrap_or(false)
}

/// The default class; of several (which [`validate`] refuses), the lowest.
fn default_class(cx: &Cx<'_>) -> Option<Arc<Object>> {
    let classes = cx.view.range(CLASSES, "");
    let classes = classes.iter().map(|stored| crate::memo::object(stored));
    classes.filter(|class| is_default(class)).min_by_key(|class| class.int_at("/value"))
}

pub(super) fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    let writes = matches!(cx.operation, Operation::Create | Operation::Update);
    if !writes || !cx.is("scheduling.k8s.io", "priorityclasses") || !is_default(object) {
        return Ok(());
    }
    match default_class(cx) {
        Some(other) if other.name() != object.name() => {
            let other = other.name();
            let why = format!(
                "PriorityClass {other} is already marked as default. Only one default can exist"
            );
            Err(cx.forbidden(object, why))
        }
        _ => Ok(()),
    }
}
