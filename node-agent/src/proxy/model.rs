//! What proxy and DNS need of Services and EndpointSlices, read once per change.

use crate::net::Protocol;
use k8s::Object;
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// One Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Empty for headless services and external names.
    pub cluster_ips: Vec<IpAddr>,
    pub headless: bool,
    /// Set for type ExternalName only.
    pub external_name: Option<String>,
    pub ports: Vec<ServicePort>,
    /// `sessionAffinity: ClientIP` and its timeout.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    pub publish_not_ready: bool,
}

/// One port of a Service; ports of protocols that we do not carry are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// May be empty if it is the only one.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// One EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    pub namespace: String,
    pub name: String,
    /// Name of the Service it belongs to, from its label.
    pub service: String,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Equal to the name of the Service's port.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub addresses: Vec<IpAddr>,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub hostname: Option<String>,
    pub node: Option<String>,
}

/// Services and their slices, both by `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Services {
    pub services: BTreeMap<String, Service>,
    pub slices: BTreeMap<String, Slice>,
}

impl Services {
    /// The slices of each service, by `namespace/name` of the service.
    pub fn slices_by_service(&self) -> BTreeMap<(&str, &str), Vec<&Slice>> {
        let mut by_service = BTreeMap::<_, Vec<&Slice>>::new();
        for slice in self.slices.values() {
            let key = (slice.namespace.as_str(), slice.service.as_str());
            by_service.entry(key).or_default().push(slice);
        }
        by_service
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawService {
    spec: RawServiceSpec,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawServiceSpec {
    r#type: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "nullable")]
    cluster_ips: Vec<String>,
    external_name: String,
    #[serde(deserialize_with = "nullable")]
    ports: Vec<RawPort>,
    session_affinity: String,
    session_affinity_config: Option<RawAffinity>,
    internal_traffic_policy: String,
    external_traffic_policy: String,
    publish_not_ready_addresses: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawPort {
    name: String,
    protocol: String,
    port: u16,
    node_port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawAffinity {
    #[serde(rename = "clientIP")]
    client_ip: Option<RawClientIp>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawClientIp {
    timeout_seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawSlice {
    #[serde(deserialize_with = "nullable")]
    ports: Vec<RawSlicePort>,
    #[serde(deserialize_with = "nullable")]
    endpoints: Vec<RawEndpoint>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawSlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawEndpoint {
    addresses: Vec<String>,
    conditions: RawConditions,
    hostname: Option<String>,
    node_name: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawConditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

/// Go writes empty lists as `null`.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(raw: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(raw)?.unwrap_or_default())
}

impl Service {
    /// Fails only on an object that no API server stores.
    pub fn read(object: &Object) -> Result<Service, serde_json::Error> {
        let raw: RawService = serde::Deserialize::deserialize(&object.clone().into_value())?;
        let spec = raw.spec;
        let external = spec.r#type == "ExternalName";
        let timeout = spec.session_affinity_config.and_then(|config| config.client_ip);
        let timeout = timeout.and_then(|client_ip| client_ip.timeout_seconds);
        // Three hours: upstream's default for timeoutSeconds.
        let timeout = Duration::from_secs(timeout.unwrap_or(10_800));
        let ips = if spec.cluster_ips.is_empty() {
            vec![spec.cluster_ip.clone()]
        } else {
            spec.cluster_ips
        };
        Ok(Service {
            namespace: object.namespace().to_string(),
            name: object.name().to_string(),
            cluster_ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            headless: spec.cluster_ip == "None",
            external_name: external.then_some(spec.external_name),
            ports: spec.ports.into_iter().filter_map(RawPort::read).collect(),
            affinity: (spec.session_affinity == "ClientIP").then_some(timeout),
            internal_local: spec.internal_traffic_policy == "Local",
            external_local: spec.external_traffic_policy == "Local",
            publish_not_ready: spec.publish_not_ready_addresses,
        })
    }
}

impl RawPort {
    fn read(self) -> Option<ServicePort> {
        Some(ServicePort {
            name: self.name,
            protocol: Protocol::parse(&self.protocol)?,
            port: self.port,
            node_port: self.node_port.filter(|&port| port != 0),
        })
    }
}

impl Slice {
    /// Fails only on an object that no API server stores.
    pub fn read(object: &Object) -> Result<Slice, serde_json::Error> {
        let raw: RawSlice = serde::Deserialize::deserialize(&object.clone().into_value())?;
        let ports = raw.ports.into_iter().filter_map(|port| {
            Some(SlicePort {
                name: port.name.unwrap_or_default(),
                protocol: Protocol::parse(&port.protocol.unwrap_or_default())?,
                port: port.port?,
            })
        });
        let endpoints = raw.endpoints.into_iter().map(RawEndpoint::read);
        Ok(Slice {
            namespace: object.namespace().to_string(),
            name: object.name().to_string(),
            service: object.label("kubernetes.io/service-name").unwrap_or_default().to_string(),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        })
    }
}

impl RawEndpoint {
    /// Absent conditions mean, as the API says: ready; serving if ready; not terminating.
    fn read(self) -> Endpoint {
        let ready = self.conditions.ready.unwrap_or(true);
        Endpoint {
            addresses: self.addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            ready,
            serving: self.conditions.serving.unwrap_or(ready),
            terminating: self.conditions.terminating.unwrap_or(false),
            hostname: self.hostname.filter(|name| !name.is_empty()),
            node: self.node_name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_are_read_as_the_api_has_them() {
        let object = Object::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
                "ports": [
                    {"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080},
                    {"name": "odd", "protocol": "SCTP", "port": 81},
                ],
            },
        }));
        let service = Service::read(&object.unwrap()).unwrap();
        let port = ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
        };
        let expected = Service {
            namespace: "shop".into(),
            name: "web".into(),
            cluster_ips: vec!["10.96.0.7".parse().unwrap()],
            ports: vec![port],
            affinity: Some(Duration::from_secs(10_800)),
            external_local: true,
            ..Service::default()
        };
        assert_eq!(service, expected);
    }

    #[test]
    fn absent_conditions_mean_ready() {
        let object = Object::from_value(json!({
            "metadata": {
                "name": "web-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [{"addresses": ["10.244.1.2"]}, {
                "addresses": ["10.244.1.3"], "hostname": "db-0",
                "conditions": {"ready": false, "serving": true, "terminating": true},
            }],
        }));
        let slice = Slice::read(&object.unwrap()).unwrap();
        let states: Vec<_> =
            slice.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
        assert_eq!(states, [(true, true, false), (false, true, true)]);
        assert_eq!(slice.service, "web");
        let empty = json!({"metadata": {"name": "e"}, "ports": null, "endpoints": null});
        assert!(Slice::read(&Object::from_value(empty).unwrap()).unwrap().endpoints.is_empty());
    }
}
