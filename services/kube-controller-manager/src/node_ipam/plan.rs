//! Networks and which part of them is free. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::object;

/// A network: address bits, as one number for both families, and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    bits: u128,
    prefix: u8,
    v4: bool,
}

impl Cidr {
    /// Reads `10.244.0.0/16`; says what is wrong.
    pub fn parse(text: &str) -> Result<Cidr, String> {
        let wrong = || format!("{text:?} is not a network such as 10.244.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let (bits, v4) = match address.parse().map_err(|_| wrong())? {
            IpAddr::V4(a) => (u128::from(a.to_bits()), true),
            IpAddr::V6(a) => (a.to_bits(), false),
        };
        let cidr = Cidr { bits, prefix, v4 };
        if prefix > cidr.width() {
            return Err(wrong());
        }
        Ok(Cidr { bits: bits & !cidr.host_mask(), ..cidr })
    }

    fn width(&self) -> u8 {
        if self.v4 { 32 } else { 128 }
    }

    fn host_mask(&self) -> u128 {
        let host_bits = u32::from(self.width() - self.prefix);
        1_u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1)
    }

    /// A node's share: upstream's default sizes, or the whole network where that is smaller.
    fn node_prefix(&self) -> u8 {
        self.prefix.max(if self.v4 { 24 } else { 64 })
    }

    fn overlaps(&self, other: &Cidr) -> bool {
        let mask = !(self.host_mask() | other.host_mask());
        self.v4 == other.v4 && self.bits & mask == other.bits & mask
    }

    /// The lowest share that overlaps nothing taken.
    fn lowest_free(&self, taken: &[Cidr]) -> Option<Cidr> {
        let prefix = self.node_prefix();
        let shares = 1_u128.checked_shl(u32::from(prefix - self.prefix)).unwrap_or(u128::MAX);
        let step = u32::from(self.width() - prefix);
        // With n ranges taken, one of the first n + 1 shares is free, unless a taken range is larger than a share.
        (0..shares)
            .map(|n| Cidr { bits: self.bits | n << step, prefix, v4: self.v4 })
            .find(|share| !taken.iter().any(|t| t.overlaps(share)))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u32::try_from(self.bits) {
            Ok(bits) if self.v4 => write!(f, "{}/{}", Ipv4Addr::from_bits(bits), self.prefix),
            _ => write!(f, "{}/{}", Ipv6Addr::from_bits(self.bits), self.prefix),
        }
    }
}

/// A node's ranges.
pub fn ranges_of(node: &Value) -> Vec<String> {
    object::list(node, "/spec/podCIDRs").iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// One free range of each network; none if any network is exhausted.
pub fn choose(networks: &[Cidr], taken: &[String]) -> Option<Vec<String>> {
    let taken: Vec<Cidr> = taken.iter().filter_map(|text| Cidr::parse(text).ok()).collect();
    networks.iter().map(|network| Some(network.lowest_free(&taken)?.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_lowest_free_range() {
        let cases: &[(&str, &[&str], Option<&str>)] = &[
            ("10.244.0.0/16", &[], Some("10.244.0.0/24")),
            ("10.244.0.0/16", &["10.244.0.0/24", "10.244.2.0/24"], Some("10.244.1.0/24")),
            ("10.244.0.0/16", &["10.244.0.0/23"], Some("10.244.2.0/24")),
            ("10.244.0.0/23", &["10.244.0.0/24", "10.244.1.0/24"], None),
            ("10.244.8.0/26", &[], Some("10.244.8.0/26")),
            ("fd00::/48", &["fd00::/64"], Some("fd00:0:0:1::/64")),
        ];
        for (network, taken, expected) in cases {
            let taken: Vec<String> = taken.iter().map(|t| (*t).to_owned()).collect();
            let got = choose(&[Cidr::parse(network).unwrap()], &taken);
            assert_eq!(got, expected.map(|e| vec![e.to_owned()]), "{network} without {taken:?}");
        }
        assert!(Cidr::parse("10.0.0.0").is_err() && Cidr::parse("10.0.0.0/33").is_err());
    }
}
