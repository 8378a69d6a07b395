//! The parameters of a binding: which objects a policy is evaluated with.

use super::{
    compiled::{ParamKind, ParamRef},
    served,
};
use crate::{admission::Cx, encode, memo};
use raft_store::Stored;
use serde_json::Value as Json;

/// Each the policy is to be evaluated with; `None`: once, without parameter.
pub(super) fn collect(
    cx: &Cx<'_>,
    kind: Option<&ParamKind>,
    wanted: Option<&ParamRef>,
) -> Result<Vec<Option<Json>>, String> {
    let (Some(kind), Some(wanted)) = (kind, wanted) else { return Ok(vec![None]) };
    let served = served::by_kind(cx.view, &kind.api_version, &kind.kind).ok_or_else(|| {
        let (api_version, kind) = (&kind.api_version, &kind.kind);
        format!("paramKind kind `&ParamKind{{APIVersion:{api_version},Kind:{kind},}}` not known")
    })?;
    let (space, shown) = (served.space(), |stored: &Stored| shown(kind, stored));
    let namespace = match (served.namespaced, wanted.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Err(why.into());
        }
        (true, "") if cx.namespace.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches \
                       cluster-scoped resources";
            return Err(why.into());
        }
        (true, "") => cx.namespace,
        (true, namespace) => namespace,
    };
    let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    let mut found = Vec::new();
    match &wanted.selector {
        None => {
            let path = format!("{prefix}{}", wanted.name);
            found.extend(cx.view.stored(&space, &path).map(|one| shown(&one)));
        }
        Some(selector) => {
            let selector = selector.as_ref().map_err(Clone::clone)?;
            let all = cx.view.range(&space, &prefix);
            let chosen = all.iter().filter(|one| selector.matches_object(&memo::object(one)));
            found.extend(chosen.map(|one| shown(one)));
        }
    }
    if found.is_empty() && wanted.needed {
        let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(why.into());
    }
    Ok(found.into_iter().map(Some).collect())
}

/// True if the server serves the kind.
pub(super) fn is_known(cx: &Cx<'_>, kind: &ParamKind) -> bool {
    served::by_kind(cx.view, &kind.api_version, &kind.kind).is_some()
}

/// As expressions see it. Of a custom kind that is written in several versions, all look the same
/// here: no webhook is asked to convert a parameter.
fn shown(kind: &ParamKind, stored: &Stored) -> Json {
    let mut object = memo::parse(stored);
    object.0.insert("apiVersion".into(), kind.api_version.clone().into());
    object.0.insert("kind".into(), kind.kind.clone().into());
    encode::stamp_revision(&mut object, encode::revision(stored.revision));
    object.into_value()
}
