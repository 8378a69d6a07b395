//! What the operator may tell admission.

use super::{
    chain::{MUTATE, VALIDATE},
    policy, resource_quota, webhook,
};

/// What the steps may be told by the operator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Seconds a pod tolerates an unready or unreachable node (DefaultTolerationSeconds).
    pub default_toleration_seconds: i64,
    pub(super) enabled: Vec<&'static str>,
    pub(super) disabled: Vec<&'static str>,
}

impl Default for Config {
    fn default() -> Config {
        // 300 s: kube-apiserver's --default-not-ready-toleration-seconds.
        Config { default_toleration_seconds: 300, enabled: Vec::new(), disabled: Vec::new() }
    }
}

/// A plugin this server has not got.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("admission plugin {0:?} is unknown; there are {known}", known = names().join(", "))]
pub struct UnknownPlugin(pub String);

/// Every plugin, sorted.
fn names() -> Vec<&'static str> {
    const OTHER: &[&str] =
        &[policy::MUTATING, webhook::MUTATING, webhook::VALIDATING, resource_quota::NAME];
    let steps = MUTATE.iter().map(|step| step.name).chain(VALIDATE.iter().map(|step| step.name));
    let mut names: Vec<&str> = steps.chain(OTHER.iter().copied()).collect();
    names.retain(|name| !name.is_empty());
    names.sort_unstable();
    names.dedup();
    names
}

impl Config {
    /// kube-apiserver's `--enable-admission-plugins` and `--disable-admission-plugins`; what is in
    /// both lists is off.
    pub fn plugins(
        mut self,
        enable: &[String],
        disable: &[String],
    ) -> Result<Config, UnknownPlugin> {
        let known = names();
        let find = |name: &String| {
            let found = known.iter().find(|known| *known == name).copied();
            found.ok_or_else(|| UnknownPlugin(name.clone()))
        };
        self.enabled = enable.iter().map(find).collect::<Result<_, _>>()?;
        self.disabled = disable.iter().map(find).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Whether a plugin runs.
    pub(super) fn has(&self, name: &str, default_on: bool) -> bool {
        !self.disabled.contains(&name) && (default_on || self.enabled.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_switched_by_name() {
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let config = Config::default().plugins(&[], &names(&["Priority"])).expect("known");
        assert!(!config.has("Priority", true) && config.has("ServiceAccount", true));
        assert!(!config.has("Off", false));
        let refused = Config::default().plugins(&names(&["AlwaysPullImages"]), &[]);
        assert_eq!(refused.err(), Some(UnknownPlugin("AlwaysPullImages".into())));
    }
}
