//! What pods ask of the network, answered by this node's own.

use crate::{
    net::{self, HostPort, Network, Protocol},
    pods::PodNetwork,
};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use std::{collections::BTreeSet, path::Path};

/// A running network; ends when dropped.
pub(crate) struct Joined(pub(crate) Network);

#[async_trait]
impl PodNetwork for Joined {
    async fn attach(&self, pod: &Pod, namespace: &Path) -> Result<String, String> {
        let attached = self.0.pods().attach(uid(pod), namespace, host_ports(pod)).await;
        attached.map(|address| address.to_string()).map_err(text)
    }

    async fn detach(&self, pod: &Pod) -> Result<(), String> {
        self.0.pods().detach(uid(pod)).await.map_err(text)
    }

    async fn retain(&self, living: &BTreeSet<String>) -> Result<(), String> {
        self.0.pods().retain(living).await.map_err(text)
    }

    fn address(&self, uid: &str) -> Option<String> {
        self.0.pods().address(uid).map(|address| address.to_string())
    }

    fn is_ready(&self) -> bool {
        self.0.pods().is_ready()
    }
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let read = |port: &k8s_openapi::api::core::v1::ContainerPort| {
        Some(HostPort {
            protocol: Protocol::parse(port.protocol.as_deref().unwrap_or("TCP"))?,
            host_port: u16::try_from(port.host_port.filter(|port| *port > 0)?).ok()?,
            container_port: u16::try_from(port.container_port).ok()?,
        })
    };
    ports.filter_map(read).collect()
}

/// The error and its causes in one line.
fn text(error: net::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
