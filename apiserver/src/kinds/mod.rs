//! Every built-in kind, one file each. A file holds all the server knows of its kind: routes,
//! discovery, storage keys, validation and printing are derived from it.

use jiff::Timestamp;
use k8s::{FieldError, Object, Resource, apply::Scope};
use serde_json::Value;

pub mod common;

/// A kind as a value. A CustomResourceDefinition builds the same value at run time.
#[derive(Clone)]
pub struct KindDef {
    /// Empty for the core group.
    pub group: &'static str,
    /// Served versions, the preferred and stored one first; all share one body unless said otherwise.
    pub versions: &'static [&'static str],
    pub kind: &'static str,
    pub plural: &'static str,
    /// What discovery calls `singularName`; empty: the kind in lower case.
    pub singular: &'static str,
    /// Empty: the kind with `List` behind it.
    pub list_kind: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// Name of the type of the stored form in the schema table: `core.v1.Pod`.
    pub schema: &'static str,
    /// Versions whose objects look otherwise; defaults, rules, columns and selectable fields are
    /// those of the stored form.
    pub foreign: &'static [Foreign],
    /// The space of another kind that this one is only another name for.
    pub shares: Option<&'static str>,
    pub verbs: Verbs,
    pub subresources: &'static [Subresource],
    /// All columns of a table in order, `Name` and `Age` included, as upstream prints them.
    pub columns: &'static [Column],
    /// Why it is marked as over in a table, and what that means to people.
    pub completed: fn(&Object) -> Option<(&'static str, &'static str)>,
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
    /// What a change through a subresource that writes a part of the spec has to obey, by its name.
    pub validate_part: fn(subresource: &str, new: &Object, old: &Object) -> Vec<FieldError>,
    /// The same for an update of `status`.
    pub validate_status: fn(new: &Object, old: &Object) -> Vec<FieldError>,
    /// What the client is warned of in an object that is accepted all the same; `old` is `None` on
    /// create.
    pub warnings: fn(new: &Object, old: Option<&Object>) -> Vec<String>,
    /// What a write of `status` may change: of the metadata all, some or nothing.
    pub status_scope: Scope,
    /// Carry over what an update of `status` may not lose.
    pub prepare_status: fn(new: &mut Object, old: &Object),
    /// Seconds the object is to be given to end (`metadata.deletionGracePeriodSeconds`) when the
    /// client asks for `requested`; 0 deletes at once.
    pub grace_period_seconds: fn(&Object, requested: Option<i64>) -> i64,
    /// True if `metadata.generation` counts changes outside metadata and status.
    pub generation: bool,
    /// A field of metadata whose changes count too.
    pub generation_of: &'static str,
    /// True while something besides `metadata.finalizers` keeps a deleted object (`spec.finalizers`
    /// of a namespace).
    pub held: fn(&Object) -> bool,
    /// What else changes in an object that is being deleted but stays for now
    /// (`status.phase: Terminating` of a namespace).
    pub mark_deleted: fn(&mut Object),
    /// `PUT` of an absent object creates it (upstream's AllowCreateOnUpdate).
    pub create_on_update: bool,
    /// `PUT` without `resourceVersion` replaces whatever is there (AllowUnconditionalUpdate).
    pub unconditional_update: bool,
}

/// A version whose objects are not of the form that is stored.
#[derive(Clone)]
pub struct Foreign {
    pub version: &'static str,
    /// Name of its type in the schema table.
    pub schema: &'static str,
    /// Both are total and leave metadata but for annotations alone; `apiVersion` and `kind` are the
    /// core's.
    pub from_stored: fn(Object) -> Object,
    pub to_stored: fn(Object) -> Object,
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

impl Subresource {
    /// Scale of the kinds of `apps/v1`.
    pub const SCALE: Subresource = Subresource::Scale {
        spec_replicas: "/spec/replicas",
        status_replicas: "/status/replicas",
        selector: "/spec/selector",
    };

    /// As it stands in a path.
    pub fn name(&self) -> &'static str {
        match self {
            Subresource::Status => "status",
            Subresource::Scale { .. } => "scale",
            Subresource::Named { name, .. } => name,
        }
    }
}

/// A column of `kubectl get`: `value` sees the whole object and the time of printing.
#[derive(Clone)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `date`, …
    pub kind: &'static str,
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: u8,
    pub value: fn(&Object, Timestamp) -> Value,
}

impl Column {
    pub const NAME: Column = Column {
        name: "Name",
        kind: "string",
        format: "name",
        priority: 0,
        value: |object, _| object.name().into(),
    };
    /// How long ago the object was made, as people write it: `5d`.
    pub const AGE: Column = Column::text("Age", common::print::age);
    /// What a kind without a printer of its own shows instead of an age.
    pub const CREATED_AT: Column = Column {
        name: "Created At",
        kind: "date",
        format: "",
        priority: 0,
        value: |object, _| object.str_at("/metadata/creationTimestamp").into(),
    };

    pub const fn text(name: &'static str, value: fn(&Object, Timestamp) -> Value) -> Column {
        Column { name, kind: "string", format: "", priority: 0, value }
    }

    pub const fn integer(name: &'static str, value: fn(&Object, Timestamp) -> Value) -> Column {
        Column { name, kind: "integer", format: "", priority: 0, value }
    }

    pub const fn boolean(name: &'static str, value: fn(&Object, Timestamp) -> Value) -> Column {
        Column { name, kind: "boolean", format: "", priority: 0, value }
    }

    /// Shown with `-o wide` only.
    pub const fn wide(mut self) -> Column {
        self.priority = 1;
        self
    }
}

#[derive(Clone)]
pub struct SelectableField {
    /// `spec.nodeName`
    pub path: &'static str,
    pub value: fn(&Object) -> String,
}

impl SelectableField {
    pub const fn text(path: &'static str, value: fn(&Object) -> String) -> SelectableField {
        SelectableField { path, value }
    }
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
    /// An IP address in canonical form: IPAddress.
    Ip,
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
        singular: "",
        list_kind: "",
        namespaced: true,
        schema: "",
        foreign: &[],
        shares: None,
        verbs: Verbs::All,
        subresources: &[],
        columns: &[Column::NAME, Column::CREATED_AT],
        completed: |_| None,
        selectable: &[],
        name: NameRule::Subdomain,
        default: |_| (),
        prepare_create: |_| (),
        prepare_update: |_, _| (),
        validate: |_, _| Vec::new(),
        validate_part: |_, _, _| Vec::new(),
        validate_status: |_, _| Vec::new(),
        warnings: |_, _| Vec::new(),
        status_scope: Scope::STATUS,
        prepare_status: |_, _| (),
        grace_period_seconds: |_, _| 0,
        generation: false,
        generation_of: "",
        held: |_| false,
        mark_deleted: |_| (),
        create_on_update: false,
        unconditional_update: true,
    };

    /// The resource in its preferred version.
    pub const fn resource(&self) -> Resource {
        Resource::new(self.group, self.versions[0], self.plural)
    }

    /// `pod`: what discovery calls `singularResource`.
    pub fn singular(&self) -> String {
        match self.singular {
            "" => self.kind.to_lowercase(),
            singular => singular.to_string(),
        }
    }

    /// `PodList`
    pub fn list_kind(&self) -> String {
        match self.list_kind {
            "" => format!("{}List", self.kind),
            list_kind => list_kind.to_string(),
        }
    }

    /// True if a CustomResourceDefinition made it: its objects are stored complete.
    pub fn is_custom(&self) -> bool {
        self.schema.is_empty()
    }

    /// Where its objects live in the store: `pods`, `apps/deployments`.
    pub fn space(&self) -> String {
        self.shares.map_or_else(|| own_space(self.group, self.plural), str::to_string)
    }

    /// How objects of `version` become what is stored, if they look otherwise.
    pub fn foreign(&self, version: &str) -> Option<&'static Foreign> {
        self.foreign.iter().find(|foreign| foreign.version == version)
    }

    /// Name of the type of its objects in `version`.
    pub fn schema_of(&self, version: &str) -> &'static str {
        self.foreign(version).map_or(self.schema, |foreign| foreign.schema)
    }

    pub fn has_status(&self) -> bool {
        self.subresources.contains(&Subresource::Status)
    }
}

/// The built-in kind with this group and plural name.
pub fn find(group: &str, plural: &str) -> Option<&'static KindDef> {
    BUILT_IN.iter().find(|kind| kind.group == group && kind.plural == plural)
}

/// Where objects of a kind live in the store, built in or defined by users.
pub fn space(group: &str, plural: &str) -> String {
    find(group, plural).map_or_else(|| own_space(group, plural), KindDef::space)
}

/// Of one that shares it with no other kind, as none does that users define.
pub(crate) fn own_space(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_string() } else { format!("{group}/{plural}") }
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
    api_services
    bindings
    certificate_signing_requests
    cluster_role_bindings
    cluster_roles
    component_statuses
    config_maps
    controller_revisions
    cron_jobs
    csi_drivers
    csi_nodes
    csi_storage_capacities
    custom_resource_definitions
    daemon_sets
    deployments
    device_classes
    endpoint_slices
    endpoints
    events
    events_k8s_io
    flow_schemas
    horizontal_pod_autoscalers
    ingress_classes
    ingresses
    ip_addresses
    jobs
    leases
    limit_ranges
    local_subject_access_reviews
    mutating_admission_policies
    mutating_admission_policy_bindings
    mutating_webhook_configurations
    namespaces
    network_policies
    nodes
    persistent_volume_claims
    persistent_volumes
    pod_disruption_budgets
    pod_templates
    pods
    priority_classes
    priority_level_configurations
    replica_sets
    replication_controllers
    resource_claim_templates
    resource_claims
    resource_quotas
    resource_slices
    role_bindings
    roles
    runtime_classes
    secrets
    self_subject_access_reviews
    self_subject_reviews
    self_subject_rules_reviews
    service_accounts
    service_cidrs
    services
    stateful_sets
    storage_classes
    subject_access_reviews
    token_reviews
    validating_admission_policies
    validating_admission_policy_bindings
    validating_webhook_configurations
    volume_attachments
    volume_attributes_classes
}

#[cfg(test)]
mod tests;
