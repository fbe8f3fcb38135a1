//! Claims, volumes, storage classes and what nodes can attach. Pure.
//!
//! A claim whose class says WaitForFirstConsumer gets its volume with the pod's node: an existing volume that fits there
//! (*static*), or one that is provisioned for that node. What was chosen is assumed until the informers show it.

use std::collections::{BTreeSet, HashMap};

use apimachinery::selector::LabelSelector;
use serde_json::Value;

use crate::amounts::quantity;
use crate::node::Offer;
use crate::objects::{ClaimObject, ClassObject, CsiNodeObject, VolumeObject};
use crate::terms::{Labels, Term, label, list};

/// Set by whoever bound a claim when that was complete.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Provisioners wait for this on claims that wait for their first consumer.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// Namespace and name of a claim.
pub type ClaimKey = (Box<str>, Box<str>);

/// Where a claim stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It has this volume.
    Bound,
    /// It gets one with the pod's node.
    Delayed,
    /// Somebody else has to bind it first.
    Immediate,
}

/// What has to be written before a pod that uses claims can be bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// Volumes that are reserved for claims.
    pub reserve: Vec<(Box<str>, ClaimKey)>,
    /// Claims for which a volume is provisioned.
    pub provision: Vec<ClaimKey>,
}

/// Everything about storage.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<ClaimKey, ClaimObject>,
    volumes: HashMap<Box<str>, Volume>,
    classes: HashMap<Box<str>, ClassObject>,
    limits: HashMap<Box<str>, HashMap<Box<str>, i64>>,
    /// Volumes that are reserved for a claim before the API server says so.
    assumed: HashMap<Box<str>, ClaimKey>,
    version: u64,
}

/// A volume with its node affinity read.
#[derive(Debug)]
pub struct Volume {
    /// The object.
    pub object: VolumeObject,
    required: Option<Vec<Term>>,
}

impl Volume {
    /// Whether the volume can be used on a node.
    pub fn allows(&self, node: &Offer) -> bool {
        self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(&node.name, &node.labels)))
    }

    fn capacity(&self) -> i64 {
        self.object.spec.capacity.get("storage").and_then(quantity).map_or(0, |q| q.value())
    }
}

impl Volumes {
    /// Changes whenever something here does.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A claim appeared or changed.
    pub fn set_claim(&mut self, object: ClaimObject) {
        self.version += 1;
        let key = (object.metadata.namespace.clone(), object.metadata.name.clone());
        self.claims.insert(key, object);
    }

    /// A claim is gone.
    pub fn remove_claim(&mut self, namespace: &str, name: &str) {
        self.version += 1;
        self.claims.remove(&(namespace.into(), name.into()));
    }

    /// A volume appeared or changed.
    pub fn set_volume(&mut self, object: VolumeObject) {
        self.version += 1;
        let required = object.spec.node_affinity.pointer("/required/nodeSelectorTerms").and_then(Value::as_array);
        let required = required.map(|terms| terms.iter().map(Term::read).collect());
        if object.spec.claim_ref.is_some() {
            self.assumed.remove(&object.metadata.name);
        }
        self.volumes.insert(object.metadata.name.clone(), Volume { object, required });
    }

    /// A volume is gone.
    pub fn remove_volume(&mut self, name: &str) {
        self.version += 1;
        self.volumes.remove(name);
        self.assumed.remove(name);
    }

    /// A class appeared, changed or went.
    pub fn set_class(&mut self, name: &str, class: Option<ClassObject>) {
        self.version += 1;
        match class {
            Some(class) => drop(self.classes.insert(name.into(), class)),
            None => drop(self.classes.remove(name)),
        }
    }

    /// A CSINode appeared, changed or went.
    pub fn set_limits(&mut self, node: &str, object: Option<&CsiNodeObject>) {
        self.version += 1;
        let limits = object.map(|object| {
            let counts = object.spec.drivers.iter().filter_map(|d| Some((d.name.clone(), d.allocatable.count?)));
            counts.collect()
        });
        match limits {
            Some(limits) => drop(self.limits.insert(node.into(), limits)),
            None => drop(self.limits.remove(node)),
        }
    }

    /// How many volumes of a driver a node attaches, if it says so.
    pub fn limit(&self, node: &str, driver: &str) -> Option<i64> {
        self.limits.get(node)?.get(driver).copied()
    }

    /// A claim.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&ClaimObject> {
        self.claims.get(&(namespace.into(), name.into()))
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.get(name)
    }

    /// Where a claim stands.
    pub fn stage(&self, claim: &ClaimObject) -> Stage {
        let named = !claim.spec.volume_name.is_empty();
        if named && claim.metadata.annotations.contains_key(BIND_COMPLETED) {
            return Stage::Bound;
        }
        let class = self.classes.get(&claim.spec.storage_class_name);
        let delayed = class.is_some_and(|class| &*class.volume_binding_mode == "WaitForFirstConsumer");
        if delayed && !named { Stage::Delayed } else { Stage::Immediate }
    }

    /// How the delayed claims get volumes on a node; none if they cannot.
    pub fn bindings(&self, delayed: &[&ClaimObject], node: &Offer) -> Option<Bindings> {
        let mut bindings = Bindings::default();
        let mut taken = BTreeSet::new();
        for claim in delayed {
            let key = (claim.metadata.namespace.clone(), claim.metadata.name.clone());
            if let Some(selected) = label(&claim.metadata.annotations, SELECTED_NODE) {
                if selected != &*node.name {
                    return None;
                }
                bindings.provision.push(key);
            } else if let Some(volume) = self.fitting(claim, node, &taken) {
                taken.insert(volume);
                bindings.reserve.push((volume.into(), key));
            } else if self.provisions(claim, node) {
                bindings.provision.push(key);
            } else {
                return None;
            }
        }
        Some(bindings)
    }

    /// The smallest free volume that fits; one that is kept for the claim comes first.
    fn fitting(&self, claim: &ClaimObject, node: &Offer, taken: &BTreeSet<&str>) -> Option<&str> {
        let wanted = claim.spec.resources.requests.get("storage").and_then(quantity).map_or(0, |q| q.value());
        let selector = match &claim.spec.selector {
            Value::Null => LabelSelector::everything(),
            selector => LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing()),
        };
        let or_filesystem = |mode: &str| if mode.is_empty() { "Filesystem".to_owned() } else { mode.to_owned() };
        let fits = |(name, volume): &(&str, &Volume)| {
            let spec = &volume.object.spec;
            !taken.contains(*name)
                && spec.storage_class_name == claim.spec.storage_class_name
                && or_filesystem(&spec.volume_mode) == or_filesystem(&claim.spec.volume_mode)
                && claim.spec.access_modes.iter().all(|mode| spec.access_modes.contains(mode))
                && volume.object.metadata.deletion_timestamp.is_none()
                && volume.capacity() >= wanted
                && volume.allows(node)
                && self.is_free_for(name, volume, claim)
                && selector.matches(Some(&volume.object.metadata.labels))
        };
        let free = self.volumes.iter().map(|(name, volume)| (&**name, volume)).filter(fits);
        free.min_by_key(|(name, v)| (v.object.spec.claim_ref.is_none(), v.capacity(), *name)).map(|(name, _)| name)
    }

    fn is_free_for(&self, name: &str, volume: &Volume, claim: &ClaimObject) -> bool {
        let meta = &claim.metadata;
        let assumed = self.assumed.get(name);
        let mine = |(namespace, name): &ClaimKey| *namespace == meta.namespace && *name == meta.name;
        match &volume.object.spec.claim_ref {
            Some(kept) => {
                kept.namespace == meta.namespace
                    && kept.name == meta.name
                    && (kept.uid.is_empty() || kept.uid == meta.uid)
            }
            None => assumed.is_none_or(mine) && matches!(&*volume.object.status.phase, "" | "Available"),
        }
    }

    /// Whether the claim's class makes volumes for a node.
    fn provisions(&self, claim: &ClaimObject, node: &Offer) -> bool {
        let Some(class) = self.classes.get(&claim.spec.storage_class_name) else { return false };
        let reaches = |topology: &Value| {
            list(topology, "/matchLabelExpressions").iter().all(|expression| {
                let value = expression["key"].as_str().and_then(|key| label(&node.labels, key));
                value.is_some_and(|value| list(expression, "/values").iter().any(|v| v == value))
            })
        };
        !class.provisioner.is_empty()
            && &*class.provisioner != NO_PROVISIONER
            && (class.allowed_topologies.is_empty() || class.allowed_topologies.iter().any(reaches))
    }

    /// Keeps the chosen volumes for their claims until the API server shows it.
    pub fn assume(&mut self, bindings: &Bindings) {
        self.version += 1;
        self.assumed.extend(bindings.reserve.iter().cloned());
    }

    /// The bindings could not be written.
    pub fn forget(&mut self, bindings: &Bindings) {
        self.version += 1;
        bindings.reserve.iter().for_each(|(volume, _)| drop(self.assumed.remove(volume)));
    }

    /// Whether every claim of the bindings has its volume; an error if one of them never will on this node.
    pub fn complete(&self, bindings: &Bindings, node: &Offer) -> Result<bool, String> {
        let keys = bindings.reserve.iter().map(|(_, key)| key).chain(&bindings.provision);
        let mut complete = true;
        for key in keys {
            let Some(claim) = self.claims.get(key) else {
                return Err(format!("persistentvolumeclaim {:?} not found", key.1));
            };
            if self.stage(claim) != Stage::Bound {
                let lost_node = label(&claim.metadata.annotations, SELECTED_NODE).is_none();
                if lost_node && bindings.provision.contains(key) && claim.spec.volume_name.is_empty() {
                    return Err(format!("provisioning failed for PVC {:?}", key.1));
                }
                complete = false;
            } else if self.volume(&claim.spec.volume_name).is_some_and(|volume| !volume.allows(node)) {
                return Err(format!(
                    "pv {:?} node affinity doesn't match node {:?}",
                    claim.spec.volume_name, node.name
                ));
            }
        }
        Ok(complete)
    }
}

/// Labels that say in which zone or region a volume is.
pub const ZONES: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

/// Whether a volume's zone labels allow a node. A node without any of them is in no zone at all.
pub fn in_zone(volume: &Labels, node: &Labels) -> bool {
    let without = ZONES.iter().all(|key| !node.contains_key(*key));
    let allowed = |key: &&str| {
        let Some(zones) = label(volume, key) else { return true };
        label(node, key).is_some_and(|zone| zones.split("__").any(|z| z == zone))
    };
    without || ZONES.iter().all(allowed)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
