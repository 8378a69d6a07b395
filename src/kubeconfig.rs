//! The kubeconfig we write, and the little of one that our own commands read.

use crate::pki::Pair;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// Name of the cluster extension that lists every master, for commands that ask each of them.
pub(crate) const MASTERS_EXTENSION: &str = "coxswain.io/masters";

/// A kubeconfig (as JSON, which is YAML) whose current context is `server`, with one more context
/// for each of `masters` (name, URL).
pub(crate) fn render(
    ca_pem: &str,
    user: &str,
    client: &Pair,
    server: &str,
    masters: &[(String, String)],
) -> String {
    let ca = STANDARD.encode(ca_pem);
    let urls: Vec<&String> = masters.iter().map(|(_, url)| url).collect();
    let cluster = |name: &str, server: &str| {
        json!({
            "name": name,
            "cluster": {
                "server": server,
                "certificate-authority-data": ca,
                "extensions": [{"name": MASTERS_EXTENSION, "extension": {"servers": urls}}],
            },
        })
    };
    let context = |name: &str| json!({"name": name, "context": {"cluster": name, "user": user}});
    let mut clusters = vec![cluster("coxswain", server)];
    let mut contexts = vec![context("coxswain")];
    for (name, url) in masters {
        clusters.push(cluster(name, url));
        contexts.push(context(name));
    }
    let value: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": clusters,
        "contexts": contexts,
        "current-context": "coxswain",
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&client.cert),
                "client-key-data": STANDARD.encode(&client.key),
            },
        }],
    });
    format!("{value:#}\n")
}

/// What a kubelet asks for its first certificate with (`--bootstrap-kubeconfig`).
pub(crate) fn of_bootstrapper(ca_pem: &[u8], server: &str, bearer: &str) -> String {
    let value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "coxswain",
            "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca_pem)},
        }],
        "users": [{"name": "bootstrapper", "user": {"token": bearer}}],
        "contexts": [{
            "name": "coxswain",
            "context": {"cluster": "coxswain", "user": "bootstrapper"},
        }],
        "current-context": "coxswain",
    });
    format!("{value:#}\n")
}
