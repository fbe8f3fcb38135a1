//! The frames by which announcers tell each other what they announce. Pure.
//!
//! An Ethernet broadcast of the type that IEEE 802 leaves to local use: `Crtn`, a version, what is said, the number of
//! addresses, and the addresses with 16 bytes each, IPv4 as mapped (RFC 4291). Whoever can send these on a network could
//! as well answer its ARP requests: they are not authenticated, as little as those are.

use std::net::{IpAddr, Ipv6Addr};

use super::contest::Claim;
use super::frames::{BROADCAST, Mac};

/// Local Experimental EtherType 1 (IEEE 802).
pub const TYPE: u16 = 0x88b5;
const MARK: [u8; 5] = *b"Crtn\x01";
const HEAD: usize = 14 + MARK.len() + 2;
/// So that a frame fits any Ethernet.
const ADDRESSES_MAX: usize = 90;

/// What one machine says.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// By whom.
    pub from: Mac,
    /// What.
    pub claim: Claim,
    /// Of which addresses.
    pub addresses: Vec<IpAddr>,
}

/// What `said` is on the wire.
pub fn frames(said: &Said) -> impl Iterator<Item = Vec<u8>> {
    let word = match said.claim {
        Claim::Held { fit: true } => 0,
        Claim::Held { fit: false } => 1,
        Claim::GivenUp => 2,
    };
    said.addresses.chunks(ADDRESSES_MAX).map(move |part| {
        let mut frame = Vec::with_capacity(HEAD + 16 * part.len());
        frame.extend(BROADCAST);
        frame.extend(said.from);
        frame.extend(TYPE.to_be_bytes());
        frame.extend(MARK);
        // At most ADDRESSES_MAX.
        frame.extend([word, part.len() as u8]);
        for ip in part {
            frame.extend(match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            });
        }
        frame
    })
}

/// Reads a frame; what is not one of ours is none. Short frames are padded on their way.
pub fn read(frame: &[u8]) -> Option<Said> {
    let (head, rest) = frame.split_at_checked(HEAD)?;
    if head[12..14] != TYPE.to_be_bytes() || head[14..19] != MARK {
        return None;
    }
    let claim = match head[19] {
        0 => Claim::Held { fit: true },
        1 => Claim::Held { fit: false },
        2 => Claim::GivenUp,
        _ => return None,
    };
    let bytes = rest.get(..16 * usize::from(head[20]))?;
    let address = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).to_canonical());
    let addresses = bytes.chunks_exact(16).filter_map(address).collect();
    Some(Said { from: head[6..12].try_into().ok()?, claim, addresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        for claim in [Claim::Held { fit: true }, Claim::Held { fit: false }, Claim::GivenUp] {
            let said = Said { from: [2, 0, 0, 0, 0, 1], claim, addresses: vec![[192, 0, 2, 1].into(), v6] };
            let mut wire: Vec<Vec<u8>> = frames(&said).collect();
            wire[0].resize(100, 0);
            assert_eq!((wire.len(), read(&wire[0])), (1, Some(said)));
        }
        let many = (0..200).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        let said = Said { from: [2, 0, 0, 0, 0, 1], claim: Claim::GivenUp, addresses: many };
        let wire: Vec<Vec<u8>> = frames(&said).collect();
        assert!(wire.iter().all(|frame| frame.len() <= 1514));
        let heard: Vec<IpAddr> = wire.iter().flat_map(|frame| read(frame).unwrap().addresses).collect();
        assert_eq!(heard, said.addresses);
    }

    #[test]
    fn what_is_no_claim_is_not_heard() {
        let said = Said { from: [2; 6], claim: Claim::GivenUp, addresses: vec![[192, 0, 2, 1].into()] };
        let good = frames(&said).next().unwrap();
        let with = |at: usize, byte: u8| {
            let mut frame = good.clone();
            frame[at] = byte;
            frame
        };
        let cases =
            [vec![], good[..20].to_vec(), good[..30].to_vec(), with(12, 8), with(18, 2), with(19, 3), with(20, 9)];
        for frame in cases {
            assert_eq!(read(&frame), None, "{frame:?}");
        }
    }
}
