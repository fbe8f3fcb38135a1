//! The table of controllers: a name, as in upstream's `--controllers`, and what starts it.

use std::future::Future;
use std::pin::Pin;

use tokio::task::JoinSet;
use tracing::info;

use crate::context::Context;
use crate::{
    attach_detach, bootstrap_signer, clusterrole_aggregation, credentials, cronjob, csr_approving, csr_cleaner,
    csr_signing, daemonset, deployment, disruption, endpoints, endpointslice, endpointslice_mirroring,
    ephemeral_volume, garbage_collector, horizontal_pod_autoscaler, job, legacy_token_cleaner, namespace, node_ipam,
    node_lifecycle, node_ttl, pod_gc, policy_status, pv_binder, pv_protection, pvc_protection, replicaset,
    replicationcontroller, resource_claim, resource_quota, root_ca, service_account, service_account_token,
    service_cidrs, statefulset, storage_version_gc, taint_eviction, token_cleaner, ttl_after_finished, vac_protection,
    volume_expand,
};

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A row of the table.
pub struct Controller {
    /// Upstream's name.
    pub name: &'static str,
    /// The service account in kube-system that it acts as, where each controller has an identity of its own; empty for one
    /// that acts as the process, as upstream's maker of tokens does.
    pub account: &'static str,
    /// Runs until the process ends.
    pub start: fn(Context) -> Running,
}

macro_rules! controller {
    ($name:literal, $account:literal, $module:ident) => {
        Controller { name: $name, account: $account, start: |context| Box::pin($module::run(context)) }
    };
}

/// All controllers.
pub const TABLE: &[Controller] = &[
    controller!("namespace-controller", "namespace-controller", namespace),
    controller!("serviceaccount-controller", "service-account-controller", service_account),
    controller!("serviceaccount-token-controller", "", service_account_token),
    controller!(
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        legacy_token_cleaner
    ),
    controller!("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", root_ca),
    controller!("garbage-collector-controller", "generic-garbage-collector", garbage_collector),
    controller!("replicaset-controller", "replicaset-controller", replicaset),
    controller!("deployment-controller", "deployment-controller", deployment),
    controller!("replicationcontroller-controller", "replication-controller", replicationcontroller),
    controller!("statefulset-controller", "statefulset-controller", statefulset),
    controller!("daemonset-controller", "daemon-set-controller", daemonset),
    controller!("job-controller", "job-controller", job),
    controller!("cronjob-controller", "cronjob-controller", cronjob),
    controller!("endpointslice-controller", "endpointslice-controller", endpointslice),
    controller!("endpoints-controller", "endpoint-controller", endpoints),
    controller!("node-ipam-controller", "node-controller", node_ipam),
    controller!("node-lifecycle-controller", "node-controller", node_lifecycle),
    controller!("taint-eviction-controller", "node-controller", taint_eviction),
    controller!("pod-garbage-collector-controller", "pod-garbage-collector", pod_gc),
    controller!("resourcequota-controller", "resourcequota-controller", resource_quota),
    controller!("disruption-controller", "disruption-controller", disruption),
    controller!("ttl-after-finished-controller", "ttl-after-finished-controller", ttl_after_finished),
    controller!("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", clusterrole_aggregation),
    controller!("endpointslice-mirroring-controller", "endpointslicemirroring-controller", endpointslice_mirroring),
    controller!("persistentvolumeclaim-protection-controller", "pvc-protection-controller", pvc_protection),
    controller!("persistentvolume-protection-controller", "pv-protection-controller", pv_protection),
    controller!("certificatesigningrequest-signing-controller", "certificate-controller", csr_signing),
    controller!("certificatesigningrequest-approving-controller", "certificate-controller", csr_approving),
    controller!("certificatesigningrequest-cleaner-controller", "certificate-controller", csr_cleaner),
    controller!("persistentvolume-binder-controller", "persistent-volume-binder", pv_binder),
    controller!("persistentvolume-expander-controller", "expand-controller", volume_expand),
    controller!("ephemeral-volume-controller", "ephemeral-volume-controller", ephemeral_volume),
    controller!("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", horizontal_pod_autoscaler),
    controller!("token-cleaner-controller", "token-cleaner", token_cleaner),
    controller!("bootstrap-signer-controller", "bootstrap-signer", bootstrap_signer),
    controller!("service-cidr-controller", "service-cidrs-controller", service_cidrs),
    controller!("persistentvolume-attach-detach-controller", "attachdetach-controller", attach_detach),
    controller!(
        "volumeattributesclass-protection-controller",
        "volumeattributesclass-protection-controller",
        vac_protection
    ),
    controller!("resourceclaim-controller", "resource-claim-controller", resource_claim),
    controller!("ttl-controller", "ttl-controller", node_ttl),
    controller!("storageversion-garbage-collector-controller", "storage-version-garbage-collector", storage_version_gc),
    controller!(
        "validatingadmissionpolicy-status-controller",
        "validatingadmissionpolicy-status-controller",
        policy_status
    ),
];

/// A wrong `--controllers`, or a controller that ended although nothing asked it to.
#[derive(Debug, thiserror::Error)]
pub enum ControllersError {
    /// Not in the table.
    #[error("--controllers: {0:?} is not one of: {names}", names = TABLE.iter().map(|c| c.name).collect::<Vec<_>>().join(", "))]
    Unknown(String),
    /// A task ended or panicked.
    #[error("{0} ended")]
    Ended(String),
}

/// The names that upstream used before 1.28 and still takes.
const ALIASES: &[(&str, &str)] = &[
    ("attachdetach", "persistentvolume-attach-detach-controller"),
    ("bootstrapsigner", "bootstrap-signer-controller"),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("daemonset", "daemonset-controller"),
    ("deployment", "deployment-controller"),
    ("disruption", "disruption-controller"),
    ("endpoint", "endpoints-controller"),
    ("endpointslice", "endpointslice-controller"),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("ephemeral-volume", "ephemeral-volume-controller"),
    ("garbagecollector", "garbage-collector-controller"),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
    ("job", "job-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("namespace", "namespace-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", "node-lifecycle-controller"),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("persistentvolume-expander", "persistentvolume-expander-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("replicaset", "replicaset-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("resource-claim-controller", "resourceclaim-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("statefulset", "statefulset-controller"),
    ("storage-version-gc", "storageversion-garbage-collector-controller"),
    ("tokencleaner", "token-cleaner-controller"),
    ("ttl", "ttl-controller"),
    ("ttl-after-finished", "ttl-after-finished-controller"),
];

/// The row of a name, or of one that was used before.
fn named(name: &str) -> Option<&'static Controller> {
    let name = ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    TABLE.iter().find(|controller| controller.name == name)
}

/// The rows that `--controllers` selects.
pub fn enabled(selection: &[String]) -> Result<Vec<&'static Controller>, ControllersError> {
    let (mut all, mut added, mut left_out) = (false, Vec::new(), Vec::new());
    for item in selection {
        let list = match item.strip_prefix('-') {
            None if item == "*" => {
                all = true;
                continue;
            }
            None => &mut added,
            Some(_) => &mut left_out,
        };
        let row = named(item.trim_start_matches('-')).ok_or_else(|| ControllersError::Unknown(item.clone()))?;
        list.push(row.name);
    }
    let chosen = |c: &&Controller| !left_out.contains(&c.name) && (all || added.contains(&c.name));
    Ok(TABLE.iter().filter(chosen).collect())
}

/// Runs them all; returns only when one of them ends, which none should.
pub async fn run(enabled: Vec<&'static Controller>, context: Context) -> ControllersError {
    let mut tasks = JoinSet::new();
    for controller in enabled {
        info!("starting {}", controller.name);
        let context = context.clone();
        tasks.spawn(async move {
            let context = credentials::for_controller(context, controller.account).await;
            (controller.start)(context).await;
            controller.name
        });
    }
    match tasks.join_next().await {
        Some(Ok(name)) => ControllersError::Ended(name.to_owned()),
        Some(Err(error)) => ControllersError::Ended(error.to_string()),
        None => ControllersError::Ended("every controller".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selection() {
        let names = |items: &[&str]| {
            let items: Vec<String> = items.iter().map(|s| (*s).to_owned()).collect();
            enabled(&items).map(|rows| rows.len())
        };
        assert_eq!(names(&["*"]).ok(), Some(TABLE.len()));
        assert_eq!(names(&["*", "-deployment-controller"]).ok(), Some(TABLE.len() - 1));
        assert_eq!(names(&["deployment-controller"]).ok(), Some(1));
        assert_eq!(names(&["*", "bootstrapsigner", "tokencleaner"]).ok(), Some(TABLE.len()), "kubeadm's");
        assert_eq!(names(&["*", "-podgc", "-pod-garbage-collector-controller"]).ok(), Some(TABLE.len() - 1));
        assert_eq!(names(&["-ttl", "ttl", "job"]).ok(), Some(1), "leaving out wins");
        assert!(names(&["deployments"]).is_err());
        assert!(ALIASES.iter().all(|(old, _)| named(old).is_some()));
    }
}
