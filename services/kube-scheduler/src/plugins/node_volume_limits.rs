//! NodeVolumeLimits: a CSI driver attaches only so many volumes to a node.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::pod::Pod;
use crate::volumes::Volumes;

pub struct NodeVolumeLimits;

/// Volume handles by driver. A volume that two pods use counts once.
type Attached<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let volumes = &cycle.cache.volumes;
        let mut wanted = Attached::new();
        attach(&mut wanted, cycle.pod, volumes);
        if wanted.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let limited = wanted.iter().any(|(driver, _)| volumes.limit(&node.offer.name, driver).is_some());
            if !limited {
                return None;
            }
            let mut all = wanted.clone();
            node.pods.iter().for_each(|pod| attach(&mut all, pod, volumes));
            let over = |driver: &&str| {
                let count = i64::try_from(all[driver].len()).unwrap_or(i64::MAX);
                volumes.limit(&node.offer.name, driver).is_some_and(|limit| count > limit)
            };
            wanted.keys().any(over).then(|| Refusal::of("node(s) exceed max volume count"))
        }))
    }

    fn helps(&self, _: &Pod, event: &Event, _: &Cache) -> bool {
        match event {
            Event::Gone(gone) => !gone.spec.claims.is_empty(),
            Event::Node { old, .. } => old.is_none(),
            Event::Storage => true,
            Event::NodeGone | Event::Placed { .. } | Event::Devices => false,
        }
    }
}

fn attach<'a>(attached: &mut Attached<'a>, pod: &Pod, volumes: &'a Volumes) {
    for (name, _) in pod.claims() {
        let volume = volumes
            .claim(&pod.spec.namespace, &name)
            .and_then(|claim| volumes.volume(&claim.spec.volume_name))
            .and_then(|volume| volume.object.spec.csi.as_ref());
        if let Some(csi) = volume {
            attached.entry(&csi.driver).or_default().insert(&csi.volume_handle);
        }
    }
}
