//! DynamicResources: a pod's resource claims have devices that its node reaches, or can get them there.

use serde_json::Value;

use crate::cache::Cache;
use crate::devices::{RESERVED_MAX, ResourceClaim, Short};
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::plugins::resources::no_fields_but;
use crate::pod::{Pod, PodClaim};

/// Upstream's name.
pub const NAME: &str = "DynamicResources";

pub struct DynamicResources;

impl DynamicResources {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["filterTimeout"])?;
        Ok(DynamicResources)
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn admit(&self, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        let (pod, devices) = (cycle.pod, &cycle.cache.devices);
        for entry in pod.resource_claims() {
            let name = match entry {
                PodClaim::Named(name) | PodClaim::Made(name) => name,
                PodClaim::NotNeeded => continue,
                PodClaim::NotMade => {
                    return Err(Refusal::hopeless(format!("pod {:?}: ResourceClaim not created yet", pod.key())));
                }
            };
            let Some(claim) = devices.claim(&pod.spec.namespace, name) else {
                return Err(Refusal::hopeless(format!("resourceclaim {name:?} not found")));
            };
            refuse(pod, entry, claim)?;
            let allocated = devices.allocation(claim).is_some();
            if let Some(obstacle) = claim.obstacle(devices).filter(|_| !allocated) {
                return Err(Refusal::hopeless(obstacle));
            }
        }
        Ok(())
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        if cycle.pod.resource_claims().is_empty() {
            return None;
        }
        let devices = &cycle.cache.devices;
        let claims = devices.claims_of(cycle.pod);
        let allocated: Vec<_> = claims.iter().filter_map(|claim| devices.allocation(claim)).collect();
        let open: Vec<_> = claims.into_iter().filter(|claim| devices.allocation(claim).is_none()).collect();
        Some(Box::new(move |node| {
            if !allocated.iter().all(|allocation| allocation.allows(&node.offer)) {
                return Some(Refusal::of("resourceclaim not available on the node"));
            }
            match devices.allocate(&open, &node.offer) {
                Ok(_) => None,
                Err(Short::Few) => Some(Refusal::of("cannot allocate all claims")),
                Err(Short::Broken(error)) => Some(Refusal::of(error)),
            }
        }))
    }

    fn helps(&self, _: &Pod, event: &Event, _: &Cache) -> bool {
        match event {
            Event::Node { old: None, .. } | Event::Devices => true,
            Event::Node { old: Some(old), new } => old.labels != new.labels,
            Event::NodeGone | Event::Placed { .. } | Event::Gone(_) | Event::Storage => false,
        }
    }
}

/// Why the claim is not for this pod.
fn refuse(pod: &Pod, entry: &PodClaim, claim: &ResourceClaim) -> Result<(), Refusal> {
    let meta = &claim.object.metadata;
    if meta.deletion_timestamp.is_some() {
        return Err(Refusal::hopeless(format!("resourceclaim {:?} is being deleted", meta.name)));
    }
    let is_owned = || meta.owner_references.iter().any(|owner| owner.controller && *owner.uid == *pod.uid);
    if matches!(entry, PodClaim::Made(_)) && !is_owned() {
        let reason = format!(
            "ResourceClaim {}/{} was not created for pod {} (pod is not owner)",
            meta.namespace,
            meta.name,
            pod.key()
        );
        return Err(Refusal::hopeless(reason));
    }
    let users = claim.reserved_for().count();
    if users >= RESERVED_MAX && !claim.reserved_for().any(|uid| *uid == *pod.uid) {
        return Err(Refusal::of("resourceclaim in use"));
    }
    Ok(())
}
