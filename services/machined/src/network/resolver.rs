//! /run/resolv.conf and /run/hosts, which /etc points to. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::files::Entry;

/// A resolver reads three servers at most (resolv.conf(5)).
const MAX_SERVERS: usize = 3;

pub(super) fn files(configured: &[IpAddr], offered: &[IpAddr], hostname: &str, address: Option<IpAddr>) -> [Entry; 2] {
    let servers = if configured.is_empty() { offered } else { configured };
    let mut resolv = String::new();
    for server in servers.iter().take(MAX_SERVERS) {
        let _ = writeln!(resolv, "nameserver {server}");
    }
    let mut hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    let own = address.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let _ = writeln!(hosts, "{own} {hostname}");
    [Entry::public("/run/resolv.conf", resolv), Entry::public("/run/hosts", hosts)]
}

#[cfg(test)]
mod tests {
    use super::files;

    #[test]
    fn configured_servers_replace_offered_ones() {
        let ip = |s: &str| s.parse().unwrap();
        let offered = [ip("10.0.2.3"), ip("1.1.1.1"), ip("2.2.2.2"), ip("3.3.3.3")];
        let [resolv, hosts] = files(&[], &offered, "n1", Some(ip("10.0.2.15")));
        assert_eq!(resolv.content, "nameserver 10.0.2.3\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n");
        assert!(hosts.content.ends_with("10.0.2.15 n1\n"));
        let [resolv, _] = files(&[ip("9.9.9.9")], &offered, "n1", None);
        assert_eq!(resolv.content, "nameserver 9.9.9.9\n");
    }
}
