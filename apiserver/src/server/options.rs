//! Query parameters and `DeleteOptions` as [`Options`].

use super::{negotiate::Include, request_info::percent_decode};
use crate::pipeline::manage;
use k8s::{FieldError, Options, PatchType, Status};
use serde_json::Value;
use std::time::Duration;

/// kube-apiserver's --request-timeout.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What a query may say besides [`Options`].
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub(crate) options: Options,
    pub(crate) watch: bool,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) include: Include,
    pairs: Vec<(String, String)>,
}

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Query {
        let pairs: Vec<(String, String)> = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(key), decode(value))
            })
            .collect();
        let mut parsed = Query::default();
        for (key, value) in &pairs {
            parsed.take(key, value);
        }
        parsed.pairs = pairs;
        parsed
    }

    /// How long the request may take: what the client says, at most what the server grants. `None`:
    /// as long as it lasts (`endless`).
    pub(crate) fn patience(&self, endless: bool) -> Result<Option<Duration>, Status> {
        if endless {
            return Ok(None);
        }
        let asked = self.pairs.iter().find(|(key, value)| key == "timeout" && !value.is_empty());
        let Some((_, asked)) = asked else { return Ok(Some(REQUEST_TIMEOUT)) };
        let asked = go_duration(asked)
            .ok_or_else(|| Status::bad_request("invalid timeout specified in the request URL"))?;
        // Zero is what a client sends that sets none.
        Ok(Some(if asked.is_zero() { REQUEST_TIMEOUT } else { asked.min(REQUEST_TIMEOUT) }))
    }

    fn take(&mut self, key: &str, value: &str) {
        let options = &mut self.options;
        let text = || Some(value.to_string());
        match key {
            "labelSelector" => options.label_selector = text(),
            "fieldSelector" => options.field_selector = text(),
            "limit" => options.limit = value.parse().ok(),
            "continue" => options.continue_token = text(),
            "resourceVersion" => options.resource_version = text(),
            "resourceVersionMatch" => options.resource_version_match = text(),
            "dryRun" => options.dry_run = value == "All",
            "fieldManager" => options.field_manager = text(),
            "fieldValidation" => options.field_validation = text(),
            "force" => options.force = truth(value),
            "propagationPolicy" => options.propagation_policy = text(),
            "orphanDependents" => orphan(options, truth(value)),
            "gracePeriodSeconds" => options.grace_period_seconds = value.parse().ok(),
            "watch" => self.watch = truth(value),
            "allowWatchBookmarks" => self.bookmarks = truth(value),
            "sendInitialEvents" => self.send_initial_events = Some(truth(value)),
            "timeoutSeconds" => {
                self.timeout = value.parse().ok().filter(|n| *n > 0).map(Duration::from_secs);
            }
            "includeObject" => {
                self.include = match value {
                    "None" => Include::None,
                    "Object" => Include::Object,
                    _ => Include::Metadata,
                }
            }
            _ => {}
        }
    }

    /// The name a field selector of equality fixes, if it fixes one.
    pub(crate) fn named(&self) -> Option<&str> {
        let selector = self.options.field_selector.as_deref()?;
        selector.split(',').find_map(|term| {
            let (field, value) = term.split_once('=')?;
            let plain = !field.ends_with('!');
            (plain && field == "metadata.name").then(|| value.trim_start_matches('='))
        })
    }

    /// Numbers that are none, in the options that the verb reads.
    pub(crate) fn refuse_unreadable(&self, verb: &str) -> Result<(), Status> {
        let numbers: &[&str] = match verb {
            "list" | "watch" => &["limit", "timeoutSeconds"],
            "delete" => &["gracePeriodSeconds"],
            "deletecollection" => &["limit", "timeoutSeconds", "gracePeriodSeconds"],
            _ => return Ok(()),
        };
        let read = |(key, value): &&(String, String)| {
            numbers.contains(&key.as_str()) && value.parse::<i64>().is_err()
        };
        match self.pairs.iter().find(read) {
            // Go's words, which upstream passes on.
            Some((_, value)) => Err(Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                k8s::text::go_quote(value)
            ))),
            None => Ok(()),
        }
    }

    /// What a write may not ask for; `kind` is the options kind upstream names.
    pub(crate) fn refuse_invalid(&self, kind: &str) -> Result<(), Status> {
        let mut errors = self.manager_errors();
        for (key, value) in &self.pairs {
            let valid: &[&str] = match key.as_str() {
                "dryRun" => &["All"],
                "fieldValidation" => &["Ignore", "Strict", "Warn"],
                _ => continue,
            };
            if !value.is_empty() && !valid.contains(&value.as_str()) {
                errors.push(FieldError::not_supported(key, value.clone().into(), valid));
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(Status::invalid("meta.k8s.io", kind, "", &errors))
    }

    /// The same of a patch: who applies must say so, and only who applies may force.
    pub(crate) fn refuse_invalid_patch(&self, patch: PatchType) -> Result<(), Status> {
        let manager = self.options.field_manager.as_deref().unwrap_or_default();
        let forced = self.pairs.iter().any(|(key, _)| key == "force");
        let error = match patch {
            PatchType::Apply if manager.is_empty() => {
                FieldError::required("fieldManager", "is required for apply patch")
            }
            PatchType::Apply => return self.refuse_invalid("PatchOptions"),
            _ if forced => {
                FieldError::forbidden("force", "may not be specified for non-apply patch")
            }
            _ => return self.refuse_invalid("PatchOptions"),
        };
        Err(Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]))
    }

    /// `ValidateFieldManager`.
    fn manager_errors(&self) -> Vec<FieldError> {
        const PATH: &str = "fieldManager";
        let manager = self.options.field_manager.as_deref().unwrap_or_default();
        let mut errors = Vec::new();
        if manager.len() > manage::MANAGER_BYTES_MAX {
            errors.push(FieldError::too_long(PATH, manage::MANAGER_BYTES_MAX));
        }
        for (position, c) in manager.char_indices().filter(|(_, c)| !manage::is_printable(*c)) {
            let why = format!("invalid character U+{:04X} (at position {position})", c as u32);
            errors.push(FieldError::invalid(PATH, manager.into(), why));
        }
        errors
    }

    /// Takes over what the body of a `DELETE` says; it wins over the query.
    pub(crate) fn take_delete_options(&mut self, body: &Value) -> Result<(), Status> {
        let options = &mut self.options;
        if let Some(seconds) = body.get("gracePeriodSeconds").and_then(Value::as_i64) {
            options.grace_period_seconds = Some(seconds);
        }
        if let Some(orphaned) = body.get("orphanDependents").and_then(Value::as_bool) {
            orphan(options, orphaned);
        }
        if let Some(policy) = body.get("propagationPolicy").and_then(Value::as_str) {
            options.propagation_policy = Some(policy.to_string());
        }
        if let (Some(policy), Some(_)) =
            (body.get("propagationPolicy"), body.get("orphanDependents"))
        {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            let error = FieldError::invalid("propagationPolicy", policy.clone(), why);
            return Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        }
        if let Some(dry_run) = body.get("dryRun").and_then(Value::as_array) {
            options.dry_run |= dry_run.iter().any(|value| value == "All");
        }
        if let Some(uid) = body.pointer("/preconditions/uid").and_then(Value::as_str) {
            options.precondition_uid = Some(uid.to_string());
        }
        if let Some(text) = body.pointer("/preconditions/resourceVersion").and_then(Value::as_str) {
            options.precondition_revision =
                Some(text.parse().map_err(|_| Status::bad_request("invalid resourceVersion"))?);
        }
        check_policy(options)
    }
}

/// The policies upstream knows (`ValidateDeleteOptions`).
pub(crate) fn check_policy(options: &Options) -> Result<(), Status> {
    let supported = ["Foreground", "Background", "Orphan", ""];
    match options.propagation_policy.as_deref() {
        Some(policy) if !supported.contains(&policy) => {
            let valid = ["Foreground", "Background", "Orphan", "nil"];
            let error = FieldError::not_supported("propagationPolicy", policy.into(), &valid);
            Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &[error]))
        }
        _ => Ok(()),
    }
}

fn orphan(options: &mut Options, orphaned: bool) {
    let policy = if orphaned { "Orphan" } else { "Background" };
    options.propagation_policy = Some(policy.to_string());
}

/// As Go reads a boolean parameter: anything but a clear no.
fn truth(value: &str) -> bool {
    !matches!(value, "0" | "false" | "False" | "FALSE" | "f" | "F")
}

/// `1m30s`, as Go writes durations.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

fn decode(text: &str) -> String {
    percent_decode(&text.replace('+', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_as_long_as_both_grant() {
        let patience = |query| Query::parse(Some(query)).patience(false).map_err(|s| s.code);
        let seconds = |seconds| Ok(Some(Duration::from_secs(seconds)));
        assert_eq!(patience(""), seconds(60));
        assert_eq!(patience("timeout=0s"), seconds(60));
        assert_eq!(patience("timeout=34s"), seconds(34));
        assert_eq!(patience("timeout=1h2m"), seconds(60));
        assert_eq!(patience("timeout=1500ms"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(patience("timeout=soon"), Err(400));
        assert_eq!(patience("timeout=-1s"), Err(400));
    }

    #[test]
    fn a_query_becomes_options() {
        let query = Query::parse(Some(
            "watch=1&fieldSelector=metadata.name%3Dweb&limit=5&timeoutSeconds=9&allowWatchBookmarks=true",
        ));
        assert!(query.watch && query.bookmarks);
        assert_eq!(query.named(), Some("web"));
        assert_eq!(query.options.limit, Some(5));
        assert_eq!(query.timeout, Some(Duration::from_secs(9)));
    }
}
