//! LimitRanges: what containers get that do not say what they need, and the bounds of what pods and claims may ask for.

use std::collections::BTreeSet;

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::pod_resources::{Amounts, amounts, total};
use super::{AdmissionRequest, Operation, Plugin, Verdict, all};
use crate::registry::Context;
use crate::registry::strategy::tree::{at, each, has, items, object, set, str_at};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn admit<'a>(&'a self, cx: &'a Context<'_>, request: &'a mut AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            if request.is("", "pods") && request.operation == Operation::Create {
                for range in all(cx, "", "limitranges", request.namespace).await? {
                    fill(request.object, &range);
                }
            }
            Ok(())
        })
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let row = request.resource;
            let judged = matches!(
                (row.group, row.plural, request.subresource, request.operation),
                ("", "pods", None, Operation::Create)
                    | ("", "pods", Some("resize"), Operation::Update)
                    | ("", "persistentvolumeclaims", None, Operation::Create | Operation::Update)
            );
            if !judged {
                return Ok(());
            }
            for range in all(cx, "", "limitranges", request.namespace).await? {
                let errors = broken(request.object, row.plural, &range);
                match errors.as_slice() {
                    [] => {}
                    [one] => return Err(request.forbidden(one)),
                    many => return Err(request.forbidden(&format!("[{}]", many.join(", ")))),
                }
            }
            Ok(())
        })
    }
}

/// Defaults of the range's rule for containers, and a note about what was set.
pub fn fill(pod: &mut Value, range: &Value) {
    let rules = items(range, &["spec", "limits"]).iter();
    let Some(rule) = rules.into_iter().find(|r| str_at(r, &["type"]) == "Container") else { return };
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        each(object(pod, "spec"), list, |c| {
            for (kind, source, word) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                let mut names = Vec::new();
                for (name, amount) in at(rule, &[source]).and_then(Value::as_object).into_iter().flatten() {
                    let target = object(object(c, "resources"), kind);
                    if !has(target, name) {
                        set(target, name, amount.clone());
                        names.push(name.clone());
                    }
                }
                if !names.is_empty() {
                    notes.push(format!("{} {word} for {what} {}", names.join(", "), str_at(c, &["name"])));
                }
            }
        });
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        set(object(object(pod, "metadata"), "annotations"), ANNOTATION, text);
    }
}

/// What one bound is about.
struct Bound<'a> {
    rule: &'a Value,
    kind: &'a str,
    requests: Amounts,
    limits: Amounts,
}

/// Every bound the object breaks, in words.
pub fn broken(object: &Value, plural: &str, range: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for rule in items(range, &["spec", "limits"]) {
        let kind = str_at(rule, &["type"]);
        let mut judge = |requests: Amounts, limits: Amounts| Bound { rule, kind, requests, limits }.check(&mut errors);
        match (kind, plural) {
            ("Container", "pods") => {
                for list in ["containers", "initContainers"] {
                    for c in items(object, &["spec", list]) {
                        judge(amounts(at(c, &["resources", "requests"])), amounts(at(c, &["resources", "limits"])));
                    }
                }
            }
            ("Pod", "pods") => judge(total(object, "requests"), total(object, "limits")),
            ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                let requests = amounts(at(object, &["spec", "resources", "requests"]));
                Bound { rule, kind, requests: requests.clone(), limits: requests }.storage(&mut errors);
            }
            _ => {}
        }
    }
    errors
}

impl Bound<'_> {
    fn names(&self) -> BTreeSet<&String> {
        let maps = ["min", "max", "maxLimitRequestRatio"].into_iter().filter_map(|f| at(self.rule, &[f])?.as_object());
        maps.flat_map(|m| m.keys()).collect()
    }

    fn bound(&self, field: &str, name: &str) -> Option<Quantity> {
        super::pod_resources::quantity(at(self.rule, &[field, name])?)
    }

    fn check(&self, errors: &mut Vec<String>) {
        for name in self.names() {
            let (request, limit) = (self.requests.get(name), self.limits.get(name));
            let min = self.bound("min", name).and_then(|min| self.least(name, min, request, limit));
            let max = self.bound("max", name).and_then(|max| self.most(name, max, request, limit));
            let ratio =
                self.bound("maxLimitRequestRatio", name).and_then(|most| self.ratio(name, most, request, limit));
            errors.extend([min, max, ratio].into_iter().flatten());
        }
    }

    /// Claims have requests only, and say so.
    fn storage(&self, errors: &mut Vec<String>) {
        let Some(request) = self.requests.get("storage") else { return };
        if let Some(min) = self.bound("min", "storage").filter(|m| request.milli() < m.milli()) {
            errors.push(format!("minimum storage usage per {} is {min}, but request is {request}", self.kind));
        }
        if let Some(max) = self.bound("max", "storage").filter(|m| request.milli() > m.milli()) {
            errors.push(format!("maximum storage usage per {} is {max}, but request is {request}", self.kind));
        }
    }

    /// Of a request and a limit that are both wrong only one is told.
    fn least(&self, name: &str, min: Quantity, request: Option<&Quantity>, limit: Option<&Quantity>) -> Option<String> {
        let head = format!("minimum {name} usage per {} is {min}", self.kind);
        let low = |q: &&Quantity| q.milli() < min.milli();
        match (request, limit.filter(low)) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(r), _) if low(&r) => Some(format!("{head}, but request is {r}")),
            (_, limit) => limit.map(|l| format!("{head}, but limit is {l}")),
        }
    }

    fn most(&self, name: &str, max: Quantity, request: Option<&Quantity>, limit: Option<&Quantity>) -> Option<String> {
        let head = format!("maximum {name} usage per {} is {max}", self.kind);
        let high = |q: &&Quantity| q.milli() > max.milli();
        match (limit, request.filter(high)) {
            (None, _) => Some(format!("{head}.  No limit is specified")),
            (Some(l), _) if high(&l) => Some(format!("{head}, but limit is {l}")),
            (_, request) => request.map(|r| format!("{head}, but request is {r}")),
        }
    }

    fn ratio(
        &self,
        name: &str,
        most: Quantity,
        request: Option<&Quantity>,
        limit: Option<&Quantity>,
    ) -> Option<String> {
        let head = format!("{name} max limit to request ratio per {} is {most}, but", self.kind);
        let Some(r) = request.filter(|r| r.milli() != 0) else {
            return Some(format!("{head} no request is specified or request is 0"));
        };
        let Some(l) = limit.filter(|l| l.milli() != 0) else {
            return Some(format!("{head} no limit is specified or limit is 0"));
        };
        // limit / request > most, without dividing
        let over = l.milli().saturating_mul(1000) > r.milli().saturating_mul(most.milli());
        let shown = l.milli().saturating_mul(1_000_000) / r.milli();
        over.then(|| format!("{head} provided ratio is {}.{:06}", shown / 1_000_000, shown % 1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_fill_and_say_so() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m", "memory": "10Mi"}}]}});
        let mut pod =
            json!({"metadata": {}, "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "5"}}}]}});
        fill(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "5", "memory": "10Mi"}, "limits": {"cpu": "1"}})
        );
        let note = "LimitRanger plugin set: memory request for container a; cpu limit for container a";
        assert_eq!(pod["metadata"]["annotations"][ANNOTATION], note);
    }

    #[test]
    fn bounds_are_named() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"name": "a", "resources": resources}]}});
        let rule =
            |kind: &str, field: &str, cpu: &str| json!({"spec": {"limits": [{"type": kind, (field): {"cpu": cpu}}]}});
        let table = [
            (
                rule("Container", "min", "100m"),
                json!({}),
                "minimum cpu usage per Container is 100m.  No request is specified",
            ),
            (
                rule("Container", "min", "100m"),
                json!({"requests": {"cpu": "50m"}}),
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (
                rule("Container", "max", "1"),
                json!({"limits": {"cpu": "2"}}),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                rule("Container", "max", "1"),
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                rule("Container", "max", "1"),
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                "maximum cpu usage per Container is 1, but request is 2",
            ),
            (
                rule("Container", "min", "1"),
                json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}),
                "minimum cpu usage per Container is 1, but request is 200m",
            ),
            (rule("Pod", "max", "1"), json!({}), "maximum cpu usage per Pod is 1.  No limit is specified"),
            (
                rule("Container", "maxLimitRequestRatio", "2"),
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
        ];
        for (range, resources, want) in table {
            assert_eq!(broken(&pod(resources), "pods", &range), [want]);
        }
        let range = json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}}]}});
        let claim = json!({"spec": {"resources": {"requests": {"storage": "500Mi"}}}});
        let want = "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi";
        assert_eq!(broken(&claim, "persistentvolumeclaims", &range), [want]);
    }
}
