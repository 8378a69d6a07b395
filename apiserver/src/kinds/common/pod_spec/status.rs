//! What a status of a pod may say, and what it may not take back.

use super::{
    super::field::{At, Errors, same},
    annotations,
};
use k8s::{FieldError, Object, names as rules};
use std::collections::BTreeSet;

const I32_MAX: i64 = i32::MAX as i64;

pub(crate) fn validate_status(new: &Object, old: &Object, errors: &mut Errors) {
    let (spec, status) = (At::top(new, "spec"), At::top(new, "status"));
    let (was, before) = (At::top(old, "spec"), At::top(old, "status"));
    let (metadata, old_metadata) = (At::top(new, "metadata"), At::top(old, "metadata"));
    annotations::validate_update(
        &metadata.field("annotations"),
        &old_metadata.field("annotations"),
        errors,
    );
    conditions(&status.field("conditions"), errors);
    if spec.field("nodeName").text() != was.field("nodeName").text() {
        errors.forbidden(&status.field("nodeName"), "may not be changed directly");
    }
    nominated(&status, &before, &was, errors);
    let generation = status.field("observedGeneration");
    if generation.int().is_some_and(|generation| generation < 0) {
        errors.invalid(&generation, "must be a non-negative integer");
    }
    let class = status.field("qosClass");
    if !same(class.value(), before.field("qosClass").value()) {
        errors.invalid(&class, "field is immutable");
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        transitions(&status.field(list), &before.field(list), &was, list, errors);
    }
    claims(&status, &spec, errors);
    extended(&status.field("extendedResourceClaimStatus"), &spec, errors);
    for (list, one) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        addresses(&status, &before, list, one, errors);
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        users(&status.field(list), &spec, errors);
    }
}

fn conditions(conditions: &At<'_, '_>, errors: &mut Errors) {
    for condition in conditions.items() {
        let generation = condition.field("observedGeneration");
        if generation.int().is_some_and(|generation| generation < 0) {
            errors.invalid(&generation, "must be a non-negative integer");
        }
        let kind = condition.field("type").renamed("Type");
        if !matches!(kind.text(), "PodScheduled" | "Ready" | "Initialized") {
            errors.qualified_name(&kind);
        }
    }
}

fn nominated(status: &At<'_, '_>, before: &At<'_, '_>, was: &At<'_, '_>, errors: &mut Errors) {
    let node = status.field("nominatedNodeName");
    if node.text().is_empty() || node.text() == before.field("nominatedNodeName").text() {
        return;
    }
    errors.subdomain(&node);
    if !was.field("nodeName").text().is_empty() {
        errors.forbidden(&node, "may not be set on pods that are already bound to a node");
    }
}

/// Containers that ended for good stay ended.
fn transitions(
    now: &At<'_, '_>,
    before: &At<'_, '_>,
    was: &At<'_, '_>,
    list: &str,
    errors: &mut Errors,
) {
    let policy = was.field("restartPolicy").text();
    if policy == "Always" && list != "ephemeralContainerStatuses" {
        return;
    }
    for (place, old) in before.items().enumerate() {
        let state = old.field("state");
        let ended = state.field("terminated");
        if !ended.exists() || may_restart(&old, &ended, was, list, policy) {
            continue;
        }
        let name = old.field("name").text();
        let runs = |new: &At<'_, '_>| {
            new.field("name").text() == name && !new.field("state").field("terminated").exists()
        };
        if now.items().any(|new| runs(&new)) {
            let path = format!("{now}[{place}].state");
            let detail = "may not be transitioned to non-terminated state";
            errors.0.push(FieldError::forbidden(path, detail));
        }
    }
}

fn may_restart(
    old: &At<'_, '_>,
    ended: &At<'_, '_>,
    was: &At<'_, '_>,
    list: &str,
    policy: &str,
) -> bool {
    let code = ended.field("exitCode").int().unwrap_or(0);
    let name = old.field("name").text();
    let specs = match list {
        "containerStatuses" => was.field("containers"),
        "initContainerStatuses" => was.field("initContainers"),
        _ => return false,
    };
    let own = specs.items().find(|container| container.field("name").text() == name);
    if policy == "OnFailure" && code != 0 {
        return true;
    }
    // A policy of the container's own (KEP-5307).
    own.is_some_and(|container| {
        let rules = container.field("restartPolicyRules");
        let matches = rules.items().any(|rule| {
            let codes = rule.field("exitCodes");
            let listed = codes.field("values").items().any(|value| value.int() == Some(code));
            listed == (codes.field("operator").text() == "In")
        });
        matches
            || match container.field("restartPolicy").text() {
                "Always" => true,
                "OnFailure" => code != 0,
                _ => false,
            }
    })
}

fn claims(status: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for claim in status.field("resourceClaimStatuses").items() {
        let name = claim.field("name");
        let known =
            spec.field("resourceClaims").items().any(|own| own.field("name").text() == name.text());
        if !known {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&name, detail);
        }
        if !names.insert(name.text()) {
            errors.duplicate(&name);
        }
        let own = claim.field("resourceClaimName");
        if own.exists() {
            for detail in rules::is_dns1123_subdomain(own.text()) {
                errors.invalid_value(&name, own.text(), detail);
            }
        }
    }
}

/// The claim made for extended resources of the pod's own containers (KEP-5004).
fn extended(claim: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    if !claim.exists() {
        return;
    }
    let mappings = claim.field("requestMappings");
    if mappings.count() == 0 {
        errors.required(&mappings, "at least one request mapping is required");
    }
    let mut seen = BTreeSet::new();
    for mapping in mappings.items() {
        let fields = ["containerName", "resourceName", "requestName"];
        let [container, resource, request] = fields.map(|field| mapping.field(field));
        let wanted = ["containers", "initContainers"].into_iter().find_map(|list| {
            let containers = spec.field(list);
            let mut containers = containers.items();
            let own = containers.find(|one| one.field("name").text() == container.text())?;
            Some(own.field("resources").field("requests").has(resource.text()))
        });
        match wanted {
            Some(true) => (),
            Some(false) => errors.invalid(
                &resource,
                "must match the extended resource name of an entry in \
                 spec.initContainers.resources.requests or spec.containers.resources.requests",
            ),
            None => errors.invalid(
                &container,
                "must match the name of an entry in spec.initContainers.name or \
                 spec.containers.name",
            ),
        }
        // Upstream names the claim's field here, not the mapping's.
        for detail in rules::is_dns1123_label(request.text()) {
            errors.invalid_value(&claim.field("requestName"), request.text(), detail);
        }
        if !seen.insert([container.text(), resource.text(), request.text()]) {
            [container, resource, request].iter().for_each(|field| errors.duplicate(field));
        }
    }
    if errors.needs_text(&claim.field("resourceClaimName")) {
        errors.subdomain(&claim.field("resourceClaimName"));
    }
}

/// At most one address of each family, the first of them the old field.
fn addresses(
    status: &At<'_, '_>,
    before: &At<'_, '_>,
    list: &'static str,
    one: &'static str,
    errors: &mut Errors,
) {
    let all = status.field(list);
    let first = all.index(0);
    if one == "hostIP" && all.count() > 0 && first.field("ip").text() != status.field(one).text() {
        errors.invalid(&first.field("ip"), "must be equal to `hostIP`");
    }
    let old = before.field(list);
    let kept: Vec<&str> = old.items().map(|entry| entry.field("ip").text()).collect();
    let mut families = BTreeSet::new();
    let mut twice = false;
    for entry in all.items() {
        let ip = entry.field("ip");
        // Upstream names the entry, not its field.
        let mut within = Errors::default();
        within.legacy_ip(&ip, &kept);
        errors.adopt(within, &ip, &entry);
        twice |= !families.insert(ip.text().contains(':'));
    }
    if twice {
        errors.invalid(&all, "may specify no more than one IP for each IP family");
    }
}

fn users(statuses: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let windows = spec.field("os").field("name").text() == "windows";
    for status in statuses.items() {
        let user = status.field("user");
        let linux = user.field("linux");
        if !linux.exists() {
            continue;
        }
        if windows {
            errors.forbidden(&linux, "cannot be set for a windows pod");
            continue;
        }
        for field in ["uid", "gid"] {
            errors.in_range(&linux.field(field), 0, I32_MAX);
        }
        for group in linux.field("supplementalGroups").items() {
            errors.in_range(&group, 0, I32_MAX);
        }
    }
}
