//! ConfigMap `extension-apiserver-authentication` in kube-system: how servers that are aggregated
//! under this one know its clients and the proxies in front of them.

use crate::Config;
use k8s::Object;
use serde_json::{Map, Value, json};

pub(crate) const NAME: &str = "extension-apiserver-authentication";

/// `None` if there is nothing to tell.
pub(crate) fn config_map(config: &Config) -> Option<Object> {
    let (mut data, believed) = (Map::new(), config.believed.now());
    if !believed.client_ca_pem.is_empty() {
        data.insert("client-ca-file".into(), believed.client_ca_pem.clone().into());
    }
    if let Some(proxies) = &believed.front_proxy {
        // Lists are JSON in text, as upstream writes them.
        let list = |entries: &[&str]| Value::String(json!(entries).to_string());
        let names: Vec<&str> = proxies.allowed_names.iter().map(String::as_str).collect();
        let own = [
            ("allowed-names", list(&names)),
            ("client-ca-file", proxies.ca_pem.clone().into()),
            ("extra-headers-prefix", list(&["X-Remote-Extra-"])),
            ("group-headers", list(&["X-Remote-Group"])),
            ("uid-headers", list(&["X-Remote-Uid"])),
            ("username-headers", list(&["X-Remote-User"])),
        ];
        data.extend(own.map(|(name, value)| (format!("requestheader-{name}"), value)));
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": NAME, "namespace": "kube-system" },
        "data": data,
    });
    if data.is_empty() { None } else { Object::from_value(object) }
}
