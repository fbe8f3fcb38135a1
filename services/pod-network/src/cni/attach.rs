//! Attaching a pod's network namespace to the node, and taking it off again.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use netlink::{Handle, Link, Route};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};

use super::config::{self, Request};
use super::ipam::Addresses;
use super::{Error, code};
use crate::GATEWAY;

/// Addresses in use on this node.
const ADDRESSES: &str = "/run/cni/corten";
const DEFAULT_MTU: u32 = 1500;

fn network(error: impl ToString) -> Error {
    Error::new(code::NETWORK, error)
}

/// The owner of an address and the seed of the interface's name.
fn owner(request: &Request) -> String {
    format!("{} {}", request.container, request.interface)
}

/// The node-side interface's name: at most 15 bytes (IFNAMSIZ), the same for every call about one attachment.
fn host_interface(owner: &str) -> String {
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    format!("veth{:010x}", hasher.finish() & 0xff_ffff_ffff)
}

fn single(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::from(address))
}

pub async fn add(request: &Request) -> Result<Value, Error> {
    let subnet = request
        .network
        .subnet
        .ok_or_else(|| Error::new(code::INVALID_CONFIG, "subnet is missing from the network configuration"))?;
    let owner = owner(request);
    let addresses = Addresses::open(Path::new(ADDRESSES)).map_err(|e| Error::new(code::IO, e))?;
    let take = || addresses.take(subnet, &owner).map_err(|e| Error::new(code::IO, e));
    let mut free = take()?;
    if free.is_none() {
        // Whatever else goes wrong says nothing of the owner.
        let lives = |owner: &str| if_nametoindex(host_interface(owner).as_str()) != Err(Errno::ENODEV);
        addresses.reclaim(lives).map_err(|e| Error::new(code::IO, e))?;
        free = take()?;
    }
    let address = free.ok_or_else(|| Error::new(code::TRY_AGAIN, format!("no free address in {subnet}")))?;
    let attached = connect(request, &host_interface(&owner), address).await;
    if attached.is_err() {
        // The runtime calls DEL as well, but not after every failure; an address must not leak.
        let _ = addresses.release(&owner);
    }
    let (host, pod) = attached?;
    Ok(json!({
        "cniVersion": config::VERSION,
        "interfaces": [
            {"name": host.name, "mac": mac(&host.address)},
            {"name": request.interface, "mac": mac(&pod.address), "sandbox": request.namespace},
        ],
        "ips": [{"address": single(address), "gateway": GATEWAY, "interface": 1}],
        "routes": [{"dst": "0.0.0.0/0", "gw": GATEWAY}],
        "dns": {},
    }))
}

/// Makes the pair, moves one end into the pod and routes both ways.
async fn connect(request: &Request, host_name: &str, address: Ipv4Addr) -> Result<(Link, Link), Error> {
    let namespace = File::open(&request.namespace)
        .map_err(|e| Error::new(code::INVALID_ENVIRONMENT, format!("{}: {e}", request.namespace.display())))?;
    let node = Handle::new().map_err(network)?;
    // The pod's end gets its final name only inside the pod: `eth0` exists on the node already.
    let peer_name = format!("p{}", &host_name[1..]);
    node.add_veth(host_name, &peer_name).await.map_err(network)?;
    let host = existing(&node, host_name).await?;
    let mtu = request.network.mtu.unwrap_or(DEFAULT_MTU);
    node.set_mtu(host.index, mtu).await.map_err(network)?;
    if let Some(peer) = node.link_by_name(&peer_name).await.map_err(network)? {
        node.move_to_namespace(peer.index, namespace.as_fd()).await.map_err(network)?;
    }
    let setup = PodSide {
        peer_name,
        interface: request.interface.clone(),
        address,
        mtu,
        gateway_hardware: host.address.clone(),
    };
    let pod = in_namespace(request.namespace.clone(), move || setup.run()).await?;
    node.set_up(host.index).await.map_err(network)?;
    let mut route = Route::new(single(address), None, Some(host.index));
    route.source = request.network.node_address.map(IpAddr::V4);
    node.replace_route(&route).await.map_err(network)?;
    Ok((host, pod))
}

async fn existing(handle: &Handle, name: &str) -> Result<Link, Error> {
    let link = handle.link_by_name(name).await.map_err(network)?;
    link.ok_or_else(|| network(format!("interface {name} has vanished")))
}

/// The pod's end of the pair.
struct PodSide {
    peer_name: String,
    interface: String,
    address: Ipv4Addr,
    mtu: u32,
    gateway_hardware: Vec<u8>,
}

impl PodSide {
    async fn run(self) -> Result<Link, Error> {
        let pod = Handle::new().map_err(network)?;
        if let Some(peer) = pod.link_by_name(&self.peer_name).await.map_err(network)? {
            pod.rename(peer.index, &self.interface).await.map_err(network)?;
        }
        let link = existing(&pod, &self.interface).await?;
        pod.set_mtu(link.index, self.mtu).await.map_err(network)?;
        pod.add_address(link.index, single(self.address)).await.map_err(network)?;
        pod.set_up(link.index).await.map_err(network)?;
        let gateway = IpAddr::V4(GATEWAY);
        pod.set_permanent_neighbour(link.index, gateway, &self.gateway_hardware).await.map_err(network)?;
        pod.replace_route(&Route::new(single(GATEWAY), None, Some(link.index))).await.map_err(network)?;
        let default = IpNet::V4(Ipv4Net::default());
        pod.replace_route(&Route::new(default, Some(gateway), Some(link.index))).await.map_err(network)?;
        Ok(link)
    }
}

pub async fn delete(request: &Request) -> Result<(), Error> {
    let owner = owner(request);
    let node = Handle::new().map_err(network)?;
    // Deleting one end deletes the other and all routes through either.
    if let Some(host) = node.link_by_name(&host_interface(&owner)).await.map_err(network)? {
        node.delete_link(host.index).await.map_err(network)?;
    }
    let addresses = Addresses::open(Path::new(ADDRESSES)).map_err(|e| Error::new(code::IO, e))?;
    addresses.release(&owner).map(|_| ()).map_err(|e| Error::new(code::IO, e))
}

pub async fn check(request: &Request) -> Result<(), Error> {
    let owner = owner(request);
    let addresses = Addresses::open(Path::new(ADDRESSES)).map_err(|e| Error::new(code::IO, e))?;
    let owned = addresses.of(&owner).map_err(|e| Error::new(code::IO, e))?;
    if owned.is_empty() {
        return Err(network(format!("container {} has no address", request.container)));
    }
    existing(&Handle::new().map_err(network)?, &host_interface(&owner)).await.map(|_| ())
}

/// Brings up `lo` in the pod.
pub async fn loopback(request: &Request) -> Result<Value, Error> {
    in_namespace(request.namespace.clone(), || async {
        let pod = Handle::new().map_err(network)?;
        let lo = existing(&pod, "lo").await?;
        pod.set_up(lo.index).await.map_err(network)
    })
    .await?;
    Ok(json!({
        "cniVersion": config::VERSION,
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": request.namespace}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "dns": {},
    }))
}

/// Runs a task on a thread of its own inside the network namespace: sockets belong to the namespace they were made in.
async fn in_namespace<T, F, M>(path: PathBuf, make: M) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>>,
    M: FnOnce() -> F + Send + 'static,
{
    let work = move || {
        let inner = move || -> io::Result<Result<T, Error>> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(make()))
        };
        linux::netns::run_in(&path, inner)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(Ok(result))) => result,
        Ok(Ok(Err(error))) => Err(Error::new(code::IO, error)),
        Ok(Err(error)) => Err(Error::new(code::IO, error)),
        Err(error) => Err(Error::new(code::IO, error)),
    }
}

fn mac(address: &[u8]) -> String {
    address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel_and_differ() {
        let names = [host_interface("a eth0"), host_interface("b eth0"), host_interface("a eth1")];
        assert!(names.iter().all(|name| name.len() < 16));
        assert!(names[0] != names[1] && names[0] != names[2]);
        assert_eq!(host_interface("a eth0"), names[0]);
    }
}
