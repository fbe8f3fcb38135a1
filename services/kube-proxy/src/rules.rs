//! From service ports to one nftables rule set: pure.
//!
//! Lookups go through verdict maps, so a packet costs the same however many Services there are:
//!
//! ```text
//! prerouting, output ──▶ services ──vmap address . protocol . port──▶ service-N ──numgen vmap──▶ endpoint-N-M: dnat
//!                                └──fib local, vmap protocol . port──▶ nodeport-N ─(mark)────────▲
//! postrouting ──mark──▶ masquerade            forward, input, output ──▶ no-endpoints: reject
//! ```

use std::collections::BTreeSet;
use std::fmt::Write;

use ipnet::Ipv4Net;

use crate::services::{Endpoint, ServicePort};

/// The same bit as upstream's, so that both agree when they meet on a node during a migration.
const MASQUERADE_MARK: &str = "0x4000";

/// The whole table as text for `nft -f`: it replaces what was there in one transaction.
pub fn rule_set(ports: &[ServicePort], cluster: Ipv4Net) -> String {
    let mut out = String::from("table ip kube-proxy\ndelete table ip kube-proxy\ntable ip kube-proxy {\n");
    for (index, port) in ports.iter().enumerate() {
        if !targets(port).is_empty() {
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
    let targets = targets(port);
    for (number, endpoint) in targets.iter().enumerate() {
        line(out, format_args!("\tchain endpoint-{index}-{number} {{"));
        // A pod that reaches itself through the Service must see an answer from the Service, so its own address must
        // not be the source.
        line(out, format_args!("\t\tip saddr {} meta mark set meta mark | {MASQUERADE_MARK}", endpoint.address));
        let protocol = port.protocol.name();
        line(out, format_args!("\t\tmeta l4proto {protocol} dnat to {}:{}", endpoint.address, endpoint.port));
        line(out, format_args!("\t}}"));
    }
    let spread = |chosen: &[Endpoint]| {
        let number = |endpoint: &Endpoint| targets.iter().position(|target| target == endpoint);
        let goto = |(at, number): (usize, usize)| format!("{at} : goto endpoint-{index}-{number}");
        let chosen: Vec<String> = chosen.iter().filter_map(number).enumerate().map(goto).collect();
        format!("numgen random mod {} vmap {{ {} }}", chosen.len(), chosen.join(", "))
    };
    if !port.endpoints.is_empty() {
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
        line(out, format_args!("\t\t{}", spread(&port.endpoints)));
        line(out, format_args!("\t}}"));
    }
    if port.node_port.is_none() && port.external.is_empty() {
        return;
    }
    line(out, format_args!("\tchain nodeport-{index} {{"));
    match &port.local {
        None => {
            line(out, format_args!("\t\tmeta mark set meta mark | {MASQUERADE_MARK}"));
            line(out, format_args!("\t\t{}", spread(&port.everywhere)));
        }
        Some(local) => {
            // What comes from the cluster is not from outside, whatever address it asks for.
            let everywhere = spread(&port.everywhere);
            line(out, format_args!("\t\tip saddr {cluster} {everywhere}"));
            line(
                out,
                format_args!("\t\tfib saddr type local meta mark set meta mark | {MASQUERADE_MARK} {everywhere}"),
            );
            let rest = if local.is_empty() { "drop".to_owned() } else { spread(local) };
            line(out, format_args!("\t\t{rest}"));
        }
    }
    line(out, format_args!("\t}}"));
}

/// Every endpoint that any kind of traffic may go to.
fn targets(port: &ServicePort) -> Vec<Endpoint> {
    let all = port.endpoints.iter().chain(&port.everywhere).chain(port.local.iter().flatten());
    all.copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn maps(out: &mut String, ports: &[ServicePort]) {
    let numbered = || ports.iter().enumerate();
    let outward = || numbered().filter(|(_, port)| !port.everywhere.is_empty());
    let key = |port: &ServicePort| format!("{} . {} . {}", port.cluster_ip, port.protocol.name(), port.port);
    let external = |port: &ServicePort| {
        let (protocol, number) = (port.protocol.name(), port.port);
        port.external.iter().map(|ip| format!("{ip} . {protocol} . {number}")).collect::<Vec<_>>()
    };
    let inner = numbered().filter(|(_, port)| !port.endpoints.is_empty());
    let inner = inner.map(|(index, port)| format!("{} : goto service-{index}", key(port)));
    // As with a node port, the answer must come back through this node.
    let outer = outward()
        .flat_map(|(index, port)| external(port).into_iter().map(move |key| format!("{key} : goto nodeport-{index}")));
    map(out, "service-ips", "ipv4_addr . inet_proto . inet_service", inner.chain(outer).collect());
    let by_node_port = outward().filter_map(|(index, port)| {
        Some(format!("{} . {} : goto nodeport-{index}", port.protocol.name(), port.node_port?))
    });
    map(out, "service-nodeports", "inet_proto . inet_service", by_node_port.collect());
    // Endpoints that are only elsewhere are no reason to say that there is no service.
    let dead = ports.iter().filter(|port| port.endpoints.is_empty()).flat_map(|port| {
        if port.everywhere.is_empty() {
            let keys = std::iter::once(key(port)).chain(external(port));
            keys.map(|key| format!("{key} : goto reject-chain")).collect()
        } else {
            vec![format!("{} : drop", key(port))]
        }
    });
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
    use crate::services::Protocol;

    fn endpoints(last: &[u8]) -> Vec<Endpoint> {
        last.iter().map(|last| Endpoint { address: Ipv4Addr::new(10, 244, 0, *last), port: 8080 }).collect()
    }

    fn port(last: &[u8], node_port: Option<u16>) -> ServicePort {
        ServicePort {
            name: "default/web:http".to_owned(),
            cluster_ip: Ipv4Addr::new(10, 96, 0, 9),
            protocol: Protocol::Tcp,
            port: 80,
            node_port,
            external: vec![Ipv4Addr::new(192, 0, 2, 7)],
            endpoints: endpoints(last),
            everywhere: endpoints(last),
            local: None,
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
    fn local_policy_keeps_sources_and_uses_this_nodes_endpoints() {
        let local = |last: &[u8]| ServicePort { local: Some(endpoints(last)), ..port(&[2, 3], Some(30080)) };
        let text = rules(&[local(&[3])]);
        let chain = text.split("chain nodeport-0 {").nth(1).unwrap().split('}').collect::<Vec<_>>().join("}");
        let lines: Vec<&str> = chain.lines().map(str::trim).filter(|l| !l.is_empty()).take(3).collect();
        assert!(lines[0].starts_with("ip saddr 10.244.0.0/16 numgen random mod 2"), "{lines:?}");
        assert!(lines[1].starts_with("fib saddr type local meta mark set meta mark | 0x4000 numgen random mod 2"));
        assert_eq!(lines[2], "numgen random mod 1 vmap { 0 : goto endpoint-0-1 }", "no mark");
        assert!(rules(&[local(&[])]).contains("\t\tdrop\n"), "nothing here, but elsewhere");
    }

    #[test]
    fn endpoints_only_elsewhere_drop_what_must_stay_here() {
        let text = rules(&[ServicePort { endpoints: Vec::new(), ..port(&[2], None) }]);
        assert!(text.contains("10.96.0.9 . tcp . 80 : drop"), "{text}");
        assert!(text.contains("192.0.2.7 . tcp . 80 : goto nodeport-0"), "from outside it is served");
        assert!(!text.contains("goto service-0"));
    }

    #[test]
    fn equal_states_give_equal_text() {
        assert_eq!(rules(&[port(&[2], None)]), rules(&[port(&[2], None)]));
    }
}
