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
use serde_json::{Value, json};
use std::net::IpAddr;

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
    let Some(old) = old else {
        validate_cidrs(&cidrs, &mut errors);
        return errors.0;
    };
    let was = At::top(old, "spec");
    let had = was.field("cidrs");
    let grows = had.count() == 1 && cidrs.count() == 2;
    if had.count() != cidrs.count() && !grows {
        errors.invalid(&cidrs, IMMUTABLE);
        return errors.0;
    }
    for (place, before) in had.texts().enumerate() {
        let now = cidrs.index(place);
        if now.text() != before {
            errors.invalid(&now, IMMUTABLE);
        }
    }
    if grows {
        validate_cidrs(&cidrs, &mut errors);
    }
    errors.0
}

fn validate_cidrs(cidrs: &At<'_, '_>, errors: &mut Errors) {
    match cidrs.count() {
        0 => return errors.required(cidrs, "at least one CIDR required"),
        1 | 2 => (),
        _ => {
            // Upstream shows the spec, as Go names its field.
            let shown = json!({ "CIDRs": cidrs.owned() });
            return errors.invalid_value(cidrs, shown, "may only hold up to 2 values");
        }
    }
    cidrs.items().for_each(|cidr| errors.cidr(&cidr));
    let family = |cidr: &str| Some(cidr.split_once('/')?.0.parse::<IpAddr>().ok()?.is_ipv4());
    let families: Vec<bool> = cidrs.texts().filter_map(family).collect();
    if families.len() == 2 && families[0] == families[1] {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                      2001:db8::/64";
        errors.invalid(cidrs, detail);
    }
}
