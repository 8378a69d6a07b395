//! Bootstrap tokens (`ID.SECRET`): what a machine joins with. Kept in Secrets `bootstrap-token-ID` of
//! the namespace kube-system.

use crate::{
    chores::{Chore, Desk},
    identity::Identity,
    view::View,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use k8s::{Object, Request, Resource, Status, Verb};
use std::sync::Arc;

const SECRETS: Resource = Resource::new("", "v1", "secrets");
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// Whom the token names; `None` if it is no good bootstrap token.
pub(super) fn identity(view: &dyn View, token: &str, now: Timestamp) -> Option<Identity> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, chars: usize| {
        text.len() == chars && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if !plain(id, ID_CHARS) || !plain(secret, SECRET_CHARS) {
        return None;
    }
    let stored = view.object("secrets", &format!("kube-system/bootstrap-token-{id}"))?;
    let refuse = |why: &str| tracing::debug!(id, why, "a bootstrap token is not good");
    if stored.deletion_timestamp().is_some() || stored.str_at("/type") != SECRET_TYPE {
        refuse("its secret is of another type or on its way out");
        return None;
    }
    let same = constant_time_equal(field(&stored, "token-secret").as_bytes(), secret.as_bytes());
    if !same || field(&stored, "token-id") != id {
        refuse("it is not what the secret says");
        return None;
    }
    if expired(&stored, now) || field(&stored, "usage-bootstrap-authentication") != "true" {
        refuse("it expired, or is not for authentication");
        return None;
    }
    let mut groups = vec![GROUP.to_string()];
    let extra = field(&stored, "auth-extra-groups");
    let extra = extra.split(',').map(str::trim).filter(|group| !group.is_empty());
    for group in extra {
        // No secret may make anybody a master.
        if !group.starts_with("system:bootstrappers:") {
            refuse("it names a group that is not of bootstrappers");
            return None;
        }
        groups.push(group.to_string());
    }
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Some(Identity::authenticated(&format!("system:bootstrap:{id}"), &groups))
}

/// Removes tokens whose time is over (upstream's token cleaner).
pub(crate) const CLEAN: Chore =
    Chore { name: "bootstrap-tokens", space: "secrets", account: "token-cleaner", work: clean };

fn clean(desk: &Desk, secret: Arc<Object>) -> BoxFuture<'_, Result<(), Status>> {
    async move {
        let ours = secret.namespace() == "kube-system" && secret.str_at("/type") == SECRET_TYPE;
        if !ours || !expired(&secret, Timestamp::now()) {
            return Ok(());
        }
        let mut request = Request::new(Verb::Delete, SECRETS, "kube-system", secret.name());
        request.options.precondition_uid = Some(secret.uid().to_string());
        request.fence = Some(desk.term.0);
        desk.api.call(request).await.map(|_| ())
    }
    .boxed()
}

/// A key of the Secret as text.
fn field(secret: &Object, key: &str) -> String {
    let bytes = STANDARD.decode(secret.str_at(&format!("/data/{key}"))).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// An expiration that cannot be read has passed.
fn expired(secret: &Object, now: Timestamp) -> bool {
    match field(secret, "expiration").as_str() {
        "" => false,
        text => {
            text.parse::<Timestamp>().is_ok_and(|end| end <= now)
                || text.parse::<Timestamp>().is_err()
        }
    }
}

/// Takes as long wherever they differ.
fn constant_time_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::World;
    use serde_json::json;

    fn check(changes: &[(&str, &str)], token: &str) -> String {
        let mut data = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers",
        });
        for (key, value) in changes {
            data[*key] = (*value).into();
        }
        for value in data.as_object_mut().expect("a map").values_mut() {
            *value = STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
        let mut world = World::default();
        world.put(
            "secrets",
            json!({
                "metadata": { "name": "bootstrap-token-abcdef", "namespace": "kube-system" },
                "type": SECRET_TYPE, "data": data,
            }),
        );
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        match identity(&world, token, now) {
            Some(identity) => format!("{} {}", identity.user, identity.groups.join(",")),
            None => "no".to_string(),
        }
    }

    #[test]
    fn only_the_right_token_in_its_time() {
        let good = "abcdef.0123456789abcdef";
        let found = check(&[], good);
        assert_eq!(
            found,
            "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:workers,system:authenticated"
        );
        assert_eq!(check(&[("expiration", "2026-01-01T00:00:01Z")], good), found);
        assert_eq!(check(&[], "abcdef.0123456789abcdeX"), "no");
        assert_eq!(check(&[], "abcdeg.0123456789abcdef"), "no");
        assert_eq!(check(&[("token-secret", "fedcba9876543210")], good), "no");
        assert_eq!(check(&[("expiration", "2026-01-01T00:00:00Z")], good), "no");
        assert_eq!(check(&[("expiration", "soon")], good), "no");
        assert_eq!(check(&[("usage-bootstrap-authentication", "")], good), "no");
        assert_eq!(check(&[("auth-extra-groups", "system:masters")], good), "no");
    }
}
