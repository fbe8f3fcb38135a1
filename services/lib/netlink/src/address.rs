//! Addresses of interfaces.

use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use crate::{Error, Handle, failed, finish};

impl Handle {
    /// The addresses of an interface, with their prefix lengths.
    ///
    /// # Errors
    /// The kernel refused; the same for all operations below.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpNet>, Error> {
        Ok(self.address_messages(index).await?.iter().filter_map(prefix).collect())
    }

    /// Adds an address; one that is there already is success.
    pub async fn add_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        let request = self.0.address().add(index, address.addr(), address.prefix_len()).replace();
        finish(|| format!("add address {address} to link {index}"), request.execute().await, &[nix::libc::EEXIST])
    }

    /// Removes an address; one that is gone already is success.
    pub async fn delete_address(&self, index: u32, address: IpNet) -> Result<(), Error> {
        for message in self.address_messages(index).await? {
            if prefix(&message) == Some(address) {
                let result = self.0.address().del(message).execute().await;
                finish(
                    || format!("delete address {address} of link {index}"),
                    result,
                    &[nix::libc::EADDRNOTAVAIL, nix::libc::ENODEV],
                )?;
            }
        }
        Ok(())
    }

    async fn address_messages(&self, index: u32) -> Result<Vec<AddressMessage>, Error> {
        let request = self.0.address().get().set_link_index_filter(index);
        request.execute().try_collect().await.map_err(|e| failed(format!("addresses of link {index}"), e))
    }
}

/// IFA_LOCAL is our side of a point-to-point address and equals IFA_ADDRESS elsewhere; IPv6 has only the latter.
fn prefix(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    IpNet::new(address, message.header.prefix_len).ok()
}
