//! The search for a claim's devices on one node.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::selectors::{Place, Rule};
use super::{DeviceId, Devices, Listed, ResourceClaim, Short};
use crate::node::Offer;
use crate::objects::{Device, SliceObject};
use crate::terms::{Taint, Term, Toleration, list, text};

/// How many choices are tried for the claims of a pod on one node: constraints could make more of them than anybody waits for.
pub const CHOICES_MAX: usize = 10_000;

/// The ways to satisfy a request, the first being the best: names and contents.
pub fn alternatives(request: &Value) -> Vec<(String, &Value)> {
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
pub struct Reachable<'a> {
    pub slice: &'a SliceObject,
    pub device: &'a Device,
    /// Which it is, and how expressions see it.
    pub place: Place,
    pub seen: &'a Result<cel::Value, String>,
    /// The selector by which nodes reach it; none if they all do, or if it belongs to this node alone.
    selector: Option<&'a Value>,
    /// It belongs to this node alone.
    local: bool,
}

impl<'a> Reachable<'a> {
    /// A slice's device by its place there, if the node reaches it and it is one that is allocated here.
    pub fn on(listed: &'a Listed, at: usize, node: &Offer) -> Option<Reachable<'a>> {
        let (slice, device, seen) = (&listed.slice, listed.slice.spec.devices.get(at)?, listed.seen.get(at)?);
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
        let place = (listed.serial, at);
        (local || all || by_selector()).then_some(Reachable { slice, device, place, seen, selector, local })
    }

    fn id(&self) -> DeviceId {
        (self.slice.spec.driver.clone(), self.slice.spec.pool.name.clone(), self.device.name.clone())
    }

    /// An attribute by its full name; a driver's own attributes may stand without its domain.
    fn attribute(&self, full: &str) -> Option<&'a Value> {
        let attributes = self.device.attributes.as_object()?;
        let short =
            || full.split_once('/').filter(|(domain, _)| **domain == *self.slice.spec.driver).map(|(_, name)| name);
        attributes.get(full).or_else(|| attributes.get(short()?))
    }

    pub fn is_borne(&self, tolerations: &[Toleration]) -> bool {
        let borne = |taint: &Taint| tolerations.iter().any(|toleration| toleration.tolerates(taint));
        self.device.taints.iter().map(Taint::read).filter(Taint::repels).all(|taint| borne(&taint))
    }
}

/// A device for a request.
#[derive(Clone, Debug)]
pub struct Chosen<'a> {
    pub request: String,
    pub class: String,
    of: Reachable<'a>,
    admin: bool,
}

impl Chosen<'_> {
    pub fn result(&self) -> Value {
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

/// What one request wants, in one of the ways that it can be satisfied.
struct Want {
    name: String,
    class: String,
    admin: bool,
    tolerations: Vec<Toleration>,
    rules: Vec<Rule>,
}

/// The search for one claim: requests in their order, devices in theirs, back where a constraint is broken.
pub struct Search<'a, 'c> {
    devices: &'a Devices,
    claim: &'a ResourceClaim,
    reachable: &'c [Reachable<'a>],
    constraints: Vec<&'a Value>,
    chosen: Vec<Chosen<'a>>,
    /// What was chosen for this claim and for those before it.
    taken: &'c mut HashSet<DeviceId>,
    choices: &'c mut usize,
    /// An expression gave no answer: the node is out, whatever else it has.
    broken: Option<String>,
}

impl<'a, 'c> Search<'a, 'c> {
    /// The devices for a claim.
    pub fn run(
        devices: &'a Devices,
        claim: &'a ResourceClaim,
        reachable: &'c [Reachable<'a>],
        taken: &'c mut HashSet<DeviceId>,
        choices: &'c mut usize,
    ) -> Result<Vec<Chosen<'a>>, Short> {
        let spec = &claim.object.spec["devices"];
        let constraints = list(spec, "/constraints").iter().collect();
        let mut search =
            Search { devices, claim, reachable, constraints, chosen: Vec::new(), taken, choices, broken: None };
        let found = search.requests(list(spec, "/requests"));
        match search.broken {
            Some(error) => Err(Short::Broken(error)),
            None if found => Ok(search.chosen),
            None => Err(Short::Few),
        }
    }

    fn requests(&mut self, requests: &[Value]) -> bool {
        let Some((request, rest)) = requests.split_first() else { return true };
        alternatives(request).into_iter().any(|(name, of)| {
            let want = self.want(name, of);
            let every = of["allocationMode"] == "All";
            let count = if every { self.all_of(&want) } else { Some(of["count"].as_u64().unwrap_or(1)) };
            count.is_some_and(|count| self.devices(&want, count, 0, rest))
        })
    }

    fn want(&self, name: String, of: &Value) -> Want {
        let class = text(of, "/deviceClassName").to_owned();
        let meta = &self.claim.object.metadata;
        let claim = format!("{}/{}", meta.namespace, meta.name);
        Want {
            name,
            admin: of["adminAccess"] == true,
            tolerations: list(of, "/tolerations").iter().map(Toleration::read).collect(),
            rules: self.devices.selectors.rules(self.devices.class(&class), &claim, of),
            class,
        }
    }

    /// Whether a device is what is wanted, whoever has it.
    fn suits(&mut self, device: &Reachable<'_>, want: &Want) -> bool {
        let selected = || want.rules.iter().try_fold(true, |all, rule| Ok(all && rule.selects(device)?));
        match selected() {
            Ok(selected) => selected && device.is_borne(&want.tolerations),
            Err(error) => {
                self.broken.get_or_insert(error);
                false
            }
        }
    }

    fn is_taken(&self, id: &DeviceId) -> bool {
        self.taken.contains(id) || self.devices.is_taken(id)
    }

    /// How many devices "all" are; none if one of them is taken, or there is none.
    fn all_of(&mut self, want: &Want) -> Option<u64> {
        let mut count = 0;
        let reachable = self.reachable;
        for device in reachable {
            if self.suits(device, want) {
                if !want.admin && self.is_taken(&device.id()) {
                    return None;
                }
                count += 1;
            }
        }
        (count > 0).then_some(count)
    }

    /// So many devices from the one at `from` on, then the other requests.
    fn devices(&mut self, want: &Want, count: u64, from: usize, rest: &[Value]) -> bool {
        if count == 0 {
            return self.requests(rest);
        }
        for at in from..self.reachable.len() {
            let device = self.reachable[at];
            let id = device.id();
            if !want.admin && self.is_taken(&id) || !self.suits(&device, want) {
                continue;
            }
            if *self.choices == 0 || self.broken.is_some() {
                return false;
            }
            *self.choices -= 1;
            let (request, class) = (want.name.clone(), want.class.clone());
            self.chosen.push(Chosen { request, class, of: device, admin: want.admin });
            let new = !want.admin && self.taken.insert(id.clone());
            if self.constraints_hold() && self.devices(want, count - 1, at + 1, rest) {
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

/// The nodes that reach all of the devices: one of them if a device belongs to it, those that all selectors mean otherwise.
pub fn node_selector(chosen: &[Chosen<'_>], node: &Offer) -> Option<Value> {
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
