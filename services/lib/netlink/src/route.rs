//! Routes of the main table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::RouteMessageBuilder;

use crate::{Error, Handle, failed, finish};

/// A route that should exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Destination; a prefix length of 0 is the default route.
    pub destination: IpNet,
    /// Next hop; none for a directly connected destination.
    pub gateway: Option<IpAddr>,
    /// Outgoing interface; may be left out where the gateway tells it.
    pub interface: Option<u32>,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// The gateway is on the link although no address says so.
    pub on_link: bool,
    /// Metric; lower wins, 0 is the kernel's default.
    pub metric: u32,
}

impl Route {
    /// A route by gateway or interface, without further options.
    pub fn new(destination: IpNet, gateway: Option<IpAddr>, interface: Option<u32>) -> Self {
        Route { destination, gateway, interface, source: None, on_link: false, metric: 0 }
    }
}

/// A route that the kernel has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteEntry {
    /// Destination.
    pub destination: IpNet,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Outgoing interface.
    pub interface: Option<u32>,
    /// Who made it (rtnetlink(7) rtm_protocol).
    pub protocol: u8,
}

impl Handle {
    /// Adds a route or replaces the one with the same destination and metric.
    ///
    /// # Errors
    /// The kernel refused; the same for all operations below.
    pub async fn replace_route(&self, route: &Route) -> Result<(), Error> {
        let what = || format!("add route to {}", route.destination);
        let message = message(route).map_err(|reason| Error::Message { what: what(), reason })?;
        finish(what, self.0.route().add(message).replace().execute().await, &[])
    }

    /// Adds a route by gateway and interface; one that is there already is success.
    pub async fn add_route(&self, destination: IpNet, gateway: Option<IpAddr>, interface: u32) -> Result<(), Error> {
        self.replace_route(&Route::new(destination, gateway, Some(interface))).await
    }

    /// Deletes a route; one that is gone already is success.
    pub async fn delete_route(&self, route: &Route) -> Result<(), Error> {
        let what = || format!("delete route to {}", route.destination);
        let message = message(route).map_err(|reason| Error::Message { what: what(), reason })?;
        finish(what, self.0.route().del(message).execute().await, &[nix::libc::ESRCH, nix::libc::ENODEV])
    }

    /// The unicast routes of the main table, both families.
    pub async fn routes(&self) -> Result<Vec<RouteEntry>, Error> {
        let mut entries = Vec::new();
        let queries = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for query in queries {
            let found: Vec<RouteMessage> = self
                .0
                .route()
                .get(query)
                .execute()
                .try_collect()
                .await
                .map_err(|e| failed("list routes".to_owned(), e))?;
            entries.extend(found.iter().filter_map(entry));
        }
        Ok(entries)
    }
}

fn message(route: &Route) -> Result<RouteMessage, String> {
    let destination = route.destination.trunc();
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(destination.addr(), destination.prefix_len())
        .map_err(|e| e.to_string())?
        .protocol(RouteProtocol::Static);
    if let Some(gateway) = route.gateway {
        builder = builder.gateway(gateway).map_err(|e| e.to_string())?;
    } else {
        builder = builder.scope(RouteScope::Link);
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source).map_err(|e| e.to_string())?;
    }
    if let Some(interface) = route.interface {
        builder = builder.output_interface(interface);
    }
    if route.on_link {
        builder = builder.onlink();
    }
    if route.metric > 0 {
        builder = builder.priority(route.metric);
    }
    Ok(builder.build())
}

fn entry(message: &RouteMessage) -> Option<RouteEntry> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let unspecified = match message.header.address_family {
        netlink_packet_route::AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        netlink_packet_route::AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut destination, mut gateway, mut interface) = (unspecified, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(index) => interface = Some(*index),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    Some(RouteEntry { destination, gateway, interface, protocol: message.header.protocol.into() })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}
