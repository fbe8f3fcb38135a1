//! A profile: the rules that hold for pods of one scheduler name, with weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Event, Plugin};
use crate::index::Count;
use crate::neighbours::Spread;
use crate::plugins;
use crate::pod::Pod;

/// A rule of a profile.
pub struct Enabled {
    /// The rule.
    pub plugin: Box<dyn Plugin>,
    /// How much its scores count.
    pub weight: i64,
    /// Its checks are made.
    pub filters: bool,
    /// Its preferences are asked for.
    pub scores: bool,
}

/// The rules for one scheduler name.
pub struct Profile {
    /// The name that pods ask for.
    pub name: String,
    /// In the order in which they are asked.
    pub rules: Vec<Enabled>,
    /// Lower-priority pods may be removed.
    pub preempts: bool,
    /// At least this percentage of nodes is dry-run for preemption.
    pub candidates_percent: usize,
    /// At least this many nodes are.
    pub candidates_min: usize,
    /// Share of nodes that is enough to choose from, in percent; 0 adapts it to the size of the cluster.
    pub percentage_of_nodes_to_score: usize,
    /// Seconds until volumes must be bound.
    pub bind_timeout_seconds: u64,
}

impl Profile {
    /// Upstream's default profile.
    ///
    /// # Errors
    /// Never for the plugins' defaults; the same as [`Profile::with`] otherwise.
    pub fn default_with(name: &str, args: &BTreeMap<String, Value>) -> Result<Profile, String> {
        let make = |row: &plugins::Row| {
            let args = args.get(row.name).unwrap_or(&Value::Null);
            let plugin = (row.make)(args).map_err(|e| format!("{}: {e}", row.name))?;
            Ok(Enabled { plugin, weight: row.weight, filters: true, scores: row.weight > 0 })
        };
        Ok(Profile {
            name: name.to_owned(),
            rules: plugins::ALL.iter().map(make).collect::<Result<_, String>>()?,
            preempts: true,
            candidates_percent: 10,
            candidates_min: 100,
            percentage_of_nodes_to_score: 0,
            bind_timeout_seconds: 600,
        })
    }

    /// The spread constraints of a pod that has none but belongs to a workload.
    pub fn defaults(&self, pod: &Pod, workload: &[LabelSelector]) -> Vec<Spread> {
        self.rules.iter().flat_map(|rule| rule.plugin.defaults(pod, workload)).collect()
    }

    /// Everything that the rules ask about placed pods.
    pub fn counts(&self, pod: &Pod, defaults: &[Spread]) -> Vec<Arc<Count>> {
        self.rules.iter().flat_map(|rule| rule.plugin.counts(pod, defaults)).collect()
    }

    /// Whether an event helps a pod that these rules rejected.
    pub fn helped<'n>(
        &self,
        pod: &Pod,
        rejected_by: impl IntoIterator<Item = &'n &'static str>,
        event: &Event,
        cache: &Cache,
    ) -> bool {
        let named = |name: &str| self.rules.iter().find(|rule| rule.plugin.name() == name);
        rejected_by.into_iter().filter_map(|name| named(name)).any(|rule| rule.plugin.helps(pod, event, cache))
    }
}
