//! What is asked of the masters themselves: remove one, or hand leadership over. The leader decides,
//! whichever master is asked; a refusal says why.

use crate::{
    pipeline::Core,
    server::{Body, json, read},
};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use k8s::Status;
use raft_store::{MemberError, MemberId, Refusal};
use serde_json::{Value, json as value};

/// Under it are the requests answered here.
const MEMBERS: &str = "/coxswain/members/";

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Transfer,
    Remove(MemberId),
}

impl Asked {
    /// `None`: something else answers that path.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Asked> {
        let what = path.strip_prefix(MEMBERS)?;
        match (method.as_str(), what) {
            ("POST", "transfer-leader") => Some(Asked::Transfer),
            ("DELETE", id) => id.parse().ok().map(|id| Asked::Remove(MemberId(id))),
            _ => None,
        }
    }
}

pub(crate) async fn answer(
    core: &Core,
    asked: Asked,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let body = read(request).await?;
    let body: Value = match body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&body)
            .map_err(|error| Status::bad_request(format!("the body is not JSON: {error}")))?,
    };
    let answer = match asked {
        Asked::Remove(id) => {
            core.store.remove_member(id).await.map_err(status)?;
            value!({ "removed": id.0 })
        }
        Asked::Transfer => {
            let leads = core.store.transfer_leader(successor(&body)?).await.map_err(status)?;
            value!({ "leader": leads.0 })
        }
    };
    Ok(json(&answer))
}

/// Who is to lead; `None` leaves it to the leader.
fn successor(body: &Value) -> Result<Option<MemberId>, Status> {
    match &body["to"] {
        Value::Null => Ok(None),
        to => match to.as_u64() {
            Some(id) => Ok(Some(MemberId(id))),
            None => Err(Status::bad_request(format!("to: {to}: want the id of a master"))),
        },
    }
}

fn status(error: MemberError) -> Status {
    match error {
        MemberError::Refused(why @ Refusal::NotMember { .. }) => {
            Status::new(404, "NotFound", why.to_string())
        }
        MemberError::Refused(why) => Status::new(409, "Conflict", why.to_string()),
        MemberError::Unavailable { unknown: false } => {
            Status::unavailable("the masters have no leader; nothing was changed", 1)
        }
        MemberError::Unavailable { unknown: true } => {
            Status::timeout("the masters lost their leader; the change may or may not be made")
        }
        MemberError::Stopped(_) => Status::unavailable(error.to_string(), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_is_asked() {
        let asked = |method: Method, path: &str| Asked::of(&method, path);
        assert_eq!(asked(Method::DELETE, "/coxswain/members/3"), Some(Asked::Remove(MemberId(3))));
        assert_eq!(asked(Method::POST, "/coxswain/members/transfer-leader"), Some(Asked::Transfer));
        assert_eq!(asked(Method::GET, "/coxswain/members"), None);
        assert_eq!(asked(Method::DELETE, "/coxswain/members/m3"), None);
    }

    #[test]
    fn what_is_no_id_is_not_taken_for_nobody() {
        assert_eq!(successor(&value!({"to": 2})).ok(), Some(Some(MemberId(2))));
        assert_eq!(successor(&Value::Null).ok(), Some(None));
        assert!(successor(&value!({"to": "m2"})).is_err());
    }
}
