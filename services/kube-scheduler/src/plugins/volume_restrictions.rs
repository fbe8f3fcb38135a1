//! VolumeRestrictions: a ReadWriteOncePod claim has one user; a disk that only one machine can write is not used twice on
//! a node.

use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal};
use crate::objects::Volume;
use crate::pod::Pod;
use crate::terms::{list, text};

pub struct VolumeRestrictions;

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let pod = cycle.pod;
        let namespace = &pod.spec.namespace;
        let taken = |(name, _): (String, bool)| {
            let claim = cycle.cache.volumes.claim(namespace, &name);
            let once = claim.is_some_and(|c| c.spec.access_modes.iter().any(|mode| &**mode == "ReadWriteOncePod"));
            once && cycle.cache.users_of(namespace, &name) > 0
        };
        let is_taken = pod.claims().any(taken);
        if !is_taken && pod.spec.disks.is_empty() {
            return None;
        }
        Some(Box::new(move |node| {
            let mut placed = node.pods.iter().flat_map(|placed| &placed.spec.disks);
            if placed.any(|theirs| pod.spec.disks.iter().any(|mine| conflict(mine, theirs))) {
                return Some(Refusal::of("node(s) had no available disk"));
            }
            is_taken.then(|| {
                Refusal::of(
                    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
                )
            })
        }))
    }

    fn helps(&self, _: &Pod, event: &Event, _: &Cache) -> bool {
        matches!(event, Event::Gone(_) | Event::Node { old: None, .. } | Event::Storage)
    }
}

fn conflict(a: &Volume, b: &Volume) -> bool {
    let writes = |a: &Value, b: &Value| a["readOnly"] != true || b["readOnly"] != true;
    let same = |a: &Option<Value>, b: &Option<Value>, field: &str, shared_reads: bool| match (a, b) {
        (Some(a), Some(b)) => text(a, field) == text(b, field) && (!shared_reads || writes(a, b)),
        _ => false,
    };
    let rbd = match (&a.rbd, &b.rbd) {
        (Some(a), Some(b)) => {
            let common = list(a, "/monitors").iter().any(|monitor| list(b, "/monitors").contains(monitor));
            common && text(a, "/pool") == text(b, "/pool") && text(a, "/image") == text(b, "/image") && writes(a, b)
        }
        _ => false,
    };
    same(&a.gce_persistent_disk, &b.gce_persistent_disk, "/pdName", true)
        || same(&a.aws_elastic_block_store, &b.aws_elastic_block_store, "/volumeID", false)
        || same(&a.iscsi, &b.iscsi, "/iqn", true)
        || rbd
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn disks_that_cannot_be_shared() {
        let cases = [
            (json!({"gcePersistentDisk": {"pdName": "a"}}), json!({"gcePersistentDisk": {"pdName": "a"}}), true),
            (json!({"gcePersistentDisk": {"pdName": "a"}}), json!({"gcePersistentDisk": {"pdName": "b"}}), false),
            (json!({"iscsi": {"iqn": "a", "readOnly": true}}), json!({"iscsi": {"iqn": "a", "readOnly": true}}), false),
            (
                json!({"rbd": {"monitors": ["x", "y"], "image": "i", "pool": "p"}}),
                json!({"rbd": {"monitors": ["y"], "image": "i", "pool": "p"}}),
                true,
            ),
        ];
        for (a, b, expected) in cases {
            let read = |v: &Value| serde_json::from_value(v.clone()).unwrap();
            assert_eq!(conflict(&read(&a), &read(&b)), expected, "{a} {b}");
        }
    }
}
