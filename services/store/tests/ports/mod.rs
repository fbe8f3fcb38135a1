//! Ports for servers that tests start, stop and start again at the same address.
//!
//! A port that the kernel hands out for a moment comes from the range it also takes the ends of outgoing connections from,
//! so any connection of a neighbouring test may have it by the time the server wants it. These lie below that range.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
/// Linux takes ephemeral ports from 32768 on (`ip_local_port_range` in ip(7)).
const COUNT: u16 = 22_000;

/// A port that no one listens on, and that no one else in this process gets.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other processes run tests too: each begins somewhere else.
    let start = std::process::id().wrapping_mul(97) % u32::from(COUNT);
    loop {
        let offset = (start + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset).expect("less than COUNT");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
