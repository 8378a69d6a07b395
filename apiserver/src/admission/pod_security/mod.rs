//! PodSecurity: the Pod Security Standards a namespace asks for by its labels
//! (<https://kubernetes.io/docs/concepts/security/pod-security-admission/>), enforced on pods, told
//! as warnings and audit annotations on pods and on what makes pods.

mod checks;
mod policy;

use super::{Cx, Operation};
use checks::Pod;
use k8s::{Object, Status};
use policy::{Level, Policies, Policy};
use serde_json::Value;
use std::collections::BTreeMap;

/// Pods of a namespace looked at when its policy is tightened (upstream's
/// `defaultNamespaceMaxPodsToCheck`).
const PODS_MAX: usize = 3000;
/// Subresources of pods that cannot change what runs.
const HARMLESS: &[&str] =
    &["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"];
/// Where the template of a pod is in what makes pods.
const MAKERS: &[(&str, &str, &str)] = &[
    ("", "podtemplates", "/template"),
    ("", "replicationcontrollers", "/spec/template"),
    ("apps", "daemonsets", "/spec/template"),
    ("apps", "deployments", "/spec/template"),
    ("apps", "replicasets", "/spec/template"),
    ("apps", "statefulsets", "/spec/template"),
    ("batch", "cronjobs", "/spec/jobTemplate/spec/template"),
    ("batch", "jobs", "/spec/template"),
];

pub(super) fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    if !matches!(cx.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    match (cx.kind.group, cx.kind.plural) {
        ("", "namespaces") if cx.subresource.is_empty() => namespace(cx, object),
        ("", "pods") if !HARMLESS.contains(&cx.subresource) => pod(cx, object),
        (group, plural) if cx.subresource.is_empty() => {
            let maker = MAKERS.iter().find(|(g, p, _)| (*g, *p) == (group, plural));
            match maker.and_then(|(.., template)| object.at(template)) {
                Some(template) => maker_of(cx, object, template),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn policies(cx: &Cx<'_>) -> (Policies, Option<String>) {
    let namespace = cx.view.object("namespaces", cx.namespace);
    let (policies, errors) = policy::of(namespace.as_deref());
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    (policies, Some(texts.join(", ")).filter(|text| !text.is_empty()))
}

fn pod(cx: &Cx<'_>, pod: &Object) -> Result<(), Status> {
    let (policies, wrong) = policies(cx);
    if wrong.is_none() && policies.all_privileged() {
        return Ok(());
    }
    if let Some(old) = cx.old
        && !significant(pod, old)
    {
        return Ok(());
    }
    let Some(view) = Pod::of(&pod.0) else { return Ok(()) };
    evaluate(cx, pod, &view, &policies, wrong, true)
}

fn maker_of(cx: &Cx<'_>, object: &Object, template: &Value) -> Result<(), Status> {
    let (policies, wrong) = policies(cx);
    let silent = policies.warn.level == Level::Privileged
        && policies.audit.level == Level::Privileged
        && wrong.is_none();
    let view = template.as_object().and_then(Pod::of);
    match view.filter(|_| !silent) {
        Some(view) => evaluate(cx, object, &view, &policies, wrong, false),
        None => Ok(()),
    }
}

fn evaluate(
    cx: &Cx<'_>,
    object: &Object,
    pod: &Pod<'_>,
    policies: &Policies,
    wrong: Option<String>,
    enforce: bool,
) -> Result<(), Status> {
    let annotate = |key: &str, text: String| {
        cx.notes.annotate(format!("pod-security.kubernetes.io/{key}"), text);
    };
    if let Some(wrong) = wrong {
        annotate("error", format!("Failed to parse policy: {wrong}"));
    }
    let refused = enforce
        .then(|| {
            annotate("enforce-policy", policies.enforce.to_string());
            violations(pod, &policies.enforce)
        })
        .flatten();
    if let Some(found) = violations(pod, &policies.audit) {
        let text = format!("would violate PodSecurity \"{}\": {found}", policies.audit);
        annotate("audit-violations", text);
    }
    if let Some(found) = refused {
        let why = format!("violates PodSecurity \"{}\": {found}", policies.enforce);
        return Err(cx.forbidden(object, why));
    }
    if let Some(found) = violations(pod, &policies.warn) {
        cx.notes.warn(format!("would violate PodSecurity \"{}\": {found}", policies.warn));
    }
    Ok(())
}

/// `reason (detail), …` of every check that fails.
fn violations(pod: &Pod<'_>, policy: &Policy) -> Option<String> {
    let failed = checks::run(pod, policy);
    let texts: Vec<String> = failed
        .iter()
        .map(|(reason, detail)| match detail.as_str() {
            "" => reason.clone(),
            detail => format!("{reason} ({detail})"),
        })
        .collect();
    Some(texts.join(", ")).filter(|text| !text.is_empty())
}

/// An update that could make a pod break its policy: anything but images, tolerations and the
/// deadline, and the annotations that once stood for security fields.
fn significant(new: &Object, old: &Object) -> bool {
    let marked = |pod: &Object| -> BTreeMap<String, String> {
        let about =
            |key: &str| key.contains("seccomp.security") || key.contains("apparmor.security");
        let annotations = pod.annotations().filter(|(key, _)| about(key));
        annotations.map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let plain = |pod: &Object| {
        let mut spec = pod.0.get("spec").cloned().unwrap_or_default();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("activeDeadlineSeconds");
            spec.remove("tolerations");
            for field in ["containers", "initContainers", "ephemeralContainers"] {
                for container in crate::kinds::common::children(spec, field) {
                    container.remove("image");
                }
            }
        }
        spec
    };
    marked(new) != marked(old) || plain(new) != plain(old)
}

/// Wrong labels are refused; a tighter policy is told about the pods that break it.
fn namespace(cx: &Cx<'_>, namespace: &Object) -> Result<(), Status> {
    let (policies, errors) = policy::of(Some(namespace));
    let (before, errors_before) = policy::of(cx.old);
    let fresh = cx.operation == Operation::Create || errors != errors_before;
    if fresh && !errors.is_empty() {
        return Err(Status::invalid("", "Namespace", namespace.name(), &errors));
    }
    let (new, old) = (policies.enforce, before.enforce);
    let relaxed = new.version == old.version && new.level <= old.level;
    if cx.operation == Operation::Update && new.level != Level::Privileged && !relaxed {
        warn_of_pods(cx, namespace.name(), &new);
    }
    Ok(())
}

fn warn_of_pods(cx: &Cx<'_>, namespace: &str, policy: &Policy) {
    let stored = cx.view.range("pods", &format!("{namespace}/"));
    let total = stored.len();
    let mut broken: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for stored in stored.iter().take(PODS_MAX) {
        let pod = crate::memo::object(stored);
        let Some(view) = Pod::of(&pod.0) else { continue };
        let failed = checks::run(&view, policy);
        let reasons: Vec<String> = failed.into_iter().map(|(reason, _)| reason).collect();
        if !reasons.is_empty() {
            broken.entry(reasons.join(", ")).or_default().push(pod.name().to_string());
        }
    }
    if broken.is_empty() && total <= PODS_MAX {
        return;
    }
    if total > PODS_MAX {
        let text = "new PodSecurity enforce level only checked against the first";
        cx.notes.warn(format!("{text} {PODS_MAX} of {total} existing pods"));
    }
    if !broken.is_empty() {
        let text = format!("existing pods in namespace {namespace:?} violate the new PodSecurity");
        cx.notes.warn(format!("{text} enforce level \"{policy}\""));
    }
    let mut lines: Vec<String> = broken
        .into_iter()
        .map(|(reasons, pods)| {
            let who = match pods.as_slice() {
                [one] => one.clone(),
                [first, _] => format!("{first} (and 1 other pod)"),
                [first, others @ ..] => format!("{first} (and {} other pods)", others.len()),
                [] => String::new(),
            };
            format!("{who}: {reasons}")
        })
        .collect();
    lines.sort();
    lines.into_iter().for_each(|line| cx.notes.warn(line));
}

#[cfg(test)]
mod tests;
