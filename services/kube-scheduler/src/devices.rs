//! Devices that pods claim (resource.k8s.io/v1): which there are, who has which, and which a pod's claims would get on a node. Pure.
//!
//! The search is the one of KEP-4381's structured parameters without what needs CEL: nothing in this code base evaluates
//! such expressions, so a claim that is selected by one is refused by name, never allocated by guess. Left alone, too, are
//! devices that share counters, that several claims may have at once, or that are bound by conditions.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use crate::node::Offer;
use crate::objects::{Device, DeviceClassObject, ResourceClaimObject, SliceObject};
use crate::pod::{Pod, PodClaim};
use crate::terms::{Taint, Term, Toleration, list, text};
use crate::volumes::ClaimKey;

/// A claim has no more users than this.
pub const RESERVED_MAX: usize = 256;
/// How many choices are tried for the claims of a pod on one node: constraints could make more of them than anybody waits for.
const CHOICES_MAX: usize = 10_000;

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

/// Everything about devices.
#[derive(Debug, Default)]
pub struct Devices {
    slices: BTreeMap<Box<str>, SliceObject>,
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
        match slice {
            Some(slice) => drop(self.slices.insert(name.into(), slice)),
            None => drop(self.slices.remove(name)),
        }
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
            self.assumed.remove(&key);
        }
        self.claims.insert(key, ResourceClaim { object, allocation });
    }

    /// A claim is gone.
    pub fn remove_claim(&mut self, namespace: &str, name: &str) {
        self.version += 1;
        let key = (namespace.into(), name.into());
        self.claims.remove(&key);
        self.assumed.remove(&key);
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
        let mut found = self.allocate(&open, node, &self.in_use())?.into_iter();
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
                self.assumed.insert(reservation.key.clone(), allocation.clone());
            }
        }
    }

    /// The reservations could not be written.
    pub fn forget(&mut self, reservations: &[Reservation]) {
        self.version += 1;
        for reservation in reservations.iter().filter(|reservation| reservation.allocation.is_some()) {
            self.assumed.remove(&reservation.key);
        }
    }

    /// Devices that somebody has.
    pub fn in_use(&self) -> HashSet<DeviceId> {
        let of = self.claims.values().filter_map(|claim| claim.allocation.as_ref()).chain(self.assumed.values());
        of.flat_map(|allocation| allocation.taken.iter().cloned()).collect()
    }

    /// Devices on a node for claims that have none, in their order; none if there are not enough.
    pub fn allocate(
        &self,
        claims: &[&ResourceClaim],
        node: &Offer,
        in_use: &HashSet<DeviceId>,
    ) -> Option<Vec<Allocation>> {
        if claims.is_empty() {
            return Some(Vec::new());
        }
        let reachable = self.reachable(node);
        let mut taken = in_use.clone();
        let mut choices = CHOICES_MAX;
        claims.iter().map(|claim| self.allocate_one(claim, node, &reachable, &mut taken, &mut choices)).collect()
    }

    fn allocate_one(
        &self,
        claim: &ResourceClaim,
        node: &Offer,
        reachable: &[Reachable<'_>],
        taken: &mut HashSet<DeviceId>,
        choices: &mut usize,
    ) -> Option<Allocation> {
        let spec = &claim.object.spec["devices"];
        let mut search = Search {
            reachable,
            constraints: list(spec, "/constraints").iter().collect(),
            chosen: Vec::new(),
            taken: taken.clone(),
            choices,
        };
        if !search.requests(list(spec, "/requests")) {
            return None;
        }
        let Search { chosen, taken: now_taken, .. } = search;
        *taken = now_taken;
        let results: Vec<Value> = chosen.iter().map(Chosen::result).collect();
        let mut devices = json!({"results": results});
        let config = self.configuration(&chosen, spec);
        if !config.is_empty() {
            devices["config"] = config.into();
        }
        let mut status = json!({"devices": devices});
        if let Some(selector) = node_selector(&chosen, node) {
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
        let mut newest: HashMap<(&str, &str), (i64, i64)> = HashMap::new();
        for slice in self.slices.values() {
            let (generation, count) = newest.entry(slice.pool()).or_default();
            match slice.spec.pool.generation {
                newer if newer > *generation || *count == 0 => (*generation, *count) = (newer, 1),
                same if same == *generation => *count += 1,
                _ => {}
            }
        }
        let usable = |slice: &&SliceObject| {
            let pool = &slice.spec.pool;
            newest.get(&slice.pool()) == Some(&(pool.generation, pool.resource_slice_count))
        };
        let slices = self.slices.values().filter(usable);
        slices.flat_map(|slice| slice.spec.devices.iter().filter_map(|d| Reachable::on(slice, d, node))).collect()
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
            let Some(known) = devices.class(class) else {
                return Some(format!("request {request}: device class {class} does not exist"));
            };
            let selected = !known.spec.selectors.is_empty() || !list(of, "/selectors").is_empty();
            let because = if selected {
                "selects devices by CEL expressions, which are not supported"
            } else if of["capacity"].is_object() {
                "asks for a part of a device's capacity, which is not supported"
            } else {
                return None;
            };
            Some(format!("request {request}: device class {class} or the request {because}"))
        })
    }
}

/// The ways to satisfy a request, the first being the best: names and contents.
fn alternatives(request: &Value) -> Vec<(String, &Value)> {
    let name = text(request, "/name");
    match request.get("exactly").filter(|exactly| exactly.is_object()) {
        Some(exactly) => vec![(name.to_owned(), exactly)],
        None => {
            let listed = list(request, "/firstAvailable").iter();
            listed.map(|of| (format!("{name}/{}", text(of, "/name")), of)).collect()
        }
    }
}

/// A device that a node reaches.
#[derive(Clone, Copy, Debug)]
struct Reachable<'a> {
    slice: &'a SliceObject,
    device: &'a Device,
    /// The selector by which nodes reach it; none if they all do, or if it belongs to this node alone.
    selector: Option<&'a Value>,
    /// It belongs to this node alone.
    local: bool,
}

impl<'a> Reachable<'a> {
    fn on(slice: &'a SliceObject, device: &'a Device, node: &Offer) -> Option<Reachable<'a>> {
        if device.consumes_counters.is_some()
            || device.binding_conditions.is_some()
            || device.allow_multiple_allocations
        {
            return None;
        }
        let (name, selector, all) = if slice.spec.per_device_node_selection {
            (&device.node_name, &device.node_selector, device.all_nodes)
        } else {
            (&slice.spec.node_name, &slice.spec.node_selector, slice.spec.all_nodes)
        };
        let by_selector = || {
            let mut terms = list(selector, "/nodeSelectorTerms").iter();
            terms.any(|term| Term::read(term).matches(&node.name, &node.labels))
        };
        let local = **name == *node.name && !name.is_empty();
        let selector = (!all && !local).then_some(selector);
        (local || all || by_selector()).then_some(Reachable { slice, device, selector, local })
    }

    fn id(&self) -> DeviceId {
        (self.slice.spec.driver.clone(), self.slice.spec.pool.name.clone(), self.device.name.clone())
    }

    /// An attribute by its full name; a driver's own attributes may stand without its domain.
    fn attribute(&self, full: &str) -> Option<&'a Value> {
        let attributes = &self.device.attributes;
        let short =
            || full.split_once('/').filter(|(domain, _)| **domain == *self.slice.spec.driver).map(|(_, name)| name);
        attributes.get(full).or_else(|| attributes.get(short()?))
    }

    fn is_borne(&self, tolerations: &[Toleration]) -> bool {
        let borne = |taint: &Taint| tolerations.iter().any(|toleration| toleration.tolerates(taint));
        self.device.taints.iter().map(Taint::read).filter(Taint::repels).all(|taint| borne(&taint))
    }
}

/// A device for a request.
#[derive(Clone, Debug)]
struct Chosen<'a> {
    request: String,
    class: String,
    of: Reachable<'a>,
    admin: bool,
}

impl Chosen<'_> {
    fn result(&self) -> Value {
        let (driver, pool, device) = self.of.id();
        let mut result = json!({"request": self.request, "driver": driver, "pool": pool, "device": device});
        if self.admin {
            result["adminAccess"] = true.into();
        }
        result
    }

    /// Whether a constraint speaks of it: of all requests, of its own, or of the request that it is an alternative of.
    fn concerns(&self, constraint: &Value) -> bool {
        let requests = list(constraint, "/requests");
        let main = self.request.split('/').next();
        requests.is_empty() || requests.iter().filter_map(Value::as_str).any(|r| r == self.request || Some(r) == main)
    }
}

/// The search for one claim: requests in their order, devices in theirs, back where a constraint is broken.
struct Search<'a, 'c> {
    reachable: &'a [Reachable<'a>],
    constraints: Vec<&'a Value>,
    chosen: Vec<Chosen<'a>>,
    taken: HashSet<DeviceId>,
    choices: &'c mut usize,
}

impl<'a> Search<'a, '_> {
    fn requests(&mut self, requests: &[Value]) -> bool {
        let Some((request, rest)) = requests.split_first() else { return true };
        alternatives(request).into_iter().any(|(name, of)| {
            let every = of["allocationMode"] == "All";
            let count = if every { self.all_of(of) } else { Some(of["count"].as_u64().unwrap_or(1)) };
            count.is_some_and(|count| self.devices(&name, of, count, 0, rest))
        })
    }

    /// How many devices "all" are; none if one of them is taken, or there is none.
    fn all_of(&self, of: &Value) -> Option<u64> {
        let tolerations = tolerations(of);
        let mut fitting = self.reachable.iter().filter(|device| device.is_borne(&tolerations)).peekable();
        fitting.peek()?;
        let admin = of["adminAccess"] == true;
        fitting.try_fold(0, |sum, device| (admin || !self.taken.contains(&device.id())).then_some(sum + 1))
    }

    /// So many devices from the one at `from` on, then the other requests.
    fn devices(&mut self, name: &str, of: &Value, count: u64, from: usize, rest: &[Value]) -> bool {
        if count == 0 {
            return self.requests(rest);
        }
        let (admin, tolerations) = (of["adminAccess"] == true, tolerations(of));
        for at in from..self.reachable.len() {
            let device = self.reachable[at];
            let id = device.id();
            if !device.is_borne(&tolerations) || !admin && self.taken.contains(&id) {
                continue;
            }
            if *self.choices == 0 {
                return false;
            }
            *self.choices -= 1;
            let class = text(of, "/deviceClassName").to_owned();
            self.chosen.push(Chosen { request: name.to_owned(), class, of: device, admin });
            let new = !admin && self.taken.insert(id.clone());
            if self.constraints_hold() && self.devices(name, of, count - 1, at + 1, rest) {
                return true;
            }
            self.chosen.pop();
            if new {
                self.taken.remove(&id);
            }
        }
        false
    }

    /// The device chosen last has the same value as the others, where that was asked for.
    fn constraints_hold(&self) -> bool {
        let Some(last) = self.chosen.last() else { return true };
        self.constraints.iter().filter(|constraint| last.concerns(constraint)).all(|constraint| {
            let attribute = text(constraint, "/matchAttribute");
            let value = last.of.attribute(attribute);
            let mut concerned = self.chosen.iter().filter(|one| one.concerns(constraint));
            value.is_some() && concerned.all(|one| one.of.attribute(attribute) == value)
        })
    }
}

fn tolerations(of: &Value) -> Vec<Toleration> {
    list(of, "/tolerations").iter().map(Toleration::read).collect()
}

/// The nodes that reach all of the devices: one of them if a device belongs to it, those that all selectors mean otherwise.
fn node_selector(chosen: &[Chosen<'_>], node: &Offer) -> Option<Value> {
    if chosen.iter().any(|one| one.of.local) {
        let field = json!({"key": "metadata.name", "operator": "In", "values": [&*node.name]});
        return Some(json!({"nodeSelectorTerms": [{"matchFields": [field]}]}));
    }
    let mut term = json!({});
    for selector in chosen.iter().filter_map(|one| one.of.selector) {
        for kind in ["matchExpressions", "matchFields"] {
            for requirement in list(selector, &format!("/nodeSelectorTerms/0/{kind}")) {
                let known = term[kind].as_array().is_some_and(|all| all.contains(requirement));
                match term[kind].as_array_mut() {
                    _ if known => {}
                    Some(all) => all.push(requirement.clone()),
                    None => term[kind] = json!([requirement]),
                }
            }
        }
    }
    term.as_object_mut()?.retain(|_, requirements| requirements.is_array());
    (term != json!({})).then(|| json!({"nodeSelectorTerms": [term]}))
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
