//! Claims whose volumes have grown and whose file systems are to follow.

use client::{Informer, InformerParams, Patch, resource};
use cri_api::csi::node_service_capability::rpc::Type as Ability;
use cri_api::csi::{CapacityRange, NodeExpandVolumeRequest};
use serde_json::{Value, json};

use super::driver::path;
use super::{Csi, plan};
use crate::pod::{Pod, Volume};
use crate::volumes::claim;

impl Csi {
    /// Follows the claim behind a mounted volume, and has the file system grow when the claim waits for it.
    ///
    /// # Errors
    /// The driver's or the API server's.
    pub async fn grow(&self, pod: &Pod, volume: &Volume) -> Result<(), String> {
        let key = (pod.metadata.uid.clone(), volume.name.clone());
        let Some(mounted) = self.mounted.lock().get(&key).cloned() else { return Ok(()) };
        let Some(name) = claim::name(pod, volume) else { return Ok(()) };
        let driver = self.local.driver(&mounted.wanted.driver).ok().filter(|d| d.can(Ability::ExpandVolume));
        let Some(driver) = driver else { return Ok(()) };
        let namespace = &pod.metadata.namespace;
        let informer =
            self.claims.lock().entry(key).or_insert_with_key(|(uid, _)| self.follow(uid, namespace, &name)).clone();
        let Some(claim) = informer.get(namespace, &name).filter(|c| waits(c)) else { return Ok(()) };
        let pv = self.client.get(resource::PERSISTENTVOLUMES, None, &mounted.wanted.name).await;
        let pv = pv.map_err(|e| format!("error getting PV {:?}: {e}", mounted.wanted.name))?;
        let Some(wanted) = plan::wanted(pod, volume, Some(&pv)) else { return Ok(()) };
        let wanted = wanted?;
        let record = plan::record(&wanted, &self.node);
        let places = self.local.places(&pod.metadata.uid, &record, wanted.block);
        let size = CapacityRange { required_bytes: wanted.capacity, limit_bytes: wanted.capacity };
        let request = NodeExpandVolumeRequest {
            volume_id: wanted.handle.clone(),
            volume_path: path(&places.target),
            capacity_range: Some(size),
            staging_target_path: driver.staging(&places.staging),
            volume_capability: Some(plan::capability(&wanted, &driver.abilities, None)),
            secrets: self.secret(&wanted, plan::EXPAND).await?,
        };
        driver
            .expand(request)
            .await
            .map_err(|e| format!("NodeExpandVolume failed for volume {:?}: {e}", volume.name))?;
        let patch = Patch::Merge(grown(&claim, &pv));
        let claims = resource::PERSISTENTVOLUMECLAIMS;
        let told = self.client.patch(claims, Some(namespace), &name, Some("status"), &patch).await;
        told.map(drop).map_err(|e| format!("error updating PVC \"{namespace}/{name}\": {e}"))
    }

    fn follow(&self, uid: &str, namespace: &str, name: &str) -> Informer {
        let params = InformerParams {
            namespace: Some(namespace.to_owned()),
            field_selector: format!("metadata.name={name}"),
            ..InformerParams::default()
        };
        let informer = Informer::start(self.client.clone(), resource::PERSISTENTVOLUMECLAIMS, params);
        let mut changes = informer.subscribe();
        let (wake, uid) = (self.wake.clone(), uid.to_owned());
        // Ends when the informer is dropped with the pod's volumes.
        tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                if waits(change.object()) {
                    let _ = wake.send(uid.clone());
                }
            }
        });
        informer
    }
}

/// Whether the volume behind a claim has grown and the node has to do its part.
fn waits(claim: &Value) -> bool {
    let status = &claim["status"];
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let phase = status["allocatedResourceStatuses"]["storage"].as_str().unwrap_or_default();
    conditions.any(|c| c["type"] == "FileSystemResizePending" && c["status"] == "True")
        || matches!(phase, "NodeResizePending" | "NodeResizeInProgress")
}

/// What the claim's status becomes.
fn grown(claim: &Value, pv: &Value) -> Value {
    let conditions = claim["status"]["conditions"].as_array().into_iter().flatten();
    let over = |c: &&Value| !matches!(c["type"].as_str(), Some("FileSystemResizePending" | "Resizing"));
    json!({"status": {
        "capacity": {"storage": pv["spec"]["capacity"]["storage"]},
        "conditions": conditions.filter(over).collect::<Vec<_>>(),
        "allocatedResourceStatuses": null,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_waits_for_the_node_and_is_told_the_new_size() {
        let condition = |kind: &str| json!({"type": kind, "status": "True"});
        let claim = json!({"status": {"conditions": [condition("FileSystemResizePending"), condition("Other")]}});
        assert!(waits(&claim) && !waits(&json!({"status": {"conditions": [condition("Other")]}})));
        assert!(waits(&json!({"status": {"allocatedResourceStatuses": {"storage": "NodeResizePending"}}})));
        let patch = grown(&claim, &json!({"spec": {"capacity": {"storage": "2Gi"}}}));
        assert_eq!(patch["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(patch["status"]["conditions"], json!([condition("Other")]));
    }
}
