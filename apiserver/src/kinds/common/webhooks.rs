//! What both kinds of webhook configurations share: defaults and validation (upstream's
//! `pkg/apis/admissionregistration/validation`).

use super::{
    child, children,
    field::{At, Errors},
    labels, made, policies, set_default, set_text,
};
use k8s::{FieldError, Object, names};
use serde_json::Value;
use std::collections::BTreeSet;

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
/// Hosts of webhooks' URLs are told what they must look like.
const URL_FORM: &str = "; desired format: https://host[/path]";

pub(in crate::kinds) fn default(configuration: &mut Object, mutating: bool) {
    for webhook in children(&mut configuration.0, "webhooks") {
        set_text(webhook, "failurePolicy", "Fail");
        set_text(webhook, "matchPolicy", "Equivalent");
        made(webhook, "namespaceSelector");
        made(webhook, "objectSelector");
        set_default(webhook, "timeoutSeconds", 10);
        if mutating {
            set_text(webhook, "reinvocationPolicy", "Never");
        }
        children(webhook, "rules").for_each(|rule| set_text(rule, "scope", "*"));
        let service = child(webhook, "clientConfig").and_then(|client| child(client, "service"));
        if let Some(service) = service {
            set_default(service, "port", 443);
        }
    }
}

pub(in crate::kinds) fn validate(new: &Object) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let mut names = BTreeSet::new();
    for webhook in At::top(new, "webhooks").items() {
        validate_webhook(&webhook, &mut errors);
        let name = webhook.field("name");
        if !name.text().is_empty() && !names.insert(name.text().to_string()) {
            errors.duplicate(&name);
        }
    }
    errors.0
}

fn validate_webhook(webhook: &At<'_, '_>, errors: &mut Errors) {
    qualified_name(&webhook.field("name"), errors);
    for rule in webhook.field("rules").items() {
        validate_rule(&rule, errors);
    }
    errors.one_of(&webhook.field("failurePolicy"), &["Fail", "Ignore"], false);
    errors.one_of(&webhook.field("matchPolicy"), &["Equivalent", "Exact"], false);
    errors.one_of(&webhook.field("reinvocationPolicy"), &["IfNeeded", "Never"], false);
    let side_effects = webhook.field("sideEffects");
    let harmless = ["None", "NoneOnDryRun"];
    match side_effects.text() {
        "" => errors.required(&side_effects, "must specify one of None, NoneOnDryRun"),
        text if harmless.contains(&text) => (),
        _ => errors.not_supported(&side_effects, &harmless),
    }
    let timeout = webhook.field("timeoutSeconds");
    if timeout.int().is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        errors.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    labels::validate_selector(&webhook.field("namespaceSelector"), errors);
    labels::validate_selector(&webhook.field("objectSelector"), errors);
    validate_client(&webhook.field("clientConfig"), errors);
    validate_reviews(&webhook.field("admissionReviewVersions"), errors);
    policies::validate_conditions(&webhook.field("matchConditions"), false, errors);
}

/// At least three labels, as upstream's `IsFullyQualifiedName` has it.
fn qualified_name(name: &At<'_, '_>, errors: &mut Errors) {
    if !errors.needs_text(name) {
        return;
    }
    let wrong = names::is_dns1123_subdomain(name.text());
    if !wrong.is_empty() {
        errors.invalid(name, wrong.join(","));
    } else if name.text().split('.').count() < 3 {
        errors.invalid(name, "should be a domain with at least three segments separated by dots");
    }
}

fn validate_reviews(versions: &At<'_, '_>, errors: &mut Errors) {
    if versions.count() == 0 {
        let detail = format!("must specify one of {}", REVIEWS.join(", "));
        return errors.required(versions, &detail);
    }
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        if !seen.insert(version.text().to_string()) {
            errors.invalid(&version, "duplicate version");
        }
        errors.invalid_each(&version, names::is_dns1035_label(version.text()));
    }
    if !REVIEWS.iter().any(|known| seen.contains(*known)) {
        let detail = format!("must include at least one of {}", REVIEWS.join(", "));
        errors.invalid(versions, detail);
    }
}

fn validate_client(client: &At<'_, '_>, errors: &mut Errors) {
    let (url, service) = (client.field("url"), client.field("service"));
    match (url.exists(), service.exists()) {
        (true, false) => validate_url(&url, errors),
        (false, true) => {
            for (field, detail) in [
                ("name", "service name is required"),
                ("namespace", "service namespace is required"),
            ] {
                let at = service.field(field);
                if at.text().is_empty() {
                    errors.required(&at, detail);
                }
            }
            let port = service.field("port");
            if port.int().is_some_and(|port| !(1..=65535).contains(&port)) {
                let detail = "port is not valid: must be between 1 and 65535, inclusive";
                errors.invalid(&port, detail);
            }
            validate_path(&service.field("path"), errors);
        }
        _ => errors.required(client, "exactly one of url or service is required"),
    }
}

fn validate_url(at: &At<'_, '_>, errors: &mut Errors) {
    let url = match url::Url::parse(at.text()) {
        Ok(url) => url,
        Err(error) => {
            let detail = format!("url must be a valid URL: {error}{URL_FORM}");
            return errors.required(at, &detail);
        }
    };
    if url.scheme() != "https" {
        let detail = format!("'https' is the only allowed URL scheme{URL_FORM}");
        errors.invalid_value(at, url.scheme(), detail);
    }
    if url.host_str().is_none_or(str::is_empty) {
        errors.invalid_value(at, "", format!("host must be specified{URL_FORM}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let user = url.username();
        errors.invalid_value(at, user, "user information is not permitted in the URL");
    }
    if let Some(fragment) = url.fragment().filter(|fragment| !fragment.is_empty()) {
        errors.invalid_value(at, fragment, "fragments are not permitted in the URL");
    }
    if let Some(query) = url.query().filter(|query| !query.is_empty()) {
        errors.invalid_value(at, query, "query parameters are not permitted in the URL");
    }
}

fn validate_path(at: &At<'_, '_>, errors: &mut Errors) {
    let path = at.text();
    if path.is_empty() || path == "/" {
        return;
    }
    if path == "//" {
        return errors.invalid(at, "segment[0] may not be empty");
    }
    let Some(inner) = path.strip_prefix('/') else {
        return errors.invalid(at, "must start with a '/'");
    };
    for (index, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(at, format!("segment[{index}] may not be empty"));
            continue;
        }
        for why in names::is_dns1123_subdomain(step) {
            errors.invalid(at, format!("segment[{index}]: {why}"));
        }
    }
}

/// A rule with operations, in a webhook or a policy.
pub(super) fn validate_rule(rule: &At<'_, '_>, errors: &mut Errors) {
    for (field, others) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = rule.field(field);
        one_or_all(&list, others, errors);
        for entry in list.items().filter(|entry| entry.text().is_empty() && field != "apiGroups") {
            errors.required(&entry, "");
        }
    }
    validate_resources(&rule.field("resources"), errors);
    errors.one_of(&rule.field("scope"), &["*", "Cluster", "Namespaced"], false);
    let operations = rule.field("operations");
    one_or_all(&operations, "operations", errors);
    for operation in operations.items() {
        let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
        if !known.contains(&operation.text()) {
            errors.not_supported(&operation, &known);
        }
    }
}

fn has(list: &At<'_, '_>, wanted: &str) -> bool {
    list.items().any(|entry| entry.text() == wanted)
}

/// Something must be there; `*` only alone.
fn one_or_all(list: &At<'_, '_>, others: &str, errors: &mut Errors) {
    if list.count() == 0 {
        errors.required(list, "");
    }
    if list.count() > 1 && has(list, "*") {
        errors.invalid(list, format!("if '*' is present, must not specify other {others}"));
    }
}

fn validate_resources(list: &At<'_, '_>, errors: &mut Errors) {
    if list.count() == 0 {
        return errors.required(list, "");
    }
    let (mut whole, mut subs): (BTreeSet<String>, BTreeSet<String>) = Default::default();
    for entry in list.items() {
        let text = entry.text();
        if text.is_empty() {
            errors.required(&entry, "");
        }
        if text == "*/*" {
            continue;
        }
        let (resource, sub) = text.split_once('/').unwrap_or((text, ""));
        if whole.contains(resource) && !sub.is_empty() {
            let detail = format!("if '{resource}/*' is present, must not specify {text}");
            errors.invalid(&entry, detail);
        }
        if subs.contains(sub) && !sub.is_empty() {
            let detail = format!("if '*/{sub}' is present, must not specify {text}");
            errors.invalid(&entry, detail);
        }
        if sub == "*" {
            whole.insert(resource.to_string());
        }
        if resource == "*" {
            subs.insert(sub.to_string());
        }
    }
    if list.count() > 1 && has(list, "*/*") {
        errors.invalid(list, "if '*/*' is present, must not specify other resources");
    }
    let no_subs = list.items().all(|entry| !entry.text().contains('/'));
    if list.count() > 1 && no_subs && has(list, "*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(list, detail);
    }
}

/// How many webhooks there are, as a table shows it.
pub(in crate::kinds) fn count(configuration: &Object) -> Value {
    super::print::count(configuration, "/webhooks").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrong(change: impl Fn(&mut Value)) -> String {
        let mut configuration = json!({
            "metadata": { "name": "c" },
            "webhooks": [{
                "name": "a.example.com",
                "clientConfig": { "service": { "namespace": "n", "name": "s", "path": "/x" } },
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                    "operations": ["CREATE"],
                }],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        });
        change(&mut configuration["webhooks"][0]);
        let mut object = Object::from_value(configuration).expect("an object");
        default(&mut object, true);
        let errors: Vec<String> = validate(&object).iter().map(ToString::to_string).collect();
        errors.join("\n")
    }

    #[test]
    fn a_good_configuration_has_nothing_wrong() {
        assert_eq!(wrong(|_| ()), "");
        assert_eq!(wrong(|hook| hook["clientConfig"] = json!({ "url": "https://x:1/y" })), "");
        let all = json!(["*/*"]);
        assert_eq!(wrong(|hook| hook["rules"][0]["resources"] = all.clone()), "");
    }

    #[test]
    fn what_is_wrong_is_told_as_upstream_tells_it() {
        let lines = [
            wrong(|hook| hook["name"] = "short".into()),
            wrong(|hook| hook["clientConfig"] = json!({})),
            wrong(|hook| hook["clientConfig"] = json!({ "url": "http://u:p@x/?q=1#f" })),
            wrong(|hook| hook["clientConfig"]["service"] = json!({ "path": "a", "port": 0 })),
            wrong(|hook| hook["clientConfig"]["service"]["path"] = "/a//b".into()),
            wrong(|hook| {
                hook["rules"][0] = json!({
                    "apiGroups": ["*", "apps"], "apiVersions": [""],
                    "resources": ["pods/*", "pods/exec", "*/*"], "operations": ["LOOK"], "scope": "x",
                });
            }),
            wrong(|hook| hook["rules"][0]["resources"] = json!(["*", "pods"])),
            wrong(|hook| hook["sideEffects"] = "Some".into()),
            wrong(|hook| {
                hook["timeoutSeconds"] = 31.into();
                hook["failurePolicy"] = "Maybe".into();
                hook["reinvocationPolicy"] = "Often".into();
                hook["admissionReviewVersions"] = json!(["v2", "v2"]);
            }),
            wrong(|hook| {
                hook["matchConditions"] = json!([{ "name": "x", "expression": "1" }]);
            }),
        ];
        insta::assert_snapshot!(lines.join("\n\n"));
    }
}
