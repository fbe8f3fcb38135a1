//! The machine's network: links, addresses, routes, host name, resolver files.
//!
//! A task owns what was set up and follows DHCP; [`Network::settled`] tells when the machine has an address.

mod apply;
pub(crate) mod dhcp;
mod resolver;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use machine_config::{Interface, Machine as MachineConfig};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::credentials::Node;
use crate::machine::Paths;
use apply::Applied;
use dhcp::socket::Change;

/// What the configuration says about the network, or nothing yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) hostname: Option<String>,
    pub(crate) nameservers: Vec<IpAddr>,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) node_ip: Option<IpAddr>,
}

impl Wanted {
    pub(crate) fn from_config(machine: &MachineConfig) -> Self {
        Self {
            hostname: machine.hostname.clone(),
            nameservers: machine.nameservers.clone(),
            interfaces: machine.interfaces.clone(),
            node_ip: machine.kubelet.node_ip,
        }
    }
}

/// What the machine has: the inputs of host name and resolver files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    /// Addresses with the interface they are on, static ones first.
    addresses: Vec<(u32, IpNet)>,
    nameservers: Vec<IpAddr>,
    hostname: Option<String>,
}

/// The network while it is up. Dropping it stops the DHCP clients and leaves addresses as they are.
#[derive(Debug)]
pub(crate) struct Network {
    wanted: Wanted,
    fallback_name: String,
    observed: watch::Receiver<Observed>,
    handle: netlink::Handle,
    task: JoinHandle<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// Sets up what can be set up at once and starts DHCP where it is wanted. `machine_id` names a machine that nobody
    /// else names.
    pub(crate) async fn bring_up(paths: &Paths, wanted: Wanted, machine_id: &str) -> Result<Self, netlink::Error> {
        let fallback_name = format!("corten-{}", machine_id.get(..8).unwrap_or("node"));
        let handle = netlink::Handle::new()?;
        if let Some(loopback) = handle.link_by_name("lo").await? {
            handle.set_up(loopback.index).await?;
        }
        let (sender, observed) = watch::channel(Observed::default());
        let (changes, receiver) = mpsc::unbounded_channel();
        let applied = Applied::new(handle.clone(), &wanted.interfaces, changes).await?;
        let follow = Follow {
            paths: paths.clone(),
            wanted: wanted.clone(),
            fallback_name: fallback_name.clone(),
            applied,
            sender,
        };
        let task = tokio::spawn(follow.run(receiver));
        Ok(Self { wanted, fallback_name, observed, handle, task })
    }

    /// Takes the addresses away again, for another configuration to start from nothing.
    pub(crate) async fn take_down(self) {
        self.task.abort();
        let addresses = self.observed.borrow().addresses.clone();
        for (interface, address) in addresses {
            if let Err(error) = self.handle.delete_address(interface, address).await {
                tracing::warn!("{error}");
            }
        }
    }

    /// Waits until the machine has an address, and says what it is called.
    pub(crate) async fn settled(&mut self) -> Node {
        loop {
            if let Some(node) = node(&self.wanted, &self.observed.borrow_and_update(), &self.fallback_name) {
                return node;
            }
            match tokio::time::timeout(Duration::from_secs(30), self.observed.changed()).await {
                Ok(Ok(())) => {}
                // The following task never ends by itself; if it did, waiting for ever shows in the boot report.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => tracing::warn!(
                    "the machine still has no address: no interface has a static one and no DHCP server has answered"
                ),
            }
        }
    }
}

/// The machine's name and addresses; none while it has no address. Pure.
fn node(wanted: &Wanted, observed: &Observed, fallback_name: &str) -> Option<Node> {
    let addresses: Vec<IpAddr> = observed.addresses.iter().map(|(_, net)| net.addr()).collect();
    let ip = wanted
        .node_ip
        .or_else(|| addresses.iter().copied().find(IpAddr::is_ipv4))
        .or_else(|| addresses.first().copied())?;
    let mut addresses = addresses;
    if !addresses.contains(&ip) {
        addresses.insert(0, ip);
    }
    Some(Node { hostname: hostname(wanted, observed, fallback_name), ip, addresses })
}

fn hostname(wanted: &Wanted, observed: &Observed, fallback_name: &str) -> String {
    wanted.hostname.clone().or_else(|| observed.hostname.clone()).unwrap_or_else(|| fallback_name.to_owned())
}

/// Follows DHCP and keeps the files current.
struct Follow {
    paths: Paths,
    wanted: Wanted,
    fallback_name: String,
    applied: Applied,
    sender: watch::Sender<Observed>,
}

impl Follow {
    async fn run(mut self, mut changes: mpsc::UnboundedReceiver<Change>) {
        self.publish();
        while let Some(change) = changes.recv().await {
            if let Err(error) = self.applied.lease(&change).await {
                tracing::error!("{error}");
            }
            self.publish();
        }
        // No client: the addresses are static. The handle lives on with this task.
        std::future::pending::<()>().await;
    }

    fn publish(&self) {
        let observed = self.applied.observed();
        let name = hostname(&self.wanted, &observed, &self.fallback_name);
        if let Err(error) = nix::unistd::sethostname(&name) {
            tracing::warn!("host name {name}: {error}");
        }
        let address = node(&self.wanted, &observed, &self.fallback_name).map(|n| n.ip);
        if let Err(error) = crate::files::write_all(
            &self.paths,
            &resolver::files(&self.wanted.nameservers, &observed.nameservers, &name, address),
        ) {
            tracing::error!("{error}");
        }
        self.sender.send_if_modified(|old| {
            let changed = *old != observed;
            *old = observed;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Observed, Wanted, node};

    #[test]
    fn the_first_ipv4_address_is_the_nodes_unless_configured() {
        let observed = Observed {
            addresses: vec![(2, "fd00::5/64".parse().unwrap()), (3, "10.0.2.15/24".parse().unwrap())],
            ..Observed::default()
        };
        let found = node(&Wanted::default(), &observed, "corten-1").unwrap();
        assert_eq!(
            (found.ip.to_string().as_str(), found.hostname.as_str(), found.addresses.len()),
            ("10.0.2.15", "corten-1", 2)
        );
        let wanted =
            Wanted { node_ip: Some("192.0.2.1".parse().unwrap()), hostname: Some("n1".into()), ..Wanted::default() };
        let found = node(&wanted, &observed, "corten-1").unwrap();
        assert_eq!(
            (found.ip.to_string().as_str(), found.hostname.as_str(), found.addresses.len()),
            ("192.0.2.1", "n1", 3)
        );
        assert_eq!(node(&Wanted::default(), &Observed::default(), "x"), None);
    }
}
