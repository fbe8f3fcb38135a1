//! NodeResourcesFit: what the pod asks for must be free; how nodes compare is a strategy.

use serde_json::Value;

use crate::amounts::Amounts;
use crate::cache::Cache;
use crate::framework::{Cycle, Event, Filter, Normalize, Plugin, Refusal, SCORE_MAX, Score};
use crate::node::{Node, Offer};
use crate::plugins::resources::{no_fields_but, number, usage, weighted};
use crate::pod::Pod;
use crate::terms::{list, text};

/// Which share of use is best.
enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of use in percent and score, by use.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

pub struct Fit {
    strategy: Strategy,
    resources: Vec<(String, i64)>,
    ignored: Vec<String>,
    ignored_groups: Vec<String>,
}

impl Fit {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["ignoredResources", "ignoredResourceGroups", "scoringStrategy"])?;
        let strategy = &args["scoringStrategy"];
        let at = |e: String| format!("scoringStrategy.{e}");
        no_fields_but(strategy, &["type", "resources", "requestedToCapacityRatio"]).map_err(at)?;
        let texts = |name: &str| list(&args[name], "").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Fit {
            resources: weighted(&strategy["resources"], "scoringStrategy.resources")?,
            strategy: match text(strategy, "/type") {
                "" | "LeastAllocated" => Strategy::LeastAllocated,
                "MostAllocated" => Strategy::MostAllocated,
                "RequestedToCapacityRatio" => {
                    Strategy::RequestedToCapacityRatio(shape(&strategy["requestedToCapacityRatio"]).map_err(at)?)
                }
                other => return Err(at(format!("type: Unsupported value: {other:?}"))),
            },
            ignored: texts("ignoredResources"),
            ignored_groups: texts("ignoredResourceGroups"),
        })
    }

    fn is_ignored(&self, name: &str) -> bool {
        let group = name.split_once('/').map(|(group, _)| group);
        self.ignored.iter().any(|i| i == name) || group.is_some_and(|g| self.ignored_groups.iter().any(|i| i == g))
    }

    fn lacking(&self, asked: &Amounts, node: &Node) -> Option<Refusal> {
        let (offer, used) = (&node.offer.allocatable, &node.requested);
        let mut refusal = Refusal::default();
        if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.offer.pods_max {
            refusal.reasons.push("Too many pods".into());
        }
        let mut check = |name: &str, asked: i64, offer: i64, used: i64| {
            if asked > 0 && asked > offer - used {
                refusal.reasons.push(format!("Insufficient {name}").into());
                refusal.hopeless |= asked > offer;
            }
        };
        check("cpu", asked.milli_cpu, offer.milli_cpu, used.milli_cpu);
        check("memory", asked.memory, offer.memory, used.memory);
        check("ephemeral-storage", asked.storage, offer.storage, used.storage);
        for (name, amount) in asked.other.iter().filter(|(name, _)| !self.is_ignored(name)) {
            check(name, *amount, offer.of(name), used.of(name));
        }
        (!refusal.reasons.is_empty()).then_some(refusal)
    }

    fn could_ever_fit(&self, asked: &Amounts, offer: &Offer) -> bool {
        let empty = Node { offer: std::sync::Arc::new(offer.clone()), exists: true, ..Node::default() };
        self.lacking(asked, &empty).is_none()
    }

    /// The weighted mean of the scores of the resources that play a role.
    fn score_of(&self, pod: &Pod, node: &Node) -> i64 {
        let asked = (&pod.spec.requests, &pod.spec.assumed);
        let (mut sum, mut weights) = (0, 0);
        for (name, weight) in &self.resources {
            let Some((offer, used)) = usage(name, true, asked, node) else { continue };
            let score = self.strategy.score(offer, used);
            // A shape that gives nothing takes no part either.
            if matches!(self.strategy, Strategy::RequestedToCapacityRatio(_)) && score == 0 {
                continue;
            }
            sum += score * weight;
            weights += weight;
        }
        match (weights, &self.strategy) {
            (0, _) => 0,
            (_, Strategy::RequestedToCapacityRatio(_)) => (sum * 2 + weights) / (2 * weights),
            _ => sum / weights,
        }
    }
}

impl Strategy {
    fn score(&self, offer: i64, used: i64) -> i64 {
        let share =
            |part: i64| i64::try_from(i128::from(part) * i128::from(SCORE_MAX) / i128::from(offer)).unwrap_or(0);
        match self {
            Strategy::LeastAllocated => share((offer - used).max(0)),
            Strategy::MostAllocated => share(used.min(offer)),
            Strategy::RequestedToCapacityRatio(shape) => {
                let used = if used > offer { SCORE_MAX } else { share(used) };
                interpolate(shape, used)
            }
        }
    }
}

fn interpolate(shape: &[(i64, i64)], used: i64) -> i64 {
    let Some(after) = shape.iter().position(|(at, _)| used <= *at) else { return shape.last().map_or(0, |p| p.1) };
    let (x1, y1) = shape[after];
    match after.checked_sub(1).map(|before| shape[before]) {
        None => y1,
        Some((x0, y0)) => y0 + (y1 - y0) * (used - x0) / (x1 - x0),
    }
}

/// Reads the points; scores of 0 to 10 become 0 to 100.
fn shape(ratio: &Value) -> Result<Vec<(i64, i64)>, String> {
    no_fields_but(ratio, &["shape"]).map_err(|e| format!("requestedToCapacityRatio.{e}"))?;
    let mut points: Vec<(i64, i64)> = Vec::new();
    for (index, point) in list(ratio, "/shape").iter().enumerate() {
        let at = |e: String| format!("requestedToCapacityRatio.shape[{index}].{e}");
        no_fields_but(point, &["utilization", "score"]).map_err(at)?;
        let used = number(point, "utilization", 0, 0..=100).map_err(at)?;
        let score = number(point, "score", 0, 0..=10).map_err(at)?;
        if points.last().is_some_and(|(before, _)| *before >= used) {
            return Err(at(format!(
                "utilization: Invalid value: {used}: utilization values must be sorted in increasing order"
            )));
        }
        points.push((used, score * SCORE_MAX / 10));
    }
    if points.is_empty() {
        return Err("requestedToCapacityRatio.shape: Required value: at least one point must be specified".to_owned());
    }
    Ok(points)
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&'a self, cycle: &Cycle<'a>) -> Option<Filter<'a>> {
        let asked = &cycle.pod.spec.requests;
        Some(Box::new(move |node| self.lacking(asked, node)))
    }

    fn score<'a>(&'a self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let pod = cycle.pod;
        Some(Score { of: Box::new(move |node| self.score_of(pod, node)), normalize: Normalize::No })
    }

    fn is_local(&self) -> bool {
        true
    }

    fn helps(&self, pod: &Pod, event: &Event, _: &Cache) -> bool {
        match event {
            Event::Node { old: None, new } => self.could_ever_fit(&pod.spec.requests, new),
            Event::Node { old: Some(old), new } => {
                (old.allocatable != new.allocatable || old.pods_max != new.pods_max)
                    && self.could_ever_fit(&pod.spec.requests, new)
            }
            // Each pod gives back at least its place in the count of pods.
            Event::Gone(_) => true,
            Event::NodeGone | Event::Placed { .. } | Event::Storage | Event::Devices => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::from_json;
    use serde_json::json;

    fn strategy(name: &str, more: Value) -> Value {
        let mut strategy = json!({"type": name});
        for (key, value) in more.as_object().unwrap() {
            strategy[key] = value.clone();
        }
        json!({"scoringStrategy": strategy})
    }

    #[test]
    fn strategies() {
        let offer = Offer {
            allocatable: Amounts { milli_cpu: 1000, memory: 1 << 30, ..Amounts::default() },
            ..Offer::default()
        };
        let node = Node { offer: std::sync::Arc::new(offer), exists: true, ..Node::default() };
        let pod = from_json(
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}}]}}),
        );
        let bins = json!({"requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]}});
        let cpu = json!({"resources": [{"name": "cpu", "weight": 3}, {"name": "memory", "weight": 1}]});
        let cases = [
            (json!({}), (75 + 50) / 2),
            (strategy("LeastAllocated", cpu), (3 * 75 + 50) / 4),
            (strategy("MostAllocated", json!({})), (25 + 50) / 2),
            (strategy("RequestedToCapacityRatio", bins), 38),
        ];
        for (args, expected) in cases {
            assert_eq!(Fit::read(&args).unwrap().score_of(&pod, &node), expected, "{args}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        let cases = [
            (json!({"ignored": []}), "unknown field \"ignored\""),
            (strategy("Best", json!({})), "scoringStrategy.type: Unsupported value: \"Best\""),
            (
                strategy("LeastAllocated", json!({"resources": [{"name": "cpu", "weight": 0}]})),
                "scoringStrategy.resources[0].weight: Invalid value: 0: not in valid range [1-100]",
            ),
            (
                strategy("RequestedToCapacityRatio", json!({})),
                "scoringStrategy.requestedToCapacityRatio.shape: Required value: at least one point must be specified",
            ),
        ];
        for (args, expected) in cases {
            assert_eq!(Fit::read(&args).err().as_deref(), Some(expected));
        }
    }
}
