//! Secrets: configuration not for everyone.

use super::{
    Column, KindDef, SelectableField,
    common::{
        self,
        config::{self, BYTES_MAX},
        field::{At, Errors},
        print, set_text,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s::{FieldError, Object, names};
use serde_json::Value;

pub(super) const KIND: KindDef = KindDef {
    kind: "Secret",
    plural: "secrets",
    schema: "core.v1.Secret",
    columns: &[
        Column::NAME,
        Column::text("Type", |o, _| print::text(o, "/type")),
        Column::text("Data", |o, _| print::count(o, "/data").into()),
        Column::AGE,
    ],
    selectable: &[SelectableField::text("type", |o| o.str_at("/type").to_string())],
    default,
    prepare_update,
    validate,
    ..KindDef::BASE
};

/// `stringData` is a way to write `data`, never read back.
fn default(secret: &mut Object) {
    set_text(&mut secret.0, "type", "Opaque");
    let Some(Value::Object(texts)) = secret.0.remove("stringData") else { return };
    if let (false, Some(data)) = (texts.is_empty(), common::made(&mut secret.0, "data")) {
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            data.insert(key, STANDARD.encode(text).into());
        }
    }
}

fn prepare_update(new: &mut Object, old: &Object) {
    set_text(&mut new.0, "type", old.str_at("/type"));
}

fn validate(new: &Object, old: Option<&Object>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let data = At::top(new, "data");
    let mut bytes = 0;
    for (key, value) in data.entries() {
        for detail in names::is_config_map_key(key) {
            errors.invalid_value(&value, key, detail);
        }
        bytes += config::decoded_bytes(value.text());
    }
    if bytes > BYTES_MAX {
        errors.too_long(&data, BYTES_MAX);
    }
    needed_keys(new, &data, &mut errors);
    if let Some(old) = old {
        let (now, was) = (At::top(new, "type"), At::top(old, "type"));
        errors.immutable(&now, &was);
        config::validate_immutable(new, old, &["data"], &mut errors);
    }
    errors.0
}

/// What a type promises to its readers.
fn needed_keys(secret: &Object, data: &At<'_, '_>, errors: &mut Errors) {
    let has = |key: &'static str| data.key(key).exists();
    let mut need = |key: &'static str| {
        if !has(key) {
            errors.required(&data.key(key), "");
        }
    };
    match secret.str_at("/type") {
        "kubernetes.io/service-account-token" => {
            let account = "kubernetes.io/service-account.name";
            if secret.annotation(account).unwrap_or_default().is_empty() {
                let metadata = At::top(secret, "metadata");
                let annotations = metadata.field("annotations");
                errors.required(&annotations.key(account), "");
            }
        }
        "kubernetes.io/dockercfg" => docker(data, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => docker(data, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        _ => (),
    }
}

fn docker(data: &At<'_, '_>, key: &'static str, errors: &mut Errors) {
    let at = data.key(key);
    if !at.exists() {
        errors.required(&at, "");
        return;
    }
    let decoded = STANDARD.decode(at.text()).unwrap_or_default();
    if let Err(wrong) = serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded) {
        errors.invalid_value(&at, "<secret contents redacted>", wrong.to_string());
    }
}
