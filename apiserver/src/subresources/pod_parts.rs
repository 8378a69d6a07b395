//! `pods/ephemeralcontainers` and `pods/resize`: what of a running pod may change, and nothing else of
//! what was sent.

use crate::pipeline::{Call, Core, Old, Reply, Wanted};
use k8s::{Object, Status};
use serde_json::{Map, Value};

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let change = |old: &Old<'_>| {
        let sent = core.sent(&call, old)?;
        if !sent.name().is_empty() && sent.name() != call.name {
            return Err(Status::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                sent.name(),
                call.name
            )));
        }
        let named = sent.revision().filter(|revision| Some(*revision) != old.revision());
        let expected = named.filter(|revision| revision.0 != 0);
        let mut new = (**old).clone();
        // Who owns what was worked out with what was sent.
        if let Some(managed) = sent.at("/metadata/managedFields") {
            new.metadata_mut().insert("managedFields".into(), managed.clone());
        }
        match call.subresource.as_str() {
            "ephemeralcontainers" => {
                let attached = sent.at("/spec/ephemeralContainers").cloned();
                put(new.map_mut("spec"), "ephemeralContainers", attached);
            }
            _ => resize(&mut new, &sent),
        }
        Ok(Wanted { new, expected })
    };
    core.modify(&call, &change).await
}

fn put(map: &mut Map<String, Value>, field: &str, value: Option<Value>) {
    match value {
        Some(value) => map.insert(field.into(), value),
        None => map.remove(field),
    };
}

/// Resources and how a change of them is carried out, of containers by name and of the pod.
fn resize(new: &mut Object, sent: &Object) {
    let spec = new.map_mut("spec");
    put(spec, "resources", sent.at("/spec/resources").cloned());
    for list in ["containers", "initContainers"] {
        let wanted = sent.at(&format!("/spec/{list}")).and_then(Value::as_array);
        let wanted: &[Value] = wanted.map_or(&[], Vec::as_slice);
        let Some(Value::Array(own)) = spec.get_mut(list) else { continue };
        if own.len() != wanted.len()
            || own.iter().zip(wanted).any(|(own, sent)| own["name"] != sent["name"])
        {
            // Other containers than the pod has: validation has the words for it.
            *own = wanted.to_vec();
            continue;
        }
        for (own, sent) in own.iter_mut().zip(wanted) {
            let Some(own) = own.as_object_mut() else { continue };
            for field in ["resources", "resizePolicy"] {
                put(own, field, sent.get(field).cloned());
            }
        }
    }
}
