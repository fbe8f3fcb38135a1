//! Raw Ethernet frames of one interface: the questions for addresses (ARP, RFC 826; neighbour solicitations, RFC 4861), read
//! and written whole (packet(7)).
#![allow(unsafe_code)]

use std::io::{Error as IoError, ErrorKind};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::{Error, Result};

/// What a socket hears. Everything else is dropped in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hears {
    /// ARP.
    Arp,
    /// ICMPv6 neighbour solicitations, also those to groups that the interface has not joined.
    NeighbourSolicitations,
    /// Frames of one Ethernet type.
    Type(u16),
}

/// Ethernet type IPv6, next header ICMPv6, type 135; everything else has length 0.
const SOLICITATIONS: [libc::sock_filter; 8] = [
    filter(0x28, 0, 0, 12),
    filter(0x15, 0, 5, 0x86dd),
    filter(0x30, 0, 0, 20),
    filter(0x15, 0, 3, 58),
    filter(0x30, 0, 0, 54),
    filter(0x15, 0, 1, 135),
    filter(0x06, 0, 0, 0x40000),
    filter(0x06, 0, 0, 0),
];

const fn filter(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Opens a socket on the interface of this index: a read is one whole frame, a write sends one, neither ever blocks. Needs
/// CAP_NET_RAW.
pub fn open(interface: u32, hears: Hears) -> Result<OwnedFd> {
    let failed =
        |op: &'static str| move |e: IoError| Error::new(op, format!("packet socket of interface {interface}"), e);
    // Protocol 0: nothing is heard before the socket is bound to its interface.
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointers.
    let number = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if number < 0 {
        return Err(failed("socket")(IoError::last_os_error()));
    }
    // SAFETY: the kernel has just given this descriptor to us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let index = i32::try_from(interface).map_err(|_| failed("bind")(IoError::from(ErrorKind::InvalidInput)))?;
    let protocol = match hears {
        Hears::Arp => libc::ETH_P_ARP,
        Hears::NeighbourSolicitations => {
            hear_all_groups(&socket, index).map_err(failed("PACKET_ADD_MEMBERSHIP"))?;
            attach(&socket, &SOLICITATIONS).map_err(failed("SO_ATTACH_FILTER"))?;
            libc::ETH_P_IPV6
        }
        Hears::Type(number) => i32::from(number),
    };
    bind(&socket, index, protocol).map_err(failed("bind"))?;
    Ok(socket)
}

fn bind(socket: &OwnedFd, index: i32, protocol: i32) -> std::io::Result<()> {
    // SAFETY: sockaddr_ll is plain numbers, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index;
    let length = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let answer = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if answer < 0 { Err(IoError::last_os_error()) } else { Ok(()) }
}

/// Solicitations go to a group per address, and the interface's own filter would drop those of addresses not its own.
fn hear_all_groups(socket: &OwnedFd, index: i32) -> std::io::Result<()> {
    // SAFETY: packet_mreq is plain numbers, for which zeros are valid.
    let mut request: libc::packet_mreq = unsafe { std::mem::zeroed() };
    request.mr_ifindex = index;
    request.mr_type = libc::PACKET_MR_ALLMULTI as u16;
    set(socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
}

fn attach(socket: &OwnedFd, program: &[libc::sock_filter]) -> std::io::Result<()> {
    // The kernel only reads the program, whatever the pointer's type says.
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn set<T>(socket: &OwnedFd, level: i32, name: i32, value: &T) -> std::io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call, as does what it points to.
    let answer =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), size_of::<T>() as u32) };
    if answer < 0 { Err(IoError::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_socket_hears_its_protocol_and_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        // The loopback interface, which is the first of every network namespace.
        let [mut arp, mut ndp, mut own] = [Hears::Arp, Hears::NeighbourSolicitations, Hears::Type(0x88b5)]
            .map(|hears| std::fs::File::from(open(1, hears).unwrap()));
        let mut frame = [0; 60];
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        if let Err(error) = arp.write_all(&frame) {
            eprintln!("skipped: the loopback interface is down ({error})");
            return;
        }
        let mut buffer = [0; 100];
        assert!(arp.read(&mut buffer).unwrap() >= 60);
        assert_eq!(ndp.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(own.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        own.write_all(&frame).unwrap();
        assert_eq!(own.read(&mut buffer).unwrap(), 60);
        let mut solicitation = [0; 86];
        solicitation[12..14].copy_from_slice(&[0x86, 0xdd]);
        (solicitation[20], solicitation[54]) = (58, 135);
        ndp.write_all(&solicitation).unwrap();
        assert_eq!(ndp.read(&mut buffer).unwrap(), 86);
        solicitation[54] = 136;
        ndp.write_all(&solicitation).unwrap();
        assert_eq!(ndp.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock, "an advertisement");
    }
}
