//! DHCP messages as packets.

use std::net::Ipv4Addr;

use dhcproto::v4::{Decodable as _, DhcpOption, Encodable as _, Flags, Message, MessageType, Opcode, OptionCode};
use ipnet::Ipv4Net;

use super::{Incoming, Lease, Outgoing};

/// What a client is to a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) mac: [u8; 6],
    pub(super) xid: u32,
}

/// A lease that lasts for ever, in the protocol's terms, is treated as one of a year: renewal then costs nothing.
const YEAR: u32 = 365 * 24 * 3600;

pub(super) fn encode(message: &Outgoing, who: Identity) -> Option<Vec<u8>> {
    let mut packet = Message::new_with_id(
        who.xid,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::UNSPECIFIED,
        &who.mac,
    );
    let kind = if *message == Outgoing::Discover { MessageType::Discover } else { MessageType::Request };
    packet.opts_mut().insert(DhcpOption::MessageType(kind));
    // Type 1 is Ethernet.
    let identifier = std::iter::once(1).chain(who.mac).collect();
    packet.opts_mut().insert(DhcpOption::ClientIdentifier(identifier));
    packet.opts_mut().insert(DhcpOption::ParameterRequestList(vec![
        OptionCode::SubnetMask,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::Hostname,
        OptionCode::InterfaceMtu,
        OptionCode::ClasslessStaticRoute,
    ]));
    match message {
        Outgoing::Extend { address, .. } => {
            packet.set_ciaddr(*address);
        }
        // Without an address, an answer can only be heard when it is broadcast.
        Outgoing::Discover => {
            packet.set_flags(Flags::default().set_broadcast());
        }
        Outgoing::Select { address, server } => {
            packet.set_flags(Flags::default().set_broadcast());
            packet.opts_mut().insert(DhcpOption::RequestedIpAddress(*address));
            packet.opts_mut().insert(DhcpOption::ServerIdentifier(*server));
        }
    }
    packet.to_vec().ok()
}

pub(super) fn decode(packet: &[u8], who: Identity) -> Option<Incoming> {
    let message = Message::from_bytes(packet).ok()?;
    if message.opcode() != Opcode::BootReply || message.xid() != who.xid || message.chaddr() != who.mac {
        return None;
    }
    match message.opts().msg_type()? {
        MessageType::Offer => lease(&message).map(Incoming::Offer),
        MessageType::Ack => lease(&message).map(Incoming::Ack),
        MessageType::Nak => Some(Incoming::Nak),
        _ => None,
    }
}

fn lease(message: &Message) -> Option<Lease> {
    let options = message.opts();
    let number = |code| match options.get(code)? {
        DhcpOption::AddressLeaseTime(v) | DhcpOption::Renewal(v) | DhcpOption::Rebinding(v) => Some(*v),
        _ => None,
    };
    let server = match options.get(OptionCode::ServerIdentifier)? {
        DhcpOption::ServerIdentifier(server) => *server,
        _ => return None,
    };
    let mask = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => *mask,
        _ => Ipv4Addr::new(255, 255, 255, 0),
    };
    let address = Ipv4Net::with_netmask(message.yiaddr(), mask).ok().filter(|_| !message.yiaddr().is_unspecified())?;
    let lifetime = number(OptionCode::AddressLeaseTime)?.min(YEAR);
    let t2 = number(OptionCode::Rebinding).filter(|t| *t < lifetime).unwrap_or(lifetime - lifetime / 8);
    let t1 = number(OptionCode::Renewal).filter(|t| *t < t2).unwrap_or(lifetime / 2).min(t2);
    let hostname = match options.get(OptionCode::Hostname) {
        Some(DhcpOption::Hostname(name)) => Some(name.clone()),
        _ => None,
    };
    let mtu = match options.get(OptionCode::InterfaceMtu) {
        Some(DhcpOption::InterfaceMtu(mtu)) if *mtu >= 576 => Some(*mtu),
        _ => None,
    };
    let nameservers = match options.get(OptionCode::DomainNameServer) {
        Some(DhcpOption::DomainNameServer(list)) => list.clone(),
        _ => Vec::new(),
    };
    Some(Lease { address, server, routes: routes(message), nameservers, hostname, mtu, t1, t2, lifetime })
}

/// Classless routes replace the router option where a server sends both (RFC 3442).
fn routes(message: &Message) -> Vec<(Ipv4Net, Ipv4Addr)> {
    if let Some(DhcpOption::ClasslessStaticRoute(list)) = message.opts().get(OptionCode::ClasslessStaticRoute) {
        return list.iter().map(|(net, gateway)| (*net, *gateway)).collect();
    }
    match message.opts().get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => routers.first().map(|r| (Ipv4Net::default(), *r)).into_iter().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Identity = Identity { mac: [2, 0, 0, 0, 0, 1], xid: 7 };

    fn reply(kind: MessageType, extra: Vec<DhcpOption>) -> Message {
        let mut message = Message::new_with_id(
            WHO.xid,
            Ipv4Addr::UNSPECIFIED,
            "10.0.2.15".parse().unwrap(),
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::UNSPECIFIED,
            &WHO.mac,
        );
        message.set_opcode(Opcode::BootReply);
        for option in [
            vec![
                DhcpOption::MessageType(kind),
                DhcpOption::ServerIdentifier("10.0.2.2".parse().unwrap()),
                DhcpOption::AddressLeaseTime(86400),
            ],
            extra,
        ]
        .concat()
        {
            message.opts_mut().insert(option);
        }
        message
    }

    #[test]
    fn an_offer_becomes_a_lease_with_the_defaults_of_the_standard() {
        let gateway: Ipv4Addr = "10.0.2.2".parse().unwrap();
        let bytes = reply(
            MessageType::Offer,
            vec![DhcpOption::Router(vec![gateway]), DhcpOption::SubnetMask("255.255.0.0".parse().unwrap())],
        )
        .to_vec()
        .unwrap();
        let Some(Incoming::Offer(lease)) = decode(&bytes, WHO) else { panic!("no offer") };
        assert_eq!(lease.address.to_string(), "10.0.2.15/16");
        assert_eq!((lease.t1, lease.t2, lease.lifetime), (43200, 75600, 86400));
        assert_eq!(lease.routes, [(Ipv4Net::default(), gateway)]);
    }

    #[test]
    fn others_and_nonsense_are_dropped() {
        let bytes = reply(MessageType::Offer, vec![]).to_vec().unwrap();
        assert_eq!(decode(&bytes, Identity { xid: 8, ..WHO }), None);
        assert_eq!(decode(&bytes, Identity { mac: [9; 6], ..WHO }), None);
        assert_eq!(decode(&bytes[..100], WHO), None);
        assert_eq!(decode(&reply(MessageType::Nak, vec![]).to_vec().unwrap(), WHO), Some(Incoming::Nak));
    }

    #[test]
    fn requests_say_what_the_standard_wants() {
        let select = Outgoing::Select { address: "10.0.2.15".parse().unwrap(), server: "10.0.2.2".parse().unwrap() };
        let packet = Message::from_bytes(&encode(&select, WHO).unwrap()).unwrap();
        assert!(packet.ciaddr().is_unspecified() && packet.flags().broadcast());
        assert!(
            packet.opts().get(OptionCode::RequestedIpAddress).is_some()
                && packet.opts().get(OptionCode::ServerIdentifier).is_some()
        );
        let extend = Outgoing::Extend { address: "10.0.2.15".parse().unwrap(), server: None };
        let packet = Message::from_bytes(&encode(&extend, WHO).unwrap()).unwrap();
        assert_eq!(packet.ciaddr().to_string(), "10.0.2.15");
        assert!(
            packet.opts().get(OptionCode::RequestedIpAddress).is_none()
                && packet.opts().get(OptionCode::ServerIdentifier).is_none()
        );
    }
}
