//! VolumeZone: volumes with zone labels are used in their zone.

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::pod::Pod;
use crate::terms::Labels;
use crate::volumes::{ZONES, in_zone};

pub struct VolumeZone;

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let volumes = &cycle.cache.volumes;
        let labels = |(name, _): (String, bool)| -> Option<&'a Labels> {
            let claim = volumes.claim(&cycle.pod.spec.namespace, &name)?;
            let labels = &volumes.volume(&claim.spec.volume_name)?.object.metadata.labels;
            ZONES.iter().any(|key| labels.contains_key(*key)).then_some(labels)
        };
        let zoned: Vec<&'a Labels> = cycle.pod.claims().filter_map(labels).collect();
        if zoned.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let everywhere = zoned.iter().all(|volume| in_zone(volume, &node.offer.labels));
            (!everywhere).then(|| Refusal::hopeless("node(s) had no available volume zone"))
        }))
    }

    fn helps(&self, _: &Pod, event: &Event, _: &Cache) -> bool {
        matches!(event, Event::Node { .. } | Event::Storage)
    }
}
