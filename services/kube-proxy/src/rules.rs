//! From service ports to one nftables rule set: pure.
//!
//! Lookups go through verdict maps, so a packet costs the same however many Services there are:
//!
//! ```text
//! prerouting, output ──▶ services ──vmap address . protocol . port──▶ service-N ──numgen vmap──▶ endpoint-N-M: dnat
//!                                └──fib local, vmap protocol . port──▶ nodeport-N ─(mark)────────▲
//! postrouting ──mark──▶ masquerade            forward, input, output ──▶ no-endpoints: reject
//! ```

use std::fmt::Write;

use ipnet::Ipv4Net;

use crate::services::ServicePort;

/// The same bit as upstream's, so that both agree when they meet on a node during a migration.
const MASQUERADE_MARK: &str = "0x4000";

/// The whole table as text for `nft -f`: it replaces what was there in one transaction.
pub fn rule_set(ports: &[ServicePort], cluster: Ipv4Net) -> String {
    let mut out = String::from("table ip kube-proxy\ndelete table ip kube-proxy\ntable ip kube-proxy {\n");
    for (index, port) in ports.iter().enumerate() {
        if !port.endpoints.is_empty() {
            chains(&mut out, index, port, cluster);
        }
    }
    maps(&mut out, ports);
    out.push_str(BASE_CHAINS);
    out.push_str("}\n");
    out
}

const BASE_CHAINS: &str = "\tchain services {
\t\tip daddr . meta l4proto . th dport vmap @service-ips
\t\tfib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports
\t}
\tchain nat-prerouting {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tjump services
\t}
\tchain nat-output {
\t\ttype nat hook output priority -100; policy accept;
\t\tjump services
\t}
\tchain nat-postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tmeta mark & 0x4000 == 0x4000 meta mark set meta mark ^ 0x4000 masquerade fully-random
\t}
\tchain reject-chain {
\t\tmeta l4proto tcp reject with tcp reset
\t\treject
\t}
\tchain filter-prerouting-services {
\t\tip daddr . meta l4proto . th dport vmap @no-endpoint-services
\t}
\tchain filter-forward {
\t\ttype filter hook forward priority -110; policy accept;
\t\tct state new jump filter-prerouting-services
\t}
\tchain filter-input {
\t\ttype filter hook input priority -110; policy accept;
\t\tct state new jump filter-prerouting-services
\t}
\tchain filter-output {
\t\ttype filter hook output priority -110; policy accept;
\t\tct state new jump filter-prerouting-services
\t}
";

/// Writing to a String cannot fail, so results are dropped here and only here.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
    out.push('\n');
}

fn chains(out: &mut String, index: usize, port: &ServicePort, cluster: Ipv4Net) {
    for (number, endpoint) in port.endpoints.iter().enumerate() {
        line(out, format_args!("\tchain endpoint-{index}-{number} {{"));
        // A pod that reaches itself through the Service must see an answer from the Service, so its own address must
        // not be the source.
        line(out, format_args!("\t\tip saddr {} meta mark set meta mark | {MASQUERADE_MARK}", endpoint.address));
        let protocol = port.protocol.name();
        line(out, format_args!("\t\tmeta l4proto {protocol} dnat to {}:{}", endpoint.address, endpoint.port));
        line(out, format_args!("\t}}"));
    }
    let count = port.endpoints.len();
    let targets: Vec<String> = (0..count).map(|number| format!("{number} : goto endpoint-{index}-{number}")).collect();
    let spread = format!("numgen random mod {count} vmap {{ {} }}", targets.join(", "));
    line(out, format_args!("\tchain service-{index} {{"));
    line(out, format_args!("\t\tcomment \"{}\"", port.name));
    // From outside the pod network the answer must come back through this node.
    line(
        out,
        format_args!(
            "\t\tip daddr {} ip saddr != {cluster} meta mark set meta mark | {MASQUERADE_MARK}",
            port.cluster_ip
        ),
    );
    line(out, format_args!("\t\t{spread}"));
    line(out, format_args!("\t}}"));
    if port.node_port.is_some() || !port.external.is_empty() {
        line(out, format_args!("\tchain nodeport-{index} {{"));
        line(out, format_args!("\t\tmeta mark set meta mark | {MASQUERADE_MARK}"));
        line(out, format_args!("\t\tgoto service-{index}"));
        line(out, format_args!("\t}}"));
    }
}

fn maps(out: &mut String, ports: &[ServicePort]) {
    let with_endpoints = || ports.iter().enumerate().filter(|(_, port)| !port.endpoints.is_empty());
    let key = |port: &ServicePort| format!("{} . {} . {}", port.cluster_ip, port.protocol.name(), port.port);
    let external = |port: &ServicePort| {
        let (protocol, number) = (port.protocol.name(), port.port);
        port.external.iter().map(|ip| format!("{ip} . {protocol} . {number}")).collect::<Vec<_>>()
    };
    let by_address = with_endpoints().flat_map(|(index, port)| {
        // As with a node port, the answer must come back through this node.
        let outer = external(port).into_iter().map(move |key| format!("{key} : goto nodeport-{index}"));
        std::iter::once(format!("{} : goto service-{index}", key(port))).chain(outer)
    });
    map(out, "service-ips", "ipv4_addr . inet_proto . inet_service", by_address.collect());
    let by_node_port = with_endpoints().filter_map(|(index, port)| {
        Some(format!("{} . {} : goto nodeport-{index}", port.protocol.name(), port.node_port?))
    });
    map(out, "service-nodeports", "inet_proto . inet_service", by_node_port.collect());
    let dead = ports.iter().filter(|port| port.endpoints.is_empty());
    let dead = dead.flat_map(|port| std::iter::once(key(port)).chain(external(port)));
    let dead = dead.map(|key| format!("{key} : goto reject-chain"));
    // The chain must stand before the map that names it.
    map(out, "no-endpoint-services", "ipv4_addr . inet_proto . inet_service", dead.collect());
}

fn map(out: &mut String, name: &str, key: &str, elements: Vec<String>) {
    line(out, format_args!("\tmap {name} {{"));
    line(out, format_args!("\t\ttype {key} : verdict"));
    if !elements.is_empty() {
        line(out, format_args!("\t\telements = {{ {} }}", elements.join(",\n\t\t\t")));
    }
    line(out, format_args!("\t}}"));
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::services::{Endpoint, Protocol};

    fn port(endpoints: &[u8], node_port: Option<u16>) -> ServicePort {
        ServicePort {
            name: "default/web:http".to_owned(),
            cluster_ip: Ipv4Addr::new(10, 96, 0, 9),
            protocol: Protocol::Tcp,
            port: 80,
            node_port,
            external: vec![Ipv4Addr::new(192, 0, 2, 7)],
            endpoints: endpoints
                .iter()
                .map(|last| Endpoint { address: Ipv4Addr::new(10, 244, 0, *last), port: 8080 })
                .collect(),
        }
    }

    fn rules(ports: &[ServicePort]) -> String {
        rule_set(ports, "10.244.0.0/16".parse().unwrap())
    }

    #[test]
    fn a_service_spreads_over_its_endpoints() {
        let text = rules(&[port(&[2, 3], None)]);
        assert!(text.contains("10.96.0.9 . tcp . 80 : goto service-0"));
        assert!(text.contains("numgen random mod 2 vmap { 0 : goto endpoint-0-0, 1 : goto endpoint-0-1 }"));
        assert!(text.contains("dnat to 10.244.0.3:8080"));
        assert!(text.contains("192.0.2.7 . tcp . 80 : goto nodeport-0"));
    }

    #[test]
    fn a_service_without_endpoints_rejects() {
        let text = rules(&[port(&[], None)]);
        assert!(text.contains("10.96.0.9 . tcp . 80 : goto reject-chain"));
        assert!(text.contains("192.0.2.7 . tcp . 80 : goto reject-chain"));
        assert!(!text.contains("service-0"));
    }

    #[test]
    fn node_ports_masquerade() {
        let text = rules(&[port(&[2], Some(30080))]);
        assert!(text.contains("tcp . 30080 : goto nodeport-0"));
    }

    #[test]
    fn equal_states_give_equal_text() {
        assert_eq!(rules(&[port(&[2], None)]), rules(&[port(&[2], None)]));
    }
}
