//! How a container is asked whether it is well, and told that it begins or ends.

use super::super::field::{At, Errors};
use k8s::names as rules;

/// What of the pod decides what is good here.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) grace_period_seconds: i64,
    /// `spec.os.name`, empty if nothing is said.
    pub(super) os: &'a str,
}

pub(super) const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];

pub(super) fn validate(container: &At<'_, '_>, scope: Scope<'_>, errors: &mut Errors) {
    lifecycle(&container.field("lifecycle"), scope, errors);
    for kind in PROBES {
        probe(&container.field(kind), kind, scope, errors);
    }
}

fn probe(probe: &At<'_, '_>, kind: &str, scope: Scope<'_>, errors: &mut Errors) {
    if !probe.exists() {
        return;
    }
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], scope, errors);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        errors.not_negative(&probe.field(field));
    }
    let grace = probe.field("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        errors.invalid(&grace, "must be greater than 0");
    }
    if kind == "readinessProbe" {
        if grace.exists() {
            errors.invalid(&grace, "must not be set for readinessProbes");
        }
        return;
    }
    let successes = probe.field("successThreshold");
    if successes.int() != Some(1) {
        errors.invalid_value(&successes, successes.int().unwrap_or(0), "must be 1");
    }
}

fn lifecycle(lifecycle: &At<'_, '_>, scope: Scope<'_>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.field(hook);
        if hook.exists() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], scope, errors);
        }
    }
    let signal = lifecycle.field("stopSignal");
    if !signal.exists() {
        return;
    }
    match scope.os {
        "" => {
            let detail = "may not be set for containers with empty `spec.os.name`";
            errors.forbidden(&signal, detail);
        }
        "windows" => errors.one_of(&signal, &["SIGKILL", "SIGTERM"], false),
        "linux" if !is_signal(signal.text()) => {
            let known = signals();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            errors.not_supported(&signal, &known);
        }
        _ => (),
    }
}

const SIGNALS: &str = "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT \
                       SIGIO SIGIOT SIGKILL SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGSEGV \
                       SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU SIGURG \
                       SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ SIGRTMIN SIGRTMAX";

fn is_signal(name: &str) -> bool {
    signals().iter().any(|signal| signal == name)
}

/// Sorted, with the real-time ones counted from either end.
fn signals() -> Vec<String> {
    let mut all: Vec<String> = SIGNALS.split(' ').map(String::from).collect();
    all.extend((1..=15).map(|number| format!("SIGRTMIN+{number}")));
    all.extend((1..=14).map(|number| format!("SIGRTMAX-{number}")));
    all.sort_unstable();
    all
}

/// Exactly one way to ask or to tell a container.
fn handler(at: &At<'_, '_>, kinds: &[&'static str], scope: Scope<'_>, errors: &mut Errors) {
    let given = kinds.iter().copied().filter(|kind| at.field(kind).exists());
    let mut found = false;
    for kind in given {
        let one = at.field(kind);
        if std::mem::replace(&mut found, true) {
            errors.forbidden(&one, "may not specify more than 1 handler type");
            continue;
        }
        match kind {
            "exec" if one.field("command").count() == 0 => {
                errors.required(&one.field("command"), "");
            }
            "httpGet" => http_get(&one, errors),
            "tcpSocket" => errors.port(&one.field("port")),
            "grpc" => errors.port(&one.field("port")),
            "sleep" => {
                // Upstream names the action, not its field.
                let (seconds, most) =
                    (one.field("seconds").int().unwrap_or(0), scope.grace_period_seconds);
                if !(0..=most).contains(&seconds) {
                    let detail = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({most})"
                    );
                    errors.invalid_value(&one, seconds, detail);
                }
            }
            _ => (),
        }
    }
    if !found {
        errors.required(at, "must specify a handler type");
    }
}

fn http_get(get: &At<'_, '_>, errors: &mut Errors) {
    errors.needs_text(&get.field("path"));
    errors.port(&get.field("port"));
    let scheme = get.field("scheme");
    if !matches!(scheme.text(), "HTTP" | "HTTPS") {
        errors.not_supported_value(&scheme, scheme.text(), &["HTTP", "HTTPS"]);
    }
    let headers = get.field("httpHeaders");
    for header in headers.items() {
        let name = header.field("name").text();
        for detail in rules::is_http_header_name(name) {
            errors.invalid_value(&headers, name, detail);
        }
    }
}
