//! The Node object. Pure.

use cri_api::v1;
use serde_json::{Map, Value, json};

use super::machine::{Machine, Pressure};
use crate::pod::Map as Amounts;

/// The Kubernetes release whose kubelet this one stands in for.
pub const VERSION: &str = "v1.35.0";
const MAX_NAMES: usize = 5;

/// An image on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// By digest and by tag.
    pub names: Vec<String>,
    /// Bytes.
    pub size: u64,
}

/// What the object is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// RFC 3339.
    pub now: String,
    /// The node's name.
    pub name: String,
    /// Its addresses.
    pub ips: Vec<String>,
    /// The machine.
    pub machine: Machine,
    /// What it has.
    pub capacity: Amounts,
    /// What pods may use of it.
    pub allocatable: Amounts,
    /// What runs short.
    pub pressure: Pressure,
    /// Attachable volumes that pods have.
    pub volumes_in_use: std::collections::BTreeSet<String>,
    /// Whether the machine is being switched off.
    pub shutting_down: bool,
    /// The kubelet's port.
    pub port: u16,
    /// `containerd://1.7.24`.
    pub runtime_version: String,
    /// What the runtime's handlers can.
    pub handlers: Vec<v1::RuntimeHandler>,
    /// Whether the runtime keeps `supplementalGroupsPolicy`, if it says.
    pub groups_policy: Option<bool>,
    /// How many images the status names at most; no number means all.
    pub images_max: Option<usize>,
    /// Images.
    pub images: Vec<Image>,
    /// Whether containers can run, or why not.
    pub runtime: Result<(), String>,
    /// Whether pods can get a network, or why not.
    pub network: Result<(), String>,
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The labels that a kubelet gives its node, with those of the flag.
pub fn own_labels(name: &str, flags: &[String]) -> Map<String, Value> {
    let mut all = Map::new();
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        all.insert(format!("{prefix}/os"), "linux".into());
        all.insert(format!("{prefix}/arch"), architecture().into());
    }
    all.insert("kubernetes.io/hostname".into(), name.into());
    for label in flags {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        all.insert(key.to_owned(), value.into());
    }
    all
}

/// The object as it is registered.
pub fn node(facts: &Facts, labels: &[String], taints: &[String]) -> Value {
    let all = own_labels(&facts.name, labels);
    let taints: Vec<Value> = taints.iter().filter_map(|t| taint(t)).collect();
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": facts.name, "labels": all},
        "spec": {},
        "status": status(facts),
    });
    if !taints.is_empty() {
        node["spec"]["taints"] = taints.into();
    }
    node
}

/// `key=value:effect`.
fn taint(text: &str) -> Option<Value> {
    let (pair, effect) = text.rsplit_once(':')?;
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    let mut taint = json!({"key": key, "effect": effect});
    if !value.is_empty() {
        taint["value"] = value.into();
    }
    Some(taint)
}

/// The status.
pub fn status(facts: &Facts) -> Value {
    let machine = &facts.machine;
    let mut addresses: Vec<Value> = facts.ips.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": facts.name}));
    let mut status = json!({
        "addresses": addresses,
        "allocatable": facts.allocatable,
        "capacity": facts.capacity,
        "conditions": conditions(facts),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.port}},
        "images": images(&facts.images, facts.images_max),
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.system_uuid,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": facts.runtime_version,
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": architecture(),
        },
    });
    if machine.swap > 0 {
        status["nodeInfo"]["swap"] = json!({"capacity": i64::try_from(machine.swap).unwrap_or(i64::MAX)});
    }
    if !facts.volumes_in_use.is_empty() {
        status["volumesInUse"] = json!(facts.volumes_in_use);
    }
    if !facts.handlers.is_empty() {
        status["runtimeHandlers"] = facts.handlers.iter().map(handler).collect();
    }
    if let Some(policy) = facts.groups_policy {
        status["features"] = json!({"supplementalGroupsPolicy": policy});
    }
    status
}

/// The default handler has no name.
fn handler(handler: &v1::RuntimeHandler) -> Value {
    let features = handler.features.unwrap_or_default();
    json!({"name": handler.name, "features": {
        "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
        // What the runtime could do counts for pods only once the kubelet does its part.
        "userNamespaces": false,
    }})
}

/// The largest come first.
fn images(images: &[Image], most: Option<usize>) -> Value {
    let mut sorted: Vec<&Image> = images.iter().filter(|i| !i.names.is_empty()).collect();
    sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.names.cmp(&b.names)));
    sorted
        .iter()
        .take(most.unwrap_or(usize::MAX))
        .map(|i| json!({"names": i.names.iter().take(MAX_NAMES).collect::<Vec<_>>(), "sizeBytes": i.size}))
        .collect()
}

fn conditions(facts: &Facts) -> Value {
    let condition = |kind: &str, status: bool, reason: &str, message: &str| {
        json!({
            "type": kind, "status": if status { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": facts.now, "lastTransitionTime": facts.now,
        })
    };
    let pressure = facts.pressure;
    let memory = match pressure.memory {
        true => condition(
            "MemoryPressure",
            true,
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
        ),
        false => {
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
        }
    };
    let disk = match pressure.disk {
        true => condition("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure"),
        false => condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    };
    let pid = match pressure.pid {
        true => condition("PIDPressure", true, "KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        false => condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    };
    let mut problems: Vec<&str> =
        [&facts.runtime, &facts.network].iter().filter_map(|r| r.as_ref().err()).map(String::as_str).collect();
    if facts.shutting_down {
        problems.push("node is shutting down");
    }
    let ready = if problems.is_empty() {
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        condition("Ready", false, "KubeletNotReady", &format!("[{}]", problems.join(", ")))
    };
    json!([memory, disk, pid, ready])
}

/// Whether two statuses differ in more than their times.
pub fn differs(a: &Value, b: &Value) -> bool {
    timeless(a) != timeless(b)
}

fn timeless(status: &Value) -> Value {
    let mut copy = status.clone();
    for condition in copy["conditions"].as_array_mut().into_iter().flatten() {
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastHeartbeatTime");
            fields.remove("lastTransitionTime");
        }
    }
    copy
}

/// Keeps the transition times of conditions whose status stays.
pub fn keep_transitions(wanted: &mut Value, current: &Value) {
    let old: Vec<Value> = current["conditions"].as_array().cloned().unwrap_or_default();
    for condition in wanted["conditions"].as_array_mut().into_iter().flatten() {
        let same = old.iter().find(|o| o["type"] == condition["type"] && o["status"] == condition["status"]);
        if let Some(since) = same.and_then(|o| o["lastTransitionTime"].as_str()) {
            condition["lastTransitionTime"] = since.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            now: "2026-01-01T00:00:00Z".into(),
            name: "n".into(),
            ips: vec!["192.0.2.1".into()],
            machine: Machine { cpus: 2, memory: 1 << 30, disk: 1 << 30, ..Machine::default() },
            pressure: Pressure::default(),
            capacity: Amounts::from([("cpu".into(), "2".into())]),
            allocatable: Amounts::from([("cpu".into(), "1".into())]),
            volumes_in_use: ["kubernetes.io/csi/d^h".to_owned()].into(),
            shutting_down: false,
            handlers: vec![v1::RuntimeHandler { name: "runc".into(), features: None }],
            groups_policy: Some(true),
            images_max: Some(50),
            port: 10250,
            runtime_version: "containerd://1.7.24".into(),
            images: vec![Image { names: vec!["a:1".into()], size: 1 }, Image { names: vec!["b:1".into()], size: 2 }],
            runtime: Ok(()),
            network: Ok(()),
        }
    }

    #[test]
    fn a_node_has_its_labels_addresses_and_largest_images_first() {
        let node = node(&facts(), &["role=x".into()], &["a=b:NoSchedule".into()]);
        assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n");
        assert_eq!(node["metadata"]["labels"]["role"], "x");
        assert_eq!(node["spec"]["taints"], json!([{"key": "a", "value": "b", "effect": "NoSchedule"}]));
        assert_eq!(node["status"]["addresses"][0], json!({"type": "InternalIP", "address": "192.0.2.1"}));
        assert_eq!(node["status"]["images"][0]["names"][0], "b:1");
        assert_eq!(node["status"]["runtimeHandlers"][0]["name"], "runc");
        assert_eq!(node["status"]["volumesInUse"], json!(["kubernetes.io/csi/d^h"]));
        assert_eq!(node["status"]["features"]["supplementalGroupsPolicy"], true);
        assert_eq!(
            (&node["status"]["capacity"]["cpu"], &node["status"]["allocatable"]["cpu"]),
            (&json!("2"), &json!("1"))
        );
    }

    #[test]
    fn ready_needs_runtime_and_network() {
        let mut facts = facts();
        facts.network = Err("no network".into());
        let status = status(&facts);
        let ready = &status["conditions"][3];
        assert_eq!((&ready["status"], &ready["message"]), (&json!("False"), &json!("[no network]")));
    }

    #[test]
    fn times_alone_are_no_difference_and_transitions_are_kept() {
        let old = status(&facts());
        let mut later = facts();
        later.now = "2026-01-02T00:00:00Z".into();
        let mut new = status(&later);
        assert!(!differs(&old, &new));
        keep_transitions(&mut new, &old);
        assert_eq!(new["conditions"][3]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(new["conditions"][3]["lastHeartbeatTime"], "2026-01-02T00:00:00Z");
    }
}
