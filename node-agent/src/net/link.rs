//! Links, addresses and routes of the node and of its pods, by rtnetlink: a pod has one end of a
//! veth pair, the node a host route to the other; there is no bridge.

use super::{cidr::Cidr, namespace, routes};
use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressScope},
        link::{InfoData, InfoKind, InfoVeth},
        route::{RouteScope, RouteType},
    },
};
use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::Path,
};

/// Every pod's default gateway: an address of the node's loopback that answers ARP on every veth,
/// so that pods need no knowledge of the node.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The pod's end.
const POD_LINK: &str = "eth0";

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Error {
    what: String,
    why: String,
}

impl Error {
    pub(super) fn new(what: impl Into<String>, why: impl std::fmt::Display) -> Error {
        Error { what: what.into(), why: why.to_string() }
    }
}

type Outcome = Result<(), rtnetlink::Error>;

/// Success if what was to be made is there already.
pub(super) fn unless_there(outcome: Outcome) -> Outcome {
    ignore(outcome, libc::EEXIST)
}

/// Success if what was to be removed is gone already.
pub(super) fn unless_gone(outcome: Outcome) -> Outcome {
    [libc::ENODEV, libc::ESRCH, libc::ENOENT].into_iter().fold(outcome, ignore)
}

fn ignore(outcome: Outcome, errno: i32) -> Outcome {
    match outcome {
        Err(rtnetlink::Error::NetlinkError(error))
            if error.code.is_some_and(|code| code.get() == -errno) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// What a node's namespace must have before its first pod.
pub(super) struct HostNetwork {
    pub(super) node_ip: Ipv4Addr,
    pub(super) service_cidr: Cidr,
    /// Addresses this node answers on besides its own: cluster DNS.
    pub(super) local: Vec<Ipv4Addr>,
}

/// Idempotent. Writes sysctls of the calling thread's namespace.
pub(super) async fn prepare_host(handle: &Handle, network: &HostNetwork) -> Result<(), Error> {
    sysctl("net/ipv4/ip_forward", "1")?;
    // Loose: a reply may come in by another way than the request's went out, but not from nowhere.
    sysctl("net/ipv4/conf/all/rp_filter", "2")?;
    let lo = index(handle, "lo").await?.ok_or_else(|| Error::new("lo", "no such link"))?;
    up(handle, lo).await?;
    for address in network.local.iter().chain([&GATEWAY]) {
        let added = add_address(handle, lo, *address, AddressScope::Host).await;
        added.map_err(|error| Error::new(format!("address {address}"), error))?;
    }
    // Without it a node that has no default route finds no way to a service before the proxy's
    // output hook has seen the packet. Nothing leaves by it: what is not translated is rejected.
    let service = network.service_cidr;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(service.address(), service.prefix())
        .output_interface(lo)
        .scope(RouteScope::Link)
        .protocol(routes::PROTOCOL)
        .pref_source(network.node_ip)
        .build();
    let added = handle.route().add(route).replace().execute().await;
    added.map_err(|error| Error::new(format!("route {service}"), error))
}

/// Packets to addresses of this node's network that no pod has are refused at once instead of
/// following the default route back out.
pub(super) async fn refuse_unused(handle: &Handle, pods: Cidr) -> Result<(), Error> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(pods.address(), pods.prefix())
        .kind(RouteType::Unreachable)
        .protocol(routes::PROTOCOL)
        .build();
    let added = unless_there(handle.route().add(route).execute().await);
    added.map_err(|error| Error::new(format!("route {pods}"), error))
}

/// Gives the pod in `namespace` its link and address. `link` names the node's end. Idempotent: a
/// pod that has its address keeps its link.
pub(super) async fn attach(
    handle: &Handle,
    link: &str,
    namespace: &Path,
    address: Ipv4Addr,
    node_ip: Ipv4Addr,
) -> Result<(), Error> {
    let open = || {
        File::open(namespace).map_err(|error| Error::new(namespace.display().to_string(), error))
    };
    if index(handle, link).await?.is_some() {
        let kept = namespace::inside(open()?, move || has_address(address)).await;
        if kept.is_ok_and(|kept| kept) {
            return set_host_route(handle, link, address, node_ip).await;
        }
        // Left over from an earlier namespace of the same pod.
        detach(handle, link).await?;
    }
    let pod = open()?;
    // The peer is born in the pod's namespace: moving it there afterwards takes seven times as long.
    let peer = LinkUnspec::new_with_name(POD_LINK).setns_by_fd(pod.as_raw_fd()).build();
    let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(link)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .up()
        .build();
    let added = handle.link().add(pair).execute().await;
    added.map_err(|error| Error::new(format!("link {link}"), error))?;
    let inside = namespace::inside(pod, move || prepare_pod(address)).await;
    inside.map_err(|error| Error::new("enter the pod's network namespace", error))??;
    set_host_route(handle, link, address, node_ip).await
}

/// Removes the node's end, and with it the pod's and all routes over them.
pub(super) async fn detach(handle: &Handle, link: &str) -> Result<(), Error> {
    let Some(index) = index(handle, link).await? else { return Ok(()) };
    let deleted = unless_gone(handle.link().del(index).execute().await);
    deleted.map_err(|error| Error::new(format!("delete link {link}"), error))
}

async fn set_host_route(
    handle: &Handle,
    link: &str,
    address: Ipv4Addr,
    node_ip: Ipv4Addr,
) -> Result<(), Error> {
    let to = index(handle, link).await?.ok_or_else(|| Error::new(link, "vanished"))?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(address, 32)
        .output_interface(to)
        .scope(RouteScope::Link)
        .protocol(routes::PROTOCOL)
        .pref_source(node_ip)
        .build();
    let added = handle.route().add(route).replace().execute().await;
    added.map_err(|error| Error::new(format!("route {address}"), error))
}

/// Runs inside the pod's namespace.
async fn prepare_pod(address: Ipv4Addr) -> Result<(), Error> {
    let fail = |what: &'static str| move |error| Error::new(format!("pod: {what}"), error);
    let (connection, handle, _) = rtnetlink::new_connection()
        .map_err(|error: io::Error| Error::new("netlink socket in the pod", error))?;
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    if let Some(lo) = index(&handle, "lo").await? {
        up(&handle, lo).await?;
    }
    let eth0 = index(&handle, POD_LINK).await?;
    let eth0 = eth0.ok_or_else(|| Error::new(POD_LINK, "not in the pod's namespace"))?;
    up(&handle, eth0).await?;
    let added = add_address(&handle, eth0, address, AddressScope::Universe).await;
    added.map_err(fail("address"))?;
    let gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(GATEWAY, 32)
        .output_interface(eth0)
        .scope(RouteScope::Link)
        .build();
    handle.route().add(gateway).replace().execute().await.map_err(fail("route to the gateway"))?;
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).build();
    handle.route().add(default).replace().execute().await.map_err(fail("default route"))
}

/// Runs inside the pod's namespace.
async fn has_address(address: Ipv4Addr) -> bool {
    let Ok((connection, handle, _)) = rtnetlink::new_connection() else { return false };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let addresses = handle.address().get().set_address_filter(IpAddr::V4(address)).execute();
    matches!(addresses.try_collect::<Vec<_>>().await, Ok(found) if !found.is_empty())
}

async fn add_address(
    handle: &Handle,
    link: u32,
    address: Ipv4Addr,
    scope: AddressScope,
) -> Outcome {
    let mut request = handle.address().add(link, IpAddr::V4(address), 32);
    let message = request.message_mut();
    message.header.scope = scope;
    // A /32 has no broadcast address; the builder sets one.
    message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
    unless_there(request.execute().await)
}

/// `None` if there is no link of that name.
async fn index(handle: &Handle, name: &str) -> Result<Option<u32>, Error> {
    let mut links = handle.link().get().match_name(name).execute();
    match links.try_next().await {
        Ok(link) => Ok(link.map(|link| link.header.index)),
        Err(rtnetlink::Error::NetlinkError(error))
            if error.code.is_some_and(|code| code.get() == -libc::ENODEV) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::new(format!("link {name}"), error)),
    }
}

async fn up(handle: &Handle, link: u32) -> Result<(), Error> {
    let set = handle.link().set(LinkUnspec::new_with_index(link).up().build()).execute().await;
    set.map_err(|error| Error::new("set link up", error))
}

fn sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    fs::write(&path, value).map_err(|error| Error::new(path.display().to_string(), error))
}
