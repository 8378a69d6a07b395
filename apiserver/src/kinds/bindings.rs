//! Bindings: put a pod on a node. The same body as `pods/binding`, without the pod in the path.

use super::{KindDef, Verbs};

pub(super) const KIND: KindDef = KindDef {
    kind: "Binding",
    plural: "bindings",
    schema: "core.v1.Binding",
    verbs: Verbs::CreateOnly,
    ..KindDef::BASE
};
