//! A small part of the statistics summary: memory and CPU of the node and of each container.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use cri_api::v1;
use serde_json::{Value, json};

use super::Refusal;
use crate::observed::labels;
use crate::shared::Shared;

/// Answers `/stats/summary`.
pub async fn summary(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Refusal> {
    let stats = shared.cri.stats().await.map_err(Refusal::internal)?;
    let now = apimachinery::time::now_rfc3339();
    let node = json!({
        "nodeName": shared.node_name,
        "startTime": now,
        "memory": {"time": now, "availableBytes": crate::node_status::machine::available_memory()},
    });
    Ok(Json(json!({"node": node, "pods": pods(&stats)})))
}

fn pods(stats: &[v1::ContainerStats]) -> Value {
    let mut pods: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for one in stats {
        let Some(attributes) = &one.attributes else { continue };
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let uid = label(labels::POD_UID);
        let reference = json!({"name": label(labels::POD_NAME), "namespace": label(labels::POD_NAMESPACE), "uid": uid});
        let entry = pods.entry(uid).or_insert_with(|| (reference, Vec::new()));
        entry.1.push(container(one, &label(labels::CONTAINER_NAME)));
    }
    pods.into_values().map(|(reference, containers)| json!({"podRef": reference, "containers": containers})).collect()
}

fn container(stats: &v1::ContainerStats, name: &str) -> Value {
    let value = |v: Option<v1::UInt64Value>| v.map(|v| v.value);
    let mut out = json!({"name": name});
    if let Some(cpu) = stats.cpu {
        out["cpu"] = json!({
            "time": time(cpu.timestamp),
            "usageCoreNanoSeconds": value(cpu.usage_core_nano_seconds), "usageNanoCores": value(cpu.usage_nano_cores),
        });
    }
    if let Some(memory) = stats.memory {
        out["memory"] = json!({
            "time": time(memory.timestamp),
            "usageBytes": value(memory.usage_bytes), "workingSetBytes": value(memory.working_set_bytes), "rssBytes": value(memory.rss_bytes),
        });
    }
    out
}

fn time(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).map(|t| t.to_string()).unwrap_or_default()
}
