//! IngressClasses: which controller serves an Ingress.

use super::{common::print, Column, KindDef};
use k8s::Object;
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    namespaced: false,
    schema: "networking.v1.IngressClass",
    columns: &[Column::NAME,
Column::text("Controller", |o, _| print::text(o, "/spec/controller")),
Column::text("Parameters", |o, _| parameters(o)),
Column::AGE],
    generation: true,
    ..KindDef::BASE
};

fn parameters(object: &Object) -> Value {
    if object.at("/spec/parameters").is_none() {
        return "<none>".into();
    }
    let kind = object.str_at("/spec/parameters/kind");
    let name = object.str_at("/spec/parameters/name");
    match object.str_at("/spec/parameters/apiGroup") {
        "" => format!("{kind}/{name}").into(),
        group => format!("{kind}.{group}/{name}").into(),
    }
}
