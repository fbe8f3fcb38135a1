//! How fast nodes that fell silent may lose their pods: the more of a zone is silent at once, the likelier it is that the
//! network is at fault, not the nodes. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::meta;
use serde_json::Value;

/// One node of a zone in this time.
const USUAL: Duration = Duration::from_secs(10);
/// One node of a large zone of which most are silent.
const CAREFUL: Duration = Duration::from_secs(100);
/// A zone is large beyond this many nodes.
const LARGE: usize = 50;

/// What may happen to a silent node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// They may go now.
    Now,
    /// They may go later; what has begun goes on.
    Later(Duration),
    /// None goes: everything is silent, so nobody knows anything.
    Never,
}

#[derive(Clone, Copy, Debug, Default)]
struct Zone {
    ready: usize,
    silent: usize,
}

impl Zone {
    fn is_lost(self) -> bool {
        self.ready == 0 && self.silent > 0
    }

    /// At least 55 % silent, and more than two.
    fn is_mostly_lost(self) -> bool {
        self.silent > 2 && self.silent * 100 >= 55 * (self.ready + self.silent)
    }
}

/// Region and zone, both empty where nodes have no such labels.
fn zone_of(node: &Value) -> (&str, &str) {
    let label = |name: &str| meta::label(node, name).unwrap_or_default();
    (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

/// When each zone's next node may lose its pods.
#[derive(Debug, Default)]
pub struct Limits(HashMap<(String, String), Instant>);

impl Limits {
    /// Whether this silent node may lose its pods. `begun`: it has been told so before.
    pub fn ask(&mut self, node: &Value, all: &[Arc<Value>], begun: bool, now: Instant) -> Eviction {
        let mut zones: BTreeMap<(&str, &str), Zone> = BTreeMap::new();
        for other in all {
            let zone = zones.entry(zone_of(other)).or_default();
            if meta::is_condition_true(other, "Ready") { zone.ready += 1 } else { zone.silent += 1 }
        }
        if zones.values().all(|zone| zone.is_lost()) {
            return Eviction::Never;
        }
        if begun {
            return Eviction::Now;
        }
        let name = zone_of(node);
        let zone = zones.get(&name).copied().unwrap_or_default();
        let interval = if zone.is_lost() || !zone.is_mostly_lost() {
            USUAL
        } else if zone.ready + zone.silent > LARGE {
            CAREFUL
        } else {
            // A small zone that is mostly silent waits until it is clear what happened.
            return Eviction::Later(CAREFUL);
        };
        let name = (name.0.to_owned(), name.1.to_owned());
        match self.0.get(&name).filter(|next| **next > now) {
            Some(next) => Eviction::Later(*next - now),
            None => {
                self.0.insert(name, now + interval);
                Eviction::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn nodes(zone: &str, ready: usize, silent: usize) -> Vec<Arc<Value>> {
        let node = |status: &str| {
            Arc::new(json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}},
                            "status": {"conditions": [{"type": "Ready", "status": status}]}}))
        };
        let mut all = vec![node("True"); ready];
        all.extend(vec![node("Unknown"); silent]);
        all
    }

    #[test]
    fn one_at_a_time_and_none_when_all_are_silent() {
        let start = Instant::now();
        let cases = [
            ("one of two", nodes("a", 1, 1), Eviction::Now),
            ("the only one", nodes("a", 0, 1), Eviction::Never),
            ("all", nodes("a", 0, 5), Eviction::Never),
            ("most of a small zone", nodes("a", 2, 3), Eviction::Later(CAREFUL)),
            ("most of a large zone", nodes("a", 20, 40), Eviction::Now),
            ("a whole zone", [nodes("a", 0, 5), nodes("b", 1, 0)].concat(), Eviction::Now),
        ];
        for (what, all, expected) in cases {
            let silent = nodes("a", 0, 1).remove(0);
            assert_eq!(Limits::default().ask(&silent, &all, false, start), expected, "{what}");
        }
        let (mut limits, all) = (Limits::default(), nodes("a", 10, 2));
        let silent = &all[11];
        assert_eq!(limits.ask(silent, &all, false, start), Eviction::Now);
        assert_eq!(limits.ask(silent, &all, false, start), Eviction::Later(USUAL));
        assert_eq!(limits.ask(silent, &all, true, start), Eviction::Now, "has begun");
        assert_eq!(limits.ask(silent, &all, false, start + USUAL), Eviction::Now);
    }
}
