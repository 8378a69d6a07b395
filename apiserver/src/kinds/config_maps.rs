//! ConfigMaps: non-secret configuration that pods read.

use super::KindDef;

pub(super) const KIND: KindDef = KindDef {
    kind: "ConfigMap",
    plural: "configmaps",
    short_names: &["cm"],
    schema: "core.v1.ConfigMap",
    ..KindDef::BASE
};
