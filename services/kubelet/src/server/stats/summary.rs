//! `/stats/summary`, in the shape of upstream's stats.k8s.io/v1alpha1.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use serde_json::{Value, json};

use super::{ContainerUse, Disk, Host, Interface, PodUse, Usage, VolumeUse};
use crate::server::Refusal;
use crate::shared::Shared;

/// Answers a request.
///
/// # Errors
/// The runtime does not answer.
pub async fn serve(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Refusal> {
    let pods = super::pods(&shared).await?;
    let now = apimachinery::time::now_rfc3339();
    let disk = Disk::of(&shared.root).unwrap_or_default();
    let node = node(&shared.node_name, &Host::read(), disk, &now);
    let pods: Vec<Value> = pods.iter().map(|p| pod(p, disk, &now)).collect();
    Ok(Json(json!({"node": node, "pods": pods})))
}

fn node(name: &str, host: &Host, disk: Disk, now: &str) -> Value {
    let [all, free, available, anonymous] = host.memory;
    let started =
        jiff::Timestamp::from_second(i64::try_from(host.booted_at).unwrap_or(0)).map(apimachinery::time::rfc3339);
    json!({
        "nodeName": name,
        "startTime": started.unwrap_or_default(),
        "cpu": {"time": now, "usageCoreNanoSeconds": host.cpu},
        "memory": {
            "time": now, "availableBytes": available, "usageBytes": all - free.min(all), "rssBytes": anonymous,
            "workingSetBytes": all - available.min(all), "pageFaults": host.faults.0, "majorPageFaults": host.faults.1,
        },
        "swap": {"time": now, "swapAvailableBytes": host.swap.1, "swapUsageBytes": host.swap.0 - host.swap.1.min(host.swap.0)},
        "network": network(&host.interfaces, now),
        "fs": whole(disk, now),
        "runtime": {"imageFs": whole(disk, now), "containerFs": whole(disk, now)},
        "rlimit": {"time": now, "maxpid": host.tasks.1, "curproc": host.tasks.0},
    })
}

/// A file system with everything on it.
fn whole(disk: Disk, now: &str) -> Value {
    file_system(
        disk,
        (disk.capacity - disk.available.min(disk.capacity), disk.inodes - disk.inodes_free.min(disk.inodes)),
        now,
    )
}

fn file_system(disk: Disk, used: (u64, u64), now: &str) -> Value {
    json!({
        "time": now, "availableBytes": disk.available, "capacityBytes": disk.capacity, "usedBytes": used.0,
        "inodesFree": disk.inodes_free, "inodes": disk.inodes, "inodesUsed": used.1,
    })
}

fn network(interfaces: &[Interface], now: &str) -> Value {
    let one = |i: &Interface| json!({"name": i.name, "rxBytes": i.received.0, "rxErrors": i.received.1, "txBytes": i.sent.0, "txErrors": i.sent.1});
    let Some(first) = interfaces.first() else { return Value::Null };
    let mut network = one(first);
    network["time"] = json!(now);
    network["interfaces"] = interfaces.iter().map(one).collect();
    network
}

fn time(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).map(apimachinery::time::rfc3339).unwrap_or_default()
}

/// Sets processor, memory and swap of an entry, leaving out what is not known.
fn set_usage(entry: &mut Value, usage: &Usage) {
    let time = time(usage.time);
    let mut part = |name: &str, fields: &[(&str, Option<u64>)]| {
        let known: serde_json::Map<String, Value> =
            fields.iter().filter_map(|(field, value)| Some(((*field).to_owned(), json!((*value)?)))).collect();
        if !known.is_empty() {
            entry[name] = Value::Object(known);
            entry[name]["time"] = json!(time);
        }
    };
    part("cpu", &[("usageNanoCores", usage.nano_cores), ("usageCoreNanoSeconds", usage.cpu)]);
    part(
        "memory",
        &[
            ("availableBytes", usage.available),
            ("usageBytes", usage.memory),
            ("workingSetBytes", usage.working_set),
            ("rssBytes", usage.rss),
            ("pageFaults", usage.faults.map(|f| f.0)),
            ("majorPageFaults", usage.faults.map(|f| f.1)),
        ],
    );
    part("swap", &[("swapUsageBytes", usage.swap)]);
}

fn pod(pod: &PodUse, disk: Disk, now: &str) -> Value {
    let mut entry = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": pod.started_at,
        "containers": pod.containers.iter().map(|c| container(c, disk, now)).collect::<Vec<_>>(),
        "ephemeral-storage": file_system(disk, ephemeral(pod), now),
    });
    set_usage(&mut entry, &pod.usage);
    let network = network(&pod.interfaces, now);
    if !network.is_null() {
        entry["network"] = network;
    }
    if !pod.volumes.is_empty() {
        entry["volume"] = pod.volumes.iter().map(|v| volume(v, &pod.namespace, now)).collect();
    }
    if let Some(processes) = pod.processes {
        entry["process_stats"] = json!({"process_count": processes});
    }
    entry
}

/// Writable layers, logs and volumes that live and die with the pod.
fn ephemeral(pod: &PodUse) -> (u64, u64) {
    let layers = pod.containers.iter().filter_map(|c| c.layer);
    let logs = pod.containers.iter().map(|c| c.logs);
    let volumes = pod.volumes.iter().filter(|v| v.ephemeral).map(|v| v.used);
    layers.chain(logs).chain(volumes).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn container(container: &ContainerUse, disk: Disk, now: &str) -> Value {
    let mut entry = json!({
        "name": container.name, "startTime": container.started_at, "logs": file_system(disk, container.logs, now),
    });
    if let Some(layer) = container.layer {
        entry["rootfs"] = file_system(disk, layer, now);
    }
    set_usage(&mut entry, &container.usage);
    entry
}

fn volume(volume: &VolumeUse, namespace: &str, now: &str) -> Value {
    let mut entry = file_system(volume.disk, volume.used, now);
    entry["name"] = json!(volume.name);
    if let Some(claim) = &volume.claim {
        entry["pvcRef"] = json!({"name": claim, "namespace": namespace});
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let usage = Usage { cpu: Some(5), ..Usage::default() };
        let container =
            ContainerUse { name: "c".into(), layer: Some((10, 1)), logs: (20, 2), usage, ..ContainerUse::default() };
        let volume = VolumeUse { name: "v".into(), ephemeral: true, used: (30, 3), ..VolumeUse::default() };
        let data = VolumeUse { name: "d".into(), claim: Some("data".into()), used: (99, 9), ..VolumeUse::default() };
        let entry = pod(
            &PodUse {
                name: "p".into(),
                namespace: "n".into(),
                containers: vec![container],
                volumes: vec![volume, data],
                ..PodUse::default()
            },
            Disk { capacity: 100, available: 40, inodes: 9, inodes_free: 5 },
            "now",
        );
        assert_eq!(entry["containers"][0]["cpu"]["usageCoreNanoSeconds"], 5);
        assert!(entry["containers"][0].get("memory").is_none() && entry.get("network").is_none());
        assert_eq!(
            (&entry["ephemeral-storage"]["usedBytes"], &entry["ephemeral-storage"]["inodesUsed"]),
            (&json!(60), &json!(6))
        );
        assert_eq!(entry["volume"][1]["pvcRef"], json!({"name": "data", "namespace": "n"}));
    }

    #[test]
    fn the_node_counts_what_is_in_use() {
        let host = Host { memory: [100, 20, 60, 30], swap: (10, 4), ..Host::default() };
        let entry = node("n", &host, Disk { capacity: 100, available: 40, inodes: 9, inodes_free: 5 }, "now");
        assert_eq!((&entry["memory"]["workingSetBytes"], &entry["memory"]["usageBytes"]), (&json!(40), &json!(80)));
        assert_eq!((&entry["fs"]["usedBytes"], &entry["swap"]["swapUsageBytes"]), (&json!(60), &json!(6)));
    }
}
