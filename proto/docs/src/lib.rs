//! What the built-in types and their fields are for: upstream's descriptions, which crate k8s-openapi
//! carries. A crate of its own because the feature that brings them is slow to compile; nothing else
//! needs it.

use k8s_openapi::{
    api,
    apimachinery::pkg::apis::meta::v1 as meta,
    schemars::{SchemaGenerator, generate::SchemaSettings},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// The descriptions of every built-in type, by upstream's names (`io.k8s.api.core.v1.Pod`). About a
/// megabyte: made when documents are, and dropped with them.
#[derive(Debug, Default)]
pub struct Descriptions(BTreeMap<String, Type>);

#[derive(Debug, Default)]
struct Type {
    itself: String,
    fields: BTreeMap<String, String>,
}

impl Descriptions {
    /// All there are; takes some tens of milliseconds.
    pub fn load() -> Descriptions {
        let mut generator = SchemaSettings::openapi3().into_generator();
        roots(&mut generator);
        let definitions = generator.take_definitions(false);
        Descriptions(
            definitions.iter().map(|(name, schema)| (name.clone(), read(schema))).collect(),
        )
    }

    /// Of the type.
    pub fn of(&self, ty: &str) -> Option<&str> {
        self.0.get(ty).map(|found| found.itself.as_str()).filter(|text| !text.is_empty())
    }

    /// Of one of its fields.
    pub fn field(&self, ty: &str, field: &str) -> Option<&str> {
        self.0.get(ty)?.fields.get(field).map(String::as_str)
    }
}

fn read(schema: &Value) -> Type {
    let text = |value: &Value| value["description"].as_str().map(str::to_string);
    let properties = schema["properties"].as_object().into_iter().flatten();
    Type {
        itself: text(schema).unwrap_or_default(),
        fields: properties.filter_map(|(name, field)| Some((name.clone(), text(field)?))).collect(),
    }
}

macro_rules! roots {
    ($($ty:ty,)*) => {
        /// Everything that no other type refers to; the rest follows.
        fn roots(generator: &mut SchemaGenerator) {
            $(generator.subschema_for::<$ty>();)*
        }
    };
}

roots! {
    api::admissionregistration::v1::MutatingAdmissionPolicy,
    api::admissionregistration::v1::MutatingAdmissionPolicyBinding,
    api::admissionregistration::v1::MutatingWebhookConfiguration,
    api::admissionregistration::v1::ValidatingAdmissionPolicy,
    api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
    api::admissionregistration::v1::ValidatingWebhookConfiguration,
    k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService,
    api::apps::v1::ControllerRevision,
    api::apps::v1::DaemonSet,
    api::apps::v1::Deployment,
    api::apps::v1::ReplicaSet,
    api::apps::v1::StatefulSet,
    api::authentication::v1::SelfSubjectReview,
    api::authentication::v1::TokenRequest,
    api::authentication::v1::TokenReview,
    api::authorization::v1::LocalSubjectAccessReview,
    api::authorization::v1::SelfSubjectAccessReview,
    api::authorization::v1::SelfSubjectRulesReview,
    api::authorization::v1::SubjectAccessReview,
    api::autoscaling::v1::HorizontalPodAutoscaler,
    api::autoscaling::v1::Scale,
    api::autoscaling::v2::HorizontalPodAutoscaler,
    api::batch::v1::CronJob,
    api::batch::v1::Job,
    api::certificates::v1::CertificateSigningRequest,
    api::coordination::v1::Lease,
    api::core::v1::Binding,
    api::core::v1::ComponentStatus,
    api::core::v1::ConfigMap,
    api::core::v1::Endpoints,
    api::core::v1::Event,
    api::core::v1::LimitRange,
    api::core::v1::Namespace,
    api::core::v1::Node,
    api::core::v1::PersistentVolume,
    api::core::v1::PersistentVolumeClaim,
    api::core::v1::Pod,
    api::core::v1::PodTemplate,
    api::core::v1::ReplicationController,
    api::core::v1::ResourceQuota,
    api::core::v1::Secret,
    api::core::v1::Service,
    api::core::v1::ServiceAccount,
    api::discovery::v1::EndpointSlice,
    api::events::v1::Event,
    api::flowcontrol::v1::FlowSchema,
    api::flowcontrol::v1::PriorityLevelConfiguration,
    api::networking::v1::IPAddress,
    api::networking::v1::Ingress,
    api::networking::v1::IngressClass,
    api::networking::v1::NetworkPolicy,
    api::networking::v1::ServiceCIDR,
    api::node::v1::RuntimeClass,
    api::policy::v1::Eviction,
    api::policy::v1::PodDisruptionBudget,
    api::rbac::v1::ClusterRole,
    api::rbac::v1::ClusterRoleBinding,
    api::rbac::v1::Role,
    api::rbac::v1::RoleBinding,
    api::resource::v1::DeviceClass,
    api::resource::v1::ResourceClaim,
    api::resource::v1::ResourceClaimTemplate,
    api::resource::v1::ResourceSlice,
    api::scheduling::v1::PriorityClass,
    api::storage::v1::CSIDriver,
    api::storage::v1::CSINode,
    api::storage::v1::CSIStorageCapacity,
    api::storage::v1::StorageClass,
    api::storage::v1::VolumeAttachment,
    api::storage::v1::VolumeAttributesClass,
    meta::APIGroup,
    meta::APIGroupList,
    meta::APIResourceList,
    meta::APIVersions,
    meta::DeleteOptions,
    meta::LabelSelector,
    meta::ListMeta,
    meta::Patch,
    meta::Status,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_fields_are_described() {
        let all = Descriptions::load();
        let pod = all.of("io.k8s.api.core.v1.Pod").unwrap();
        assert!(pod.starts_with("Pod is a collection of containers"), "{pod}");
        let name = all.field("io.k8s.api.core.v1.Container", "name").unwrap();
        assert!(name.contains("DNS_LABEL"), "{name}");
        assert!(all.of("io.k8s.api.core.v1.Nothing").is_none());
    }
}
