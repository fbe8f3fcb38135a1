//! A range of addresses and the order in which they are handed out. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses that can be handed out: the network's own and, for IPv4, its broadcast address are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    net: IpNet,
    size: u128,
}

impl Range {
    /// The usable part of a network.
    pub fn new(net: IpNet) -> Self {
        let net = net.trunc();
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let all = if bits >= 64 { 1u128 << 64 } else { 1u128 << bits };
        let lost = if net.addr().is_ipv4() && bits > 1 { 2 } else { u128::from(bits > 0) };
        Self { net, size: all - lost }
    }

    /// How many there are (large IPv6 ranges are cut to 2^64).
    pub fn size(&self) -> u128 {
        self.size
    }

    /// The lowest.
    pub fn first(&self) -> IpAddr {
        self.at(0)
    }

    /// Whether an address belongs to the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.net.contains(&ip) && self.index(ip).is_some_and(|i| i < self.size)
    }

    /// The network, as messages show it.
    pub fn net(&self) -> IpNet {
        self.net
    }

    fn base(&self) -> u128 {
        let skip = u128::from(self.net.prefix_len() < self.net.max_prefix_len());
        number(self.net.addr()) + skip
    }

    fn at(&self, index: u128) -> IpAddr {
        let n = self.base() + index;
        match self.net {
            // The sum stays below 2^32: index < size.
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(n).unwrap_or(u32::MAX))),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
        }
    }

    fn index(&self, ip: IpAddr) -> Option<u128> {
        number(ip).checked_sub(self.base())
    }

    /// The lower end, kept for addresses people choose themselves: handed out only when the rest is used up.
    fn band(&self) -> u128 {
        if self.size < 16 { 0 } else { (self.size / 16).clamp(16, 256).min(self.size) }
    }

    /// Every address once: from a random place upwards through the upper part, then the lower part.
    pub fn order(&self, random: u128) -> impl Iterator<Item = IpAddr> + '_ {
        let band = self.band();
        let upper = self.size - band;
        let start = if upper == 0 { 0 } else { random % upper };
        let high = (0..upper).map(move |i| band + (start + i) % upper);
        high.chain(0..band).map(|i| self.at(i))
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn sizes_and_ends() {
        for (net, size, first) in [
            ("10.96.0.0/12", (1u128 << 20) - 2, "10.96.0.1"),
            ("10.0.0.0/30", 2, "10.0.0.1"),
            ("10.0.0.5/32", 1, "10.0.0.5"),
            ("fd00::/112", (1 << 16) - 1, "fd00::1"),
            ("fd00::/48", (1 << 64) - 1, "fd00::1"),
        ] {
            let range = Range::new(net.parse().expect("net"));
            assert_eq!((range.size(), range.first().to_string().as_str()), (size, first), "{net}");
        }
    }

    #[test]
    fn membership() {
        let range = Range::new("10.96.0.0/24".parse().expect("net"));
        for (ip, inside) in [
            ("10.96.0.1", true),
            ("10.96.0.254", true),
            ("10.96.0.0", false),
            ("10.96.0.255", false),
            ("10.97.0.1", false),
            ("fd00::1", false),
        ] {
            assert_eq!(range.contains(ip.parse().expect("ip")), inside, "{ip}");
        }
    }

    #[test]
    fn every_address_once_and_the_reserved_ones_last() {
        let range = Range::new("10.96.0.0/24".parse().expect("net"));
        for random in [0, 7, u128::MAX] {
            let order: Vec<IpAddr> = range.order(random).collect();
            assert_eq!(order.len(), 254);
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 254);
            let reserved: Vec<String> = order[254 - 16..].iter().map(ToString::to_string).collect();
            assert_eq!(reserved.first().map(String::as_str), Some("10.96.0.1"));
            assert_eq!(reserved.last().map(String::as_str), Some("10.96.0.16"));
        }
    }
}
