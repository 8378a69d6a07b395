//! ResourceClaimTemplates: claims made for each pod.

use super::{Column, KindDef};

pub(super) const KIND: KindDef = KindDef {
    group: "resource.k8s.io",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    schema: "resource.v1.ResourceClaimTemplate",
    columns: &[Column::NAME, Column::AGE],
    ..KindDef::BASE
};
