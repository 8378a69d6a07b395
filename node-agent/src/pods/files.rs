//! The files of `/etc` that a pod shares: its host name, its hosts and its resolver.

use crate::runtime::Mount;
use k8s_openapi::api::core::v1::{Container, Pod};
use std::{fs, io, path::Path};

/// What the node knows of names.
#[derive(Clone, Debug)]
pub(crate) struct Dns {
    /// `10.96.0.10`
    pub(crate) server: String,
    /// `cluster.local`
    pub(crate) domain: String,
}

const NODE_RESOLVER: &str = "/etc/resolv.conf";
/// The kernel's limit on host names.
const HOSTNAME_MAX: usize = 63;

pub(crate) fn hostname(pod: &Pod) -> String {
    let own = pod.spec.as_ref().and_then(|spec| spec.hostname.clone());
    let name = own.filter(|name| !name.is_empty()).or_else(|| pod.metadata.name.clone());
    let mut name = name.unwrap_or_default();
    name.truncate(HOSTNAME_MAX);
    name.trim_end_matches(['-', '.']).to_string()
}

/// Writes `hosts`, `hostname` and `resolv.conf` in `directory`.
pub(crate) fn write(directory: &Path, pod: &Pod, ip: &str, dns: &Dns) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join("hosts"), hosts(pod, ip, dns))?;
    fs::write(directory.join("hostname"), format!("{}\n", hostname(pod)))?;
    let node = fs::read_to_string(NODE_RESOLVER).unwrap_or_default();
    fs::write(directory.join("resolv.conf"), resolver(pod, dns, &node))
}

/// Mounts over what the image has, unless the pod mounts something there itself.
pub(crate) fn mounts(
    directory: &Path,
    pod: &Pod,
    container: &Container,
    own: &[Mount],
) -> Vec<Mount> {
    let read_only = container
        .security_context
        .as_ref()
        .is_some_and(|context| context.read_only_root_filesystem == Some(true));
    let host_network = pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true));
    let names: &[&str] =
        if host_network { &["resolv.conf"] } else { &["hosts", "hostname", "resolv.conf"] };
    let mounts = names.iter().map(|name| Mount {
        source: directory.join(name),
        target: format!("/etc/{name}"),
        read_only,
        propagation: String::new(),
    });
    mounts.filter(|mount| !own.iter().any(|other| other.target == mount.target)).collect()
}

fn hosts(pod: &Pod, ip: &str, dns: &Dns) -> String {
    let name = hostname(pod);
    let spec = pod.spec.as_ref();
    let subdomain = spec.and_then(|spec| spec.subdomain.as_ref()).filter(|name| !name.is_empty());
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let full = subdomain
        .map(|subdomain| format!("\t{name}.{subdomain}.{namespace}.svc.{}", dns.domain))
        .unwrap_or_default();
    let mut text = format!(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n\
         {ip}{full}\t{name}\n"
    );
    let aliases = spec.and_then(|spec| spec.host_aliases.as_ref());
    for alias in aliases.into_iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

fn resolver(pod: &Pod, dns: &Dns, node: &str) -> String {
    let spec = pod.spec.clone().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let of_node = |keyword: &str| -> Vec<String> {
        let lines = node.lines().filter_map(|line| line.trim().strip_prefix(keyword));
        lines.flat_map(|rest| rest.split_whitespace().map(str::to_string)).collect()
    };
    let (mut servers, mut searches, mut options) = match spec.dns_policy.as_deref() {
        Some("None") => (Vec::new(), Vec::new(), Vec::new()),
        Some("Default") => (of_node("nameserver "), of_node("search "), of_node("options ")),
        Some("ClusterFirst") | None if host_network => {
            (of_node("nameserver "), of_node("search "), of_node("options "))
        }
        _ => {
            let domain = &dns.domain;
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(of_node("search "));
            (vec![dns.server.clone()], searches, vec!["ndots:5".to_string()])
        }
    };
    if let Some(config) = spec.dns_config {
        servers.extend(config.nameservers.into_iter().flatten());
        searches.extend(config.searches.into_iter().flatten());
        for option in config.options.into_iter().flatten() {
            let name = option.name.unwrap_or_default();
            let text = option.value.map_or(name.clone(), |value| format!("{name}:{value}"));
            options.retain(|old| old.split(':').next() != Some(name.as_str()));
            options.push(text);
        }
    }
    let mut text = String::new();
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        let meta = json!({"name": "web-0", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    fn dns() -> Dns {
        Dns { server: "10.96.0.10".into(), domain: "cluster.local".into() }
    }

    #[test]
    fn resolvers_by_policy() {
        let node = "nameserver 1.1.1.1\nsearch lan\n";
        let check = |spec| resolver(&pod(spec), &dns(), node);
        assert_eq!(
            check(json!({"containers": []})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local lan\n\
             nameserver 10.96.0.10\noptions ndots:5\n"
        );
        let default = json!({"containers": [], "dnsPolicy": "Default"});
        assert_eq!(check(default), "search lan\nnameserver 1.1.1.1\n");
        let own = json!({"containers": [], "dnsPolicy": "None", "dnsConfig":
            {"nameservers": ["9.9.9.9"], "options": [{"name": "ndots", "value": "2"}]}});
        assert_eq!(check(own), "nameserver 9.9.9.9\noptions ndots:2\n");
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        let aliases = json!([{"ip": "10.0.0.9", "hostnames": ["db", "db.lan"]}]);
        let spec = json!({"containers": [], "subdomain": "sub", "hostAliases": aliases});
        let text = hosts(&pod(spec), "10.244.0.7", &dns());
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        let own = "10.244.0.7\tweb-0.sub.shop.svc.cluster.local\tweb-0";
        assert_eq!(last, ["10.0.0.9\tdb\tdb.lan", own]);
    }
}
