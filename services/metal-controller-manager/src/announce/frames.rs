//! The frames by which machines of a network find out which hardware has an address: ARP (RFC 826, announcements RFC 5227)
//! and neighbour discovery (RFC 4861). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

/// Everybody.
pub const BROADCAST: Mac = [0xff; 6];
/// Where all nodes of a link listen (RFC 4291, RFC 2464).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// A question for an address, and where its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which address.
    pub target: IpAddr,
    asker: Mac,
    /// The asker's address; unspecified when it has none yet.
    from: IpAddr,
}

/// Reads a question out of a frame; anything else is `None`.
pub fn question(frame: &[u8]) -> Option<Question> {
    match frame.get(12..14)? {
        [0x08, 0x06] => arp_question(frame.get(14..42)?),
        [0x86, 0xdd] => solicitation(frame.get(..14)?, frame.get(14..)?),
        _ => None,
    }
}

fn arp_question(arp: &[u8]) -> Option<Question> {
    // Ethernet, IPv4, six and four bytes, a request.
    if arp[..8] != [0, 1, 8, 0, 6, 4, 0, 1] {
        return None;
    }
    let v4 = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    let (from, target) = (v4(14), v4(24));
    let asker: Mac = arp[8..14].try_into().ok()?;
    // Who says that it has the address itself asks nothing.
    (from != target).then_some(Question { target: target.into(), asker, from: from.into() })
}

fn solicitation(ethernet: &[u8], packet: &[u8]) -> Option<Question> {
    // Next header ICMPv6; hop limit 255, so it comes from this link; type 135, code 0.
    if packet.len() < 64 || packet[6] != 58 || packet[7] != 255 || packet[40..42] != [135, 0] {
        return None;
    }
    let v6 = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).ok().map(Ipv6Addr::from);
    let asker: Mac = ethernet[6..12].try_into().ok()?;
    Some(Question { target: v6(48)?.into(), asker, from: v6(8)?.into() })
}

/// The answer to a question: `mac` has the address.
pub fn answer(question: &Question, mac: Mac) -> Option<Vec<u8>> {
    match (question.target, question.from) {
        (IpAddr::V4(target), IpAddr::V4(from)) => Some(arp(question.asker, mac, REPLY, target, question.asker, from)),
        (IpAddr::V6(target), IpAddr::V6(from)) if from.is_unspecified() => {
            Some(advertisement(ALL_NODES_MAC, mac, target, ALL_NODES, OVERRIDE))
        }
        (IpAddr::V6(target), IpAddr::V6(from)) => {
            Some(advertisement(question.asker, mac, target, from, SOLICITED | OVERRIDE))
        }
        _ => None,
    }
}

/// What tells everybody at once that `mac` has the address. Some systems learn from requests only, some from replies only.
pub fn announcement(ip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => {
            vec![arp(BROADCAST, mac, REQUEST, ip, [0; 6], ip), arp(BROADCAST, mac, REPLY, ip, BROADCAST, ip)]
        }
        IpAddr::V6(ip) => vec![advertisement(ALL_NODES_MAC, mac, ip, ALL_NODES, OVERRIDE)],
    }
}

fn arp(to: Mac, mac: Mac, operation: u16, ip: Ipv4Addr, target_mac: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(to);
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(mac);
    frame.extend(ip.octets());
    frame.extend(target_mac);
    frame.extend(target.octets());
    frame
}

fn advertisement(to: Mac, mac: Mac, ip: Ipv6Addr, destination: Ipv6Addr, flags: u8) -> Vec<u8> {
    // Type 136, code 0, checksum, flags, the address, option 2: its hardware.
    let mut message = vec![136, 0, 0, 0, flags, 0, 0, 0];
    message.extend(ip.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let checksum = checksum(ip, destination, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut frame = Vec::with_capacity(54 + message.len());
    frame.extend(to);
    frame.extend(mac);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255]);
    frame.extend(ip.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

/// RFC 4443: over a pseudo header of both addresses, length and next header, and the message.
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let words =
        |bytes: &[u8]| bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let mut sum = words(&from.octets()) + words(&to.octets()) + words(message) + 32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Sixteen bits are left.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = [2, 0, 0, 0, 0, 1];
    const THEM: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_arp_request_is_answered_to_its_asker() {
        let request = arp(BROADCAST, THEM, REQUEST, Ipv4Addr::new(192, 0, 2, 9), [0; 6], Ipv4Addr::new(192, 0, 2, 1));
        let question = question(&request).unwrap();
        assert_eq!(question.target, IpAddr::from([192, 0, 2, 1]));
        let reply = answer(&question, US).unwrap();
        assert_eq!(reply[..14], [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(reply[20..32], [0, 2, 2, 0, 0, 0, 0, 1, 192, 0, 2, 1]);
        assert_eq!(reply[32..], [2, 0, 0, 0, 0, 9, 192, 0, 2, 9]);
    }

    #[test]
    fn what_asks_nothing_is_not_answered() {
        for frame in announcement([192, 0, 2, 1].into(), THEM) {
            assert_eq!(question(&frame), None);
        }
        assert_eq!(question(&announcement(Ipv6Addr::LOCALHOST.into(), THEM)[0]), None);
        assert_eq!(question(&[0; 10]), None);
        assert_eq!(question(&[0; 60]), None);
    }

    #[test]
    fn a_solicitation_is_answered_with_a_valid_checksum() {
        let target: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let from: Ipv6Addr = "fe80::9".parse().unwrap();
        let solicit = |from: Ipv6Addr, hops: u8| {
            let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 1];
            frame.extend(THEM);
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, hops]);
            frame.extend(from.octets());
            frame.extend([0xff; 16]);
            frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
            frame.extend(target.octets());
            frame
        };
        let asked = question(&solicit(from, 255)).unwrap();
        assert_eq!(asked.target, IpAddr::from(target));
        let reply = answer(&asked, US).unwrap();
        assert_eq!((&reply[..6], reply[58], reply.len()), (THEM.as_slice(), SOLICITED | OVERRIDE, 86));
        // A message with its checksum in place sums up to zero.
        assert_eq!(checksum(target, from, &reply[54..]), 0);
        let probe = answer(&question(&solicit(Ipv6Addr::UNSPECIFIED, 255)).unwrap(), US).unwrap();
        assert_eq!((&probe[..6], probe[58]), (ALL_NODES_MAC.as_slice(), OVERRIDE));
        assert_eq!(question(&solicit(from, 64)), None, "from another link");
    }
}
