//! Doing it: links, addresses and routes by rtnetlink.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use machine_config::Interface;
use netlink::{Error, Handle, Link, Route};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::Observed;
use super::dhcp::Lease;
use super::dhcp::socket::{self, Change};

/// How long a link may take to appear: drivers are loaded while we start.
const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Above zero, the metric of configured routes, so that those win.
const DHCP_METRIC: u32 = 1024;

/// What was set up, and the leases that hold.
pub(super) struct Applied {
    handle: Handle,
    fixed: Vec<(u32, IpNet)>,
    leases: Vec<(u32, Lease)>,
}

impl Applied {
    pub(super) async fn new(
        handle: Handle,
        wanted: &[Interface],
        changes: UnboundedSender<Change>,
    ) -> Result<Self, Error> {
        let mut applied = Self { handle, fixed: Vec::new(), leases: Vec::new() };
        if wanted.is_empty() {
            for link in applied.ethernet_links().await? {
                applied.handle.set_up(link.index).await?;
                start_dhcp(&link, &changes);
            }
            return Ok(applied);
        }
        for interface in wanted {
            match applied.find(&interface.name).await? {
                Some(link) => applied.interface(interface, &link, &changes).await?,
                None => {
                    tracing::error!("machine.network.interfaces: there is no link {:?} on this machine", interface.name)
                }
            }
        }
        Ok(applied)
    }

    async fn interface(
        &mut self,
        wanted: &Interface,
        link: &Link,
        changes: &UnboundedSender<Change>,
    ) -> Result<(), Error> {
        if let Some(mtu) = wanted.mtu {
            self.handle.set_mtu(link.index, mtu).await?;
        }
        self.handle.set_up(link.index).await?;
        for address in &wanted.addresses {
            self.handle.add_address(link.index, *address).await?;
            self.fixed.push((link.index, *address));
        }
        for route in &wanted.routes {
            self.handle.replace_route(&Route::new(route.network, route.gateway, Some(link.index))).await?;
        }
        if wanted.dhcp {
            start_dhcp(link, changes);
        }
        Ok(())
    }

    /// A lease began, went on or ended.
    pub(super) async fn lease(&mut self, change: &Change) -> Result<(), Error> {
        let (index, lease) = (change.interface, &change.lease);
        let address = IpNet::V4(lease.address);
        self.leases.retain(|(i, l)| *i != index || l.address != lease.address);
        if !change.active {
            tracing::warn!("DHCP lease of {} is over", lease.address);
            return self.handle.delete_address(index, address).await;
        }
        tracing::info!("DHCP lease of {} from {} for {} s", lease.address, lease.server, lease.lifetime);
        if let Some(mtu) = lease.mtu {
            self.handle.set_mtu(index, u32::from(mtu)).await?;
        }
        self.handle.add_address(index, address).await?;
        self.leases.push((index, (**lease).clone()));
        for (network, gateway) in &lease.routes {
            self.handle.replace_route(&route(*network, *gateway, index)).await?;
        }
        Ok(())
    }

    pub(super) fn observed(&self) -> Observed {
        let mut observed = Observed { addresses: self.fixed.clone(), ..Observed::default() };
        for (index, lease) in &self.leases {
            observed.addresses.push((*index, IpNet::V4(lease.address)));
            observed.nameservers.extend(lease.nameservers.iter().map(|a| IpAddr::V4(*a)));
            if observed.hostname.is_none() {
                observed.hostname = lease.hostname.as_deref().and_then(usable_name);
            }
        }
        observed
    }

    async fn find(&self, name: &str) -> Result<Option<Link>, Error> {
        let name = name.to_owned();
        self.eventually(move |links| links.into_iter().filter(|l| l.name == name).collect())
            .await
            .map(|found| found.into_iter().next())
    }

    async fn ethernet_links(&self) -> Result<Vec<Link>, Error> {
        self.eventually(|links| links.into_iter().filter(is_ethernet).collect()).await
    }

    /// Asks again until something is found or patience ends: the kernel has no event for "all drivers are loaded".
    async fn eventually(&self, pick: impl Fn(Vec<Link>) -> Vec<Link>) -> Result<Vec<Link>, Error> {
        let end = Instant::now() + LINK_PATIENCE;
        loop {
            let found = pick(self.handle.links().await?);
            if !found.is_empty() || Instant::now() >= end {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn start_dhcp(link: &Link, changes: &UnboundedSender<Change>) {
    let Ok(mac) = <[u8; 6]>::try_from(link.address.as_slice()) else {
        tracing::error!("DHCP needs an Ethernet address, which {} has not", link.name);
        return;
    };
    tokio::spawn(socket::run(link.name.clone(), link.index, mac, changes.clone()));
}

/// A network card: it has a device behind it, unlike the virtual links of pods.
fn is_ethernet(link: &Link) -> bool {
    !link.loopback
        && link.address.len() == 6
        && (Path::new("/sys/class/net").join(&link.name).join("device").exists() || link.name == "eth0")
}

fn route(network: ipnet::Ipv4Net, gateway: Ipv4Addr, interface: u32) -> Route {
    let gateway = Some(gateway).filter(|g| !g.is_unspecified()).map(IpAddr::V4);
    Route { metric: DHCP_METRIC, ..Route::new(IpNet::V4(network), gateway, Some(interface)) }
}

/// The part before the first dot, if it can be a host name.
fn usable_name(name: &str) -> Option<String> {
    let name = name.split('.').next()?.to_ascii_lowercase();
    let fine = !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (fine && name != "localhost").then_some(name)
}
