//! What one object counts against quotas, and which quotas count it.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::pod_resources::{Amounts, quantity, total};
use crate::registry::group_resource;
use crate::registry::strategy::pod_defaults::qos_class;
use crate::registry::strategy::tree::{at, int_at, items, str_at};

const CLASS_SUFFIX: &str = "storageclass.storage.k8s.io";
/// Kinds that quotas could count before they could count everything.
const OLD_NAMES: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];
/// How a quota names the devices of a class, after the class.
const DEVICE_CLASS_SUFFIX: &str = "deviceclass.resource.k8s.io/devices";
/// The most devices that one claim is given.
const MOST_DEVICES: i64 = 32;

/// What the object uses while it exists.
pub fn of(group: &str, plural: &str, object: &Value) -> Amounts {
    let one = Quantity::from_value(1);
    let mut used = Amounts::from([(format!("count/{}", group_resource(group, plural)), one)]);
    if (group, plural) == ("resource.k8s.io", "resourceclaims") {
        device_claim(&mut used, object);
    }
    if !group.is_empty() {
        return used;
    }
    if plural == "pods" && matches!(str_at(object, &["status", "phase"]), "Failed" | "Succeeded") {
        return used;
    }
    if OLD_NAMES.contains(&plural) {
        used.insert(plural.to_owned(), one);
    }
    match plural {
        "pods" => pod(&mut used, object),
        "services" => service(&mut used, object),
        "persistentvolumeclaims" => claim(&mut used, object),
        _ => {}
    }
    used
}

fn pod(used: &mut Amounts, pod: &Value) {
    for (name, amount) in total(pod, "requests") {
        // The plain name and the one with the prefix mean the same; extended resources have only the latter.
        if is_standard(&name) {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in total(pod, "limits") {
        if is_standard(&name) {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn service(used: &mut Amounts, svc: &Value) {
    let ports = i64::try_from(items(svc, &["spec", "ports"]).len()).unwrap_or(i64::MAX);
    let (node_ports, balancers) = match str_at(svc, &["spec", "type"]) {
        "NodePort" => (ports, 0),
        "LoadBalancer" => {
            let wanted = at(svc, &["spec", "allocateLoadBalancerNodePorts"]).is_none_or(|v| v == true);
            let given =
                items(svc, &["spec", "ports"]).iter().filter(|p| int_at(p, &["nodePort"]).unwrap_or(0) != 0).count();
            (if wanted { ports } else { i64::try_from(given).unwrap_or(0) }, 1)
        }
        _ => (0, 0),
    };
    used.insert("services.nodeports".into(), Quantity::from_value(node_ports));
    used.insert("services.loadbalancers".into(), Quantity::from_value(balancers));
}

/// What is asked for, or what an expansion that was taken back has already been given.
fn claim(used: &mut Amounts, claim: &Value) {
    let annotated = str_at(claim, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    let class = if annotated.is_empty() { str_at(claim, &["spec", "storageClassName"]) } else { annotated };
    let asked = at(claim, &["spec", "resources", "requests", "storage"]).and_then(quantity);
    let size = asked.max(at(claim, &["status", "allocatedResources", "storage"]).and_then(quantity));
    if let Some(size) = size {
        used.insert("requests.storage".into(), size);
    }
    if !class.is_empty() {
        used.insert(format!("{class}.{CLASS_SUFFIX}/persistentvolumeclaims"), Quantity::from_value(1));
        if let Some(size) = size {
            used.insert(format!("{class}.{CLASS_SUFFIX}/requests.storage"), size);
        }
    }
}

/// The devices that a claim may get at most, by class. What asks for all devices counts as the most that a claim can
/// have; of alternatives, each class counts with its largest.
fn device_claim(used: &mut Amounts, claim: &Value) {
    let count = |request: &Value| {
        let count = match str_at(request, &["allocationMode"]) {
            "All" => MOST_DEVICES,
            _ => int_at(request, &["count"]).unwrap_or(0),
        };
        let class = str_at(request, &["deviceClassName"]);
        (format!("{class}.{DEVICE_CLASS_SUFFIX}"), Quantity::from_value(count))
    };
    for request in items(claim, &["spec", "devices", "requests"]) {
        let mut most = Amounts::new();
        for alternative in at(request, &["exactly"]).into_iter().chain(items(request, &["firstAvailable"])) {
            let (name, amount) = count(alternative);
            let entry = most.entry(name).or_insert(amount);
            *entry = (*entry).max(amount);
        }
        for (name, amount) in most {
            let before = used.get(&name).copied().unwrap_or(Quantity::ZERO);
            used.insert(name, before.add(amount));
        }
    }
}

/// Whether a quota counts this object: all its scopes fit. Scopes are about pods (one is about claims).
pub fn in_scope(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let plain = items(quota, &["spec", "scopes"]).iter().filter_map(Value::as_str).map(|s| (s, "Exists", &[][..]));
    let chosen = items(quota, &["spec", "scopeSelector", "matchExpressions"])
        .iter()
        .map(|e| (str_at(e, &["scopeName"]), str_at(e, &["operator"]), items(e, &["values"])));
    let kind = if group.is_empty() { plural } else { "" };
    plain.chain(chosen).all(|(scope, operator, values)| fits(kind, object, scope, operator, values))
}

fn fits(kind: &str, object: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let ends = int_at(object, &["spec", "activeDeadlineSeconds"]).is_some_and(|n| n >= 0);
    let best_effort = || qos_class(object) == "BestEffort";
    match (kind, scope) {
        ("pods", "Terminating") => ends,
        ("pods", "NotTerminating") => !ends,
        ("pods", "BestEffort") => best_effort(),
        ("pods", "NotBestEffort") => !best_effort(),
        ("pods", "PriorityClass") => names(str_at(object, &["spec", "priorityClassName"]), operator, values),
        ("pods", "CrossNamespacePodAffinity") => crosses(object),
        ("persistentvolumeclaims", "VolumeAttributesClass") => {
            names(str_at(object, &["spec", "volumeAttributesClassName"]), operator, values)
        }
        _ => false,
    }
}

fn names(name: &str, operator: &str, values: &[Value]) -> bool {
    match operator {
        "In" => values.iter().any(|v| v == name),
        "NotIn" => !values.iter().any(|v| v == name),
        "DoesNotExist" => name.is_empty(),
        _ => !name.is_empty(),
    }
}

/// An affinity term that looks into other namespaces.
fn crosses(pod: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let of = |list: &str| items(pod, &["spec", "affinity", side, list]);
        let required = of("requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = of("preferredDuringSchedulingIgnoredDuringExecution").iter();
        required
            .chain(preferred.filter_map(|p| at(p, &["podAffinityTerm"])))
            .any(|t| !items(t, &["namespaces"]).is_empty() || at(t, &["namespaceSelector"]).is_some())
    })
}

/// Compute resources a quota limits must be stated by every container: otherwise nobody could count them.
pub fn unstated(hard: &Amounts, pod: &Value) -> Option<String> {
    let whole = |name: &str| {
        let (kind, resource) = name.split_once('.').unwrap_or(("requests", name));
        at(pod, &["spec", "resources", kind, resource]).is_some()
    };
    let mut missing = Vec::new();
    for name in hard.keys().filter(|n| compute(n).is_some() && !whole(n)) {
        let Some((kind, resource)) = compute(name) else { continue };
        let lists = ["containers", "initContainers"].iter().flat_map(|l| items(pod, &["spec", l]));
        let mut who: Vec<&str> =
            lists.filter(|c| at(c, &["resources", kind, resource]).is_none()).map(|c| str_at(c, &["name"])).collect();
        who.sort_unstable();
        who.dedup();
        if !who.is_empty() {
            missing.push(format!("{name} for: {}", who.join(",")));
        }
    }
    (!missing.is_empty()).then(|| format!("must specify {}", missing.join("; ")))
}

fn compute(name: &str) -> Option<(&'static str, &str)> {
    match name {
        "cpu" | "memory" => Some(("requests", name)),
        _ => {
            let (kind, resource) = name.split_once('.')?;
            let kind = match kind {
                "requests" => "requests",
                "limits" => "limits",
                _ => return None,
            };
            matches!(resource, "cpu" | "memory").then_some((kind, resource))
        }
    }
}
