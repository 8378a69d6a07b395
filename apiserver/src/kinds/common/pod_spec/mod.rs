//! Pod specs, in pods and in the templates of workloads: defaults and validation.

mod annotations;
mod containers;
mod defaults;
pub(crate) mod field_sources;
mod os;
mod probes;
mod scheduling;
mod security;
mod status;
mod totals;
mod update;
mod volumes;
mod warnings;

pub(crate) use defaults::{merge_label_keys, pod as default_pod, pod_spec as default};
pub(crate) use scheduling::{node_selector, taints, tolerations};
pub(crate) use status::validate_status;
pub(crate) use totals::qos_class;
pub(crate) use update::{validate_ephemeral, validate_resize, validate_update};
pub(crate) use warnings::{label_warning, template_warnings, warnings};

use super::{
    field::{At, Errors},
    labels,
    resources::{self, Whose},
};
use k8s::{FieldError, Object, names as rules};
use std::collections::BTreeSet;

const I32_MAX: i64 = i32::MAX as i64;

/// What a pod spec belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Whole<'a> {
    Pod(&'a Object),
    Template,
}

/// What the parts of a pod spec refer to.
struct Pod<'a, 'v> {
    volumes: volumes::Volumes<'v>,
    /// Names of `spec.resourceClaims`.
    claims: Vec<&'v str>,
    probes: probes::Scope<'a>,
    restart_policy: &'v str,
    /// Users of the pod are users of the node.
    host_users: bool,
}

/// Everything wrong with a pod: annotations and spec (upstream's `validatePodMetadataAndSpec`; the
/// rest of metadata is the core's).
pub(crate) fn validate_pod(pod: &Object, errors: &mut Errors) {
    let (metadata, spec) = (At::top(pod, "metadata"), At::top(pod, "spec"));
    annotations::validate(&metadata.field("annotations"), &spec, errors);
    validate_spec(&spec, Whole::Pod(pod), errors);
    if spec.field("serviceAccountName").text().is_empty() {
        for volume in spec.field("volumes").items() {
            for source in volume.field("projected").field("sources").items() {
                let token = source.field("serviceAccountToken");
                if token.exists() {
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.forbidden(&token, detail);
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.field(list).items() {
            errors.unpadded(&container.field("image"));
        }
    }
}

/// What more a new pod has to obey.
pub(crate) fn validate_new(pod: &Object, errors: &mut Errors) {
    let (metadata, spec) = (At::top(pod, "metadata"), At::top(pod, "spec"));
    let attached = spec.field("ephemeralContainers");
    if attached.count() > 0 {
        errors.forbidden(&attached, "cannot be set on create");
    }
    let node = spec.field("nodeName");
    if !node.text().is_empty() && spec.field("schedulingGates").count() > 0 {
        errors.forbidden(&node, "cannot be set until all schedulingGates have been cleared");
    }
    annotations::match_fields(&metadata.field("annotations"), &spec, errors);
}

/// Everything wrong with a pod spec.
fn validate_spec(spec: &At<'_, '_>, whole: Whole<'_>, errors: &mut Errors) {
    let grace = spec.field("terminationGracePeriodSeconds");
    if !grace.exists() {
        errors.required(&grace, "");
    }
    let volumes = volumes::validate(&spec.field("volumes"), whole, errors);
    let claims = spec.field("resourceClaims");
    resource_claims(&claims, whole, errors);
    let users = spec.field("hostUsers");
    let pod = Pod {
        volumes,
        claims: claims.items().map(|claim| claim.field("name").text()).collect(),
        probes: probes::Scope {
            grace_period_seconds: grace.int().unwrap_or(0),
            os: spec.field("os").field("name").text(),
        },
        restart_policy: spec.field("restartPolicy").text(),
        host_users: !users.exists() || users.flag(),
    };
    containers::validate(spec, &pod, errors);
    totals::validate(spec, &pod.claims, errors);
    host_network(spec, whole, errors);
    errors.one_of(&spec.field("restartPolicy"), &["Always", "OnFailure", "Never"], true);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(&spec.field("dnsPolicy"), &policies, true);
    labels::validate_labels(&spec.field("nodeSelector"), errors);
    security::validate_pod(&spec.field("securityContext"), spec, errors);
    scheduling::affinity(&spec.field("affinity"), errors);
    dns_config(spec, errors);
    scheduling::gates(spec, errors);
    scheduling::spread(&spec.field("topologySpreadConstraints"), errors);
    os::host_processes(spec, errors);
    os::users(spec, errors);
    host_name_override(spec, errors);
    names_and_limits(spec, errors);
    os::validate(spec, errors);
    file_keys(spec, &pod, errors);
}

fn resource_claims(claims: &At<'_, '_>, whole: Whole<'_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for claim in claims.items() {
        if matches!(whole, Whole::Pod(pod) if pod.annotation(annotations::MIRROR).is_some()) {
            let detail = "static pods do not support resource claims";
            errors.0.push(FieldError::forbidden("", detail));
            continue;
        }
        let name = claim.field("name");
        if errors.needs_text(&name) {
            if names.insert(name.text()) {
                errors.label(&name);
            } else {
                errors.duplicate(&name);
            }
        }
        let (by_name, by_template) =
            (claim.field("resourceClaimName"), claim.field("resourceClaimTemplateName"));
        match (by_name.exists(), by_template.exists()) {
            (true, true) => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` \
                              may be specified";
                errors.invalid(&claim, detail);
            }
            (false, false) => {
                let detail = "must specify one of: `resourceClaimName`, \
                              `resourceClaimTemplateName`";
                errors.invalid(&claim, detail);
            }
            _ => (),
        }
        for at in [by_name, by_template].iter().filter(|at| at.exists()) {
            errors.subdomain(at);
        }
    }
}

/// On the node's network a container's port is the node's.
fn host_network(spec: &At<'_, '_>, whole: Whole<'_>, errors: &mut Errors) {
    if !spec.field("hostNetwork").flag() {
        return;
    }
    for container in spec.field("containers").items() {
        for port in container.field("ports").items() {
            let host = port.field("hostPort");
            let number = host.int().unwrap_or(0);
            let strict = matches!(whole, Whole::Pod(_)) || number != 0;
            if strict && number != port.field("containerPort").int().unwrap_or(0) {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid_value(&host, number, detail);
            }
        }
    }
}

fn host_name_override(spec: &At<'_, '_>, errors: &mut Errors) {
    let name = spec.field("hostnameOverride");
    if !name.exists() {
        return;
    }
    if spec.field("setHostnameAsFQDN").flag() {
        errors.forbidden(&name, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.field("hostNetwork").flag() {
        errors.forbidden(&name, "may not be specified when hostNetwork is true");
    }
    if name.text().len() > 64 {
        errors.too_long(&name, 64);
    }
    errors.subdomain(&name);
}

fn names_and_limits(spec: &At<'_, '_>, errors: &mut Errors) {
    for field in ["serviceAccountName", "nodeName"] {
        let at = spec.field(field);
        if !at.text().is_empty() {
            errors.subdomain(&at);
        }
    }
    errors.in_range(&spec.field("activeDeadlineSeconds"), 1, I32_MAX);
    for field in ["hostname", "subdomain"] {
        let at = spec.field(field);
        if !at.text().is_empty() {
            errors.label(&at);
        }
    }
    tolerations(&spec.field("tolerations"), errors);
    for alias in spec.field("hostAliases").items() {
        errors.legacy_ip(&alias.field("ip"), &[]);
        for host in alias.field("hostnames").items() {
            errors.subdomain(&host);
        }
    }
    let class = spec.field("priorityClassName");
    if !class.text().is_empty() {
        errors.subdomain(&class);
    }
    let runtime = spec.field("runtimeClassName");
    if runtime.exists() {
        errors.subdomain(&runtime);
    }
    errors.one_of(&spec.field("preemptionPolicy"), &["PreemptLowerPriority", "Never"], false);
    overhead(&spec.field("overhead"), errors);
}

/// Upstream checks it as the limits of a container, and says so in its paths.
fn overhead(overhead: &At<'_, '_>, errors: &mut Errors) {
    let mut within = Errors::default();
    resources::validate_named_amounts(overhead, Whose::Container, &mut within);
    errors.adopt(within, overhead, &format!("{overhead}.limits"));
}

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

fn dns_config(spec: &At<'_, '_>, errors: &mut Errors) {
    let config = spec.field("dnsConfig");
    let (servers, searches) = (config.field("nameservers"), config.field("searches"));
    if spec.field("dnsPolicy").text() == "None" {
        if !config.exists() {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            return errors.required(&config, detail);
        }
        if servers.count() == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&servers, detail);
        }
    }
    if servers.count() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.invalid(&servers, detail);
    }
    for server in servers.items() {
        errors.legacy_ip(&server, &[]);
    }
    if searches.count() > SEARCHES_MAX {
        errors.invalid(&searches, format!("must not have more than {SEARCHES_MAX} search paths"));
    }
    let all = searches.texts().collect::<Vec<_>>().join(" ");
    if all.len() > SEARCH_CHARS_MAX {
        let detail = format!(
            "must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the \
             search list"
        );
        errors.invalid(&searches, detail);
    }
    for search in searches.items().filter(|search| search.text() != ".") {
        let text = search.text().strip_suffix('.').unwrap_or(search.text());
        for detail in rules::is_dns1123_subdomain_with_underscore(text) {
            errors.invalid_value(&search, text, detail);
        }
    }
    for option in config.field("options").items() {
        if option.field("name").text().is_empty() {
            errors.required(&option, "must not be empty");
        }
    }
}

/// A variable out of a file needs the volume the file is in.
fn file_keys(spec: &At<'_, '_>, pod: &Pod<'_, '_>, errors: &mut Errors) {
    for list in os::LISTS {
        for container in spec.field(list).items() {
            for variable in container.field("env").items() {
                let from = variable.field("valueFrom");
                let reference = from.field("fileKeyRef");
                if !reference.exists() {
                    continue;
                }
                let volume = reference.field("volumeName");
                match pod.volumes.is_empty_dir(volume.text()) {
                    Some(true) => (),
                    Some(false) => {
                        errors.invalid(&volume, "referenced volume must be of type emptyDir");
                    }
                    None => errors.not_found_value(&volume, volume.text(), String::new()),
                }
            }
        }
    }
}

/// A pod template in a workload whose pods live for ever: matches the selector, restarts always.
pub(crate) fn validate_template(
    template: &At<'_, '_>,
    selector: &At<'_, '_>,
    owner: &str,
    errors: &mut Errors,
) {
    template_matches(template, selector, errors);
    validate_any_template(template, errors);
    only_always(template, errors);
    let spec = template.field("spec");
    let deadline = spec.field("activeDeadlineSeconds");
    if deadline.exists() {
        let detail = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.forbidden(&deadline, detail);
    }
}

/// Pods of a template that has to start again and again.
pub(crate) fn only_always(template: &At<'_, '_>, errors: &mut Errors) {
    let spec = template.field("spec");
    let policy = spec.field("restartPolicy");
    if policy.text() != "Always" {
        errors.not_supported(&policy, &["Always"]);
    }
}

/// Any pod template: metadata and spec.
pub(crate) fn validate_any_template(template: &At<'_, '_>, errors: &mut Errors) {
    let (metadata, spec) = (template.field("metadata"), template.field("spec"));
    // Upstream leaves `metadata` out of these paths.
    let mut within = Errors::default();
    labels::validate_template_metadata(&metadata, &mut within);
    annotations::validate(&metadata.field("annotations"), &spec, &mut within);
    errors.adopt(within, &metadata, template);
    validate_spec(&spec, Whole::Template, errors);
    annotations::match_fields(&metadata.field("annotations"), &spec, errors);
    let ephemeral = spec.field("ephemeralContainers");
    if ephemeral.count() > 0 {
        errors.forbidden(&ephemeral, "ephemeral containers not allowed in pod template");
    }
}

/// The labels of the template are what the selector looks for.
pub(crate) fn template_matches(template: &At<'_, '_>, selector: &At<'_, '_>, errors: &mut Errors) {
    let Some(value) = selector.value() else { return };
    let metadata = template.field("metadata");
    let labels = metadata.field("labels");
    let Ok(parsed) = k8s::selector::LabelSelector::from_value(value) else { return };
    let label = |key: &str| labels.value()?.get(key)?.as_str();
    if !parsed.is_everything() && !parsed.matches(label) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
}

/// Names already taken.
#[derive(Clone, Default)]
struct Taken<'v>(BTreeSet<&'v str>);

impl<'v> Taken<'v> {
    /// Another of this name is one too many.
    fn add(&mut self, name: &At<'_, 'v>, errors: &mut Errors) {
        if !name.text().is_empty() && !self.0.insert(name.text()) {
            errors.duplicate(name);
        }
    }

    fn know(&mut self, name: &'v str) {
        self.0.insert(name);
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
