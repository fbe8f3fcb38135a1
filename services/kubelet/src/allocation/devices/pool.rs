//! The devices that plugins offer and who holds them. Pure: what to ask a plugin comes out, its answers come in.

use std::collections::{BTreeMap, BTreeSet};

use cri_api::device_plugin as api;

use super::super::topology::{Hint, Nodes};
use crate::pod::Map;

/// Seconds for which a resource without its plugin stays known.
pub const GRACE: i64 = 300;

/// Ids of devices.
pub type Ids = BTreeSet<String>;

/// One device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Whether it can be given to a container.
    pub healthy: bool,
    /// The NUMA nodes it is near to; none if its plugin does not say.
    pub nodes: Vec<i64>,
}

/// A resource and the state of its plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its devices by id.
    pub devices: BTreeMap<String, Device>,
    /// What the plugin wants to be asked.
    pub options: api::DevicePluginOptions,
    /// Which registration this is: news of an older one do not count.
    pub registration: u64,
    /// When its plugin went away, in seconds since 1970.
    pub lost_at: Option<i64>,
}

/// What a container holds of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The pod.
    pub uid: String,
    /// The container.
    pub container: String,
    /// The resource.
    pub resource: String,
    /// Device ids by NUMA node; -1 stands for devices whose node is not known.
    pub devices: BTreeMap<i64, Vec<String>>,
    /// The plugin's answer, as it was encoded.
    pub answer: Vec<u8>,
}

impl Held {
    /// The devices, whatever their nodes.
    pub fn ids(&self) -> Ids {
        self.devices.values().flatten().cloned().collect()
    }
}

/// What a container asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The pod.
    pub uid: &'a str,
    /// The container.
    pub container: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// How many.
    pub count: usize,
}

/// Devices to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Chosen already: devices that an init container of the pod has done with.
    pub kept: Ids,
    /// How many are to be chosen beside those.
    pub missing: usize,
    /// Free devices on the wanted nodes.
    pub near: Ids,
    /// Free devices on other nodes.
    pub far: Ids,
    /// Free devices whose node is not known.
    pub anywhere: Ids,
}

impl Choice {
    /// What the plugin may be asked to prefer: from which ids, and which of them it must take.
    pub fn question(&self) -> (Ids, Ids) {
        let enough = self.missing < self.near.len();
        let mut must = self.kept.clone();
        let mut from: Ids = self.kept.union(&self.near).cloned().collect();
        if !enough {
            must.extend(self.near.iter().cloned());
            from.extend(self.far.iter().chain(&self.anywhere).cloned());
        }
        (from, must)
    }

    /// The devices to take, with those that the plugin prefers first among equals.
    pub fn pick(&self, preferred: &Ids) -> Ids {
        let (near, rest): (Vec<&String>, Vec<&String>) = preferred.iter().partition(|id| self.near.contains(*id));
        let enough = self.missing < self.near.len();
        let known = |id: &&String| self.far.contains(*id) || self.anywhere.contains(*id);
        let wanted: Vec<&String> = if enough {
            near.into_iter().chain(&self.near).collect()
        } else {
            let rest = rest.into_iter().filter(known);
            self.near.iter().chain(rest).chain(&self.far).chain(&self.anywhere).collect()
        };
        let mut picked = self.kept.clone();
        for id in wanted {
            if picked.len() >= self.kept.len() + self.missing {
                break;
            }
            picked.insert(id.clone());
        }
        picked
    }
}

/// All resources and all that is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// By name.
    pub resources: BTreeMap<String, Resource>,
    /// In order of allocation.
    pub held: Vec<Held>,
}

impl Pool {
    /// Takes in what a plugin lists.
    pub fn list(&mut self, resource: &str, registration: u64, devices: Vec<api::Device>) {
        let Some(known) = self.resources.get_mut(resource).filter(|r| r.registration == registration) else { return };
        known.devices = devices
            .into_iter()
            .map(|d| {
                let nodes = d.topology.map(|t| t.nodes.iter().map(|n| n.id).collect()).unwrap_or_default();
                (d.id, Device { healthy: d.health == "Healthy", nodes })
            })
            .collect();
    }

    /// A plugin is gone: its devices are there but of no use.
    pub fn lose(&mut self, resource: &str, registration: u64, now: i64) {
        let Some(known) = self.resources.get_mut(resource).filter(|r| r.registration == registration) else { return };
        known.devices.values_mut().for_each(|d| d.healthy = false);
        known.lost_at.get_or_insert(now);
    }

    /// Whether devices of this resource are given out here.
    pub fn manages(&self, resource: &str) -> bool {
        self.resources.contains_key(resource) || self.held.iter().any(|h| h.resource == resource)
    }

    /// Capacity and allocatable; a resource that has been without its plugin for too long counts zero.
    pub fn amounts(&self, now: i64) -> (Map, Map) {
        let (mut capacity, mut allocatable) = (Map::new(), Map::new());
        for (name, resource) in &self.resources {
            let expired = resource.lost_at.is_some_and(|at| now - at >= GRACE);
            let all = if expired { 0 } else { resource.devices.len() };
            let healthy = if expired { 0 } else { resource.devices.values().filter(|d| d.healthy).count() };
            capacity.insert(name.clone(), all.to_string());
            allocatable.insert(name.clone(), healthy.to_string());
        }
        (capacity, allocatable)
    }

    /// What a container holds of a resource.
    pub fn holds(&self, uid: &str, container: &str, resource: &str) -> Option<&Held> {
        self.held.iter().find(|h| h.uid == uid && h.container == container && h.resource == resource)
    }

    /// All that a container holds.
    pub fn held_by<'a>(&'a self, uid: &'a str, container: &'a str) -> impl Iterator<Item = &'a Held> {
        self.held.iter().filter(move |h| h.uid == uid && h.container == container)
    }

    fn in_use(&self, resource: &str) -> Ids {
        self.held.iter().filter(|h| h.resource == resource).flat_map(Held::ids).collect()
    }

    /// Takes back what pods hold that are not among these.
    pub fn keep_only(&mut self, live: &dyn Fn(&str) -> bool) -> bool {
        let before = self.held.len();
        self.held.retain(|h| live(&h.uid));
        before != self.held.len()
    }

    /// Finds devices for a container; nothing if it has them already.
    ///
    /// # Errors
    /// Upstream's words for what is missing.
    pub fn choose(&self, ask: &Ask<'_>, reusable: &Ids, nodes: Option<Nodes>) -> Result<Option<Choice>, String> {
        let Ask { uid, container, resource, count } = *ask;
        let has = self.holds(uid, container, resource).map(Held::ids);
        if let Some(has) = has.as_ref().filter(|has| has.len() != count) {
            let old = has.len();
            return Err(format!(
                "pod {uid:?} container {container:?} changed request for resource {resource:?} from {old} to {count}"
            ));
        }
        let Some(known) = self.resources.get(resource) else {
            return Err(format!("cannot allocate unregistered device {resource}"));
        };
        let healthy: Ids = known.devices.iter().filter(|(_, d)| d.healthy).map(|(id, _)| id.clone()).collect();
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        if let Some(has) = has {
            if !has.is_subset(&healthy) {
                return Err(format!(
                    "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
                ));
            }
            return Ok(None);
        }
        let kept: Ids = reusable.iter().take(count).cloned().collect();
        let missing = count - kept.len();
        let in_use = self.in_use(resource);
        let free: Ids = healthy.difference(&in_use).cloned().collect();
        if free.len() < missing {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {missing}, Available: {}",
                free.len()
            ));
        }
        let place = |id: &String| known.devices.get(id).map_or(Place::Anywhere, |d| place(d, nodes));
        let of = |wanted: Place| free.iter().filter(|id| place(id) == wanted).cloned().collect();
        let (near, far, anywhere) = (of(Place::Near), of(Place::Far), of(Place::Anywhere));
        Ok(Some(Choice { kept, missing, near, far, anywhere }))
    }

    /// The sets of NUMA nodes that could serve a container; nothing if the plugin does not know of nodes.
    pub fn hints(&self, ask: &Ask<'_>, reusable: &Ids, all: Nodes) -> Option<Vec<Hint>> {
        let known = self.resources.get(ask.resource)?;
        if known.devices.values().all(|d| d.nodes.is_empty()) {
            return None;
        }
        let count_in = |ids: &mut dyn Iterator<Item = &String>, set: Nodes| {
            ids.filter(|id| known.devices.get(*id).is_some_and(|d| is_near(d, set))).count()
        };
        // A container that has its devices already can only have their nodes.
        let has = self.holds(ask.uid, ask.container, ask.resource).map(Held::ids);
        let in_use = self.in_use(ask.resource);
        let healthy = known.devices.iter().filter(|(_, d)| d.healthy).map(|(id, _)| id);
        let free: Ids = match has {
            Some(has) => has,
            None => healthy.filter(|id| !in_use.contains(*id)).chain(reusable).cloned().collect(),
        };
        let enough = |set: &Nodes| count_in(&mut known.devices.keys(), *set) >= ask.count;
        let fewest = all.subsets().into_iter().filter(enough).map(Nodes::count).min().unwrap_or(all.count());
        let possible = all.subsets().into_iter().filter(|set| {
            let reused = count_in(&mut reusable.iter(), *set);
            (reused == reusable.len() || reused >= ask.count) && count_in(&mut free.iter(), *set) >= ask.count
        });
        Some(possible.map(|set| Hint { nodes: Some(set), preferred: set.count() == fewest }).collect())
    }

    /// Notes what a container was given.
    pub fn give(&mut self, ask: &Ask<'_>, ids: &Ids, answer: Vec<u8>) {
        let mut devices: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for id in ids {
            let found = self.resources.get(ask.resource).and_then(|r| r.devices.get(id));
            let nodes = found.map(|d| d.nodes.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| vec![-1]);
            for node in nodes {
                devices.entry(node).or_default().push(id.clone());
            }
        }
        self.held.push(Held {
            uid: ask.uid.to_owned(),
            container: ask.container.to_owned(),
            resource: ask.resource.to_owned(),
            devices,
            answer,
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Near,
    Far,
    Anywhere,
}

fn place(device: &Device, nodes: Option<Nodes>) -> Place {
    match nodes {
        None => Place::Anywhere,
        Some(_) if device.nodes.is_empty() => Place::Anywhere,
        Some(nodes) if is_near(device, nodes) => Place::Near,
        Some(_) => Place::Far,
    }
}

fn is_near(device: &Device, nodes: Nodes) -> bool {
    device.nodes.iter().any(|n| usize::try_from(*n).is_ok_and(|n| nodes.has(n)))
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
