//! Kinds that are only asked: access reviews and who-am-I. The answer is the question with a status.

use crate::{
    authn, authz,
    pipeline::{Call, Core, Reply, Type, What, meta},
};
use k8s::{Object, Status};
use serde_json::json;

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted = Type::of(&call.kind, &call.version);
    let validation = call.options.field_validation.as_deref();
    let (mut review, warnings) = core.decode(&wanted, &call.body, validation)?;
    meta::settle_namespace(&call.kind, &call.namespace, &mut review)?;
    if call.kind.kind == "TokenReview" {
        let mut review = authn::review(core, review).await?;
        review.0.remove("kind");
        review.0.remove("apiVersion");
        return Ok(Reply { what: What::Object(review), created: true, warnings });
    }
    let authorizer = &*core.authorizer;
    let answer = authz::answer(authorizer, &call.identity, &call.kind, &review, &meta::now());
    let Some(answer) = answer else {
        let kind = call.kind.kind;
        return Err(Status::not_implemented(format!("{kind} is not implemented yet")));
    };
    let mut review = answer?;
    ask_webhook(core, &call, &mut review).await;
    review.0.remove("kind");
    review.0.remove("apiVersion");
    Ok(Reply { what: What::Object(review), created: true, warnings })
}

/// What nobody here allows or denies is put to the webhook, as a request of that kind would be.
async fn ask_webhook(core: &Core, call: &Call, review: &mut Object) {
    let Some(webhook) = &core.config.access_webhook else { return };
    let open = review.at("/status/allowed") == Some(&false.into())
        && review.at("/status/denied").is_none();
    if !open || !call.kind.kind.ends_with("AccessReview") {
        return;
    }
    let mut spec = review.at("/spec").cloned().unwrap_or_default();
    if call.kind.kind == "SelfSubjectAccessReview" {
        let user = &call.identity;
        spec["user"] = user.user.clone().into();
        spec["groups"] = json!(user.groups);
        spec["uid"] = user.uid.clone().into();
        spec["extra"] = json!(user.extra);
    }
    let status = authz::status_of(webhook.decide(spec).await);
    // Silence changes nothing of what was said here.
    if status != json!({ "allowed": false }) {
        review.0.insert("status".into(), status);
    }
}
