//! `pods/binding`: gives a pod to a node, once (P6): guarded on the version that had none.

use crate::{
    admission::{self, Operation},
    pipeline::{Call, Core, Old, Reply, Type, Wanted, What},
};
use k8s::{Object, Status};
use serde_json::{Value, json};

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted = Type { schema: "core.v1.Binding", api_version: "v1".into(), kind: "Binding" };
    let validation = call.options.field_validation.as_deref();
    let (mut binding, warnings) = core.decode(&wanted, &call.body, validation)?;
    check(&binding, &call.name)?;
    let cx = core.admission(&call, Operation::Create, None);
    admission::mutate(&cx, &mut binding).await?;
    admission::validate(&cx, &binding).await?;
    let node = binding.str_at("/target/name").to_string();
    let bind = |old: &Old<'_>| {
        let uid = binding.uid();
        if !uid.is_empty() && uid != old.uid() {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                old.uid()
            );
            return Err(Status::conflict(&call.resource(), &call.name, why));
        }
        bound(old, &binding, &node)
            .map(|new| Wanted { new, expected: None })
            .map_err(|why| Status::conflict(&binding_resource(), &call.name, why))
    };
    core.modify(&call, &bind).await?;
    let success = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    let success = Object::from_value(success).expect("an object literal");
    Ok(Reply { what: What::Other(success), created: true, warnings })
}

fn check(binding: &Object, name: &str) -> Result<(), Status> {
    if !binding.name().is_empty() && binding.name() != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let (kind, node) = (binding.str_at("/target/kind"), binding.str_at("/target/name"));
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        let supported = ["Node", ""];
        errors.push(k8s::FieldError::not_supported("target.kind", kind.into(), &supported));
    }
    if node.is_empty() {
        errors.push(k8s::FieldError::required("target.name", ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Binding", name, &errors)) }
}

fn binding_resource() -> k8s::Resource {
    k8s::Resource::new("", "v1", "pods/binding")
}

/// The pod on its node; `Err` says why it cannot go there.
fn bound(old: &Object, binding: &Object, node: &str) -> Result<Object, String> {
    if old.deletion_timestamp().is_some() {
        return Err(format!("pod {} is being deleted, cannot be assigned to a host", old.name()));
    }
    match old.str_at("/spec/nodeName") {
        "" => {}
        taken => return Err(format!("pod {} is already assigned to node {taken:?}", old.name())),
    }
    let gates = old.at("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Err(format!("pod {} has non-empty .spec.schedulingGates", old.name()));
    }
    let mut new = old.clone();
    new.map_mut("spec").insert("nodeName".into(), node.into());
    for (key, value) in binding.annotations() {
        let annotations = new.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
        annotations[key] = value.into();
    }
    for (key, value) in binding.labels() {
        let labels = new.metadata_mut().entry("labels").or_insert_with(|| json!({}));
        labels[key] = value.into();
    }
    set_scheduled(&mut new);
    Ok(new)
}

fn set_scheduled(pod: &mut Object) {
    let status = pod.map_mut("status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": crate::pipeline::meta::now(),
        }));
    }
}
