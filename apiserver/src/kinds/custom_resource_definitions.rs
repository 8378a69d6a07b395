//! CustomResourceDefinitions: kinds that users add. Stored, not yet served as kinds.

use super::{common, KindDef, Subresource};

pub(super) const KIND: KindDef = KindDef {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    schema: "apiextensions.v1.CustomResourceDefinition",
    subresources: &[Subresource::Status],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    generation: true,
    unconditional_update: false,
    ..KindDef::BASE
};
