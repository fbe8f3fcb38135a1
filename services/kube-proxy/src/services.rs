//! From Services and EndpointSlices to service ports with their endpoints: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::Value;

/// A transport protocol, in nftables' spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

/// Where connections to a service port may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port-name`, for people who read the rules.
    pub name: String,
    pub cluster_ip: Ipv4Addr,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    /// Addresses outside the cluster's own ranges that lead to this node: those of load balancers and external ones.
    pub external: Vec<Ipv4Addr>,
    /// For connections to the cluster's address. Like the others sorted, so that equal states give equal rules.
    pub endpoints: Vec<Endpoint>,
    /// Those of all nodes: for connections from outside, unless only [`Self::local`] ones may be used.
    pub everywhere: Vec<Endpoint>,
    /// With externalTrafficPolicy Local those of this node: connections from outside go to no others and keep their source.
    pub local: Option<Vec<Endpoint>>,
}

#[derive(Default)]
struct Candidates {
    ready: BTreeSet<Endpoint>,
    /// Used only while no endpoint is ready (KEP-1669).
    serving_terminating: BTreeSet<Endpoint>,
}

/// All IPv4 service ports that this node should know, sorted by name.
pub fn ports(services: &[Arc<Value>], slices: &[Arc<Value>], node: &str) -> Vec<ServicePort> {
    let mut by_service: BTreeMap<(&str, &str), Vec<&Value>> = BTreeMap::new();
    for slice in slices {
        let metadata = &slice["metadata"];
        if let Some(service) = metadata["labels"]["kubernetes.io/service-name"].as_str()
            && slice["addressType"] == "IPv4"
        {
            let namespace = metadata["namespace"].as_str().unwrap_or_default();
            by_service.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mut ports: Vec<ServicePort> = services
        .iter()
        .flat_map(|service| {
            let key = (text(&service["metadata"]["namespace"]), text(&service["metadata"]["name"]));
            service_ports(service, by_service.get(&key).map(Vec::as_slice).unwrap_or_default(), node)
        })
        .collect();
    ports.sort_by(|a, b| a.name.cmp(&b.name));
    ports
}

fn service_ports(service: &Value, slices: &[&Value], node: &str) -> Vec<ServicePort> {
    let (metadata, spec) = (&service["metadata"], &service["spec"]);
    // Headless and ExternalName Services have no address to translate; DNS serves them.
    let Some(cluster_ip) = spec["clusterIP"].as_str().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
        return Vec::new();
    };
    // Another proxy was chosen for this Service (well-known label).
    if !metadata["labels"]["service.kubernetes.io/service-proxy-name"].is_null() {
        return Vec::new();
    }
    let internal_node = (spec["internalTrafficPolicy"] == "Local").then_some(node);
    let is_local = spec["externalTrafficPolicy"] == "Local";
    let external = external(service);
    let listed = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    listed
        .iter()
        .filter_map(|port| {
            let port_name = text(&port["name"]);
            Some(ServicePort {
                name: format!("{}/{}:{port_name}", text(&metadata["namespace"]), text(&metadata["name"])),
                cluster_ip,
                protocol: Protocol::parse(port["protocol"].as_str())?,
                port: number(&port["port"])?,
                node_port: number(&port["nodePort"]).filter(|port| *port > 0),
                external: external.clone(),
                endpoints: endpoints(slices, port_name, internal_node),
                everywhere: endpoints(slices, port_name, None),
                local: is_local.then(|| endpoints(slices, port_name, Some(node))),
            })
        })
        .collect()
}

/// Sorted. A load balancer in mode Proxy (KEP-1860) must see the traffic itself.
fn external(service: &Value) -> Vec<Ipv4Addr> {
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
    let balanced = ingress.filter(|point| point["ipMode"] != "Proxy").map(|point| &point["ip"]);
    let given = service["spec"]["externalIPs"].as_array().into_iter().flatten();
    let addresses = balanced.chain(given).filter_map(|ip| ip.as_str()?.parse().ok());
    addresses.collect::<BTreeSet<_>>().into_iter().collect()
}

fn endpoints(slices: &[&Value], port_name: &str, only_on: Option<&str>) -> Vec<Endpoint> {
    let mut candidates = Candidates::default();
    for slice in slices {
        let ports = slice["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(port) = ports.iter().find(|port| text(&port["name"]) == port_name).and_then(|p| number(&p["port"]))
        else {
            continue;
        };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if only_on.is_some_and(|node| endpoint["nodeName"].as_str() != Some(node)) {
                continue;
            }
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            let found = addresses.filter_map(|a| a.as_str()?.parse().ok()).map(|address| Endpoint { address, port });
            let conditions = &endpoint["conditions"];
            // Unset means ready (EndpointConditions in discovery/v1).
            if conditions["ready"].as_bool().unwrap_or(true) {
                candidates.ready.extend(found);
            } else if conditions["serving"].as_bool() == Some(true) && conditions["terminating"].as_bool() == Some(true)
            {
                candidates.serving_terminating.extend(found);
            }
        }
    }
    let chosen = if candidates.ready.is_empty() { candidates.serving_terminating } else { candidates.ready };
    chosen.into_iter().collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| u16::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(cluster_ip: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"namespace": "n", "name": "web"},
            "spec": {"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        }))
    }

    fn slice(endpoints: &Value) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"namespace": "n", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints,
        }))
    }

    fn addresses(endpoints: &Value) -> Vec<String> {
        let ports = ports(&[service("10.96.0.9")], &[slice(endpoints)], "here");
        ports[0].endpoints.iter().map(|e| format!("{}:{}", e.address, e.port)).collect()
    }

    #[test]
    fn ready_endpoints_win_and_terminating_ones_serve_last() {
        let ready = json!({"addresses": ["10.244.0.2"]});
        let dying =
            json!({"addresses": ["10.244.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let unready = json!({"addresses": ["10.244.0.4"], "conditions": {"ready": false}});
        assert_eq!(addresses(&json!([ready, dying, unready])), ["10.244.0.2:8080"]);
        assert_eq!(addresses(&json!([dying, unready])), ["10.244.0.3:8080"]);
        assert!(addresses(&json!([unready])).is_empty());
    }

    #[test]
    fn load_balancers_that_pass_packets_on_and_external_addresses() {
        let mut balanced = Value::clone(&service("10.96.0.9"));
        balanced["spec"]["externalIPs"] = json!(["192.0.2.9"]);
        let ingress = json!([{"ip": "192.0.2.2", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode": "Proxy"},
                             {"hostname": "x"}, {"ip": "fd00::1"}]);
        balanced["status"]["loadBalancer"]["ingress"] = ingress;
        let ports = ports(&[Arc::new(balanced)], &[], "here");
        let shown: Vec<String> = ports[0].external.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.2", "192.0.2.9"]);
    }

    #[test]
    fn policies_choose_whose_endpoints_count() {
        let endpoints = json!([{"addresses": ["10.244.0.2"], "nodeName": "here"},
                               {"addresses": ["10.244.1.2"], "nodeName": "there"}]);
        let shown = |endpoints: &[Endpoint]| endpoints.iter().map(|e| e.address.to_string()).collect::<Vec<_>>();
        let (both, here) = (vec!["10.244.0.2", "10.244.1.2"], vec!["10.244.0.2"]);
        for (internal, external, inside, local) in [
            ("Cluster", "Cluster", &both, None),
            ("Local", "Cluster", &here, None),
            ("Cluster", "Local", &both, Some(&here)),
        ] {
            let mut web = Value::clone(&service("10.96.0.9"));
            web["spec"]["internalTrafficPolicy"] = internal.into();
            web["spec"]["externalTrafficPolicy"] = external.into();
            let port = ports(&[Arc::new(web)], &[slice(&endpoints)], "here").remove(0);
            assert_eq!(shown(&port.endpoints), **inside, "{internal} {external}");
            assert_eq!(shown(&port.everywhere), both, "{internal} {external}");
            assert_eq!(port.local.as_deref().map(shown), local.map(|l| l.iter().map(|a| (*a).to_owned()).collect()));
        }
    }

    #[test]
    fn headless_services_have_no_rules() {
        assert!(ports(&[service("None")], &[], "here").is_empty());
    }
}
