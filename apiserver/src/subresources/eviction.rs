//! `pods/eviction`: a deletion that respects disruption budgets. Budgets are not evaluated yet, so it
//! deletes as asked.

use crate::pipeline::{Body, Call, Core, Reply, Type, What};
use k8s::{Object, Status, Verb};
use serde_json::json;

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted =
        Type { schema: "policy.v1.Eviction", api_version: "policy/v1".into(), kind: "Eviction" };
    let validation = call.options.field_validation.as_deref();
    let (eviction, warnings) = core.decode(&wanted, &call.body, validation)?;
    if !eviction.name().is_empty() && eviction.name() != call.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = call.options.clone();
    if let Some(grace) = eviction.int_at("/deleteOptions/gracePeriodSeconds") {
        options.grace_period_seconds = Some(grace);
    }
    let text = |pointer: &str| {
        Some(eviction.str_at(pointer)).filter(|text| !text.is_empty()).map(str::to_string)
    };
    options.precondition_uid =
        options.precondition_uid.or(text("/deleteOptions/preconditions/uid"));
    options.precondition_revision =
        options
            .precondition_revision
            .or(text("/deleteOptions/preconditions/resourceVersion")
                .and_then(|text| text.parse().ok()));
    let deletion =
        Call { verb: Verb::Delete, subresource: String::new(), body: Body::None, options, ..call };
    core.delete(&deletion).await?;
    let success = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    });
    let success = Object::from_value(success).expect("an object literal");
    Ok(Reply { what: What::Other(success), created: true, warnings })
}
