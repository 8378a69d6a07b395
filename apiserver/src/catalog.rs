//! The kinds by group, version and name: the index that routing, discovery and OpenAPI share.

use crate::{
    custom::{SPACE, definition},
    kind::Kind,
    kinds::{BUILT_IN, KindDef, Subresource, Verbs},
};
use k8s::Resource;
use raft_store::{Page, Revision, Store};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};
use tokio::sync::watch;

/// One API group as discovery shows it.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// Preferred first.
    pub(crate) versions: Vec<&'static str>,
    pub(crate) kinds: Vec<Kind>,
}

/// All that is served at one moment. A request takes it once, so that it sees one state of it.
pub(crate) struct Catalog {
    /// A built-in kind is one for all its versions; a custom kind has one for each.
    index: HashMap<(&'static str, &'static str), Vec<Kind>>,
    /// In the order upstream prefers groups: core, then the oldest, then by name.
    groups: Vec<Group>,
    /// The definitions it was made of, and when: see [`Catalogs::current`].
    definitions: Vec<(Arc<str>, Revision)>,
    at: Revision,
}

static BUILT_IN_KINDS: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let kinds = BUILT_IN.iter().map(Kind::from).collect();
    Arc::new(Catalog::new(kinds, &Page::default()))
});

static SPACES: LazyLock<HashMap<String, &'static KindDef>> = LazyLock::new(|| {
    // Where a space is that of kinds of two groups (Events), the core group's names it.
    let core = BUILT_IN.iter().filter(|kind| kind.group.is_empty());
    let kinds = BUILT_IN.iter().chain(core);
    kinds.map(|kind| (kind.space().to_string(), kind)).collect()
});

impl Catalog {
    /// The built-in kinds alone.
    pub(crate) fn built_in() -> Arc<Catalog> {
        BUILT_IN_KINDS.clone()
    }

    fn new(mut kinds: Vec<Kind>, definitions: &Page) -> Catalog {
        let mut index: HashMap<_, Vec<Kind>> = HashMap::new();
        let custom = definitions.items.iter().flat_map(|stored| definition::kinds(stored));
        kinds.extend(custom.map(Kind::from).filter(|kind| {
            // A built-in kind is served from the start; nobody may take its place.
            !BUILT_IN.iter().any(|known| (known.group, known.plural) == (kind.group, kind.plural))
        }));
        for kind in &kinds {
            index.entry((kind.group, kind.plural)).or_default().push(kind.clone());
        }
        Catalog {
            groups: groups_of(&kinds),
            index,
            definitions: identity(definitions).collect(),
            at: definitions.revision,
        }
    }

    /// The kinds besides the built-in ones, each once: in the version it is stored in, which costs no
    /// conversion, or in one that is served.
    pub(crate) fn custom_kinds(&self) -> Vec<Kind> {
        let stored = |kind: &&Kind| kind.custom().is_some_and(|custom| custom.is_storage());
        let one = |kinds: &Vec<Kind>| kinds.iter().find(stored).or(kinds.first()).cloned();
        let mut kinds: Vec<Kind> =
            self.index.values().filter_map(one).filter(|kind| kind.is_custom()).collect();
        kinds.sort_by_key(|kind| (kind.group, kind.plural));
        kinds
    }

    /// A kind in whatever version, for what is the same in all.
    pub(crate) fn any_version(&self, group: &str, plural: &str) -> Option<Kind> {
        self.index.get(&(group, plural))?.first().cloned()
    }

    /// The kind served as `plural` in `group` and `version`.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let kinds = self.index.get(&(group, plural))?;
        kinds.iter().find(|kind| kind.versions.contains(&version)).cloned()
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

fn identity(definitions: &Page) -> impl Iterator<Item = (Arc<str>, Revision)> {
    definitions.items.iter().map(|stored| (stored.key.path.clone(), stored.revision))
}

/// The catalog as it changes with the definitions that this member has applied.
pub(crate) struct Catalogs {
    store: Store,
    current: watch::Sender<Arc<Catalog>>,
}

impl Catalogs {
    pub(crate) fn new(store: Store) -> Catalogs {
        Catalogs { store, current: watch::Sender::new(Catalog::built_in()) }
    }

    /// The catalog of the state as it is applied here now: who has seen a definition established on
    /// this member is served its kind. Costs a look at the keys of the definitions.
    pub(crate) fn current(&self) -> Arc<Catalog> {
        let page = self.store.range(SPACE, "", None, None);
        let known = self.current.borrow().clone();
        if identity(&page).eq(known.definitions.iter().cloned()) {
            return known;
        }
        let kinds = BUILT_IN.iter().map(Kind::from).collect();
        let catalog = Arc::new(Catalog::new(kinds, &page));
        self.current.send_if_modified(|current| {
            // Another request may have seen a newer state meanwhile.
            let newer = current.at <= catalog.at;
            if newer {
                *current = catalog.clone();
            }
            newer
        });
        catalog
    }

    /// The kind served as `plural`; built-in ones are found without a look at the store.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let built_in = BUILT_IN_KINDS.find(group, version, plural);
        built_in.or_else(|| self.current().find(group, version, plural))
    }

    /// Told of every change, as long as somebody keeps the definitions.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Catalog>> {
        self.current.subscribe()
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
pub(crate) fn rank(version: &str) -> (u8, u32, u32) {
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
