//! Which requests are logged, and how much of each: the first rule that matches decides.

use crate::{identity::Identity, server::RequestInfo};
use serde_json::Value;

/// How much of a request is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        Some(match text {
            "None" => Level::None,
            "Metadata" => Level::Metadata,
            "Request" => Level::Request,
            "RequestResponse" => Level::RequestResponse,
            _ => return None,
        })
    }
}

/// What a policy says of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) level: Level,
    pub(crate) omit_stages: Vec<String>,
    pub(crate) omit_managed_fields: bool,
}

#[derive(Debug)]
pub(super) struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<String>,
    omit_managed_fields: bool,
}

#[derive(Debug)]
struct Rule {
    level: Level,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    names: Vec<String>,
}

const STAGES: [&str; 4] = ["RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"];

impl Policy {
    pub(super) fn parse(bytes: &[u8]) -> Result<Policy, String> {
        let value = k8s::decode::yaml_to_value(bytes).map_err(|error| error.to_string())?;
        if value["kind"] != "Policy" || value["apiVersion"] != "audit.k8s.io/v1" {
            return Err("it is no Policy of audit.k8s.io/v1".to_string());
        }
        let rules = value["rules"].as_array().ok_or("it has no rules")?;
        if rules.is_empty() {
            return Err("it has no rules".to_string());
        }
        Ok(Policy {
            rules: rules.iter().map(rule).collect::<Result<_, _>>()?,
            omit_stages: stages(&value)?,
            omit_managed_fields: value["omitManagedFields"].as_bool().unwrap_or_default(),
        })
    }

    pub(super) fn of(&self, user: &Identity, info: &RequestInfo) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, info)) else {
            return Verdict::default();
        };
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(rule.omit_stages.iter().cloned());
        Verdict {
            level: rule.level,
            omit_stages,
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value[field].as_array().into_iter().flatten();
    list.filter_map(|one| one.as_str().map(str::to_string)).collect()
}

fn stages(value: &Value) -> Result<Vec<String>, String> {
    let stages = texts(value, "omitStages");
    match stages.iter().find(|stage| !STAGES.contains(&stage.as_str())) {
        Some(unknown) => Err(format!("unknown stage {unknown:?}")),
        None => Ok(stages),
    }
}

fn rule(value: &Value) -> Result<Rule, String> {
    let level = value["level"].as_str().unwrap_or_default();
    let level = Level::parse(level).ok_or_else(|| format!("unknown level {level:?}"))?;
    let resources = value["resources"].as_array().into_iter().flatten();
    let resources: Vec<GroupResources> = resources
        .map(|value| GroupResources {
            group: value["group"].as_str().unwrap_or_default().to_string(),
            resources: texts(value, "resources"),
            names: texts(value, "resourceNames"),
        })
        .collect();
    let (namespaces, paths) = (texts(value, "namespaces"), texts(value, "nonResourceURLs"));
    let of_resources = !resources.is_empty() || !namespaces.is_empty();
    if of_resources && !paths.is_empty() {
        return Err("rules cannot apply to both regular resources and non-resource URLs".into());
    }
    Ok(Rule {
        level,
        users: texts(value, "users"),
        groups: texts(value, "userGroups"),
        verbs: texts(value, "verbs"),
        resources,
        namespaces,
        paths,
        omit_stages: stages(value)?,
        omit_managed_fields: value["omitManagedFields"].as_bool(),
    })
}

fn any(list: &[String], value: &str) -> bool {
    list.iter().any(|one| one == value)
}

impl Rule {
    fn matches(&self, user: &Identity, info: &RequestInfo) -> bool {
        let who = (self.users.is_empty() || any(&self.users, &user.user))
            && (self.groups.is_empty() || user.groups.iter().any(|own| any(&self.groups, own)));
        if !who || !(self.verbs.is_empty() || any(&self.verbs, &info.verb)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || any(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.has(info)));
        }
        if self.paths.is_empty() {
            return true;
        }
        let under = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => info.path.starts_with(prefix),
            None => *pattern == info.path,
        };
        !info.is_resource && self.paths.iter().any(under)
    }
}

impl GroupResources {
    fn has(&self, info: &RequestInfo) -> bool {
        if self.group != info.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.names.is_empty() && !any(&self.names, &info.name) {
            return false;
        }
        let (resource, subresource) = (info.resource.as_str(), info.subresource.as_str());
        self.resources.iter().any(|wanted| match wanted.split_once('/') {
            None => wanted == "*" || (wanted == resource && subresource.is_empty()),
            Some(("*", own)) => !subresource.is_empty() && own == subresource,
            Some((own, "*")) => own == resource,
            Some((own, below)) => own == resource && below == subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [\"system:kube-proxy\"]
  verbs: [watch]
- level: Metadata
  resources:
  - group: \"\"
    resources: [secrets, \"*/log\"]
- level: RequestResponse
  namespaces: [audited]
- level: None
  nonResourceURLs: [\"/healthz*\"]
- level: Request
  userGroups: [dev]
  omitStages: [Panic]
";

    fn level(user: &str, groups: &[&str], path: &str) -> Level {
        let policy = Policy::parse(POLICY.as_bytes()).expect("a policy");
        let info = RequestInfo::parse(&Method::GET, path, false, None);
        policy.of(&Identity::authenticated(user, groups), &info).level
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let secrets = "/api/v1/namespaces/audited/secrets/a";
        assert_eq!(level("a", &["dev"], secrets), Level::Metadata);
        assert_eq!(level("a", &[], "/api/v1/namespaces/a/pods/b/log"), Level::Metadata);
        assert_eq!(level("a", &[], "/api/v1/namespaces/audited/pods"), Level::RequestResponse);
        assert_eq!(level("a", &["dev"], "/healthz/ping"), Level::None);
        assert_eq!(level("a", &["dev"], "/api/v1/pods"), Level::Request);
        assert_eq!(level("a", &[], "/api/v1/pods"), Level::None, "no rule: nothing");
    }

    #[test]
    fn a_policy_that_says_nonsense_is_refused() {
        for bad in [
            "kind: Policy",
            "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: []}",
            "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: All}]}",
            "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: None, omitStages: [x]}]}",
        ] {
            assert!(Policy::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
