//! The interfaces of this machine and what is said on them.

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

use super::claims::{self, Said};
use super::contest::Claim;
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

/// Where an address is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// On which interface.
    pub index: u32,
    /// With which hardware address.
    pub mac: Mac,
}

/// What comes from the network.
#[derive(Debug)]
pub enum News {
    /// Another announcer's words.
    Said(Said),
    /// A line has ended: its interface went away.
    Ended,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Questions and answers of IPv4.
    Arp,
    /// The same of IPv6.
    Neighbours,
    /// What announcers tell each other.
    Claims,
}

type Owned = Arc<RwLock<BTreeSet<IpAddr>>>;

/// The sockets of every interface on which there is something to say or to hear.
#[derive(Debug)]
pub struct Lines {
    open: BTreeMap<(u32, Use), Line>,
    news: mpsc::Sender<News>,
}

#[derive(Debug)]
struct Line {
    mac: Mac,
    /// The addresses that it answers for, or claims.
    owned: Owned,
    socket: Arc<UdpSocket>,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lines {
    /// None yet.
    pub fn new(news: mpsc::Sender<News>) -> Self {
        Lines { open: BTreeMap::new(), news }
    }

    /// Listens where these addresses have their places, and answers for those that are ours. Returns false when some
    /// interface could not be opened.
    pub fn set(&mut self, places: &BTreeMap<IpAddr, Place>, ours: &BTreeSet<IpAddr>) -> bool {
        let mut wanted: BTreeMap<(u32, Use), (Mac, BTreeSet<IpAddr>)> = BTreeMap::new();
        for (ip, place) in places {
            let answers = if ip.is_ipv4() { Use::Arp } else { Use::Neighbours };
            wanted.entry((place.index, Use::Claims)).or_insert((place.mac, BTreeSet::new()));
            if ours.contains(ip) {
                for purpose in [Use::Claims, answers] {
                    wanted.entry((place.index, purpose)).or_insert((place.mac, BTreeSet::new())).1.insert(*ip);
                }
            }
        }
        self.open
            .retain(|key, line| wanted.get(key).is_some_and(|(mac, _)| *mac == line.mac) && !line.task.is_finished());
        let mut fine = true;
        for (key, (mac, addresses)) in wanted {
            if !self.open.contains_key(&key) {
                match start(key, mac, self.news.clone()) {
                    Ok(line) => drop(self.open.insert(key, line)),
                    Err(error) => {
                        warn!("{error}");
                        fine = false;
                    }
                }
            }
            if let Some(line) = self.open.get(&key) {
                *line.owned.write() = addresses;
            }
        }
        fine
    }

    /// Tells the network that these addresses are here.
    pub async fn announce(&self, addresses: &BTreeSet<IpAddr>) {
        for line in self.open.iter().filter(|((_, purpose), _)| *purpose != Use::Claims).map(|(_, line)| line) {
            let here: Vec<IpAddr> = line.owned.read().intersection(addresses).copied().collect();
            line.send(here.into_iter().flat_map(|ip| frames::announcement(ip, line.mac))).await;
        }
    }

    /// Tells the other announcers about all addresses that are ours.
    pub async fn claim(&self, claim: Claim) {
        for line in self.open.iter().filter(|((_, purpose), _)| *purpose == Use::Claims).map(|(_, line)| line) {
            let addresses = line.owned.read().iter().copied().collect();
            line.send(claims::frames(&Said { from: line.mac, claim, addresses })).await;
        }
    }
}

impl Line {
    async fn send(&self, frames: impl Iterator<Item = Vec<u8>>) {
        for frame in frames {
            if let Err(error) = self.socket.send(&frame).await {
                warn!("announcement: {error}");
            }
        }
    }
}

fn start((index, purpose): (u32, Use), mac: Mac, news: mpsc::Sender<News>) -> Result<Line, linux::Error> {
    let hears = match purpose {
        Use::Arp => Hears::Arp,
        Use::Neighbours => Hears::NeighbourSolicitations,
        Use::Claims => Hears::Type(claims::TYPE),
    };
    let socket = packet::open(index, hears)?;
    // To tokio any socket whose messages are whole is a UDP socket: it only receives and sends.
    let socket = UdpSocket::from_std(std::net::UdpSocket::from(socket))
        .map_err(|e| linux::Error::new("epoll", format!("interface {index}"), e))?;
    let (socket, owned) = (Arc::new(socket), Owned::default());
    let (ears, known) = (Arc::clone(&socket), Arc::clone(&owned));
    let task = tokio::spawn(async move {
        let ended = match purpose {
            Use::Arp | Use::Neighbours => respond(&ears, mac, &known).await,
            Use::Claims => listen(&ears, &news).await,
        };
        if let Err(error) = ended {
            info!("interface {index}: {error}");
        }
        // Fails when the whole process ends.
        let _ = news.send(News::Ended).await;
    });
    Ok(Line { mac, owned, socket, task: task.abort_handle() })
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

async fn listen(socket: &UdpSocket, news: &mpsc::Sender<News>) -> std::io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(said) = claims::read(&buffer[..length]) {
            // Whoever floods the network loses words: they are said again.
            let _ = news.try_send(News::Said(said));
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
