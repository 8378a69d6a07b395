//! What the leading master does about flow control's objects: sees that the ones every cluster starts
//! with are there and as they should be, and says of each FlowSchema whether its level exists.

use super::{
    bootstrap::{self, AUTOUPDATE},
    config::{LEVELS, SCHEMAS},
};
use crate::{
    conditions, memo,
    pipeline::{Body, Call, Core},
};
use futures::StreamExt;
use k8s::{Object, PatchType, Status, Verb};
use raft_store::Term;
use serde_json::{Value, json};

/// As many as one log entry groups without delaying others.
const AT_ONCE: usize = 32;

/// True if everything that every cluster starts with is there.
pub(crate) fn has_objects(core: &Core) -> bool {
    bootstrap::objects()
        .iter()
        .all(|wanted| core.view.stored(space(wanted), wanted.name()).is_some())
}

fn space(object: &Object) -> &'static str {
    if object.kind() == "FlowSchema" { SCHEMAS } else { LEVELS }
}

/// Reads only, when all is well.
pub(crate) async fn keep(core: &Core, term: Term) {
    let objects = futures::stream::iter(bootstrap::objects());
    let ensure = async |object: Object| {
        if let Err(error) = ensure(core, term, &object).await {
            tracing::debug!(name = object.name(), %error, "flow control's object is not there yet");
        }
    };
    objects.for_each_concurrent(AT_ONCE, ensure).await;
    for stored in core.view.range(SCHEMAS, "") {
        if let Err(error) = mark(core, term, &memo::object(&stored)).await {
            tracing::debug!(name = &*stored.key.path, %error, "a FlowSchema is not marked now");
        }
    }
}

async fn ensure(core: &Core, term: Term, wanted: &Object) -> Result<(), Status> {
    let Some(stored) = core.view.stored(space(wanted), wanted.name()) else {
        let body = wanted.clone().into_value();
        let Some(call) = call(wanted.kind(), Verb::Create, "", "", body, term) else {
            return Ok(());
        };
        return core.call(call).await.map(|_| ());
    };
    let have = memo::object(&stored);
    let kept = bootstrap::is_mandatory(wanted) || have.annotation(AUTOUPDATE) == Some("true");
    if !kept || contains(have.at("/spec"), wanted.at("/spec")) {
        return Ok(());
    }
    let mut new = Object::clone(&have);
    if let Some(spec) = wanted.at("/spec") {
        new.0.insert("spec".into(), spec.clone());
    }
    let body = new.into_value();
    match call(wanted.kind(), Verb::Update, wanted.name(), "", body, term) {
        Some(call) => core.call(call).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Everything wanted is there as it should be; defaults may have joined it.
fn contains(have: Option<&Value>, wanted: Option<&Value>) -> bool {
    match (have, wanted) {
        (Some(Value::Object(have)), Some(Value::Object(wanted))) => {
            wanted.iter().all(|(key, value)| contains(have.get(key), Some(value)))
        }
        (Some(Value::Array(have)), Some(Value::Array(wanted))) => {
            have.len() == wanted.len()
                && have.iter().zip(wanted).all(|(have, wanted)| contains(Some(have), Some(wanted)))
        }
        (have, wanted) => have == wanted,
    }
}

/// The `Dangling` condition.
async fn mark(core: &Core, term: Term, schema: &Object) -> Result<(), Status> {
    let level = schema.str_at("/spec/priorityLevelConfiguration/name");
    let exists = core.view.stored(LEVELS, level).is_some();
    let reference =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match exists {
        true => ("False", "Found", format!("{reference} and it exists")),
        false => ("True", "NotFound", format!("{reference} but there is no such object")),
    };
    let changed = conditions::changed(schema, "Dangling", status, reason, &message);
    let Some(conditions) = changed else { return Ok(()) };
    // The others' conditions are theirs: who wrote one in between is not written over.
    let body = json!({
        "metadata": { "resourceVersion": schema.str_at("/metadata/resourceVersion") },
        "status": { "conditions": conditions },
    });
    let patch = Verb::Patch(PatchType::Merge);
    match call("FlowSchema", patch, schema.name(), "status", body, term) {
        Some(call) => core.call(call).await.map(|_| ()),
        None => Ok(()),
    }
}

fn call(
    kind: &str,
    verb: Verb,
    name: &str,
    subresource: &str,
    body: Value,
    term: Term,
) -> Option<Call> {
    let kind = crate::catalog::by_kind("flowcontrol.apiserver.k8s.io/v1", kind)?;
    Some(Call {
        name: name.to_string(),
        subresource: subresource.to_string(),
        ..Call::own(kind.into(), verb, Body::Value(body), term)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Server};
    use raft_store::Store;

    #[tokio::test]
    async fn what_every_cluster_starts_with_is_made_and_marked() {
        let store = Store::in_memory();
        let server = Server::new(Config::new(store.clone()));
        let term = store.leadership().borrow().leading.expect("leads alone");
        keep(&server.core, term).await;
        let schemas = server.core.view.range(SCHEMAS, "");
        assert_eq!(schemas.len(), 11);
        for stored in &schemas {
            let object = memo::object(stored);
            assert_eq!(object.str_at("/status/conditions/0/reason"), "Found", "{}", object.name());
        }
        let revision = store.revision();
        keep(&server.core, term).await;
        assert_eq!(store.revision(), revision, "all is well: nothing is written");
        let mut stale = Object::clone(&memo::object(&schemas[0]));
        stale.0.remove("status");
        stale.metadata_mut().insert("resourceVersion".into(), "1".into());
        let refused = mark(&server.core, term, &stale).await;
        assert_eq!(refused.expect_err("others' conditions stay").code, 409);
    }
}
