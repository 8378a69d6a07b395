//! The kinds that are decoded into typed structs, and how: the only place where serde code for them
//! is instantiated.

use crate::Pod;
use k8s::{Object, Resource};
use k8s_openapi::{Metadata, api, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};
use std::{any::Any, fmt, sync::Arc};

/// Which object of a kind; the namespace is empty for cluster-scoped kinds. Ordered by namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The root of a controller that decides over the whole world at once.
    pub fn whole() -> Key {
        Key::new("", "")
    }
}

/// `namespace/name`, or `name` for cluster-scoped kinds.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A kind as the API serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindInfo {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

impl KindInfo {
    pub const fn resource(&self) -> Resource {
        Resource::new(self.group, self.version, self.plural)
    }

    /// `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        self.resource().api_version()
    }
}

/// `pods` or `deployments.apps`.
impl fmt::Display for KindInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.resource().fmt(f)
    }
}

/// A kind as a struct: one of k8s-openapi, or one with the part of it that somebody needs.
pub trait Kind: Metadata<Ty = ObjectMeta> + Clone + PartialEq + Send + Sync + 'static {
    const INFO: KindInfo;

    /// Fails with the path-less text of serde: a server that checks types never lets it happen.
    fn decode(object: &Object) -> Result<Self, serde_json::Error>;
}

/// As what the cache keeps the objects of a kind; one struct for each kind.
pub trait Cached: Kind {}

/// A struct with all that an object of its kind may have: only such a one can be written.
pub trait Whole: Kind {
    /// With `apiVersion` and `kind`.
    fn encode(&self) -> Object;
}

/// The key of a typed object.
pub fn key_of<K: Kind>(object: &K) -> Key {
    let meta = object.metadata();
    Key::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

pub(crate) type Typed = Arc<dyn Any + Send + Sync>;

/// What somebody made of an object.
pub type Derived = Arc<dyn Any + Send + Sync>;

/// Decodes one object of the kind; `None`: this one is kept as metadata only.
pub(crate) type Decoder = fn(&Object) -> Result<Option<Typed>, serde_json::Error>;

/// How objects of `info` are decoded, if its type is one of those below.
pub(crate) fn decoder(info: &KindInfo) -> Option<Decoder> {
    let found = TYPED.iter().find(|(typed, _)| {
        (typed.group, typed.version, typed.plural) == (info.group, info.version, info.plural)
    });
    found.map(|(_, decoder)| *decoder)
}

fn everything(_: &Object) -> bool {
    true
}

/// Of all ConfigMaps only the published root certificates are kept whole: the others can be large
/// and no controller looks into them.
fn root_certificates(object: &Object) -> bool {
    object.name() == "kube-root-ca.crt"
}

macro_rules! kind {
    ($type:ty, $namespaced:literal) => {
        impl Kind for $type {
            const INFO: KindInfo = KindInfo {
                group: <$type as k8s_openapi::Resource>::GROUP,
                version: <$type as k8s_openapi::Resource>::VERSION,
                plural: <$type as k8s_openapi::Resource>::URL_PATH_SEGMENT,
                kind: <$type as k8s_openapi::Resource>::KIND,
                namespaced: $namespaced,
            };

            fn decode(object: &Object) -> Result<Self, serde_json::Error> {
                <$type>::deserialize(&object.0)
            }
        }
    };
}

macro_rules! whole {
    ($type:ty) => {
        impl Whole for $type {
            fn encode(&self) -> Object {
                let value = self.serialize(serde_json::value::Serializer);
                let value = value.expect("API structs have string keys and finite numbers");
                Object::from_value(value).expect("a struct serialises to an object")
            }
        }
    };
    ($type:ty, part) => {};
}

macro_rules! cached_kinds {
    ($($constant:ident $type:ty, $namespaced:literal, $keep:ident $(, $part:ident)?;)*) => {
        /// The typed kinds by name, for lists of what a controller watches.
        pub mod kinds {
            use super::{Kind, KindInfo, Pod, api};
            $(pub const $constant: KindInfo = <$type as Kind>::INFO;)*
        }

        $(
            kind!($type, $namespaced);
            whole!($type $(, $part)?);
            impl Cached for $type {}
        )*

        static TYPED: &[(KindInfo, Decoder)] = &[$((<$type as Kind>::INFO, |object| {
            if $keep(object) {
                let typed = <$type as Kind>::decode(object)?;
                Ok(Some(Arc::new(typed)))
            } else {
                Ok(None)
            }
        })),*];
    };
}

// Sorted by plural name.
cached_kinds! {
    CLUSTER_ROLES api::rbac::v1::ClusterRole, false, everything;
    CONFIG_MAPS api::core::v1::ConfigMap, true, root_certificates;
    CONTROLLER_REVISIONS api::apps::v1::ControllerRevision, true, everything;
    CRON_JOBS api::batch::v1::CronJob, true, everything;
    DAEMON_SETS api::apps::v1::DaemonSet, true, everything;
    DEPLOYMENTS api::apps::v1::Deployment, true, everything;
    ENDPOINTS api::core::v1::Endpoints, true, everything;
    ENDPOINT_SLICES api::discovery::v1::EndpointSlice, true, everything;
    JOBS api::batch::v1::Job, true, everything;
    LEASES api::coordination::v1::Lease, true, everything;
    NAMESPACES api::core::v1::Namespace, false, everything;
    NODES api::core::v1::Node, false, everything;
    PERSISTENT_VOLUME_CLAIMS api::core::v1::PersistentVolumeClaim, true, everything;
    PERSISTENT_VOLUMES api::core::v1::PersistentVolume, false, everything;
    POD_DISRUPTION_BUDGETS api::policy::v1::PodDisruptionBudget, true, everything;
    PODS Pod, true, everything, part;
    PRIORITY_CLASSES api::scheduling::v1::PriorityClass, false, everything;
    REPLICA_SETS api::apps::v1::ReplicaSet, true, everything;
    REPLICATION_CONTROLLERS api::core::v1::ReplicationController, true, everything;
    SERVICE_ACCOUNTS api::core::v1::ServiceAccount, true, everything;
    SERVICES api::core::v1::Service, true, everything;
    STATEFUL_SETS api::apps::v1::StatefulSet, true, everything;
    STORAGE_CLASSES api::storage::v1::StorageClass, false, everything;
}

// The whole pod: what plans create, and what others make of it (see `CacheBuilder::derive`).
kind!(api::core::v1::Pod, true);
whole!(api::core::v1::Pod);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_typed_object_goes_there_and_back() {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "resourceVersion": "7"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        let object = Object::from_value(value).expect("an object");
        let pod = api::core::v1::Pod::decode(&object).expect("a pod");
        assert_eq!(pod.encode(), object);
        assert_eq!(key_of(&pod).to_string(), "n/a");
    }

    #[test]
    fn only_root_certificates_of_config_maps_are_kept_whole() {
        let decode = decoder(&kinds::CONFIG_MAPS).expect("typed");
        let named = |name: &str| {
            Object::from_value(json!({"metadata": {"name": name}, "data": {"a": "b"}}))
                .expect("an object")
        };
        assert!(decode(&named("kube-root-ca.crt")).expect("decodes").is_some());
        assert!(decode(&named("other")).expect("decodes").is_none());
    }
}
