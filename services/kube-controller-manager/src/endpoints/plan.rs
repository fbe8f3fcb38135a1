//! A Service's pods as an Endpoints object. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
use serde_json::{Map, Value, json};

use crate::{object, pods, services};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// Made by this controller.
pub fn is_managed(endpoints: &Value) -> bool {
    meta::label(endpoints, MANAGED_BY) == Some(CONTROLLER)
}

/// The object to write, if it is not as it should be.
pub fn endpoints(service: &Value, pods: &[Arc<Value>], found: Option<&Value>) -> Option<Value> {
    let (subsets, labels) = (subsets(service, pods), labels(service));
    let Some(found) = found else {
        return Some(json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": meta::name(service), "namespace": meta::namespace(service), "labels": labels},
            "subsets": subsets,
        }));
    };
    if object::list(found, "/subsets") == subsets.as_slice() && meta::labels(found) == Some(&labels) {
        return None;
    }
    let mut wanted = found.clone();
    wanted["subsets"] = subsets.into();
    wanted["metadata"]["labels"] = labels.into();
    Some(wanted)
}

fn labels(service: &Value) -> Map<String, Value> {
    let mut labels = meta::labels(service).cloned().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.into());
    if services::is_headless(service) {
        labels.insert(services::HEADLESS_LABEL.to_owned(), "".into());
    }
    labels
}

/// Addresses with the same ports share a subset.
fn subsets(service: &Value, pods: &[Arc<Value>]) -> Vec<Value> {
    let unready_too = services::publishes_unready(service);
    let mut groups: BTreeMap<String, (Vec<Value>, [Vec<Value>; 2])> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| unready_too || !pods::is_terminating(pod)) {
        let ports = services::ports_at(service, pod);
        if ports.is_empty() && !services::is_headless(service) {
            continue;
        }
        let ready = unready_too || pods::is_ready(pod);
        let key = Value::from(ports.clone()).to_string();
        let group = groups.entry(key).or_insert_with(|| (ports, Default::default()));
        group.1[usize::from(!ready)].push(address(service, pod));
    }
    let subset = |(ports, [ready, unready]): (Vec<Value>, [Vec<Value>; 2])| {
        let mut subset = json!({});
        for (name, list) in [("addresses", ready), ("notReadyAddresses", unready), ("ports", ports)] {
            if !list.is_empty() {
                subset[name] = list.into();
            }
        }
        // A single unnamed port has no name here, unlike in slices.
        for port in subset["ports"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            port.retain(|field, value| field != "name" || value != "");
        }
        if subset["ports"].is_null() {
            subset.as_object_mut().into_iter().for_each(|s| drop(s.remove("ports")));
        }
        subset
    };
    groups.into_values().map(subset).collect()
}

fn address(service: &Value, pod: &Value) -> Value {
    let mut address = json!({"ip": object::text(pod, "/status/podIP"), "targetRef": services::target(pod)});
    let node = object::text(pod, "/spec/nodeName");
    if !node.is_empty() {
        address["nodeName"] = node.into();
    }
    if let Some(hostname) = services::hostname(service, pod) {
        address["hostname"] = hostname.into();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool, port: i64) -> Arc<Value> {
        let ready = if ready { "True" } else { "False" };
        Arc::new(json!({
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"nodeName": "a", "containers": [{"ports": [{"name": "http", "containerPort": port}]}]},
            "status": {"podIP": name, "conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    #[test]
    fn groups_by_resolved_ports_and_readiness() {
        let mut service = json!({"metadata": {"name": "web", "namespace": "n", "labels": {"a": "b"}},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
        let pods = [pod("1", true, 8080), pod("2", false, 8080), pod("3", true, 9090)];
        let made = endpoints(&service, &pods, None).unwrap();
        let subsets = made["subsets"].as_array().unwrap();
        assert_eq!(subsets.len(), 2);
        assert_eq!(subsets[0]["addresses"].as_array().unwrap().len(), 1);
        assert_eq!(subsets[0]["notReadyAddresses"][0]["ip"], "2");
        assert_eq!(subsets[0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        assert!(is_managed(&made));
        assert!(endpoints(&service, &pods, Some(&made)).is_none(), "settled");

        service["spec"]["publishNotReadyAddresses"] = true.into();
        let all = endpoints(&service, &pods, Some(&made)).unwrap();
        assert_eq!(all["subsets"][0]["addresses"].as_array().unwrap().len(), 2);
        assert_eq!(endpoints(&service, &[], None).unwrap()["subsets"], json!([]), "no pods, still an object");
    }
}
