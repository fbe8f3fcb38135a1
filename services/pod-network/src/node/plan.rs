//! From Node objects to this node's network: pure.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use netlink::{Route, RouteEntry};
use serde_json::{Value, json};

/// What this node's part of the pod network should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The addresses of this node's pods, once the node has been given some.
    pub subnet: Option<Ipv4Net>,
    /// The node's own address.
    pub node_address: Option<Ipv4Addr>,
    /// Routes to the other nodes' pods, by way of those nodes.
    pub routes: Vec<Route>,
}

/// Computes the plan of `node_name` from all Nodes. Only subnets inside the cluster's range are routed.
pub fn plan(nodes: &[Arc<Value>], node_name: &str, cluster: Ipv4Net) -> Plan {
    let mut plan = Plan::default();
    for node in nodes {
        let (subnet, address) = (subnet(node), internal_address(node));
        if node["metadata"]["name"].as_str() == Some(node_name) {
            plan.subnet = subnet;
            plan.node_address = address;
        } else if let (Some(subnet), Some(address)) = (subnet, address)
            && cluster.contains(&subnet)
        {
            plan.routes.push(Route::new(IpNet::V4(subnet), Some(IpAddr::V4(address)), None));
        }
    }
    plan.routes.sort_by_key(|route| route.destination);
    plan
}

impl Plan {
    /// The configuration list for containerd.
    pub fn cni_configuration(&self) -> Option<String> {
        let subnet = self.subnet?;
        let list = json!({
            "cniVersion": "1.0.0",
            "name": "corten",
            "plugins": [{"type": "corten-cni", "subnet": subnet, "nodeAddress": self.node_address}],
        });
        Some(list.to_string())
    }
}

/// Routes that an earlier plan left: inside the cluster's range, by a gateway, and no longer wanted.
pub fn stale_routes(present: &[RouteEntry], plan: &Plan, cluster: Ipv4Net) -> Vec<Route> {
    let wanted: HashSet<IpNet> = plan.routes.iter().map(|route| route.destination).collect();
    let ours = |entry: &&RouteEntry| match entry.destination {
        IpNet::V4(destination) => entry.gateway.is_some() && cluster.contains(&destination),
        IpNet::V6(_) => false,
    };
    let stale = present.iter().filter(ours).filter(|entry| !wanted.contains(&entry.destination));
    stale.map(|entry| Route::new(entry.destination, entry.gateway, entry.interface)).collect()
}

/// Pod traffic to outside the cluster leaves with the node's address: nobody outside can route to pods.
pub fn masquerade_rules(cluster: Ipv4Net) -> String {
    format!(
        "table ip corten-pod-network\n\
         delete table ip corten-pod-network\n\
         table ip corten-pod-network {{\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip saddr {cluster} ip daddr != {cluster} ip daddr != 224.0.0.0/4 masquerade\n\
         \t}}\n\
         }}\n"
    )
}

fn subnet(node: &Value) -> Option<Ipv4Net> {
    let spec = &node["spec"];
    let listed = spec["podCIDRs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    listed.chain(spec["podCIDR"].as_str()).find_map(|text| text.parse().ok())
}

fn internal_address(node: &Value) -> Option<Ipv4Addr> {
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    addresses
        .filter(|address| address["type"] == "InternalIP")
        .find_map(|address| address["address"].as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, subnet: &str, address: &str) -> Arc<Value> {
        Arc::new(json!({
            "metadata": {"name": name}, "spec": {"podCIDR": subnet},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
        }))
    }

    #[test]
    fn other_nodes_are_routed_and_foreign_ranges_are_not() {
        let nodes = [
            node("a", "10.244.0.0/24", "192.0.2.1"),
            node("b", "10.244.1.0/24", "192.0.2.2"),
            node("c", "203.0.113.0/24", "192.0.2.3"),
            node("d", "", "192.0.2.4"),
        ];
        let plan = plan(&nodes, "a", "10.244.0.0/16".parse().unwrap());
        assert_eq!(plan.subnet, "10.244.0.0/24".parse().ok());
        let via = "192.0.2.2".parse().ok();
        assert_eq!(plan.routes, [Route::new("10.244.1.0/24".parse().unwrap(), via, None)]);
        assert!(plan.cni_configuration().unwrap().contains("\"nodeAddress\":\"192.0.2.1\""));
    }

    #[test]
    fn only_our_own_leftovers_are_stale() {
        let cluster = "10.244.0.0/16".parse().unwrap();
        let entry = |destination: &str, gateway: Option<&str>| RouteEntry {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(|g| g.parse().unwrap()),
            interface: Some(2),
            protocol: 4,
        };
        let present = [
            entry("0.0.0.0/0", Some("192.0.2.254")),
            entry("10.244.0.5/32", None),
            entry("10.244.7.0/24", Some("192.0.2.7")),
        ];
        let stale = stale_routes(&present, &Plan::default(), cluster);
        assert_eq!(stale.iter().map(|r| r.destination.to_string()).collect::<Vec<_>>(), ["10.244.7.0/24"]);
    }
}
