//! The kinds by group, version and name: the index that routing, discovery and OpenAPI share.

use crate::{
    kind::Kind,
    kinds::{BUILT_IN, KindDef, Subresource, Verbs},
};
use k8s::Resource;
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

/// One API group as discovery shows it.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Preferred first.
    pub(crate) versions: Vec<&'static str>,
    pub(crate) kinds: Vec<Kind>,
}

/// All that is served at one moment. A request takes it once, so that it sees one state of it.
pub(crate) struct Catalog {
    index: HashMap<(&'static str, &'static str), Kind>,
    /// In the order upstream prefers groups: core, then the oldest, then by name.
    groups: Vec<Group>,
}

static BUILT_IN_KINDS: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let kinds = BUILT_IN.iter().map(Kind::from).collect();
    Arc::new(Catalog::new(kinds))
});

static SPACES: LazyLock<HashMap<String, &'static KindDef>> =
    LazyLock::new(|| BUILT_IN.iter().map(|kind| (kind.space().to_string(), kind)).collect());

impl Catalog {
    /// The built-in kinds alone.
    pub(crate) fn built_in() -> Arc<Catalog> {
        BUILT_IN_KINDS.clone()
    }

    fn new(kinds: Vec<Kind>) -> Catalog {
        let groups = groups_of(&kinds);
        let key = |kind: Kind| ((kind.group, kind.plural), kind);
        Catalog { index: kinds.into_iter().map(key).collect(), groups }
    }

    /// The kind served as `plural` in `group` and `version`.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let kind = self.index.get(&(group, plural))?;
        kind.versions.contains(&version).then(|| kind.clone())
    }

    /// The same for a [`Resource`].
    pub(crate) fn of(&self, resource: &Resource) -> Option<Kind> {
        self.find(&resource.group, &resource.version, &resource.plural)
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The kinds of a group that are served in `version`.
    pub(crate) fn of_version<'a>(
        group: &'a Group,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Kind> {
        group.kinds.iter().filter(move |kind| kind.versions.contains(&version))
    }
}

fn groups_of(kinds: &[Kind]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for kind in kinds {
        let group = match groups.iter_mut().find(|group| group.name == kind.group) {
            Some(group) => group,
            None => {
                let group = Group { name: kind.group, versions: Vec::new(), kinds: Vec::new() };
                groups.push(group);
                groups.last_mut().expect("pushed above")
            }
        };
        group.kinds.push(kind.clone());
        for version in kind.versions {
            if !group.versions.contains(version) {
                group.versions.push(version);
            }
        }
    }
    for group in &mut groups {
        group.versions.sort_by_key(|version| std::cmp::Reverse(rank(version)));
        group.kinds.sort_by_key(|kind| kind.plural);
    }
    groups.sort_by_key(|group| (group_rank(group.name), group.name));
    groups
}

/// kubectl prefers the first group that knows a short name, so upstream's order matters.
fn group_rank(group: &str) -> usize {
    const FIRST: &[&str] = &[
        "",
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "flowcontrol.apiserver.k8s.io",
    ];
    FIRST.iter().position(|name| *name == group).unwrap_or(FIRST.len())
}

/// Stable before beta before alpha, then the higher number.
fn rank(version: &str) -> (u8, u32, u32) {
    let rest = version.trim_start_matches('v');
    let digits = |text: &str| {
        text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
    };
    let major = digits(rest);
    match (rest.split_once("beta"), rest.split_once("alpha")) {
        (Some((_, minor)), _) => (1, major, digits(minor)),
        (_, Some((_, minor))) => (0, major, digits(minor)),
        _ => (2, major, 0),
    }
}

/// The built-in kind an object says it is of.
pub(crate) fn by_kind(api_version: &str, kind: &str) -> Option<&'static KindDef> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    BUILT_IN
        .iter()
        .find(|def| def.group == group && def.kind == kind && def.versions.contains(&version))
}

/// The built-in kind whose objects live in a space of the store.
pub(crate) fn by_space(space: &str) -> Option<&'static KindDef> {
    SPACES.get(space).copied()
}

/// The verbs of a kind itself, sorted as discovery shows them.
pub(crate) fn verbs(kind: &KindDef) -> &'static [&'static str] {
    match kind.verbs {
        Verbs::All => {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
        Verbs::NoDeleteCollection => {
            &["create", "delete", "get", "list", "patch", "update", "watch"]
        }
        Verbs::CreateOnly => &["create"],
        Verbs::ReadOnly => &["get", "list"],
    }
}

/// The verbs of a subresource.
pub(crate) fn subresource_verbs(subresource: &Subresource) -> &'static [&'static str] {
    match subresource {
        Subresource::Status | Subresource::Scale { .. } => &["get", "patch", "update"],
        Subresource::Named { verbs, .. } => verbs,
    }
}

pub(crate) fn subresource_name(subresource: &Subresource) -> &'static str {
    match subresource {
        Subresource::Status => "status",
        Subresource::Scale { .. } => "scale",
        Subresource::Named { name, .. } => name,
    }
}

/// The subresource of `kind` with this name.
pub(crate) fn subresource<'a>(kind: &'a KindDef, name: &str) -> Option<&'a Subresource> {
    kind.subresources.iter().find(|subresource| subresource_name(subresource) == name)
}

/// The kind as a resource of `version`.
pub(crate) fn resource(kind: &KindDef, version: &str) -> Resource {
    Resource {
        group: kind.group.into(),
        version: version.to_string().into(),
        plural: kind.plural.into(),
    }
}
