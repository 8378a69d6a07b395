//! IPAddresses: a service address taken and by whom.

use super::{
    Column, KindDef, NameRule,
    common::field::{At, Errors},
};
use k8s::{FieldError, Object, names};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    short_names: &["ip"],
    namespaced: false,
    schema: "networking.v1.IPAddress",
    // Upstream defines no column for the age, which its rows have.
    columns: &[Column::NAME, Column::text("ParentRef", |o, _| parent(o))],
    name: NameRule::Ip,
    validate,
    ..KindDef::BASE
};

fn parent(object: &Object) -> Value {
    let part = |field: &str| object.str_at(&format!("/spec/parentRef/{field}"));
    let parts = [part("group"), part("resource"), part("namespace"), part("name")];
    let resource = match parts[0] {
        "" => parts[1].to_string(),
        group => format!("{}.{group}", parts[1]),
    };
    if parts.iter().all(|part| part.is_empty()) {
        return "<none>".into();
    }
    let path: Vec<&str> =
        [resource.as_str(), parts[2], parts[3]].into_iter().filter(|p| !p.is_empty()).collect();
    path.join("/").into()
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let spec = At::top(new, "spec");
    let parent = spec.field("parentRef");
    if !parent.exists() {
        errors.required(&parent, "");
        return errors.0;
    }
    let (group, namespace) = (parent.field("group"), parent.field("namespace"));
    if !group.text().is_empty() {
        errors.subdomain(&group);
    }
    errors.needs_segment(&parent.field("resource"));
    errors.needs_segment(&parent.field("name"));
    if !namespace.text().is_empty() {
        errors.invalid_each(&namespace, names::is_path_segment_name(namespace.text()));
    }
    if let Some(old) = old {
        let was = At::top(old, "spec");
        errors.immutable(&parent, &was.field("parentRef"));
    }
    errors.0
}
