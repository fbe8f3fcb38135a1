//! Network interfaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth};

use crate::{Error, Handle, failed, finish, os_code};

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// Hardware address; empty where the interface has none.
    pub address: Vec<u8>,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub up: bool,
    /// Has a carrier (IFF_LOWER_UP).
    pub carrier: bool,
    /// The loopback interface.
    pub loopback: bool,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            address: Vec::new(),
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            loopback: flags.contains(LinkFlags::Loopback),
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => link.address = address,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                _ => {}
            }
        }
        link
    }
}

impl Handle {
    /// All interfaces.
    ///
    /// # Errors
    /// The kernel refused; the same for all operations below.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let links: Vec<LinkMessage> =
            self.0.link().get().execute().try_collect().await.map_err(|e| failed("list links".to_owned(), e))?;
        Ok(links.into_iter().map(Link::from).collect())
    }

    /// One interface, or `None` if there is none of that name.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>, Error> {
        match self.0.link().get().match_name(name).execute().try_next().await {
            Ok(link) => Ok(link.map(Link::from)),
            Err(error) if os_code(&error) == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(failed(format!("link {name}"), error)),
        }
    }

    /// Sets an interface up.
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        let request = self.0.link().set(LinkUnspec::new_with_index(index).up().build());
        finish(|| format!("set link {index} up"), request.execute().await, &[])
    }

    /// Sets an interface's MTU in bytes.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        let request = self.0.link().set(LinkUnspec::new_with_index(index).mtu(mtu).build());
        finish(|| format!("set MTU of link {index}"), request.execute().await, &[])
    }

    /// Renames an interface, which must be down.
    pub async fn rename(&self, index: u32, name: &str) -> Result<(), Error> {
        let request = self.0.link().set(LinkUnspec::new_with_index(index).name(name).build());
        finish(|| format!("rename link {index} to {name}"), request.execute().await, &[])
    }

    /// Makes a veth pair in this namespace; an existing pair of these names is success.
    pub async fn add_veth(&self, name: &str, peer: &str) -> Result<(), Error> {
        let request = self.0.link().add(LinkVeth::new(name, peer).build());
        finish(|| format!("add veth {name}"), request.execute().await, &[nix::libc::EEXIST])
    }

    /// Moves an interface into the network namespace behind a descriptor.
    pub async fn move_to_namespace(&self, index: u32, namespace: BorrowedFd<'_>) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).setns_by_fd(namespace.as_raw_fd()).build();
        finish(|| format!("move link {index}"), self.0.link().set(message).execute().await, &[])
    }

    /// Deletes an interface; one that is gone already is success.
    pub async fn delete_link(&self, index: u32) -> Result<(), Error> {
        let result = self.0.link().del(index).execute().await;
        finish(|| format!("delete link {index}"), result, &[nix::libc::ENODEV])
    }
}

impl Handle {
    /// Makes a bridge and sets it up; an existing one of this name is success.
    ///
    /// # Errors
    /// The kernel refused; the same below.
    pub async fn add_bridge(&self, name: &str) -> Result<(), Error> {
        let request = self.0.link().add(LinkBridge::new(name).build());
        finish(|| format!("add bridge {name}"), request.execute().await, &[nix::libc::EEXIST])
    }

    /// Makes an interface a port of a bridge.
    pub async fn set_bridge(&self, index: u32, bridge: u32) -> Result<(), Error> {
        let request = self.0.link().set(LinkUnspec::new_with_index(index).controller(bridge).build());
        finish(|| format!("add link {index} to bridge {bridge}"), request.execute().await, &[])
    }
}
