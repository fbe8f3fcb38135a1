//! NodeResourcesBalancedAllocation: a node is better if its resources would be used to similar shares.

use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Normalize, Plugin, SCORE_MAX, Score};
use crate::node::Node;
use crate::plugins::resources::{no_fields_but, usage, weighted};
use crate::pod::Pod;

pub struct BalancedAllocation {
    resources: Vec<String>,
}

impl BalancedAllocation {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["resources"])?;
        let resources = weighted(&args["resources"], "resources")?;
        Ok(BalancedAllocation { resources: resources.into_iter().map(|(name, _)| name).collect() })
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "shares of 0 to 1, scores of 0 to 100"
    )]
    fn balance(&self, pod: &Pod, node: &Node) -> i64 {
        let spec = &pod.spec;
        let share = |name: &String| {
            let (offer, used) = usage(name, false, (&spec.requests, &spec.assumed), node)?;
            Some((used as f64 / offer as f64).min(1.0))
        };
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for share in self.resources.iter().filter_map(share) {
            sum += share;
            squares += share * share;
            count += 1.0;
        }
        let deviation = if count > 1.0 {
            let mean: f64 = sum / count;
            (squares / count - mean * mean).max(0.0).sqrt()
        } else {
            0.0
        };
        ((1.0 - deviation) * SCORE_MAX as f64) as i64
    }
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&'a self, cycle: &Cycle<'a>, _: &[&'a Node]) -> Option<Score<'a>> {
        let pod = cycle.pod;
        // A pod that asks for nothing changes no balance; scoring it would pile such pods onto one node.
        if self.resources.iter().all(|name| pod.spec.requests.of(name) == 0) {
            return None;
        }
        Some(Score { of: Box::new(move |node| self.balance(pod, node)), normalize: Normalize::No })
    }

    fn helps(&self, _: &Pod, _: &Event, _: &Cache) -> bool {
        false
    }
}
