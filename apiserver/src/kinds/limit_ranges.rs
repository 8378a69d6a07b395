//! LimitRanges: default and extreme requests in a namespace. Stored, not yet enforced.

use super::{
    KindDef,
    common::{child, children, made},
};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "LimitRange",
    plural: "limitranges",
    short_names: &["limits"],
    schema: "core.v1.LimitRange",
    create_on_update: true,
    default,
    ..KindDef::BASE
};

/// A container's default limit is its maximum, its default request that limit or the minimum.
fn default(range: &mut Object) {
    for item in children(range.map_mut("spec"), "limits") {
        if item.get("type").and_then(Value::as_str) != Some("Container") {
            continue;
        }
        for (field, sources) in [("default", &["max"][..]), ("defaultRequest", &["default", "min"])]
        {
            for source in sources {
                let Some(from) = child(item, source).map(|map| map.clone()) else { continue };
                let Some(to) = made(item, field) else { continue };
                for (resource, quantity) in from {
                    to.entry(resource).or_insert(quantity);
                }
            }
        }
    }
}
