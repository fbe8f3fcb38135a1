//! Addresses for Services of type LoadBalancer: decides with [`plan`] at every change and writes status.loadBalancer.

mod plan;
mod range;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use apimachinery::meta;
use client::{Client, EventRecorder, Informer, Patch, resource};
use serde_json::{Value, json};
use tracing::{info, warn};

pub use plan::{MARK, addresses, is_marked, is_ours};
pub use range::Pool;

use self::plan::Verdict;

/// After a failed write, if no change comes first.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps every Service's address as the plan says.
pub async fn run(client: &Client, pools: &[Pool], services: &Informer) {
    let events = EventRecorder::new(client.clone(), crate::NAME, None);
    let mut changes = services.subscribe();
    // What a Service was told last, by uid, so that it is told once.
    let mut refused: HashMap<String, String> = HashMap::new();
    loop {
        let mut failed = false;
        for (service, verdict) in plan::plan(&services.list(), pools) {
            let uid = meta::uid(&service).to_owned();
            match verdict {
                Verdict::Assign(ips) => {
                    refused.remove(&uid);
                    failed |= !assign(client, &events, &service, &ips).await;
                }
                Verdict::Release => failed |= !write(client, &service, None).await,
                Verdict::Refuse(why) => {
                    // What another one gave it is not ours to take.
                    if plan::is_marked(&service) {
                        failed |= !write(client, &service, None).await;
                    }
                    if refused.get(&uid) != Some(&why) {
                        let message = format!("Error syncing load balancer: failed to ensure load balancer: {why}");
                        events.event(&service, "Warning", "SyncLoadBalancerFailed", &message).await;
                        refused.insert(uid, why);
                    }
                }
            }
        }
        tokio::select! {
            change = changes.recv() => if change.is_none() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
        // A burst of changes is one decision.
        while changes.try_recv().is_ok() {}
    }
}

async fn assign(client: &Client, events: &EventRecorder, service: &Value, ips: &[std::net::IpAddr]) -> bool {
    let ingress: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip.to_string(), "ipMode": "VIP"})).collect();
    if !write(client, service, Some(ingress)).await {
        return false;
    }
    info!("{} has {ips:?}", meta::key(service));
    events.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer").await;
    true
}

/// Writes the addresses and the mark that they are from here, or takes both away; what failed is tried again, a Service that is
/// gone needs none.
async fn write(client: &Client, service: &Value, ingress: Option<Vec<Value>>) -> bool {
    let (balancer, condition) = match ingress {
        Some(ingress) => {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = json!({"type": MARK, "status": "True", "reason": "FromPool", "lastTransitionTime": now,
                "message": "machines of this cluster announce the addresses"});
            (json!({"ingress": ingress}), condition)
        }
        None => (Value::Null, json!({"type": MARK, "$patch": "delete"})),
    };
    // The uid makes the server refuse if another Service has taken the name.
    let patch = json!({"metadata": {"uid": meta::uid(service)},
        "status": {"loadBalancer": balancer, "conditions": [condition]}});
    let patch = Patch::Strategic(patch);
    let (namespace, name) = (Some(meta::namespace(service)), meta::name(service));
    match client.patch(resource::SERVICES, namespace, name, Some("status"), &patch).await {
        Ok(_) => true,
        Err(error) if error.is_not_found() || error.is_conflict() => true,
        Err(error) => {
            warn!("{}: {error}", meta::key(service));
            false
        }
    }
}
