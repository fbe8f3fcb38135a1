//! Endpoints subsets as slices: one for each subset and address family. Pure.
//!
//! Names are made of the subset's ports, so that the same subset finds its slice again and two passes cannot make it twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta;
use serde_json::{Value, json};

use crate::{hash, object};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// More addresses of a subset than this are not mirrored, as upstream.
const ADDRESSES_MAX: usize = 1000;

/// One write.
#[derive(Debug, PartialEq)]
pub(super) enum Change {
    Create(Value),
    Update(Value),
    Delete(Arc<Value>),
}

/// The key of the Service that a mirrored slice belongs to.
pub(super) fn service_of(slice: &Value) -> Option<String> {
    if meta::label(slice, MANAGED_BY) != Some(CONTROLLER) {
        return None;
    }
    Some(format!("{}/{}", meta::namespace(slice), meta::label(slice, SERVICE_NAME)?))
}

/// The writes that make the slices mirror the Endpoints; without a Service, or with one that has a selector, there is
/// nothing to mirror.
pub(super) fn plan(endpoints: Option<&Value>, service: Option<&Value>, existing: &[Arc<Value>]) -> Vec<Change> {
    let mirrored = endpoints.filter(|e| is_mirrored(e)).filter(|_| service.is_some_and(has_no_selector));
    let mut wanted: BTreeMap<String, Value> = mirrored.map(slices).unwrap_or_default();
    let mut changes = Vec::new();
    for slice in existing {
        match wanted.remove(meta::name(slice)) {
            None => changes.push(Change::Delete(Arc::clone(slice))),
            Some(new) if same(slice, &new) => {}
            Some(mut new) => {
                new["metadata"]["resourceVersion"] = meta::resource_version(slice).into();
                changes.push(Change::Update(new));
            }
        }
    }
    changes.extend(wanted.into_values().map(Change::Create));
    changes
}

fn is_mirrored(endpoints: &Value) -> bool {
    meta::label(endpoints, SKIP) != Some("true")
        && meta::annotation(endpoints, LEADER).is_none()
        && meta::deletion_timestamp(endpoints).is_none()
}

fn has_no_selector(service: &Value) -> bool {
    object::map(service, "/spec/selector").is_none_or(serde_json::Map::is_empty)
        && object::text(service, "/spec/type") != "ExternalName"
}

fn same(old: &Value, new: &Value) -> bool {
    let fields = ["endpoints", "ports", "addressType"];
    fields.iter().all(|field| old[*field] == new[*field])
        && meta::labels(old) == meta::labels(new)
        && meta::owner_references(old) == meta::owner_references(new)
}

fn slices(endpoints: &Value) -> BTreeMap<String, Value> {
    let mut slices: BTreeMap<String, Value> = BTreeMap::new();
    for subset in object::list(endpoints, "/subsets") {
        let ports: Vec<Value> = object::list(subset, "/ports").iter().map(port).collect();
        for family in ["IPv4", "IPv6"] {
            let found = addresses(subset, family);
            if found.is_empty() {
                continue;
            }
            let identity = format!("{}{family}", Value::from(ports.clone()));
            let name = format!("{}-{}", meta::name(endpoints), hash::label(&identity, None));
            let slice = slices.entry(name.clone()).or_insert_with(|| empty(endpoints, &name, family, &ports));
            let mut all = object::list(slice, "/endpoints").to_vec();
            all.extend(found);
            all.truncate(ADDRESSES_MAX);
            slice["endpoints"] = all.into();
        }
    }
    slices
}

fn port(port: &Value) -> Value {
    let mut made = json!({"name": port["name"].as_str().unwrap_or_default(), "port": port["port"],
                          "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    if let Some(application) = port["appProtocol"].as_str() {
        made["appProtocol"] = application.into();
    }
    made
}

fn addresses(subset: &Value, family: &str) -> Vec<Value> {
    let of = |list: &str, ready: bool| {
        let all = object::list(subset, list).iter();
        let here = all.filter(|a| object::text(a, "/ip").contains(':') == (family == "IPv6"));
        here.map(|address| endpoint(address, ready)).collect::<Vec<Value>>()
    };
    let mut found = of("/addresses", true);
    found.extend(of("/notReadyAddresses", false));
    found
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for (from, to) in [("hostname", "hostname"), ("nodeName", "nodeName"), ("targetRef", "targetRef")] {
        if let Some(value) = address.get(from).filter(|value| !value.is_null() && **value != "") {
            endpoint[to] = value.clone();
        }
    }
    endpoint
}

fn empty(endpoints: &Value, name: &str, family: &str, ports: &[Value]) -> Value {
    let mut labels = meta::labels(endpoints).cloned().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), meta::name(endpoints).into());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.into());
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": meta::namespace(endpoints), "labels": labels,
                     "ownerReferences": [meta::controller_reference(endpoints)]},
        "addressType": family, "ports": ports, "endpoints": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(subsets: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Endpoints",
               "metadata": {"name": "db", "namespace": "n", "uid": "e", "labels": {"a": "b"}}, "subsets": subsets})
    }

    #[test]
    fn subsets_become_slices_and_stay_what_they_are() {
        let subset = json!({"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "notReadyAddresses": [{"ip": "10.0.0.2", "hostname": "h"}], "ports": [{"port": 5432}]});
        let (ours, service) = (endpoints(json!([subset])), json!({"spec": {}}));
        let changes = plan(Some(&ours), Some(&service), &[]);
        let made: Vec<Arc<Value>> = changes
            .into_iter()
            .map(|change| match change {
                Change::Create(slice) => Arc::new(slice),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(made.len(), 2);
        let four = made.iter().find(|slice| slice["addressType"] == "IPv4").unwrap();
        assert_eq!(
            four["endpoints"],
            json!([
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "hostname": "h"},
            ])
        );
        assert_eq!(four["ports"], json!([{"name": "", "port": 5432, "protocol": "TCP"}]));
        assert_eq!(service_of(four).as_deref(), Some("n/db"));
        assert!(plan(Some(&ours), Some(&service), &made).is_empty(), "settled");

        let moved = endpoints(json!([{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 5432}]}]));
        let changes = plan(Some(&moved), Some(&service), &made);
        assert!(
            changes.iter().any(|c| matches!(c, Change::Update(s) if s["endpoints"][0]["addresses"][0] == "10.0.0.9"))
        );
        assert!(changes.iter().any(|c| matches!(c, Change::Delete(s) if s["addressType"] == "IPv6")));

        for (endpoints, service) in [
            (None, Some(service.clone())),
            (Some(ours.clone()), None),
            (Some(ours.clone()), Some(json!({"spec": {"selector": {"a": "b"}}}))),
        ] {
            let changes = plan(endpoints.as_ref(), service.as_ref(), &made);
            assert!(changes.len() == 2 && changes.iter().all(|c| matches!(c, Change::Delete(_))));
        }
        let mut skipped = ours;
        skipped["metadata"]["labels"][SKIP] = "true".into();
        assert!(plan(Some(&skipped), Some(&service), &[]).is_empty());
    }
}
