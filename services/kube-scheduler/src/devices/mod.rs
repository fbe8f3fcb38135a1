//! Devices that pods claim (resource.k8s.io/v1): which there are, who has which, and which a pod's claims would get on a node. Pure.
//!
//! The search is the one of KEP-4381's structured parameters. Left alone are devices that share counters, that several
//! claims may have at once, or that are bound by conditions. What a decision costs grows with the devices that its nodes
//! reach, not with all there are: slices are found by node, and who has what is counted as it changes.

mod search;
mod selectors;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::{Value, json};

use crate::node::Offer;
use crate::objects::{DeviceClassObject, ResourceClaimObject, SliceObject};
use crate::pod::{Pod, PodClaim};
use crate::terms::{Term, list, text};
use crate::volumes::ClaimKey;
use search::{CHOICES_MAX, Chosen, Reachable, Search, alternatives, node_selector};
use selectors::Selectors;

/// A claim has no more users than this.
pub const RESERVED_MAX: usize = 256;

/// Driver, pool and name.
pub type DeviceId = (Box<str>, Box<str>, Box<str>);

/// A claim, with what was allocated for it.
#[derive(Debug)]
pub struct ResourceClaim {
    /// The object.
    pub object: ResourceClaimObject,
    allocation: Option<Allocation>,
}

/// Devices for a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation {
    /// status.allocation.
    pub status: Value,
    taken: Vec<DeviceId>,
}

/// What is to be written about a claim before its pod is bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// The claim.
    pub key: ClaimKey,
    /// Its uid.
    pub uid: Box<str>,
    /// Its devices, unless it has them already.
    pub allocation: Option<Allocation>,
}

/// Why claims have no devices on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Short {
    /// There are not enough that suit and that nobody has.
    Few,
    /// An expression gave no answer; upstream's sentence.
    Broken(String),
}

/// A slice in one of its states, with how expressions see its devices.
#[derive(Debug)]
struct Listed {
    serial: u64,
    slice: SliceObject,
    seen: Vec<Result<cel::Value, String>>,
}

/// Everything about devices.
#[derive(Debug, Default)]
pub struct Devices {
    slices: BTreeMap<Box<str>, Listed>,
    /// The names of the slices that belong to one node, and, without a node, of the others.
    by_node: HashMap<Box<str>, BTreeSet<Box<str>>>,
    /// Of each pool, by driver and name, how many slices there are of each generation.
    pools: HashMap<(Box<str>, Box<str>), BTreeMap<i64, i64>>,
    /// How many claims have a device.
    taken: HashMap<DeviceId, usize>,
    selectors: Selectors,
    classes: HashMap<Box<str>, DeviceClassObject>,
    claims: HashMap<ClaimKey, ResourceClaim>,
    /// Allocations that the API server does not show yet.
    assumed: HashMap<ClaimKey, Allocation>,
    version: u64,
}

impl Allocation {
    fn read(status: &Value) -> Option<Allocation> {
        let results = status.is_object().then(|| list(status, "/devices/results"))?;
        let shared = |result: &&Value| result["adminAccess"] == true;
        let id = |r: &Value| (text(r, "/driver").into(), text(r, "/pool").into(), text(r, "/device").into());
        let taken = results.iter().filter(|r| !shared(r)).map(id).collect();
        Some(Allocation { status: status.clone(), taken })
    }

    /// Whether a node reaches all of its devices.
    pub fn allows(&self, node: &Offer) -> bool {
        match self.status.pointer("/nodeSelector/nodeSelectorTerms").and_then(Value::as_array) {
            None => true,
            Some(terms) => terms.iter().any(|term| Term::read(term).matches(&node.name, &node.labels)),
        }
    }
}

impl Devices {
    /// Changes whenever something here does.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A slice appeared, changed or went.
    pub fn set_slice(&mut self, name: &str, slice: Option<SliceObject>) {
        self.version += 1;
        if let Some(Listed { slice: old, .. }) = self.slices.remove(name) {
            if let Some(names) = self.by_node.get_mut(&old.spec.node_name) {
                names.remove(name);
            }
            let pool = self.pools.entry(old.pool_id()).or_default();
            let count = pool.entry(old.spec.pool.generation).or_default();
            *count -= 1;
            if *count == 0 {
                pool.remove(&old.spec.pool.generation);
            }
        }
        let Some(slice) = slice else { return };
        self.by_node.entry(slice.spec.node_name.clone()).or_default().insert(name.into());
        *self.pools.entry(slice.pool_id()).or_default().entry(slice.spec.pool.generation).or_default() += 1;
        let seen = slice.spec.devices.iter().map(|device| {
            let multiple = device.allow_multiple_allocations;
            cel::device::device(&slice.spec.driver, &device.attributes, &device.capacity, multiple)
        });
        let listed = Listed { serial: self.version, seen: seen.collect(), slice };
        self.slices.insert(name.into(), listed);
    }

    /// A class appeared, changed or went.
    pub fn set_class(&mut self, name: &str, class: Option<DeviceClassObject>) {
        self.version += 1;
        match class {
            Some(class) => drop(self.classes.insert(name.into(), class)),
            None => drop(self.classes.remove(name)),
        }
    }

    /// A claim appeared or changed.
    pub fn set_claim(&mut self, object: ResourceClaimObject) {
        self.version += 1;
        let key = (object.metadata.namespace.clone(), object.metadata.name.clone());
        let allocation = Allocation::read(&object.status["allocation"]);
        if allocation.is_some() {
            self.drop_assumed(&key);
        }
        self.count(allocation.as_ref(), true);
        let old = self.claims.insert(key, ResourceClaim { object, allocation });
        self.count(old.and_then(|claim| claim.allocation).as_ref(), false);
    }

    /// A claim is gone.
    pub fn remove_claim(&mut self, namespace: &str, name: &str) {
        self.version += 1;
        let key = (namespace.into(), name.into());
        let old = self.claims.remove(&key);
        self.count(old.and_then(|claim| claim.allocation).as_ref(), false);
        self.drop_assumed(&key);
    }

    /// Counts an allocation's devices as somebody's, or not any more.
    fn count(&mut self, allocation: Option<&Allocation>, there: bool) {
        for id in allocation.into_iter().flat_map(|allocation| &allocation.taken) {
            let users = self.taken.entry(id.clone()).or_default();
            *users = if there { *users + 1 } else { users.saturating_sub(1) };
            if *users == 0 {
                self.taken.remove(id);
            }
        }
    }

    fn drop_assumed(&mut self, key: &ClaimKey) {
        let old = self.assumed.remove(key);
        self.count(old.as_ref(), false);
    }

    /// Whether some claim has a device.
    fn is_taken(&self, id: &DeviceId) -> bool {
        self.taken.contains_key(id)
    }

    /// A claim.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&ResourceClaim> {
        self.claims.get(&(namespace.into(), name.into()))
    }

    /// A class.
    pub fn class(&self, name: &str) -> Option<&DeviceClassObject> {
        self.classes.get(name)
    }

    /// What was allocated for a claim, or is about to be.
    pub fn allocation<'a>(&'a self, claim: &'a ResourceClaim) -> Option<&'a Allocation> {
        claim.allocation.as_ref().or_else(|| self.assumed.get(&claim.key()))
    }

    /// A pod's claims that exist.
    pub fn claims_of(&self, pod: &Pod) -> Vec<&ResourceClaim> {
        let names = pod.resource_claims().iter().filter_map(PodClaim::name);
        names.filter_map(|name| self.claim(&pod.spec.namespace, name)).collect()
    }

    /// What has to be written for a pod on a node; none if some claim cannot have its devices there.
    pub fn reservations(&self, pod: &Pod, node: &Offer) -> Option<Vec<Reservation>> {
        let claims = self.claims_of(pod);
        let open: Vec<&ResourceClaim> = claims.iter().copied().filter(|c| self.allocation(c).is_none()).collect();
        let mut found = self.allocate(&open, node).ok()?.into_iter();
        let reservation = |claim: &ResourceClaim| Reservation {
            key: claim.key(),
            uid: claim.object.metadata.uid.clone(),
            allocation: if self.allocation(claim).is_none() { found.next() } else { None },
        };
        Some(claims.into_iter().map(reservation).collect())
    }

    /// Keeps devices for claims until the API server shows them there.
    pub fn assume(&mut self, reservations: &[Reservation]) {
        self.version += 1;
        for reservation in reservations {
            if let Some(allocation) = &reservation.allocation {
                self.drop_assumed(&reservation.key);
                self.count(Some(allocation), true);
                self.assumed.insert(reservation.key.clone(), allocation.clone());
            }
        }
    }

    /// The reservations could not be written.
    pub fn forget(&mut self, reservations: &[Reservation]) {
        self.version += 1;
        for reservation in reservations.iter().filter(|reservation| reservation.allocation.is_some()) {
            self.drop_assumed(&reservation.key);
        }
    }

    /// Devices on a node for claims that have none, in their order.
    ///
    /// # Errors
    /// Why there are none.
    pub fn allocate(&self, claims: &[&ResourceClaim], node: &Offer) -> Result<Vec<Allocation>, Short> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let reachable = self.reachable(node);
        let (mut taken, mut choices) = (HashSet::new(), CHOICES_MAX);
        let allocation = |claim: &&ResourceClaim| {
            let chosen = Search::run(self, claim, &reachable, &mut taken, &mut choices)?;
            self.allocation_of(claim, node, &chosen).ok_or(Short::Few)
        };
        claims.iter().map(allocation).collect()
    }

    fn allocation_of(&self, claim: &ResourceClaim, node: &Offer, chosen: &[Chosen<'_>]) -> Option<Allocation> {
        let spec = &claim.object.spec["devices"];
        let results: Vec<Value> = chosen.iter().map(Chosen::result).collect();
        let mut devices = json!({"results": results});
        let config = self.configuration(chosen, spec);
        if !config.is_empty() {
            devices["config"] = config.into();
        }
        let mut status = json!({"devices": devices});
        if let Some(selector) = node_selector(chosen, node) {
            status["nodeSelector"] = selector;
        }
        Allocation::read(&status)
    }

    /// What drivers are told: first what the classes say, then what the claim says.
    fn configuration(&self, chosen: &[Chosen<'_>], spec: &Value) -> Vec<Value> {
        let mut config = Vec::new();
        let mut told = HashSet::new();
        for one in chosen.iter().filter(|one| told.insert(one.request.as_str())) {
            let class = self.classes.get(one.class.as_str());
            for entry in class.into_iter().flat_map(|class| &class.spec.config) {
                let mut entry = entry.clone();
                entry["source"] = "FromClass".into();
                entry["requests"] = json!([one.request]);
                config.push(entry);
            }
        }
        for entry in list(spec, "/config") {
            let mut entry = entry.clone();
            entry["source"] = "FromClaim".into();
            config.push(entry);
        }
        config
    }

    /// The devices of complete pools that a node reaches, in the order of their slices' names.
    fn reachable<'a>(&'a self, node: &Offer) -> Vec<Reachable<'a>> {
        let names = |node: &str| self.by_node.get(node).into_iter().flatten();
        let near: BTreeSet<&Box<str>> = names(&node.name).chain(names("")).collect();
        // Only the newest generation of a pool counts, and only if all of it is there.
        let usable = |listed: &&Listed| {
            let pool = &listed.slice.spec.pool;
            let newest = self.pools.get(&listed.slice.pool_id()).and_then(BTreeMap::last_key_value);
            newest == Some((&pool.generation, &pool.resource_slice_count))
        };
        let slices = near.into_iter().filter_map(|name| self.slices.get(name)).filter(usable);
        slices
            .flat_map(|listed| (0..listed.slice.spec.devices.len()).filter_map(|at| Reachable::on(listed, at, node)))
            .collect()
    }
}

impl ResourceClaim {
    /// Namespace and name.
    pub fn key(&self) -> ClaimKey {
        (self.object.metadata.namespace.clone(), self.object.metadata.name.clone())
    }

    /// The API server shows devices for it.
    pub fn is_allocated(&self) -> bool {
        self.allocation.is_some()
    }

    /// The uids of those that use it.
    pub fn reserved_for(&self) -> impl Iterator<Item = &str> {
        list(&self.object.status, "/reservedFor").iter().map(|entry| text(entry, "/uid"))
    }

    /// Why it cannot be allocated by what this scheduler knows, or a class that it names and that is not there.
    pub fn obstacle(&self, devices: &Devices) -> Option<String> {
        let spec = &self.object.spec["devices"];
        let name = &self.object.metadata.name;
        if list(spec, "/constraints").iter().any(|constraint| constraint["distinctAttribute"].is_string()) {
            return Some(format!("resourceclaim {name:?}: distinctAttribute is not supported"));
        }
        let alternatives = list(spec, "/requests").iter().flat_map(alternatives);
        alternatives.into_iter().find_map(|(request, of)| {
            let class = text(of, "/deviceClassName");
            if devices.class(class).is_none() {
                return Some(format!("request {request}: device class {class} does not exist"));
            }
            let part = "asks for a part of a device's capacity, which is not supported";
            of["capacity"].is_object().then(|| format!("request {request}: {part}"))
        })
    }
}

#[cfg(test)]
mod tests;
