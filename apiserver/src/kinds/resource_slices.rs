//! ResourceSlices: the devices of a node or pool.

use super::{
    Column, KindDef, SelectableField,
    common::{
        field::{At, Errors},
        pod_spec, print,
    },
};
use k8s::{FieldError, Object, names};

pub(super) const KIND: KindDef = KindDef {
    group: "resource.k8s.io",
    kind: "ResourceSlice",
    plural: "resourceslices",
    namespaced: false,
    schema: "resource.v1.ResourceSlice",
    columns: &[
        Column::NAME,
        Column::text("Node", |o, _| print::text(o, "/spec/nodeName")),
        Column::text("Driver", |o, _| print::text(o, "/spec/driver")),
        Column::text("Pool", |o, _| print::text(o, "/spec/pool/name")),
        Column::AGE,
    ],
    selectable: &[
        SelectableField::text("spec.driver", |o| o.str_at("/spec/driver").to_string()),
        SelectableField::text("spec.nodeName", |o| o.str_at("/spec/nodeName").to_string()),
    ],
    generation: true,
    validate,
    ..KindDef::BASE
};

/// Upstream's bound of the devices in one slice.
const DEVICES_MAX: usize = 128;

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    errors.needs_subdomain(&spec.field("driver"));
    let pool = spec.field("pool");
    let name = pool.field("name");
    if errors.needs_text(&name) {
        for part in name.text().split('/') {
            for detail in names::is_dns1123_subdomain(part) {
                errors.invalid_value(&name, part, detail);
            }
        }
    }
    errors.not_negative(&pool.field("generation"));
    errors.positive(&pool.field("resourceSliceCount"));
    place(&spec, &mut errors);
    let devices = spec.field("devices");
    errors.too_many(&devices, DEVICES_MAX);
    let mut taken = std::collections::BTreeSet::new();
    for device in devices.items() {
        let name = device.field("name");
        errors.needs_label(&name);
        if !taken.insert(name.text()) {
            errors.duplicate(&name);
        }
    }
    if let Some(old) = old {
        let was = At::top(old, "spec");
        errors.immutable(&spec.field("driver"), &was.field("driver"));
        errors.immutable(&name, &was.field("pool").field("name"));
        errors.immutable(&spec.field("nodeName"), &was.field("nodeName"));
    }
    errors.0
}

/// The devices are of one node, of some, of all, or each says itself.
fn place(spec: &At<'_, '_>, errors: &mut Errors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let (node, selector) = (spec.field("nodeName"), spec.field("nodeSelector"));
    let set = [
        node.exists(),
        selector.exists(),
        spec.field("allNodes").flag(),
        spec.field("perDeviceNodeSelection").flag(),
    ];
    let count = set.into_iter().filter(|set| *set).count();
    // With shared counters alone a slice needs no place.
    let counters = spec.field("sharedCounters").count() > 0;
    match count {
        0 if !counters => errors.required(spec, ONE),
        0 | 1 => (),
        _ => {
            let detail = format!("{ONE}, but multiple fields are set");
            errors.invalid_value(spec, serde_json::Value::Null, detail);
        }
    }
    if node.exists() {
        errors.needs_subdomain(&node);
    }
    if selector.exists() {
        pod_spec::node_selector(&selector, errors);
    }
}
