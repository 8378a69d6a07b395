//! TokenReviews: whose token is this?

use super::identify;
use crate::{authz, pipeline::Core};
use k8s::{Object, Status};
use serde_json::{Value, json};

/// The review with its status.
pub(crate) async fn review(core: &Core, review: Object) -> Result<Object, Status> {
    let token = review.str_at("/spec/token");
    if token.is_empty() {
        let why = "token is required for TokenReview in authentication";
        return Err(Status::bad_request(why));
    }
    let asked = review.at("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let asked: Vec<String> = asked.filter_map(|text| Some(text.as_str()?.to_string())).collect();
    let audiences = if asked.is_empty() { &core.config.tokens.audiences } else { &asked };
    let status = match identify(core, token, audiences).await {
        Ok(known) => json!({
            "authenticated": true,
            "user": authz::user_info(&known.identity),
            "audiences": known.audiences,
        }),
        Err(why) => json!({ "user": {}, "error": why }),
    };
    let mut review = review;
    review.metadata_mut();
    review.0.insert("status".into(), status);
    Ok(review)
}
