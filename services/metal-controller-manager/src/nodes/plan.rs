//! What is missing on a Node. Pure.

use apimachinery::meta;
use serde_json::{Value, json};

/// Set by kubelets that were told to wait for a cloud provider.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// The address that such a kubelet was given.
const NODE_IP: &str = "alpha.kubernetes.io/provided-node-ip";

/// Strategic merge patches, each with its subresource, in the order in which they have to be made.
pub(super) fn plan(node: &Value) -> Vec<(Option<&'static str>, Value)> {
    let uid = meta::uid(node);
    let mut patches = Vec::new();
    let taints = node["spec"]["taints"].as_array().map(Vec::as_slice).unwrap_or_default();
    let waits = taints.iter().any(|taint| taint["key"] == UNINITIALIZED);
    let ips = meta::annotation(node, NODE_IP).filter(|_| waits);
    if let Some(ips) = ips {
        let internal = ips.split(',').map(|ip| json!({"type": "InternalIP", "address": ip.trim()}));
        let mut addresses: Vec<Value> = internal.collect();
        addresses.push(json!({"type": "Hostname", "address": meta::name(node)}));
        let known = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        if known != addresses {
            addresses.insert(0, json!({"$patch": "replace"}));
            patches.push((Some("status"), json!({"metadata": {"uid": uid}, "status": {"addresses": addresses}})));
        }
    }
    let mut spec = json!({});
    if let Some(id) = provider_id(node).filter(|_| node["spec"]["providerID"].as_str().unwrap_or_default().is_empty()) {
        spec["providerID"] = id.into();
    }
    if waits {
        let left: Vec<&Value> = taints.iter().filter(|taint| taint["key"] != UNINITIALIZED).collect();
        spec["taints"] = json!(left);
    }
    if spec != json!({}) {
        // The version makes the server refuse if somebody else has changed the taints.
        let metadata = json!({"uid": uid, "resourceVersion": meta::resource_version(node)});
        let metadata = if patches.is_empty() { metadata } else { json!({"uid": uid}) };
        patches.push((None, json!({"metadata": metadata, "spec": spec})));
    }
    patches
}

/// The machine's own number: of its firmware, else of its installation.
fn provider_id(node: &Value) -> Option<String> {
    let info = &node["status"]["nodeInfo"];
    let number =
        ["systemUUID", "machineID"].into_iter().filter_map(|field| info[field].as_str()).find(|id| !id.is_empty());
    number.map(|number| format!("metal://{}", number.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_given_what_it_lacks() {
        let node = json!({"metadata": {"name": "n1", "uid": "u", "resourceVersion": "7"}, "spec": {},
            "status": {"nodeInfo": {"systemUUID": "AB-1", "machineID": "cd"}}});
        let metadata = json!({"uid": "u", "resourceVersion": "7"});
        assert_eq!(plan(&node), [(None, json!({"metadata": metadata, "spec": {"providerID": "metal://ab-1"}}))]);
        let mut known = node.clone();
        known["spec"]["providerID"] = "aws:///x".into();
        assert!(plan(&known).is_empty(), "never changed");
        let mut blank = node;
        blank["status"] = json!({});
        assert!(plan(&blank).is_empty(), "nothing known yet");
    }

    #[test]
    fn a_waiting_kubelet_gets_addresses_before_its_taint_goes() {
        let node = json!({"metadata": {"name": "n1", "uid": "u", "annotations": {NODE_IP: "192.0.2.5"}},
            "spec": {"providerID": "x", "taints": [{"key": UNINITIALIZED, "effect": "NoSchedule"}, {"key": "k"}]}});
        let patches = plan(&node);
        assert_eq!(patches[0].0, Some("status"));
        assert_eq!(patches[0].1["status"]["addresses"][1], json!({"type": "InternalIP", "address": "192.0.2.5"}));
        assert_eq!(patches[1].1["spec"], json!({"taints": [{"key": "k"}]}));
    }
}
