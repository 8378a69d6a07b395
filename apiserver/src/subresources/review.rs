//! Kinds that are only asked: access reviews and who-am-I. The answer is the question with a status.

use crate::{
    authn, authz,
    pipeline::{Call, Core, Reply, Type, What},
};
use k8s::Status;

pub(crate) async fn call(core: &Core, call: Call) -> Result<Reply, Status> {
    let wanted = Type::of(&call.kind, &call.version);
    let validation = call.options.field_validation.as_deref();
    let (review, warnings) = core.decode(&wanted, &call.body, validation)?;
    if call.kind.kind == "TokenReview" {
        let mut review = authn::review(core, review).await?;
        review.0.remove("kind");
        review.0.remove("apiVersion");
        return Ok(Reply { what: What::Object(review), created: true, warnings });
    }
    let authorizer = &*core.authorizer;
    let answer = authz::answer(authorizer, &call.identity, &call.kind, &call.namespace, &review);
    let Some(answer) = answer else {
        let kind = call.kind.kind;
        return Err(Status::not_implemented(format!("{kind} is not implemented yet")));
    };
    let mut review = answer?;
    review.0.remove("kind");
    review.0.remove("apiVersion");
    Ok(Reply { what: What::Object(review), created: true, warnings })
}
