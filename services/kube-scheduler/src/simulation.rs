//! Decisions without an API server, to measure them: every pod is decided and placed in its turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cache::Cache;
use crate::cycle::{self, Task, Turn};
use crate::node::Offer;
use crate::pod::Pod;
use crate::profile::Profile;
use crate::spec::{DEFAULT_SCHEDULER, Specs};

/// What was measured.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// How long each decision took, in order.
    pub decisions: Vec<Duration>,
    /// Pods that found no node.
    pub refused: usize,
}

/// A cluster that takes pods.
#[derive(Default)]
pub struct Simulator {
    cache: Cache,
    specs: Specs,
}

impl Simulator {
    /// Adds a node.
    ///
    /// # Errors
    /// Not a Node.
    pub fn add_node(&mut self, node: Value) -> Result<(), String> {
        let node = serde_json::from_value(node).map_err(|e| e.to_string())?;
        self.cache.set_node(Arc::new(Offer::read(node)));
        Ok(())
    }

    /// Adds a namespace with labels.
    ///
    /// # Errors
    /// Labels are not a map.
    pub fn add_namespace(&mut self, name: &str, labels: Value) -> Result<(), String> {
        let Value::Object(labels) = labels else { return Err(format!("labels of {name} are not a map")) };
        self.cache.set_namespace(name, Some(labels));
        Ok(())
    }

    /// Decides about pods one after the other and places each.
    ///
    /// # Errors
    /// Something that is not a Pod.
    pub fn schedule(&mut self, pods: impl Iterator<Item = Value>) -> Result<Simulation, String> {
        let profile = Profile::default_with(DEFAULT_SCHEDULER, &BTreeMap::new())?;
        let mut turn = Turn::default();
        let mut simulation = Simulation { decisions: Vec::new(), refused: 0 };
        for pod in pods {
            let pod = Pod::read(serde_json::from_value(pod).map_err(|e| e.to_string())?, &mut self.specs);
            let task = Task { pod: &pod, profile: &profile, defaults: &[] };
            let start = Instant::now();
            let found = cycle::feasible(&task, &mut self.cache, &mut turn).ok();
            let best = found.and_then(|slots| cycle::best(&task, &self.cache, &slots, &[], &mut turn));
            match best {
                Some(slot) => {
                    let name = Arc::clone(&self.cache.node(slot).offer.name);
                    self.cache.assume(Arc::new(pod.placed_on(&name)));
                }
                None => simulation.refused += 1,
            }
            simulation.decisions.push(start.elapsed());
        }
        Ok(simulation)
    }
}
