//! Which pod answers for a service: one of the ready endpoints of one of its ports.

use crate::{memo, view::View};
use k8s::{Object, Status};
use rand::seq::IndexedRandom;
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// The node it is on, if it is a pod's.
    pub(crate) node: Option<String>,
}

/// One of the ready endpoints behind `port` of a service: the port's name, its number, or nothing for
/// an unnamed port.
pub(crate) fn endpoint(
    view: &dyn View,
    namespace: &str,
    name: &str,
    port: &str,
) -> Result<Endpoint, Status> {
    let resource = k8s::Resource::new("", "v1", "services");
    let service = view.object("services", &format!("{namespace}/{name}"));
    let service = service.ok_or_else(|| Status::not_found(&resource, name))?;
    let port_name = port_name(&service, port)?;
    let slices = view.range("discovery.k8s.io/endpointslices", &format!("{namespace}/"));
    let slices: Vec<Arc<Object>> = slices.iter().map(|stored| memo::object(stored)).collect();
    let of_service = |slice: &&Arc<Object>| slice.label("kubernetes.io/service-name") == Some(name);
    let found: Vec<Endpoint> = slices
        .iter()
        .filter(of_service)
        .flat_map(|slice| ready_endpoints(slice, &port_name))
        .collect();
    let none = || {
        let why = format!("no endpoints available for service {name:?}");
        Status::new(503, "ServiceUnavailable", why)
    };
    found.choose(&mut rand::rng()).cloned().ok_or_else(none)
}

/// A port's number is looked up; a name is taken as it is.
pub(crate) fn port_name(service: &Object, port: &str) -> Result<String, Status> {
    let Ok(number) = port.parse::<i64>() else { return Ok(port.to_string()) };
    let ports = service.at("/spec/ports").and_then(Value::as_array);
    let found = ports.into_iter().flatten().find(|entry| entry["port"] == number);
    match found {
        Some(entry) => Ok(entry["name"].as_str().unwrap_or_default().to_string()),
        None => {
            let why = format!("no service port {number} found for service {:?}", service.name());
            Err(Status::new(503, "ServiceUnavailable", why))
        }
    }
}

fn ready_endpoints(slice: &Object, port_name: &str) -> Vec<Endpoint> {
    let ports = slice.at("/ports").and_then(Value::as_array);
    let is_named = |port: &&Value| {
        port["name"].as_str().unwrap_or_default() == port_name
            && port["protocol"].as_str().unwrap_or("TCP") == "TCP"
    };
    let port = ports.into_iter().flatten().find(is_named).and_then(|port| port["port"].as_u64());
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let endpoints = slice.at("/endpoints").and_then(Value::as_array);
    // What says nothing is ready (discovery.k8s.io/v1 EndpointConditions).
    let ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
    endpoints
        .into_iter()
        .flatten()
        .filter(ready)
        .filter_map(|endpoint| {
            let ip: IpAddr = endpoint["addresses"][0].as_str()?.parse().ok()?;
            let node = endpoint["nodeName"].as_str().map(str::to_string);
            Some(Endpoint { address: SocketAddr::new(ip, port), node })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_ready_endpoints_of_the_port() {
        let slice = json!({
            "metadata": { "name": "a" },
            "ports": [{ "name": "web", "port": 8080 }, { "name": "dns", "port": 53, "protocol": "UDP" }],
            "endpoints": [
                { "addresses": ["10.1.0.1"], "nodeName": "n1", "conditions": { "ready": true } },
                { "addresses": ["10.1.0.2"], "conditions": { "ready": false } },
                { "addresses": ["10.1.0.3"] },
            ],
        });
        let slice = Object::from_value(slice).expect("an object");
        let found = ready_endpoints(&slice, "web");
        let shown: Vec<String> = found
            .iter()
            .map(|one| format!("{} {}", one.address, one.node.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(shown, ["10.1.0.1:8080 n1", "10.1.0.3:8080 -"]);
        assert!(ready_endpoints(&slice, "dns").is_empty());
    }

    #[test]
    fn numbers_are_looked_up() {
        let service = json!({ "metadata": { "name": "s" }, "spec": { "ports": [
            { "name": "web", "port": 80 }, { "port": 81 },
        ]}});
        let service = Object::from_value(service).expect("an object");
        let name = |port| port_name(&service, port).map_err(|status| status.message);
        assert_eq!(name("80").as_deref(), Ok("web"));
        assert_eq!(name("81").as_deref(), Ok(""));
        assert_eq!(name("web").as_deref(), Ok("web"));
        let missing = name("82").expect_err("no such port");
        assert_eq!(missing, "no service port 82 found for service \"s\"");
    }
}
