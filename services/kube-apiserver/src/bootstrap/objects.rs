//! Objects that stand for what the server itself has: its API groups, its ranges of Service addresses, the system's priorities.

use std::collections::BTreeSet;

use futures_util::TryFutureExt;
use serde_json::{Value, json};

use super::{Writer, each};
use crate::errors::ApiError;
use crate::registry::strategy::plain::SYSTEM_PRIORITIES;
use crate::registry::table;
use crate::storage::Preconditions;

/// The aggregator's own group: whoever lists API services talks to it already.
const AGGREGATOR: &str = "apiregistration.k8s.io";
/// Where groups stand among each other, highest first; one that is not here comes last.
const GROUPS: [(&str, i64); 20] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
];
const LAST: i64 = 15_000;

/// Makes what is missing.
pub async fn run(writer: &Writer<'_>) -> Result<(), ApiError> {
    let classes = SYSTEM_PRIORITIES.map(|(name, value, description)| priority_class(name, value, description));
    each(classes, |class| writer.ensure("scheduling.k8s.io", "priorityclasses", class).map_ok(drop)).await?;
    each(api_services(), |service| writer.ensure(AGGREGATOR, "apiservices", service).map_ok(drop)).await?;
    writer.ensure("", "configmaps", legacy_tokens(writer.now())).await?;
    service_cidr(writer).await
}

/// Since when the use of legacy tokens is noted, a day: who cleans them up has to know how long nobody looked.
fn legacy_tokens(now: &str) -> Value {
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "kube-system"},
        "data": {"since": now.get(..10)}})
}

fn priority_class(name: &str, value: i64, description: &str) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value, "description": description})
}

/// One per group and version this server serves itself.
fn api_services() -> Vec<Value> {
    let served: BTreeSet<(&str, &str)> =
        table().iter().filter(|r| r.group != AGGREGATOR).map(|r| (r.group, r.version)).collect();
    let service = |(group, version): (&str, &str)| {
        let place = GROUPS.iter().find(|(g, _)| *g == group).map_or(LAST, |(_, n)| *n);
        let number: i64 = version.trim_start_matches('v').parse().unwrap_or(1);
        let mut spec = json!({"version": version, "groupPriorityMinimum": place, "versionPriority": 15 * number});
        if group.is_empty() {
            spec["versionPriority"] = json!(1);
        } else {
            spec["group"] = json!(group);
        }
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec,
            "metadata": {"name": format!("{version}.{group}"), "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}}})
    };
    served.into_iter().map(service).collect()
}

/// The ranges of the flags, marked ready: this server allocates from nothing else.
async fn service_cidr(writer: &Writer<'_>) -> Result<(), ApiError> {
    let cidrs: Vec<String> =
        writer.state.config.service_cluster_ip_range.iter().map(|n| n.trunc().to_string()).collect();
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
    let made = writer.ensure("networking.k8s.io", "servicecidrs", object).await?;
    let res = Writer::row("networking.k8s.io", "servicecidrs")?;
    let now = writer.now.clone();
    let ready = |mut object: Value| {
        if object.pointer("/status/conditions/0").is_none() {
            object["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now, "reason": "",
                "message": "Kubernetes default Service CIDR is ready"}]});
        }
        Ok(object)
    };
    writer.state.storage.guaranteed_update(res, "", &made.name, &Preconditions::default(), ready).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::lookup;

    #[test]
    fn the_objects_are_valid() {
        let services = api_services();
        assert!(services.iter().any(|s| s["metadata"]["name"] == "v1."));
        assert!(
            services.iter().any(|s| s["metadata"]["name"] == "v2.autoscaling" && s["spec"]["versionPriority"] == 30)
        );
        let classes = SYSTEM_PRIORITIES.map(|(name, value, why)| priority_class(name, value, why));
        let rows = [(AGGREGATOR, "apiservices", services), ("scheduling.k8s.io", "priorityclasses", classes.to_vec())];
        for (group, plural, objects) in rows {
            let row = lookup(group, "v1", plural).expect("in the table");
            for mut object in objects {
                if plural == "priorityclasses" {
                    object["preemptionPolicy"] = json!("PreemptLowerPriority");
                }
                assert_eq!(row.strategy.validate(&object), [], "{object}");
            }
        }
    }
}
