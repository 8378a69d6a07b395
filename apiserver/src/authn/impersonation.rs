//! `Impersonate-User` and its fellows: who a request is to be treated as, if the caller may.

use super::service_account;
use crate::{authz::Attributes, identity::Identity, pipeline::Core, server::percent_decode};
use http::HeaderMap;
use k8s::Status;
use std::{collections::BTreeMap, sync::Arc};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const ANONYMOUS: &str = "system:anonymous";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// One thing a caller must be allowed to take on.
struct Asked {
    group: &'static str,
    resource: &'static str,
    /// The key of an extra.
    subresource: String,
    namespace: String,
    name: String,
}

/// The identity to go on with: the caller's own without such headers.
pub(crate) fn apply(
    core: &Core,
    caller: Arc<Identity>,
    headers: &HeaderMap,
) -> Result<Arc<Identity>, Status> {
    let Some((wanted, asked)) = wanted(headers)? else { return Ok(caller) };
    for part in &asked {
        core.authorize(&Attributes {
            user: &caller,
            verb: "impersonate",
            group: part.group,
            version: "v1",
            resource: part.resource,
            subresource: &part.subresource,
            namespace: &part.namespace,
            name: &part.name,
            field_selector: "",
            path: "",
        })?;
    }
    tracing::debug!(caller = caller.user, user = wanted.user, "impersonation");
    Ok(Arc::new(wanted))
}

/// Who is asked for, and what must be allowed for it; `None` without such headers.
fn wanted(headers: &HeaderMap) -> Result<Option<(Identity, Vec<Asked>)>, Status> {
    let texts = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).map(str::to_string).collect()
    };
    let core = |resource, namespace: &str, name: &str| Asked {
        group: "",
        resource,
        subresource: String::new(),
        namespace: namespace.to_string(),
        name: name.to_string(),
    };
    let user = texts(USER).into_iter().next().unwrap_or_default();
    let mut asked = Vec::new();
    let mut groups = texts(GROUP);
    let no_groups = groups.is_empty();
    match service_account::split_username(&user) {
        _ if user.is_empty() => {}
        Some((namespace, name)) => {
            asked.push(core("serviceaccounts", namespace, name));
            if no_groups {
                groups = service_account::groups(namespace);
            }
        }
        None => asked.push(core("users", "", &user)),
    }
    asked.extend(texts(GROUP).iter().map(|group| core("groups", "", group)));
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode(key);
        for value in texts(name.as_str()) {
            asked.push(Asked {
                group: "authentication.k8s.io",
                subresource: key.clone(),
                ..core("userextras", "", &value)
            });
            extra.entry(key.clone()).or_default().push(value);
        }
    }
    let uid = texts(UID).into_iter().next().unwrap_or_default();
    if !uid.is_empty() {
        asked.push(Asked { group: "authentication.k8s.io", ..core("uids", "", &uid) });
    }
    if asked.is_empty() {
        return Ok(None);
    }
    if user.is_empty() {
        // Never to be taken for a request of the caller's own.
        let named: Vec<String> =
            asked.iter().map(|part| format!("{} {:?}", part.resource, part.name)).collect();
        let why = format!("requested [{}] without impersonating a user", named.join(" "));
        return Err(Status::bad_request(why));
    }
    close(&user, &mut groups);
    Ok(Some((Identity { user, uid, groups, extra }, asked)))
}

/// Adds the group that everybody is in of those who have, or have not, proved who they are.
fn close(user: &str, groups: &mut Vec<String>) {
    let has = |wanted: &str| groups.iter().any(|group| group == wanted);
    let (add, present) = if user == ANONYMOUS {
        (UNAUTHENTICATED, has(UNAUTHENTICATED))
    } else {
        (AUTHENTICATED, has(AUTHENTICATED) || has(UNAUTHENTICATED))
    };
    if !present {
        groups.push(add.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a value"));
        }
        match wanted(&headers) {
            Err(status) => format!("{} {}", status.code, status.message),
            Ok(None) => "nobody".into(),
            Ok(Some((who, asked))) => {
                let asked = asked.iter().map(|part| {
                    let place = [&part.namespace, &part.name, &part.subresource];
                    let place: Vec<&str> = place.iter().map(|text| text.as_str()).collect();
                    format!("{}:{}", part.resource, place.join("/"))
                });
                let asked: Vec<String> = asked.collect();
                let Identity { user, uid, groups, extra } = who;
                format!("{user} {uid:?} {groups:?} {extra:?} <- {}", asked.join(" "))
            }
        }
    }

    #[test]
    fn every_part_is_asked_for() {
        let cases = [
            check(&[]),
            check(&[("impersonate-user", "jane")]),
            check(&[("impersonate-user", "system:anonymous")]),
            check(&[("impersonate-user", "system:serviceaccount:dev:builder")]),
            check(&[
                ("impersonate-user", "jane"),
                ("impersonate-group", "a"),
                ("impersonate-group", "system:unauthenticated"),
                ("impersonate-uid", "7"),
                ("impersonate-extra-example.com%2fscopes", "view"),
                ("impersonate-extra-example.com%2fscopes", "edit"),
            ]),
            check(&[("impersonate-group", "system:masters")]),
        ];
        insta::assert_snapshot!(cases.join("\n"));
    }
}
