//! What one object uses of a quota. Pure.

use std::collections::BTreeMap;

use apimachinery::meta;
use apimachinery::quantity::Quantity;
use serde_json::Value;

use crate::{object, pods};

/// How a quota names the devices of a class, after the class.
pub(super) const DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// The most devices that one claim is given.
const MOST_DEVICES: i64 = 32;

/// Amounts by the name that they have in a quota.
pub(super) type Usage = BTreeMap<String, Quantity>;

/// Adds `more` to `sum`.
pub(super) fn add(sum: &mut Usage, more: Usage) {
    for (name, amount) in more {
        let before = sum.get(&name).copied().unwrap_or(Quantity::ZERO);
        sum.insert(name, before.add(amount));
    }
}

fn one(name: &str) -> (String, Quantity) {
    (name.to_owned(), Quantity::from_value(1))
}

/// What an object of that resource uses, besides `count/…`.
pub(super) fn of(group: &str, plural: &str, object: &Value) -> Usage {
    match (group, plural) {
        ("", "pods") => of_pod(object),
        ("", "services") => of_service(object),
        ("", "persistentvolumeclaims") => of_claim(object),
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => Usage::from([one(plural)]),
        ("resource.k8s.io", "resourceclaims") => of_device_claim(object),
        _ => Usage::new(),
    }
}

/// A finished pod uses nothing.
fn of_pod(pod: &Value) -> Usage {
    if pods::is_finished(pod) {
        return Usage::new();
    }
    let mut usage = Usage::from([one("pods")]);
    for (name, amount) in amounts(pod, "requests") {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                usage.insert(format!("requests.{name}"), amount);
                usage.insert(name, amount);
            }
            _ if name.starts_with("hugepages-") => {
                usage.insert(format!("requests.{name}"), amount);
                usage.insert(name, amount);
            }
            _ => drop(usage.insert(format!("requests.{name}"), amount)),
        }
    }
    for (name, amount) in amounts(pod, "limits") {
        usage.insert(format!("limits.{name}"), amount);
    }
    usage
}

/// The pod's requests or limits: containers run together; init containers one after the other, beside the sidecars that
/// were started before them.
fn amounts(pod: &Value, which: &str) -> Usage {
    let of = |container: &Value| read(&container["resources"][which]);
    let mut together = Usage::new();
    for container in object::list(pod, "/spec/containers") {
        add(&mut together, of(container));
    }
    let (mut sidecars, mut peak) = (Usage::new(), Usage::new());
    for container in object::list(pod, "/spec/initContainers") {
        let mut now = sidecars.clone();
        add(&mut now, of(container));
        if container["restartPolicy"] == "Always" {
            sidecars.clone_from(&now);
        }
        raise(&mut peak, &now);
    }
    add(&mut together, sidecars);
    raise(&mut together, &peak);
    for (name, amount) in read(&pod["spec"]["resources"][which]) {
        // What the pod says as a whole wins over the sum of its parts.
        together.insert(name, amount);
    }
    for (name, amount) in read(&pod["spec"]["overhead"]) {
        if which == "requests" || together.contains_key(&name) {
            add(&mut together, Usage::from([(name, amount)]));
        }
    }
    together
}

fn raise(to: &mut Usage, least: &Usage) {
    for (name, amount) in least {
        let entry = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = (*entry).max(*amount);
    }
}

/// The API has let only quantities through.
fn read(list: &Value) -> Usage {
    let parsed = |(name, value): (&String, &Value)| Some((name.clone(), Quantity::parse(value.as_str()?).ok()?));
    list.as_object().into_iter().flatten().filter_map(parsed).collect()
}

fn of_service(service: &Value) -> Usage {
    let mut usage = Usage::from([one("services")]);
    let ports = object::list(service, "/spec/ports");
    let kind = object::text(service, "/spec/type");
    if kind == "LoadBalancer" {
        usage.extend([one("services.loadbalancers")]);
    }
    let node_ports = match kind {
        "NodePort" => ports.len(),
        "LoadBalancer" if service["spec"]["allocateLoadBalancerNodePorts"] == false => {
            ports.iter().filter(|port| object::int(port, "/nodePort").unwrap_or(0) != 0).count()
        }
        "LoadBalancer" => ports.len(),
        _ => 0,
    };
    let node_ports = i64::try_from(node_ports).unwrap_or(i64::MAX);
    usage.insert("services.nodeports".to_owned(), Quantity::from_value(node_ports));
    usage
}

fn of_claim(claim: &Value) -> Usage {
    let mut usage = Usage::from([one("persistentvolumeclaims")]);
    let asked = read(&claim["spec"]["resources"]["requests"]).remove("storage");
    let granted = read(&claim["status"]["allocatedResources"]).remove("storage");
    let storage = asked.max(granted);
    let annotated = meta::annotation(claim, "volume.beta.kubernetes.io/storage-class");
    let class = annotated.or(claim["spec"]["storageClassName"].as_str()).unwrap_or_default();
    if !class.is_empty() {
        usage.extend([one(&format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"))]);
    }
    if let Some(storage) = storage {
        usage.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            usage.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        }
    }
    usage
}

/// The devices that a claim may get at most, by class. What asks for all devices counts as the most that a claim can
/// have; of alternatives, each class counts with its largest.
fn of_device_claim(claim: &Value) -> Usage {
    let mut usage = Usage::new();
    for request in object::list(claim, "/spec/devices/requests") {
        if request["exactly"].is_object() {
            add(&mut usage, devices(&request["exactly"]));
        }
        let mut most = Usage::new();
        for alternative in object::list(request, "/firstAvailable") {
            raise(&mut most, &devices(alternative));
        }
        add(&mut usage, most);
    }
    usage
}

fn devices(request: &Value) -> Usage {
    let count = match object::text(request, "/allocationMode") {
        "All" => MOST_DEVICES,
        _ => object::int(request, "/count").unwrap_or(0),
    };
    let class = object::text(request, "/deviceClassName");
    Usage::from([(format!("{class}{DEVICE_CLASS}"), Quantity::from_value(count))])
}
