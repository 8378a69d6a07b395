//! ServiceCIDRs: where service addresses are taken from.

use super::{
    Column, KindDef, Subresource,
    common::{
        self,
        field::{At, Errors, IMMUTABLE},
        print,
    },
};
use k8s::{FieldError, Object, apply::Scope};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    namespaced: false,
    schema: "networking.v1.ServiceCIDR",
    subresources: &[Subresource::Status],
    columns: &[Column::NAME, Column::text("CIDRs", |o, _| cidrs(o)), Column::AGE],
    prepare_create: common::drop_status,
    prepare_update: common::keep_status,
    status_scope: Scope::STATUS_ALONE,
    validate,
    ..KindDef::BASE
};

fn cidrs(object: &Object) -> Value {
    let cidrs = print::list(object, "/spec/cidrs").iter().filter_map(Value::as_str);
    cidrs.collect::<Vec<_>>().join(",").into()
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let cidrs = spec.field("cidrs");
    if cidrs.count() == 0 {
        errors.required(&cidrs, "at least one CIDR required");
        return errors.0;
    }
    if cidrs.count() > 2 {
        errors.invalid(&cidrs, "must only hold up to 2 values");
        return errors.0;
    }
    cidrs.items().for_each(|cidr| errors.cidr(&cidr));
    let (v6, v4): (Vec<&str>, Vec<&str>) = cidrs.texts().partition(|cidr| cidr.contains(':'));
    if errors.0.is_empty() && (v4.len() > 1 || v6.len() > 1) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                      2001:db8::/64";
        errors.invalid(&cidrs, detail);
    }
    let Some(old) = old else { return errors.0 };
    let was = At::top(old, "spec");
    let had = was.field("cidrs");
    for (place, before) in had.texts().enumerate() {
        let now = cidrs.index(place);
        if now.text() != before {
            // A second family may come, the first may not go.
            errors.invalid(&now, IMMUTABLE);
        }
    }
    errors.0
}
