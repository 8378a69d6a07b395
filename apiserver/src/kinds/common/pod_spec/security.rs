//! Security contexts: users, groups, privileges, profiles, sysctls, and what Windows has instead.

use super::super::{
    field::{At, Errors},
    volume_sources::descending,
};
use std::collections::BTreeSet;

const I32_MAX: i64 = i32::MAX as i64;

fn id(at: &At<'_, '_>, errors: &mut Errors) {
    errors.in_range(at, 0, I32_MAX);
}

pub(super) fn validate_pod(context: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.field(field), errors);
    }
    for group in context.field("supplementalGroups").items() {
        id(&group, errors);
    }
    let shared = spec.field("shareProcessNamespace");
    if shared.flag() && spec.field("hostPID").flag() {
        let at = context.field("shareProcessNamespace");
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid_value(&at, true, detail);
    }
    sysctls(&context.field("sysctls"), spec, errors);
    errors.one_of(&context.field("fsGroupChangePolicy"), &["Always", "OnRootMismatch"], false);
    seccomp(&context.field("seccompProfile"), errors);
    windows(&context.field("windowsOptions"), errors);
    app_armor(&context.field("appArmorProfile"), errors);
    errors.one_of(&context.field("supplementalGroupsPolicy"), &["Merge", "Strict"], false);
    errors.one_of(&context.field("seLinuxChangePolicy"), &["MountOption", "Recursive"], false);
}

const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const SYSCTL_BYTES_MAX: usize = 253;

fn sysctls(list: &At<'_, '_>, spec: &At<'_, '_>, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for sysctl in list.items() {
        let name = sysctl.field("name");
        if !is_sysctl(name.text()) {
            match name.text() {
                "" => errors.required(&name, ""),
                _ => errors.invalid(
                    &name,
                    format!(
                        "must have at most {SYSCTL_BYTES_MAX} characters and match regex {SYSCTL}"
                    ),
                ),
            }
        } else if names.contains(name.text()) {
            errors.duplicate(&name);
        }
        names.insert(name.text());
        match namespace(name.text()) {
            Namespace::Net if spec.field("hostNetwork").flag() => {
                errors.invalid(&name, "may not be specified when 'hostNetwork' is true");
            }
            Namespace::Ipc if spec.field("hostIPC").flag() => {
                errors.invalid(&name, "may not be specified when 'hostIPC' is true");
            }
            _ => (),
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(|c| edge(*c))
            && bytes.last().is_some_and(|c| edge(*c))
            && bytes.iter().all(|c| edge(*c) || matches!(c, b'-' | b'_'))
    };
    name.len() <= SYSCTL_BYTES_MAX && name.split(['.', '/']).all(segment)
}

enum Namespace {
    Ipc,
    Net,
    Host,
}

/// Which kernel namespace a sysctl belongs to.
fn namespace(name: &str) -> Namespace {
    const IPC: [&str; 10] = [
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    // With a slash before any dot, the two stand for each other.
    let swapped = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
    let dotted: String = match swapped {
        true => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        false => name.to_string(),
    };
    let dotted = dotted.split('*').next().unwrap_or_default();
    match () {
        _ if IPC.contains(&dotted) || dotted.starts_with("fs.mqueue.") => Namespace::Ipc,
        _ if dotted.starts_with("net.") => Namespace::Net,
        _ => Namespace::Host,
    }
}

pub(super) fn validate_container(context: &At<'_, '_>, host_users: bool, errors: &mut Errors) {
    if !context.exists() {
        return;
    }
    for field in ["runAsUser", "runAsGroup"] {
        id(&context.field(field), errors);
    }
    let proc_mount = context.field("procMount");
    errors.one_of(&proc_mount, &["Default", "Unmasked"], false);
    if host_users && proc_mount.text() == "Unmasked" {
        errors.invalid(&proc_mount, "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(&context.field("seccompProfile"), errors);
    let escalation = context.field("allowPrivilegeEscalation");
    if escalation.exists() && !escalation.flag() {
        if context.field("privileged").flag() {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(context, detail);
        }
        let added = context.field("capabilities").field("add").texts().collect::<Vec<_>>();
        if added.contains(&"CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` \
                          CAP_SYS_ADMIN";
            errors.invalid(context, detail);
        }
    }
    windows(&context.field("windowsOptions"), errors);
    app_armor(&context.field("appArmorProfile"), errors);
}

fn seccomp(profile: &At<'_, '_>, errors: &mut Errors) {
    if !profile.exists() {
        return;
    }
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.text() {
        "" => errors.required(&kind, "type is required when seccompProfile is set"),
        "Localhost" | "RuntimeDefault" | "Unconfined" => (),
        _ => errors.not_supported(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    match (kind.text() == "Localhost", local.exists()) {
        (true, false) => {
            errors.required(&local, "must be set when seccomp type is Localhost");
        }
        (true, true) => descending(&local, errors),
        (false, true) => {
            let detail = "can only be set when seccomp type is Localhost";
            errors.invalid_value(&local, profile.owned(), detail);
        }
        (false, false) => (),
    }
}

/// `PATH_MAX` less one.
const PROFILE_BYTES_MAX: usize = 4095;

fn app_armor(profile: &At<'_, '_>, errors: &mut Errors) {
    const NEEDED: &str = "must be set when AppArmor type is Localhost";
    if !profile.exists() {
        return;
    }
    let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
    match kind.text() {
        "Localhost" if !local.exists() => errors.required(&local, NEEDED),
        "Localhost" => {
            if local.text().trim() != local.text() {
                errors.invalid(&local, "must not be padded with whitespace");
            } else if local.text().is_empty() {
                errors.required(&local, NEEDED);
            }
            if local.text().len() > PROFILE_BYTES_MAX {
                errors.too_long(&local, PROFILE_BYTES_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.exists() {
                errors.invalid(&local, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => errors.required(&kind, "type is required when appArmorProfile is set"),
        _ => errors.not_supported(&kind, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

const SPEC_KIB_MAX: usize = 64;
const DOMAIN_CHARS_MAX: usize = 256;
const USER_CHARS_MAX: usize = 104;

fn windows(options: &At<'_, '_>, errors: &mut Errors) {
    let (name, spec) =
        (options.field("gmsaCredentialSpecName"), options.field("gmsaCredentialSpec"));
    if name.exists() {
        errors.subdomain(&name);
    }
    if spec.exists() && spec.text().is_empty() {
        errors.invalid(&spec, "gmsaCredentialSpec cannot be an empty string");
    } else if spec.text().len() > SPEC_KIB_MAX * 1024 {
        let detail = format!("gmsaCredentialSpec size must be under {SPEC_KIB_MAX} KiB");
        errors.invalid(&spec, detail);
    }
    let user = options.field("runAsUserName");
    if user.exists() {
        run_as(&user, errors);
    }
}

/// `user` or `domain\user`.
fn run_as(at: &At<'_, '_>, errors: &mut Errors) {
    let text = at.text();
    let parts: Vec<&str> = text.split('\\').collect();
    let whole = match parts.as_slice() {
        _ if text.is_empty() => Some("runAsUserName cannot be an empty string"),
        _ if text.chars().any(|c| c.is_ascii_control()) => {
            Some("runAsUserName cannot contain control characters")
        }
        [_, _, _, ..] => Some("runAsUserName cannot contain more than one backslash"),
        _ => None,
    };
    if let Some(detail) = whole {
        return errors.invalid(at, detail);
    }
    let (domain, user) = match parts.as_slice() {
        [domain, user] => (Some(*domain), *user),
        _ => (None, text),
    };
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_CHARS_MAX) {
        let detail =
            format!("runAsUserName's Domain length must be under {DOMAIN_CHARS_MAX} characters");
        errors.invalid(at, detail);
    }
    if domain.is_some_and(|domain| !is_netbios(domain) && !is_windows_dns(domain)) {
        errors.invalid(at, "runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        errors.invalid(at, "runAsUserName's User cannot be empty");
    } else if user.len() > USER_CHARS_MAX {
        let detail = format!(
            "runAsUserName's User length must not be longer than {USER_CHARS_MAX} characters"
        );
        errors.invalid(at, detail);
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        errors.invalid(at, "runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)) {
        let detail = "runAsUserName's User cannot contain the following characters: \
                      \"/\\:;|=,+*?<>@[]";
        errors.invalid(at, detail);
    }
}

fn is_netbios(name: &str) -> bool {
    let bad = |c: char| r#"\/:*?"<>|"#.contains(c);
    let count = name.chars().count();
    (1..=15).contains(&count) && !name.starts_with('.') && !name.chars().any(bad)
}

fn is_windows_dns(name: &str) -> bool {
    let label = |part: &str| {
        let bytes = part.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes[bytes.len() - 1].is_ascii_alphanumeric()
            && bytes.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'-')
    };
    name.split('.').all(label)
}
