//! persistentVolumeClaim and ephemeral: what stands behind a bound claim. Pure but for ownership.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Source, host_path, ownership};
use crate::admission::{self, Node};
use crate::pod::{HostPath, NodeSelector, Pod, Volume};

/// The name of the claim behind a volume, if it has one. That of an ephemeral volume bears the pod's name.
pub fn name(pod: &Pod, volume: &Volume) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name, volume.name)),
        (None, None) => None,
    }
}

/// The name of the persistent volume that a claim is bound to.
///
/// # Errors
/// The claim cannot be used by this pod now.
pub fn bound(pod: &Pod, volume: &Volume, claim: &Value) -> Result<String, String> {
    let metadata = &claim["metadata"];
    let full = format!("{}/{}", pod.metadata.namespace, metadata["name"].as_str().unwrap_or_default());
    if !metadata["deletionTimestamp"].is_null() {
        return Err(format!("error processing PVC {full}: PVC is being deleted"));
    }
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let mine = owners.filter(|o| o["controller"] == true).any(|o| o["uid"] == pod.metadata.uid.as_str());
    if volume.ephemeral.is_some() && !mine {
        return Err(format!("PVC {full} was not created for pod {} (pod is not owner)", pod.metadata.name));
    }
    match claim["spec"]["volumeName"].as_str().filter(|n| !n.is_empty() && claim["status"]["phase"] == "Bound") {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!("error processing PVC {full}: PVC is not bound")),
    }
}

/// Whether the persistent volume belongs to this claim and can be used on this node.
///
/// # Errors
/// Why not.
pub fn check(claim: &Value, pv: &Value, node: &Node) -> Result<(), String> {
    let name = pv["metadata"]["name"].as_str().unwrap_or_default();
    let bound_to = &pv["spec"]["claimRef"]["uid"];
    if *bound_to != claim["metadata"]["uid"] {
        return Err(format!("error processing PVC: PV {name:?} is bound to another claim ({bound_to})"));
    }
    let required = &pv["spec"]["nodeAffinity"]["required"];
    if required.is_null() {
        return Ok(());
    }
    let selector = NodeSelector::deserialize(required).map_err(|e| format!("PV {name:?}: nodeAffinity: {e}"))?;
    if selector.node_selector_terms.iter().any(|term| admission::term_matches(term, node)) {
        Ok(())
    } else {
        Err(format!("NodeAffinity check failed for volume {name:?}: no matching NodeSelectorTerms"))
    }
}

/// Makes a persistent volume usable.
///
/// # Errors
/// Its kind is not supported, or the path is not there.
pub fn setup(pod: &Pod, pv: &Value, group: Option<u32>) -> Result<Source, String> {
    let spec = &pv["spec"];
    let block = spec["volumeMode"] == "Block";
    if spec["hostPath"].is_object() {
        let path = HostPath::deserialize(&spec["hostPath"]).map_err(|e| format!("hostPath: {e}"))?;
        return host_path::setup(&path).map(|path| if block { Source::Device(path) } else { Source::Path(path) });
    }
    if let Some(path) = spec["local"]["path"].as_str() {
        return local(pod, Path::new(path), block, group);
    }
    let kind = spec.as_object().into_iter().flat_map(|fields| fields.keys()).find(|k| KINDS.contains(&k.as_str()));
    Err(super::unsupported(kind.map_or("unknown", |k| k)))
}

/// Kinds of persistent volumes that others know.
const KINDS: &[&str] = &["csi", "nfs", "iscsi", "fc", "rbd", "cephfs", "azureFile", "portworxVolume", "flexVolume"];

fn local(pod: &Pod, path: &Path, block: bool, group: Option<u32>) -> Result<Source, String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("path {:?} does not exist: {e}", path.display()))?;
    let path = PathBuf::from(path);
    match (block, meta.is_dir()) {
        (true, false) => Ok(Source::Device(path)),
        (true, true) => Err(format!("local volume {} is a folder, not a block device", path.display())),
        (false, false) => Err(format!("local volume {} is not a folder", path.display())),
        (false, true) => {
            let lazily = pod.spec.security_context.fs_group_change_policy.as_deref() == Some("OnRootMismatch");
            if let Some(group) = group {
                ownership::give(&path, group, lazily).map_err(|e| format!("fsGroup of {}: {e}", path.display()))?;
            }
            Ok(Source::Path(path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(volume: Value) -> Pod {
        Pod::from_value(
            &json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"volumes": [volume]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_claim_must_be_bound_and_an_ephemeral_one_the_pods_own() {
        let plain = pod(json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}));
        assert_eq!(name(&plain, &plain.spec.volumes[0]).unwrap(), "c");
        let mut claim = json!({"metadata": {"name": "c"}, "spec": {}, "status": {"phase": "Pending"}});
        assert!(bound(&plain, &plain.spec.volumes[0], &claim).unwrap_err().ends_with("PVC is not bound"));
        claim["spec"]["volumeName"] = "pv".into();
        claim["status"]["phase"] = "Bound".into();
        assert_eq!(bound(&plain, &plain.spec.volumes[0], &claim).unwrap(), "pv");
        let own = pod(json!({"name": "v", "ephemeral": {}}));
        assert_eq!(name(&own, &own.spec.volumes[0]).unwrap(), "p-v");
        assert!(bound(&own, &own.spec.volumes[0], &claim).unwrap_err().contains("not owner"));
        claim["metadata"]["ownerReferences"] = json!([{"uid": "u", "controller": true}]);
        assert_eq!(bound(&own, &own.spec.volumes[0], &claim).unwrap(), "pv");
    }

    #[test]
    fn a_volume_must_belong_to_the_claim_and_the_node() {
        let claim = json!({"metadata": {"uid": "c"}});
        let expression = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let pv = json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"uid": "c"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}}});
        let mut node = Node::default();
        assert!(check(&claim, &pv, &node).unwrap_err().contains("NodeAffinity"));
        node.labels.insert("zone".into(), "a".into());
        assert_eq!(check(&claim, &pv, &node), Ok(()));
        assert!(check(&json!({"metadata": {"uid": "d"}}), &pv, &node).is_err());
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let pod = pod(json!({"name": "v"}));
        let error = setup(&pod, &json!({"spec": {"capacity": {}, "csi": {"driver": "d"}}}), None).unwrap_err();
        assert!(error.contains("kind csi"), "{error}");
        let error = setup(&pod, &json!({"spec": {"nfs": {"server": "s", "path": "/"}}}), None).unwrap_err();
        assert_eq!(error, "volume kind nfs: this node has no NFS client");
        let here = std::env::temp_dir();
        let local = setup(&pod, &json!({"spec": {"local": {"path": here}}}), None).unwrap();
        assert_eq!(local, Source::Path(here));
    }
}
