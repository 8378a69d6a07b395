//! Every built-in kind, one file each. A file holds all the server knows of its kind: routes,
//! discovery, storage keys, validation and printing are derived from it.

use k8s::{FieldError, Object};
use serde_json::Value;

/// A kind as a value. A CustomResourceDefinition builds the same value at run time.
#[derive(Clone)]
pub struct KindDef {
    /// Empty for the core group.
    pub group: &'static str,
    /// Served versions, the preferred and stored one first; all share one body unless said otherwise.
    pub versions: &'static [&'static str],
    pub kind: &'static str,
    pub plural: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// Name of the type in the schema table: `core.v1.Pod`.
    pub schema: &'static str,
    pub verbs: Verbs,
    pub subresources: &'static [Subresource],
    /// Between `Name` and `Age` in a table, as upstream prints them; empty: `Name` and `Age` only.
    pub columns: &'static [Column],
    /// Field selectors besides `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [SelectableField],
    /// What `metadata.name` must look like.
    pub name: NameRule,
    /// Fill in what the user left out, beyond the defaults in the schema table.
    pub default: fn(&mut Object),
    /// Reset what a client may not set on create (status, for most kinds).
    pub prepare_create: fn(&mut Object),
    /// Carry over what a client may not change on an update of the main resource.
    pub prepare_update: fn(new: &mut Object, old: &Object),
    /// Everything wrong with `new`; `old` is `None` on create.
    pub validate: fn(new: &Object, old: Option<&Object>) -> Vec<FieldError>,
    /// The same for an update of `status`.
    pub validate_status: fn(new: &Object, old: &Object) -> Vec<FieldError>,
    /// Seconds the object is to be given to end (`metadata.deletionGracePeriodSeconds`) when the
    /// client asks for `requested`; 0 deletes at once.
    pub grace_period_seconds: fn(&Object, requested: Option<i64>) -> i64,
    /// True if `metadata.generation` counts changes outside metadata and status.
    pub generation: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbs {
    /// create delete deletecollection get list patch update watch
    All,
    /// All without deletecollection (Service, Namespace).
    NoDeleteCollection,
    /// create only (TokenReview, SubjectAccessReview, …)
    CreateOnly,
    /// get and list (ComponentStatus)
    ReadOnly,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Subresource {
    Status,
    /// JSON pointers of replicas in spec and status, and of the selector in status or spec.
    Scale {
        spec_replicas: &'static str,
        status_replicas: &'static str,
        selector: &'static str,
    },
    /// Any other, by name, with the schema of its body and its verbs; `apiserver/src/subresources/`
    /// has the handler.
    Named {
        name: &'static str,
        schema: &'static str,
        verbs: &'static [&'static str],
    },
}

/// A column of `kubectl get`: `value` sees the whole object.
#[derive(Clone)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, …
    pub kind: &'static str,
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: u8,
    pub value: fn(&Object) -> Value,
}

#[derive(Clone)]
pub struct SelectableField {
    /// `spec.nodeName`
    pub path: &'static str,
    pub value: fn(&Object) -> String,
}

/// How `metadata.name` is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 bytes: most kinds.
    Subdomain,
    /// RFC 1123 label, at most 63 bytes: namespaces.
    Label,
    /// RFC 1035 label, at most 63 bytes: services.
    Rfc1035Label,
    /// A URL path segment: RBAC objects, APIService, …
    PathSegment,
}

impl KindDef {
    /// A namespaced kind with every verb and nothing special; each file starts from it.
    pub const BASE: KindDef = KindDef {
        group: "",
        versions: &["v1"],
        kind: "",
        plural: "",
        short_names: &[],
        categories: &[],
        namespaced: true,
        schema: "",
        verbs: Verbs::All,
        subresources: &[],
        columns: &[],
        selectable: &[],
        name: NameRule::Subdomain,
        default: |_| (),
        prepare_create: |_| (),
        prepare_update: |_, _| (),
        validate: |_, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        grace_period_seconds: |_, _| 0,
        generation: false,
    };
}

macro_rules! kinds {
    ($($module:ident)*) => {
        $(mod $module;)*
        /// Every built-in kind.
        pub static BUILT_IN: &[KindDef] = &[$($module::KIND),*];
    };
}

// Sorted; adding a kind is one file and one word here.
kinds! {
    config_maps
}
