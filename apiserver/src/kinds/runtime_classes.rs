//! RuntimeClasses: ways to run a container.

use super::{
    Column, KindDef,
    common::{
        field::{At, Errors},
        labels, pod_spec, print,
        resources::{self, Whose},
    },
};
use k8s::{FieldError, Object, names};

pub(super) const KIND: KindDef = KindDef {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    namespaced: false,
    schema: "node.v1.RuntimeClass",
    columns: &[
        Column::NAME,
        Column::text("Handler", |o, _| print::text(o, "/handler")),
        Column::AGE,
    ],
    create_on_update: true,
    unconditional_update: false,
    validate,
    warnings,
    ..KindDef::BASE
};

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let handler = At::top(new, "handler");
    errors.invalid_each(&handler, names::is_dns1123_label(handler.text()));
    let (overhead, scheduling) = (At::top(new, "overhead"), At::top(new, "scheduling"));
    let fixed = overhead.field("podFixed");
    let mut within = Errors::default();
    resources::validate_named_amounts(&fixed, Whose::Container, &mut within);
    errors.adopt(within, &fixed, &"overhead.limits");
    labels::validate_labels(&scheduling.field("nodeSelector"), &mut errors);
    let tolerations = scheduling.field("tolerations");
    pod_spec::tolerations(&tolerations, &mut errors);
    let all: Vec<At<'_, '_>> = tolerations.items().collect();
    for (place, toleration) in all.iter().enumerate() {
        if all[..place].iter().any(|other| other.value() == toleration.value()) {
            errors.duplicate(toleration);
        }
    }
    if let Some(old) = old {
        errors.immutable(&handler, &At::top(old, "handler"));
    }
    errors.0
}

fn warnings(new: &Object, _: Option<&Object>) -> Vec<String> {
    let scheduling = At::top(new, "scheduling");
    let selector = scheduling.field("nodeSelector");
    let texts = selector.entries().filter_map(|(key, _)| pod_spec::label_warning(key));
    texts.map(|text| format!("scheduling.nodeSelector: {text}")).collect()
}
