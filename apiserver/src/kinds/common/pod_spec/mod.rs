//! Pod specs, in pods and in the templates of workloads: defaults and validation.

mod containers;
mod defaults;
mod resources;
mod scheduling;
mod security;
mod update;
mod volumes;

pub(crate) use defaults::{pod as default_pod, pod_spec as default};
pub(crate) use resources::{qos_class, validate_quantities};
pub(crate) use update::validate_update;
pub(crate) use volumes::validate_volumes;

use super::{
    field::{At, Errors},
    labels,
};
use k8s::names as rules;
use std::collections::BTreeSet;

const I32_MAX: i64 = i32::MAX as i64;

/// Everything wrong with a pod spec, in a pod or in a template.
pub(crate) fn validate(spec: &At<'_, '_>, errors: &mut Errors) {
    let volumes = validate_volumes(&spec.field("volumes"), errors);
    let grace = spec.field("terminationGracePeriodSeconds").int().unwrap_or(30);
    let scope = containers::Scope {
        volumes: &volumes,
        host_network: spec.field("hostNetwork").flag(),
        grace_period_seconds: grace,
    };
    containers::validate(spec, &scope, errors);
    errors.one_of(&spec.field("restartPolicy"), &["Always", "OnFailure", "Never"], true);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(&spec.field("dnsPolicy"), &policies, true);
    labels::validate_labels(&spec.field("nodeSelector"), errors);
    names_and_limits(spec, errors);
    security::validate_pod(&spec.field("securityContext"), spec, errors);
    scheduling::validate(spec, errors);
    dns_config(spec, errors);
}

fn names_and_limits(spec: &At<'_, '_>, errors: &mut Errors) {
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let at = spec.field(field);
        if !at.text().is_empty() {
            errors.invalid_each(&at, rules::is_dns1123_subdomain(at.text()));
        }
    }
    for field in ["hostname", "subdomain"] {
        let at = spec.field(field);
        if !at.text().is_empty() {
            errors.invalid_each(&at, rules::is_dns1123_label(at.text()));
        }
    }
    for secret in spec.field("imagePullSecrets").items() {
        errors.needs_text(&secret.field("name"));
    }
    let deadline = spec.field("activeDeadlineSeconds");
    if deadline.int().is_some_and(|seconds| !(1..=I32_MAX).contains(&seconds)) {
        errors.invalid(&deadline, format!("must be between 1 and {I32_MAX}, inclusive"));
    }
    errors.one_of(&spec.field("preemptionPolicy"), &["PreemptLowerPriority", "Never"], false);
    for alias in spec.field("hostAliases").items() {
        let ip = alias.field("ip");
        errors.invalid_each(&ip, rules::is_ip(ip.text()));
        for host in alias.field("hostnames").items() {
            errors.invalid_each(&host, rules::is_dns1123_subdomain(host.text()));
        }
    }
}

fn dns_config(spec: &At<'_, '_>, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let servers = config.field("nameservers");
    if spec.field("dnsPolicy").text() == "None" {
        if !config.exists() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.required(&config, detail);
            return;
        }
        if servers.count() == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&servers, detail);
        }
    }
    if servers.count() > 3 {
        errors.invalid(&servers, "must not have more than 3 nameservers");
    }
    for server in servers.items() {
        errors.invalid_each(&server, rules::is_ip(server.text()));
    }
    for option in config.field("options").items() {
        let name = option.field("name");
        if name.text().is_empty() {
            errors.required(&name, "must not be empty");
        }
    }
}

/// A pod template in a workload whose pods live for ever: matches the selector, restarts always.
pub(crate) fn validate_template(template: &At<'_, '_>, selector: &At<'_, '_>, errors: &mut Errors) {
    if !template.exists() {
        errors.required(template, "");
        return;
    }
    template_matches(template, selector, errors);
    validate_any_template(template, errors);
    let spec = template.field("spec");
    let policy = spec.field("restartPolicy");
    if !policy.text().is_empty() && policy.text() != "Always" {
        errors.not_supported(&policy, &["Always"]);
    }
    let deadline = spec.field("activeDeadlineSeconds");
    if deadline.exists() {
        errors.forbidden(&deadline, "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
}

/// Any pod template: metadata and spec.
pub(crate) fn validate_any_template(template: &At<'_, '_>, errors: &mut Errors) {
    labels::validate_template_metadata(&template.field("metadata"), errors);
    let spec = template.field("spec");
    validate(&spec, errors);
    let ephemeral = spec.field("ephemeralContainers");
    if ephemeral.count() > 0 {
        errors.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
    }
}

/// The labels of the template are what the selector looks for.
fn template_matches(template: &At<'_, '_>, selector: &At<'_, '_>, errors: &mut Errors) {
    let Some(value) = selector.value() else { return };
    let (metadata, labels) = (template.field("metadata"), "labels");
    let labels = metadata.field(labels);
    let Ok(parsed) = k8s::selector::LabelSelector::from_value(value) else { return };
    let label = |key: &str| labels.value()?.get(key)?.as_str();
    if !parsed.matches(label) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
}

/// Names already taken; says whether `name` is new.
#[derive(Default)]
pub(crate) struct Taken<'v>(BTreeSet<&'v str>);

impl<'v> Taken<'v> {
    pub(crate) fn add(&mut self, name: &At<'_, 'v>, errors: &mut Errors) -> bool {
        let new = self.0.insert(name.text());
        if !new {
            errors.duplicate(name);
        }
        new
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
