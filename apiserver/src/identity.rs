//! Who asks: the user of a request, from a client certificate or set by an in-process caller.

use std::collections::BTreeMap;

/// `authentication.k8s.io/v1 UserInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The group whose members may do everything, whatever RBAC says.
pub const SYSTEM_MASTERS: &str = "system:masters";
/// Added to every identity that proved itself.
pub const AUTHENTICATED: &str = "system:authenticated";

impl Identity {
    /// A user who proved who they are; `system:authenticated` is added.
    pub fn authenticated(user: &str, groups: &[&str]) -> Identity {
        let mut all: Vec<String> = groups.iter().map(|group| group.to_string()).collect();
        if !groups.contains(&AUTHENTICATED) {
            all.push(AUTHENTICATED.to_string());
        }
        Identity { user: user.to_string(), groups: all, ..Identity::default() }
    }

    /// A client without credentials.
    pub fn anonymous() -> Identity {
        Identity {
            user: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Identity::default()
        }
    }

    /// The server itself, for what it writes of its own accord.
    pub fn server() -> Identity {
        Identity::authenticated("system:apiserver", &[SYSTEM_MASTERS])
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|have| have == group)
    }
}
