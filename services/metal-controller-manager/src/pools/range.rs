//! Pools as they are written: `name=192.0.2.0/28,192.0.2.64-192.0.2.70,2001:db8::7`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// A named set of addresses, in the order in which they are given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// By which Services ask for it.
    pub name: String,
    ranges: Vec<(IpAddr, IpAddr)>,
}

/// What is wrong with a pool.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// No name, or nothing after it.
    #[error("a pool is NAME=ADDRESSES")]
    Form,
    /// One of the ranges.
    #[error("{0:?} is not a network, a range first-last or an address")]
    Range(String),
}

impl Pool {
    /// Whether the address is one of the pool's.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|(first, last)| first.is_ipv4() == ip.is_ipv4() && *first <= ip && ip <= *last)
    }

    /// The addresses of one family, in order.
    pub fn addresses(&self, v4: bool) -> impl Iterator<Item = IpAddr> + '_ {
        self.ranges
            .iter()
            .filter(move |(first, _)| first.is_ipv4() == v4)
            .flat_map(|(first, last)| between(*first, *last))
    }
}

fn between(first: IpAddr, last: IpAddr) -> Box<dyn Iterator<Item = IpAddr>> {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            Box::new((first.to_bits()..=last.to_bits()).map(|bits| Ipv4Addr::from_bits(bits).into()))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            Box::new((first.to_bits()..=last.to_bits()).map(|bits| Ipv6Addr::from_bits(bits).into()))
        }
        _ => Box::new(std::iter::empty()),
    }
}

impl FromStr for Pool {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let (name, ranges) = text.split_once('=').ok_or(PoolError::Form)?;
        if name.is_empty() || ranges.is_empty() {
            return Err(PoolError::Form);
        }
        let parse = |text: &str| range(text).ok_or_else(|| PoolError::Range(text.to_owned()));
        Ok(Pool { name: name.to_owned(), ranges: ranges.split(',').map(parse).collect::<Result<_, _>>()? })
    }
}

fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some((net.network(), net.broadcast()));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (IpAddr, IpAddr) = (first.parse().ok()?, last.parse().ok()?);
    (first.is_ipv4() == last.is_ipv4() && first <= last).then_some((first, last))
}
