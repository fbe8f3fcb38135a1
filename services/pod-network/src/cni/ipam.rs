//! Pod addresses of this node: one file per address in use, named by the address, holding the container that has it.
//!
//! The files live below /run: after a reboot no pod interface exists, and no address may stay taken.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;

/// An address that was taken longer ago has its interface, or never will.
const SETTLED: Duration = Duration::from_mins(2);

/// Addresses that pods may have: neither the network's nor the broadcast address, nor the first host, which is kept
/// free because other implementations give it to a bridge.
fn candidates(subnet: Ipv4Net, after: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(subnet.network()) + 2;
    let end = u32::from(subnet.broadcast());
    let start = after.map(u32::from).filter(|last| (first..end).contains(last)).map_or(first, |last| last + 1);
    // Round robin, so that an address rests before it is used again: peers may still have connections to it.
    (start..end).chain(first..start).map(Ipv4Addr::from)
}

/// The addresses in use, kept in a folder.
#[derive(Debug)]
pub struct Addresses {
    folder: PathBuf,
}

impl Addresses {
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Addresses { folder: folder.to_owned() })
    }

    /// The address of `owner`: the one it has already, or a free one. `None` when the subnet is full.
    pub fn take(&self, subnet: Ipv4Net, owner: &str) -> io::Result<Option<Ipv4Addr>> {
        if let Some(address) = self.of(owner)?.first() {
            return Ok(Some(*address));
        }
        let last = fs::read_to_string(self.folder.join("last")).ok().and_then(|text| text.parse().ok());
        for address in candidates(subnet, last) {
            let path = self.folder.join(address.to_string());
            // create_new is the lock: two plugins at once cannot both make the file.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(mut file) => {
                    file.write_all(owner.as_bytes())?;
                    fs::write(self.folder.join("last"), address.to_string())?;
                    return Ok(Some(address));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Frees the addresses of `owner` and returns them.
    pub fn release(&self, owner: &str) -> io::Result<Vec<Ipv4Addr>> {
        let addresses = self.of(owner)?;
        for address in &addresses {
            fs::remove_file(self.folder.join(address.to_string()))?;
        }
        Ok(addresses)
    }

    /// Frees the addresses that nobody has any more and that were taken some time ago: their owner may have been killed between
    /// taking and making an interface, and nobody knows of it.
    pub fn reclaim(&self, lives: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_address = entry.file_name().to_str().is_some_and(|name| name.parse::<Ipv4Addr>().is_ok());
            // Another plugin may have given it back meanwhile.
            let (Ok(file), Ok(owner)) = (entry.metadata(), fs::read_to_string(entry.path())) else { continue };
            let is_old = file.modified()?.elapsed().is_ok_and(|age| age > SETTLED);
            if is_address && is_old && !lives(&owner) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The addresses of `owner`.
    pub fn of(&self, owner: &str) -> io::Result<Vec<Ipv4Addr>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if fs::read_to_string(entry.path()).is_ok_and(|content| content == owner) {
                found.push(address);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_rotate_are_kept_by_their_owner_and_run_out() {
        let folder = std::env::temp_dir().join(format!("ipam-{}", std::process::id()));
        let addresses = Addresses::open(&folder).unwrap();
        let subnet: Ipv4Net = "10.0.0.0/29".parse().unwrap();
        let take = |owner: &str| addresses.take(subnet, owner).unwrap().map(|a| a.octets()[3]);
        assert_eq!((take("a"), take("b"), take("a")), (Some(2), Some(3), Some(2)));
        assert_eq!(addresses.release("a").unwrap(), ["10.0.0.2".parse::<Ipv4Addr>().unwrap()]);
        // The freed address comes last.
        assert_eq!((take("c"), take("d"), take("e"), take("f"), take("g")), (Some(4), Some(5), Some(6), Some(2), None));
        assert!(addresses.release("unknown").unwrap().is_empty());
        // Of those who are gone, only what was taken long ago comes back.
        let old = std::time::SystemTime::now() - 2 * SETTLED;
        for last in [4, 5] {
            fs::File::options()
                .write(true)
                .open(folder.join(format!("10.0.0.{last}")))
                .unwrap()
                .set_modified(old)
                .unwrap();
        }
        addresses.reclaim(|owner| owner == "d").unwrap();
        assert_eq!((take("g"), take("h")), (Some(4), None));
        fs::remove_dir_all(folder).unwrap();
    }
}
