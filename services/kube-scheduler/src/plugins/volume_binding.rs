//! VolumeBinding: a pod's claims are bound to volumes that its node reaches, or can be once the node is known.

use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::objects::ClaimObject;
use crate::plugins::resources::{no_fields_but, number};
use crate::pod::Pod;
use crate::volumes::{Stage, Volume, Volumes};

pub struct VolumeBinding;

impl VolumeBinding {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["bindTimeoutSeconds"])?;
        number(args, "bindTimeoutSeconds", 600, 0..=i64::MAX)?;
        Ok(VolumeBinding)
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn admit(&self, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        let volumes = &cycle.cache.volumes;
        for (name, ephemeral) in cycle.pod.claims() {
            let Some(claim) = volumes.claim(&cycle.pod.spec.namespace, &name) else {
                return Err(Refusal::hopeless(if ephemeral {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                }));
            };
            let volume = &claim.spec.volume_name;
            if &*claim.status.phase == "Lost" {
                let reason =
                    format!("persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}");
                return Err(Refusal::hopeless(reason));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(Refusal::hopeless(format!("persistentvolumeclaim {name:?} is being deleted")));
            }
            let is_owned = || claim.metadata.owner_references.iter().any(|o| o.controller && *o.uid == *cycle.pod.uid);
            if ephemeral && !is_owned() {
                let pod = cycle.pod.key();
                let reason = format!("PVC {:?} was not created for pod {pod:?} (pod is not owner)", claim_key(claim));
                return Err(Refusal::hopeless(reason));
            }
            if volumes.stage(claim) == Stage::Immediate {
                return Err(Refusal::hopeless("pod has unbound immediate PersistentVolumeClaims"));
            }
        }
        Ok(())
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        if cycle.pod.spec.claims.is_empty() {
            return None;
        }
        let volumes = &cycle.cache.volumes;
        let (bound, delayed) = split(cycle.pod, volumes);
        Some(Box::new(move |node| {
            if bound.iter().any(Option::is_none) {
                let reason = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                return Some(Refusal::hopeless(reason));
            }
            if !bound.iter().flatten().all(|volume| volume.allows(&node.offer)) {
                return Some(Refusal::hopeless("node(s) had volume node affinity conflict"));
            }
            if volumes.bindings(&delayed, &node.offer).is_none() {
                return Some(Refusal::hopeless("node(s) didn't find available persistent volumes to bind"));
            }
            None
        }))
    }

    fn helps(&self, _: &Pod, event: &Event, _: &Cache) -> bool {
        match event {
            Event::Node { old: None, .. } | Event::Storage => true,
            Event::Node { old: Some(old), new } => old.labels != new.labels,
            Event::NodeGone | Event::Placed { .. } | Event::Gone(_) | Event::Devices => false,
        }
    }
}

fn claim_key(claim: &ClaimObject) -> String {
    format!("{}/{}", claim.metadata.namespace, claim.metadata.name)
}

/// The volumes of the pod's bound claims, and its claims that wait for a node.
pub fn split<'a>(pod: &Pod, volumes: &'a Volumes) -> (Vec<Option<&'a Volume>>, Vec<&'a ClaimObject>) {
    let claims = pod.claims().filter_map(|(name, _)| volumes.claim(&pod.spec.namespace, &name));
    let (bound, delayed): (Vec<_>, Vec<_>) = claims.partition(|claim| volumes.stage(claim) == Stage::Bound);
    (bound.iter().map(|claim| volumes.volume(&claim.spec.volume_name)).collect(), delayed)
}
