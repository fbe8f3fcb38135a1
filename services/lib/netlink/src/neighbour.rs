//! Neighbour (ARP and NDP) entries.

use std::net::IpAddr;

use netlink_packet_route::neighbour::NeighbourState;

use crate::{Error, Handle, finish};

impl Handle {
    /// Sets a permanent entry, so that the address needs no ARP or NDP.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn set_permanent_neighbour(&self, index: u32, address: IpAddr, hardware: &[u8]) -> Result<(), Error> {
        let request = self
            .0
            .neighbours()
            .add(index, address)
            .link_layer_address(hardware)
            .state(NeighbourState::Permanent)
            .replace();
        finish(|| format!("neighbour {address} on link {index}"), request.execute().await, &[])
    }
}
