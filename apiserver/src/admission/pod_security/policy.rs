//! Which standard a namespace asks for, by its labels.

use k8s::{FieldError, Object};
use std::fmt;

/// From the most lenient to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A standard as it was in some version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) level: Level,
    /// The minor of `v1.minor`; `None`: the latest.
    pub(super) version: Option<u32>,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Some(minor) => write!(f, ":v1.{minor}"),
            None => f.write_str(":latest"),
        }
    }
}

/// What is done with each standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policies {
    pub(super) enforce: Policy,
    pub(super) audit: Policy,
    pub(super) warn: Policy,
}

impl Policies {
    pub(super) fn all_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|it| it.level == Level::Privileged)
    }
}

/// The policies of a namespace, and what is wrong with its labels; a wrong level counts as the
/// strictest.
pub(super) fn of(namespace: Option<&Object>) -> (Policies, Vec<FieldError>) {
    let mut errors = Vec::new();
    let label = |mode: &str| {
        let key = format!("pod-security.kubernetes.io/{mode}");
        let value = namespace.and_then(|namespace| namespace.label(&key)).map(str::to_string);
        (key, value)
    };
    let mut read = |mode: &str| {
        let mut policy = Policy { level: Level::Privileged, version: None };
        let (key, level) = label(mode);
        let mut good_level = None;
        if let Some(text) = level {
            good_level = parse_level(&text);
            policy.level = good_level.unwrap_or(Level::Restricted);
            if good_level.is_none() {
                let detail = "must be one of privileged, baseline, restricted";
                errors.push(wrong(&key, text, detail));
            }
        }
        let (key, version) = label(&format!("{mode}-version"));
        let versioned = version.is_some();
        if let Some(text) = version {
            match parse_version(&text) {
                Some(version) => policy.version = version,
                None => errors.push(wrong(&key, text, "must be \"latest\" or \"v1.x\"")),
            }
        }
        (policy, good_level.is_some(), versioned)
    };
    let (enforce, enforced, _) = read("enforce");
    let (audit, ..) = read("audit");
    let (mut warn, _, warn_versioned) = read("warn");
    let (_, warned) = label("warn");
    // Who makes a Deployment is to hear that its pods would be refused.
    if enforced && warned.is_none() {
        warn.level = enforce.level;
        if !warn_versioned {
            warn.version = enforce.version;
        }
    }
    (Policies { enforce, audit, warn }, errors)
}

fn wrong(key: &str, value: String, detail: &str) -> FieldError {
    FieldError::invalid(format!("metadata.labels[{key}]"), value.into(), detail)
}

fn parse_level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

/// `latest` or `v1.x`, without leading zeros.
fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let parsed: u32 = minor.parse().ok()?;
    (parsed.to_string() == minor).then_some(Some(parsed))
}
