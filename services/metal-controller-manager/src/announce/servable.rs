//! Which load balancers' addresses this machine can serve. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::meta;
use serde_json::Value;

use crate::pools;

/// Names a slice's Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Label of Nodes that no load balancer shall use; upstream's.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Whether a Service has addresses that are for the machines to announce.
pub fn is_announced(service: &Value) -> bool {
    pools::is_ours(service) && pools::is_marked(service)
}

/// Whether it is to see its clients' addresses: then only machines with its endpoints can serve it.
pub fn is_local(service: &Value) -> bool {
    service["spec"]["externalTrafficPolicy"] == "Local"
}

/// The addresses that the machine of this Node can serve; `slices` are all of a namespace.
pub fn addresses<S: Iterator<Item = Arc<Value>>>(
    services: &[Arc<Value>],
    node: &str,
    slices: impl Fn(&str) -> S,
) -> BTreeSet<IpAddr> {
    let here = |service: &Value| !is_local(service) || has_endpoint(service, node, slices(meta::namespace(service)));
    let ours = services.iter().filter(|service| is_announced(service) && here(service));
    ours.flat_map(|service| pools::addresses(service)).collect()
}

fn has_endpoint(service: &Value, node: &str, mut slices: impl Iterator<Item = Arc<Value>>) -> bool {
    slices.any(|slice| {
        let ready = |endpoint: &Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        let mut endpoints = slice["endpoints"].as_array().into_iter().flatten();
        slice["metadata"]["labels"][SERVICE_LABEL] == service["metadata"]["name"]
            && endpoints.any(|endpoint| endpoint["nodeName"] == node && ready(endpoint))
    })
}

/// Whether a Node is to be left out by load balancers.
pub fn is_excluded(node: &Value) -> bool {
    node["metadata"]["labels"].get(EXCLUDED).is_some()
}

/// Whether a Node is ready. One that says nothing is not.
pub fn is_ready(node: &Value) -> bool {
    let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Keeps of an EndpointSlice on which nodes something is ready.
pub fn trim_slice(slice: &mut Value) {
    for endpoint in slice["endpoints"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        endpoint.retain(|field, _| field == "nodeName" || field == "conditions");
    }
}

/// Keeps of a Node what is asked here.
pub fn trim_node(node: &mut Value) {
    let conditions = node["status"]["conditions"].take();
    node["status"] = serde_json::json!({ "conditions": conditions });
    node["spec"] = Value::Null;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_that_sees_its_clients_is_served_where_it_is_ready() {
        let slice = |service: &str, endpoints: Value| {
            let mut slice = json!({"metadata": {"labels": {SERVICE_LABEL: service}}, "endpoints": endpoints});
            trim_slice(&mut slice);
            assert!(slice["endpoints"][0]["addresses"].is_null());
            Arc::new(slice)
        };
        let slices = [
            slice(
                "near",
                json!([{"addresses": ["10.0.0.1"], "nodeName": "a", "conditions": {"ready": true}},
                       {"addresses": ["10.0.1.1"], "nodeName": "b", "conditions": {"ready": false}}]),
            ),
            slice("near", json!([{"addresses": ["10.0.2.1"], "nodeName": "c"}])),
            slice("other", json!([{"addresses": ["10.0.3.1"], "nodeName": "d"}])),
        ];
        let service = |name: &str, policy: &str, ip: &str, marked: bool| {
            let conditions = json!([{"type": pools::MARK, "status": if marked { "True" } else { "False" }}]);
            Arc::new(json!({"metadata": {"name": name, "namespace": "n"},
                "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy},
                "status": {"conditions": conditions, "loadBalancer": {"ingress": [{"ip": ip}]}}}))
        };
        let services = [
            service("near", "Local", "192.0.2.1", true),
            service("far", "Cluster", "192.0.2.2", true),
            service("foreign", "Cluster", "192.0.2.3", false),
        ];
        let on = |node: &str| {
            let found = addresses(&services, node, |_| slices.clone().into_iter());
            found.iter().map(|ip| ip.to_string().split_off(8)).collect::<Vec<_>>().join(" ")
        };
        for (node, expected) in [("a", "1 2"), ("b", "2"), ("c", "1 2"), ("d", "2")] {
            assert_eq!(on(node), expected, "{node}");
        }
    }

    #[test]
    fn what_a_node_says_of_itself() {
        let node = |ready: &str| {
            let mut node = json!({"metadata": {"labels": {EXCLUDED: ""}}, "spec": {"podCIDR": "x"},
                "status": {"images": [], "conditions": [{"type": "Ready", "status": ready}]}});
            trim_node(&mut node);
            node
        };
        assert!(is_ready(&node("True")) && !is_ready(&node("Unknown")) && !is_ready(&json!({})));
        assert!(is_excluded(&node("True")) && !is_excluded(&json!({})));
    }
}
