//! The steps in the order they run (upstream's `AllOrderedPlugins`), and how they are run.

use super::{
    Charge, Cx, Operation, certificates, default_class, default_toleration_seconds,
    deny_service_external_ips, extended_resource_toleration, limit_ranger, namespace_lifecycle,
    node_restriction, owner_references, pod_security, pod_topology_labels, policy, priority,
    rbac_escalation, resource_quota, runtime_class, service_account, storage_protection,
    taint_nodes_by_condition, webhook,
};
use k8s::{Object, Status, apply::Managers};
use serde_json::Value;
use std::time::Instant;

/// One step. `F` fills in or refuses ([`Mutate`]), or only refuses ([`Validate`]).
pub(super) struct Step<F> {
    /// Upstream's name of the plugin; empty: no plugin, cannot be switched off.
    pub(super) name: &'static str,
    /// On unless the operator says otherwise.
    pub(super) default_on: bool,
    run: F,
}

type Mutate = fn(&Cx<'_>, &mut Object) -> Result<(), Status>;
/// The object is the new one; on delete and connect the old one.
type Validate = fn(&Cx<'_>, &Object) -> Result<(), Status>;

const fn on<F>(name: &'static str, run: F) -> Step<F> {
    Step { name, default_on: true, run }
}

const fn off<F>(name: &'static str, run: F) -> Step<F> {
    Step { name, default_on: false, run }
}

pub(super) const MUTATE: &[Step<Mutate>] = &[
    on("NamespaceLifecycle", namespace_lifecycle::admit),
    on("LimitRanger", limit_ranger::admit),
    on("ServiceAccount", service_account::admit),
    on("TaintNodesByCondition", taint_nodes_by_condition::admit),
    on("Priority", priority::admit),
    on("DefaultTolerationSeconds", default_toleration_seconds::admit),
    off("ExtendedResourceToleration", extended_resource_toleration::admit),
    on("DefaultStorageClass", default_class::storage),
    on("StorageObjectInUseProtection", storage_protection::protect),
    on("RuntimeClass", runtime_class::admit),
    on("", certificates::admit),
    on("DefaultIngressClass", default_class::ingress),
    on("PodTopologyLabels", pod_topology_labels::admit),
    on("", policy::settle),
];

pub(super) const VALIDATE: &[Step<Validate>] = &[
    on("NamespaceLifecycle", namespace_lifecycle::validate),
    on("LimitRanger", limit_ranger::validate),
    on("NodeRestriction", node_restriction::validate),
    on("PodSecurity", pod_security::validate),
    on("Priority", priority::validate),
    on("PersistentVolumeClaimResize", storage_protection::resize),
    on("RuntimeClass", runtime_class::validate),
    on("", certificates::validate),
    off("OwnerReferencesPermissionEnforcement", owner_references::validate),
    off("DenyServiceExternalIPs", deny_service_external_ips::validate),
    on("", rbac_escalation),
    on(policy::VALIDATING, policy::validate),
];

/// Before validation, on an object that has its defaults.
pub(crate) async fn mutate(cx: &Cx<'_>, object: &mut Object) -> Result<(), Status> {
    fill_in(cx, object)?;
    let policies = change(cx, object, policy::Round::First)?;
    let again = |object: &mut Object| again(cx, object, &policies.invoked);
    let concerned = match cx.config.has(webhook::MUTATING, true) {
        true => webhook::concerned(cx, webhook::Part::Mutating),
        false => Vec::new(),
    };
    if concerned.is_empty() {
        return if policies.changed { again(object) } else { Ok(()) };
    }
    let managed = object.at(MANAGED).cloned();
    // Boxed only here: most requests concern nobody and shall not carry its size.
    Box::pin(webhook::mutate(cx, object, concerned, policies.changed, again)).await?;
    keep_managed(cx, object, managed);
    Ok(())
}

const MANAGED: &str = "/metadata/managedFields";

/// Managers that somebody outside made unreadable are as they were before.
fn keep_managed(cx: &Cx<'_>, object: &mut Object, before: Option<Value>) {
    let after = object.at(MANAGED);
    if after == before.as_ref() {
        return;
    }
    let list = after.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let Err(why) = Managers::parse(list) else { return };
    cx.notes.warn(format!(
        ".metadata.managedFields was in an invalid state after admission; this could be caused by \
         an outdated mutating admission controller; please fix your requests: {why}"
    ));
    before.map(Managers::trusted).unwrap_or_default().put(object);
}

/// After validation.
pub(crate) async fn validate(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    refuse(cx, object)?;
    if cx.operation == Operation::Delete && cx.config.has(webhook::MUTATING, true) {
        // There is nothing to change, but they are asked all the same.
        let concerned = webhook::concerned(cx, webhook::Part::Mutating);
        if !concerned.is_empty() {
            let mut gone = object.clone();
            Box::pin(webhook::mutate(cx, &mut gone, concerned, false, |_| Ok(()))).await?;
        }
    }
    if !cx.config.has(webhook::VALIDATING, true) {
        return Ok(());
    }
    let concerned = webhook::concerned(cx, webhook::Part::Validating);
    if concerned.is_empty() {
        return Ok(());
    }
    Box::pin(webhook::validate(cx, object, concerned)).await
}

/// Last of all: what the request uses of its namespace's quotas, to be written with its object.
pub(crate) async fn charge(cx: &Cx<'_>, object: &Object) -> Result<Charge, Status> {
    if !cx.config.has(resource_quota::NAME, true) {
        return Ok(Charge::default());
    }
    let began = Instant::now();
    let result = resource_quota::charge(cx, object).await;
    cx.machine.metrics.step("validate", resource_quota::NAME, cx.operation, &result, began);
    result
}

fn fill_in(cx: &Cx<'_>, object: &mut Object) -> Result<(), Status> {
    for step in MUTATE {
        if cx.config.has(step.name, step.default_on) {
            let began = Instant::now();
            let result = (step.run)(cx, object);
            cx.machine.metrics.step("admit", step.name, cx.operation, &result, began);
            result?;
        }
    }
    Ok(())
}

/// Those who came before a change see what it made.
fn again(cx: &Cx<'_>, object: &mut Object, invoked: &policy::Invoked) -> Result<(), Status> {
    fill_in(cx, object)?;
    change(cx, object, policy::Round::Again(invoked)).map(|_| ())
}

/// The policies' turn.
fn change(
    cx: &Cx<'_>,
    object: &mut Object,
    round: policy::Round<'_>,
) -> Result<policy::Rounded, Status> {
    if !cx.config.has(policy::MUTATING, true) {
        return Ok(policy::Rounded::default());
    }
    let began = Instant::now();
    let result = policy::mutate(cx, object, round);
    cx.machine.metrics.step("admit", policy::MUTATING, cx.operation, &result, began);
    result
}

fn refuse(cx: &Cx<'_>, object: &Object) -> Result<(), Status> {
    for step in VALIDATE {
        if cx.config.has(step.name, step.default_on) {
            let began = Instant::now();
            let result = (step.run)(cx, object);
            cx.machine.metrics.step("validate", step.name, cx.operation, &result, began);
            result?;
        }
    }
    Ok(())
}
