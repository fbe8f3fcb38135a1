//! How fast a number of replicas may change: stabilization windows and policies. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{clock, object};

/// What an autoscaler has proposed and done lately; forgotten when the process ends, as upstream.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    recommendations: VecDeque<(Timestamp, i64)>,
    /// Changes of size, up and down.
    changes: VecDeque<(Timestamp, i64)>,
}

/// The outcome, with what limited it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limited {
    pub(super) replicas: i64,
    /// Status, reason and message of ScalingLimited.
    pub(super) limit: (&'static str, &'static str, String),
    /// Reason and message of AbleToScale, if the windows held something back.
    pub(super) stabilized: Option<(&'static str, &'static str)>,
}

const LONGEST: i64 = 3600;

fn rules(hpa: &Value, up: bool) -> Value {
    let field = if up { "scaleUp" } else { "scaleDown" };
    let own = &hpa["spec"]["behavior"][field];
    let mut rules = if up {
        json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]})
    } else {
        json!({"stabilizationWindowSeconds": 300, "selectPolicy": "Max", "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15}]})
    };
    for (key, value) in own.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        rules[key] = value.clone();
    }
    rules
}

impl History {
    /// Notes that the size changed.
    pub(super) fn changed(&mut self, now: Timestamp, by: i64) {
        self.changes.push_back((now, by));
        self.forget(now);
    }

    fn forget(&mut self, now: Timestamp) {
        let old = clock::plus(now, -LONGEST);
        self.changes.retain(|(at, _)| *at >= old);
        self.recommendations.retain(|(at, _)| *at >= old);
    }

    fn change_since(&self, from: Timestamp, up: bool) -> i64 {
        let recent = self.changes.iter().filter(|(at, by)| *at > from && (*by > 0) == up);
        recent.map(|(_, by)| by.abs()).sum()
    }

    /// The proposal within windows, policies and the autoscaler's own bounds.
    pub(super) fn limit(&mut self, hpa: &Value, current: i64, proposed: i64, now: Timestamp) -> Limited {
        self.forget(now);
        let (up, down) = (rules(hpa, true), rules(hpa, false));
        let stable = self.stabilize(&up, &down, current, proposed, now);
        let stabilized = match stable.cmp(&proposed) {
            std::cmp::Ordering::Equal => None,
            _ if stable > proposed => Some((
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )),
            _ => Some((
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )),
        };
        let (replicas, limit) = self.by_policy(hpa, (&up, &down), current, stable, now);
        Limited { replicas, limit, stabilized }
    }

    /// The lowest recent proposal when growing, the highest when shrinking.
    fn stabilize(&mut self, up: &Value, down: &Value, current: i64, proposed: i64, now: Timestamp) -> i64 {
        let window = |rules: &Value| clock::plus(now, -object::int(rules, "/stabilizationWindowSeconds").unwrap_or(0));
        let recent = |from: Timestamp| self.recommendations.iter().filter(move |(at, _)| *at > from).map(|(_, r)| *r);
        let low = recent(window(up)).chain([proposed]).min().unwrap_or(proposed);
        let high = recent(window(down)).chain([proposed]).max().unwrap_or(proposed);
        self.recommendations.push_back((now, proposed));
        current.max(low).min(high)
    }

    fn by_policy(
        &self,
        hpa: &Value,
        (up, down): (&Value, &Value),
        current: i64,
        stable: i64,
        now: Timestamp,
    ) -> (i64, (&'static str, &'static str, String)) {
        let most = object::int(hpa, "/spec/maxReplicas").unwrap_or(i64::MAX);
        let least = object::int(hpa, "/spec/minReplicas").unwrap_or(1);
        let limited = |replicas, reason, why: &str| (replicas, ("True", reason, why.to_owned()));
        let too_many =
            || limited(most, "TooManyReplicas", "the desired replica count is more than the maximum replica count");
        let too_few =
            || limited(least, "TooFewReplicas", "the desired replica count is less than the minimum replica count");
        if stable > current {
            let allowed = self.bound(up, current, true, now).max(current);
            if stable > allowed.min(most) {
                let why = "the desired replica count is increasing faster than the maximum scale rate";
                return if allowed < most { limited(allowed, "ScaleUpLimit", why) } else { too_many() };
            }
        } else if stable < current {
            let allowed = self.bound(down, current, false, now).min(current);
            if stable < allowed.max(least) {
                let why = "the desired replica count is decreasing faster than the maximum scale rate";
                return if allowed > least { limited(allowed, "ScaleDownLimit", why) } else { too_few() };
            }
        }
        if stable > most {
            return too_many();
        }
        if stable < least {
            return too_few();
        }
        (stable, ("False", "DesiredWithinRange", "the desired count is within the acceptable range".to_owned()))
    }

    /// The farthest that the policies allow to go from here.
    fn bound(&self, rules: &Value, current: i64, up: bool, now: Timestamp) -> i64 {
        let select = object::text(rules, "/selectPolicy");
        if select == "Disabled" {
            return current;
        }
        let bounds = object::list(rules, "/policies").iter().map(|policy| {
            let value = object::int(policy, "/value").unwrap_or(0);
            let from = clock::plus(now, -object::int(policy, "/periodSeconds").unwrap_or(0));
            // Where the period began: changes since then are part of its allowance.
            let start = current - self.change_since(from, true) + self.change_since(from, false);
            match (object::text(policy, "/type"), up) {
                ("Pods", true) => start + value,
                ("Pods", false) => start - value,
                (_, true) => (start * (100 + value) + 99) / 100,
                (_, false) => start * (100 - value).max(0) / 100,
            }
        });
        // The policy that allows the largest change, or the smallest.
        let farthest = select != "Min";
        let bound = if up == farthest { bounds.max() } else { bounds.min() };
        bound.unwrap_or(current)
    }
}
