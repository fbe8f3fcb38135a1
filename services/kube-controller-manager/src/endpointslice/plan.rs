//! How a Service's pods are laid out in slices, moving as little as possible. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::meta;
use serde_json::{Map, Value, json};

use crate::{object, pods, services};

const ENDPOINTS_MAX: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// One write.
#[derive(Debug, PartialEq)]
pub enum Change {
    Create(Value),
    Update(Value),
    Delete(Arc<Value>),
}

/// The key of the Service that a slice of this controller belongs to.
pub fn service_of(slice: &Value) -> Option<String> {
    if meta::label(slice, MANAGED_BY) != Some(CONTROLLER) {
        return None;
    }
    Some(format!("{}/{}", meta::namespace(slice), meta::label(slice, SERVICE_NAME)?))
}

/// Endpoints by address, for each set of ports.
type Groups = BTreeMap<String, (Vec<Value>, BTreeMap<String, Value>)>;

/// The writes that make the slices show the pods.
pub fn plan(
    service: &Value,
    pods: &[Arc<Value>],
    existing: &[Arc<Value>],
    zones: &BTreeMap<String, String>,
    now: &str,
) -> Vec<Change> {
    let families = families(service);
    let mut changes = Vec::new();
    for family in &families {
        let slices: Vec<_> = existing.iter().filter(|s| s["addressType"] == *family).cloned().collect();
        let groups = groups(service, pods, family, zones);
        lay_out(service, family, groups, slices, now, &mut changes);
    }
    let stale = existing.iter().filter(|slice| !families.iter().any(|family| slice["addressType"] == *family));
    changes.extend(stale.cloned().map(Change::Delete));
    changes
}

fn families(service: &Value) -> Vec<String> {
    let families = object::list(service, "/spec/ipFamilies").iter().filter_map(Value::as_str);
    let families: Vec<String> = families.map(str::to_owned).collect();
    if families.is_empty() { vec!["IPv4".to_owned()] } else { families }
}

fn groups(service: &Value, pods: &[Arc<Value>], family: &str, zones: &BTreeMap<String, String>) -> Groups {
    let mut groups = Groups::new();
    for pod in pods {
        let Some(address) = address_of(pod, family) else { continue };
        let ports = services::ports_at(service, pod);
        let key = Value::from(ports.clone()).to_string();
        let endpoint = endpoint(service, pod, address, zones);
        groups.entry(key).or_insert_with(|| (ports, BTreeMap::new())).1.insert(address.to_owned(), endpoint);
    }
    // Even a Service without pods has a slice: its absence would mean that nobody has looked yet.
    if groups.is_empty() {
        groups.insert("[]".to_owned(), Default::default());
    }
    groups
}

fn address_of<'a>(pod: &'a Value, family: &str) -> Option<&'a str> {
    let all = object::list(pod, "/status/podIPs").iter().filter_map(|ip| ip["ip"].as_str());
    let mut all = all.chain(pod["status"]["podIP"].as_str());
    all.find(|ip| ip.contains(':') == (family == "IPv6"))
}

fn endpoint(service: &Value, pod: &Value, address: &str, zones: &BTreeMap<String, String>) -> Value {
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let ready = services::publishes_unready(service) || serving && !terminating;
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": services::target(pod),
    });
    let node = object::text(pod, "/spec/nodeName");
    if !node.is_empty() {
        endpoint["nodeName"] = node.into();
    }
    if let Some(zone) = zones.get(node) {
        endpoint["zone"] = zone.as_str().into();
    }
    if let Some(hostname) = services::hostname(service, pod) {
        endpoint["hostname"] = hostname.into();
    }
    if let Some(hints) = hints(service, &endpoint).filter(|_| ready) {
        endpoint["hints"] = hints;
    }
    endpoint
}

/// For whom the endpoint is meant first, by the Service's trafficDistribution (KEP-4444, KEP-3015): clients of its own zone, or of
/// its own node and then its zone.
fn hints(service: &Value, endpoint: &Value) -> Option<Value> {
    let named = |field: &str| endpoint.get(field).map(|name| json!([{"name": name}]));
    let same_node = match object::text(service, "/spec/trafficDistribution") {
        "PreferSameNode" => named("nodeName"),
        "PreferClose" | "PreferSameZone" => None,
        _ => return None,
    };
    let parts = [("forZones", named("zone")), ("forNodes", same_node)];
    let hints: Map<String, Value> =
        parts.into_iter().filter_map(|(field, names)| Some((field.to_owned(), names?))).collect();
    (!hints.is_empty()).then_some(hints.into())
}

/// Keeps endpoints where they are, fills gaps with new ones, and only then opens new slices.
fn lay_out(
    service: &Value,
    family: &str,
    groups: Groups,
    slices: Vec<Arc<Value>>,
    now: &str,
    changes: &mut Vec<Change>,
) {
    let mut unused: BTreeSet<usize> = (0..slices.len()).collect();
    for (_, (ports, mut wanted)) in groups {
        let empty = wanted.is_empty();
        let mut kept: Vec<(usize, Vec<Value>)> = Vec::new();
        for (index, slice) in slices.iter().enumerate() {
            if !same_ports(slice, &ports) || !unused.remove(&index) {
                continue;
            }
            let stay =
                object::list(slice, "/endpoints").iter().filter_map(|e| wanted.remove(object::text(e, "/addresses/0")));
            kept.push((index, stay.collect()));
        }
        let mut rest = wanted.into_values();
        for (_, endpoints) in &mut kept {
            let room = ENDPOINTS_MAX.saturating_sub(endpoints.len());
            endpoints.extend(rest.by_ref().take(room));
        }
        let mut placeholder_missing = empty;
        for (index, endpoints) in kept {
            if endpoints.is_empty() && !std::mem::take(&mut placeholder_missing) {
                changes.push(Change::Delete(Arc::clone(&slices[index])));
            } else if let Some(slice) = updated(service, &slices[index], endpoints, now) {
                changes.push(Change::Update(slice));
            }
        }
        let rest: Vec<Value> = rest.collect();
        let new = rest.chunks(ENDPOINTS_MAX).map(<[Value]>::to_vec).chain(placeholder_missing.then(Vec::new));
        changes.extend(new.map(|endpoints| Change::Create(created(service, family, &ports, endpoints, now))));
    }
    changes.extend(unused.into_iter().map(|index| Change::Delete(Arc::clone(&slices[index]))));
}

fn same_ports(slice: &Value, ports: &[Value]) -> bool {
    let mut found = object::list(slice, "/ports").to_vec();
    found.sort_by_key(|port| (port["name"].to_string(), port["protocol"].to_string(), port["port"].as_i64()));
    found == ports
}

fn labels(service: &Value) -> Map<String, Value> {
    let mut labels = meta::labels(service).cloned().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), meta::name(service).into());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.into());
    if services::is_headless(service) {
        labels.insert(services::HEADLESS_LABEL.to_owned(), "".into());
    }
    labels
}

fn updated(service: &Value, slice: &Value, endpoints: Vec<Value>, now: &str) -> Option<Value> {
    let labels = labels(service);
    if object::list(slice, "/endpoints") == endpoints.as_slice() && meta::labels(slice) == Some(&labels) {
        return None;
    }
    let mut updated = slice.clone();
    updated["endpoints"] = endpoints.into();
    updated["metadata"]["labels"] = labels.into();
    meta::set_annotation(&mut updated, TRIGGER_TIME, now);
    Some(updated)
}

fn created(service: &Value, family: &str, ports: &[Value], endpoints: Vec<Value>, now: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", meta::name(service)),
            "namespace": meta::namespace(service),
            "labels": labels(service),
            "annotations": {TRIGGER_TIME: now},
            "ownerReferences": [meta::controller_reference(service)],
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    })
}
