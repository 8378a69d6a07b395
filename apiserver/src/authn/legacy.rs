//! Secrets of type `kubernetes.io/service-account-token`: filled with a token for the account they
//! name, and removed when the account is gone (upstream's tokens controller).

use super::service_account::SECRET_TYPE;
use crate::chores::{Chore, Desk};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{FutureExt, future::BoxFuture};
use k8s::{Object, Request, Resource, Status, Verb};
use serde_json::json;
use std::sync::Arc;

const SECRETS: Resource = Resource::new("", "v1", "secrets");
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

pub(crate) const FILL: Chore = Chore {
    name: "service-account-token-secrets",
    space: "secrets",
    account: "tokens-controller",
    work: of_secret,
};

/// The same from the other side: what belongs to an account that came or went.
pub(crate) const FOLLOW: Chore = Chore {
    name: "service-account-token-secrets-of-accounts",
    space: "serviceaccounts",
    account: "tokens-controller",
    work: of_account,
};

fn of_secret(desk: &Desk, secret: Arc<Object>) -> BoxFuture<'_, Result<(), Status>> {
    async move {
        if secret.str_at("/type") != SECRET_TYPE || secret.deletion_timestamp().is_some() {
            return Ok(());
        }
        // Absence must be known, not presumed from a state that is behind.
        desk.server.core.barrier().await?;
        settle(desk, &secret).await
    }
    .boxed()
}

fn of_account(desk: &Desk, account: Arc<Object>) -> BoxFuture<'_, Result<(), Status>> {
    async move {
        let prefix = format!("{}/", account.namespace());
        for stored in desk.server.core.view.range("secrets", &prefix) {
            let secret = crate::memo::object(&stored);
            if secret.annotation(ACCOUNT_NAME) == Some(account.name()) {
                of_secret(desk, secret).await?;
            }
        }
        Ok(())
    }
    .boxed()
}

async fn settle(desk: &Desk, secret: &Object) -> Result<(), Status> {
    let core = &desk.server.core;
    let name = secret.annotation(ACCOUNT_NAME).unwrap_or_default();
    let account = core.view.object("serviceaccounts", &format!("{}/{name}", secret.namespace()));
    let uid = secret.annotation(ACCOUNT_UID).unwrap_or_default();
    let account = account.filter(|account| uid.is_empty() || uid == account.uid());
    let Some(account) = account else {
        let mut request = Request::new(Verb::Delete, SECRETS, secret.namespace(), secret.name());
        request.options.precondition_uid = Some(secret.uid().to_string());
        request.fence = Some(desk.term.0);
        return desk.api.call(request).await.map(|_| ());
    };
    let mut wanted = secret.clone();
    let annotations = wanted.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
    annotations[ACCOUNT_UID] = account.uid().into();
    let data = wanted.map_mut("data");
    if data.get("token").is_none() {
        let token = core.config.tokens.issue_legacy(&account, secret.name());
        data.insert("token".into(), STANDARD.encode(token).into());
    }
    let namespace = STANDARD.encode(secret.namespace());
    data.insert("namespace".into(), namespace.into());
    let believed = core.config.believed.now();
    if !believed.client_ca_pem.is_empty() {
        data.insert("ca.crt".into(), STANDARD.encode(&believed.client_ca_pem).into());
    }
    if wanted == *secret {
        return Ok(());
    }
    let mut request = Request::update(SECRETS, wanted);
    request.fence = Some(desk.term.0);
    desk.api.call(request).await.map(|_| ())
}
