//! Webhook token authentication: a bearer token nobody here knows is shown to a service outside, as a
//! TokenReview.

use super::Known;
use crate::{identity::Identity, webhook::Webhook};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// kube-apiserver's --authentication-token-webhook-cache-ttl.
const TTL: Duration = Duration::from_secs(120);

pub struct TokenWebhook(Webhook);

impl TokenWebhook {
    /// As the kubeconfig file says; the error says what is wrong with it.
    pub fn from_kubeconfig(path: &Path) -> Result<TokenWebhook, String> {
        Webhook::from_kubeconfig(path).map(TokenWebhook)
    }

    pub(super) async fn verify(&self, token: &str, audiences: &[String]) -> Result<Known, String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": { "creationTimestamp": null },
            "spec": { "token": token, "audiences": audiences },
        });
        let status = self.0.ask(&review, |_| TTL).await.map_err(|error| error.to_string())?;
        if status["authenticated"] != true {
            let why = status["error"].as_str().filter(|why| !why.is_empty());
            return Err(why.unwrap_or("invalid bearer token").to_string());
        }
        known(&status, audiences)
    }
}

fn known(status: &Value, asked: &[String]) -> Result<Known, String> {
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|text| Some(text.as_str()?.to_string())).collect()
    };
    let named = texts(&status["audiences"]);
    // A service that knows nothing of audiences means whoever asked it.
    let audiences: Vec<String> = if named.is_empty() {
        asked.to_vec()
    } else {
        named.into_iter().filter(|audience| asked.contains(audience)).collect()
    };
    if audiences.is_empty() {
        return Err("the token is not meant for this server".to_string());
    }
    let user = &status["user"];
    let groups = texts(&user["groups"]);
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let extra = user["extra"].as_object().into_iter().flatten();
    let identity = Identity {
        uid: user["uid"].as_str().unwrap_or_default().to_string(),
        extra: extra.map(|(key, value)| (key.clone(), texts(value))).collect(),
        ..Identity::authenticated(user["username"].as_str().unwrap_or_default(), &groups)
    };
    if identity.user.is_empty() {
        return Err("the token's user has no name".to_string());
    }
    Ok(Known { identity, audiences })
}
