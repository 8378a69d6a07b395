//! ServiceAccounts: identities of pods.

use super::{Column, KindDef, Subresource, common::children};
use k8s::Object;

pub(super) const KIND: KindDef = KindDef {
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    short_names: &["sa"],
    schema: "core.v1.ServiceAccount",
    subresources: &[Subresource::Named {
        name: "token",
        schema: "authentication.v1.TokenRequest",
        verbs: &["create"],
    }],
    columns: &[Column::NAME, Column::AGE],
    prepare_create: only_names,
    prepare_update: |account, _| only_names(account),
    warnings,
    ..KindDef::BASE
};

fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
    let says = |account: &Object| account.annotation(ENFORCE).is_some();
    if !says(new) || old.is_some_and(says) {
        return Vec::new();
    }
    vec![format!(
        "metadata.annotations[{ENFORCE}]: deprecated in v1.32+; prefer separate namespaces to \
         isolate access to mounted secrets"
    )]
}

/// Secrets are of the account's namespace, so that nothing but their names counts.
fn only_names(account: &mut Object) {
    children(&mut account.0, "secrets").for_each(|secret| secret.retain(|field, _| field == "name"));
}
