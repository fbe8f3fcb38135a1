//! The interfaces of this machine and who answers on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use linux::packet::{self, Hears};
use parking_lot::RwLock;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::frames::{self, Mac};

/// An Ethernet interface that can carry announcements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Interface index.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Its own networks.
    pub nets: Vec<IpNet>,
    /// Whether the default route leaves here.
    pub default: bool,
}

/// The interface on which an address is announced: the one in whose network it lies, else the one to the outside.
pub fn port_for(ip: IpAddr, ports: &[Port]) -> Option<&Port> {
    let near = ports.iter().find(|port| port.nets.iter().any(|net| net.contains(&ip)));
    near.or_else(|| ports.iter().find(|port| port.default))
}

/// Reads the machine's interfaces that are up.
pub async fn ports(handle: &netlink::Handle) -> Result<Vec<Port>, netlink::Error> {
    let routes = handle.routes().await?;
    let mut ports = Vec::new();
    for link in handle.links().await? {
        let Ok(mac) = Mac::try_from(link.address.as_slice()) else { continue };
        if link.loopback || !link.up {
            continue;
        }
        // Pods' interfaces have no network of their own.
        let nets = handle.addresses(link.index).await?;
        let nets: Vec<IpNet> = nets.into_iter().filter(|net| net.prefix_len() < net.max_prefix_len()).collect();
        let leaves =
            |route: &netlink::RouteEntry| route.destination.prefix_len() == 0 && route.interface == Some(link.index);
        let default = routes.iter().any(leaves);
        ports.push(Port { index: link.index, mac, nets, default });
    }
    Ok(ports)
}

type Owned = Arc<RwLock<BTreeSet<IpAddr>>>;

/// Answers on every interface on which there is something to answer for.
#[derive(Debug)]
pub struct Responders {
    running: BTreeMap<(u32, bool), Responder>,
    /// Told when one has ended: its interface went away.
    ended: mpsc::UnboundedSender<()>,
}

#[derive(Debug)]
struct Responder {
    mac: Mac,
    owned: Owned,
    socket: Arc<UdpSocket>,
    task: AbortHandle,
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Responders {
    /// None yet.
    pub fn new(ended: mpsc::UnboundedSender<()>) -> Self {
        Responders { running: BTreeMap::new(), ended }
    }

    /// Answers for these addresses and no others. Returns false when some interface could not be opened.
    pub fn set(&mut self, ours: &BTreeSet<IpAddr>, ports: &[Port]) -> bool {
        let mut wanted: BTreeMap<(u32, bool), (Mac, BTreeSet<IpAddr>)> = BTreeMap::new();
        let mut fine = true;
        for ip in ours {
            match port_for(*ip, ports) {
                Some(port) => {
                    wanted.entry((port.index, ip.is_ipv4())).or_insert((port.mac, BTreeSet::new())).1.insert(*ip);
                }
                None => {
                    warn!("no interface leads to {ip}: it is not announced");
                    fine = false;
                }
            }
        }
        self.running.retain(|key, responder| {
            wanted.get(key).is_some_and(|(mac, _)| *mac == responder.mac) && !responder.task.is_finished()
        });
        for (key, (mac, addresses)) in wanted {
            if !self.running.contains_key(&key) {
                match start(key, mac, self.ended.clone()) {
                    Ok(responder) => drop(self.running.insert(key, responder)),
                    Err(error) => {
                        warn!("{error}");
                        fine = false;
                    }
                }
            }
            if let Some(responder) = self.running.get(&key) {
                *responder.owned.write() = addresses;
            }
        }
        fine
    }

    /// Tells the network that these addresses are here.
    pub async fn announce(&self, addresses: &BTreeSet<IpAddr>) {
        for responder in self.running.values() {
            let here: Vec<IpAddr> = responder.owned.read().intersection(addresses).copied().collect();
            for frame in here.into_iter().flat_map(|ip| frames::announcement(ip, responder.mac)) {
                if let Err(error) = responder.socket.send(&frame).await {
                    warn!("announcement: {error}");
                }
            }
        }
    }
}

fn start((index, v4): (u32, bool), mac: Mac, ended: mpsc::UnboundedSender<()>) -> Result<Responder, linux::Error> {
    let socket = packet::open(index, if v4 { Hears::Arp } else { Hears::NeighbourSolicitations })?;
    // To tokio any socket whose messages are whole is a UDP socket: it only receives and sends.
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))
        .map_err(|e| linux::Error::new("epoll", format!("interface {index}"), e))?;
    let (socket, owned) = (Arc::new(socket), Owned::default());
    let (ears, known) = (Arc::clone(&socket), Arc::clone(&owned));
    let task = tokio::spawn(async move {
        if let Err(error) = respond(&ears, mac, &known).await {
            info!("interface {index}: {error}");
        }
        // Fails when the whole process ends.
        let _ = ended.send(());
    });
    Ok(Responder { mac, owned, socket, task: task.abort_handle() })
}

async fn respond(socket: &UdpSocket, mac: Mac, owned: &Owned) -> std::io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Some(question) = frames::question(&buffer[..length]) else { continue };
        if !owned.read().contains(&question.target) {
            continue;
        }
        if let Some(answer) = frames::answer(&question, mac) {
            // An answer that is lost is asked for again.
            let _ = socket.send(&answer).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_announced_where_its_network_is() {
        let port = |index, net: &str, default| Port { index, mac: [0; 6], nets: vec![net.parse().unwrap()], default };
        let ports = [port(1, "10.0.0.5/24", false), port(2, "192.0.2.5/24", true)];
        for (ip, expected) in [("10.0.0.9", Some(1)), ("192.0.2.9", Some(2)), ("203.0.113.1", Some(2))] {
            assert_eq!(port_for(ip.parse().unwrap(), &ports).map(|p| p.index), expected, "{ip}");
        }
        assert_eq!(port_for("203.0.113.1".parse().unwrap(), &ports[..1]), None);
    }
}
