//! The Job's policies: what a pod's failure means, and when the Job has succeeded early. Pure.

use apimachinery::meta;
use serde_json::Value;

use super::indexes::{self, Indexes};
use crate::object;

/// What a failed pod means for the Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts towards the back-off limit.
    Count,
    /// It counts for nothing.
    Ignore,
    /// Its index has failed for good.
    FailIndex,
    /// The Job has failed, and this is why.
    FailJob(String),
}

/// The first rule that matches decides.
pub(super) fn judge(job: &Value, pod: &Value) -> Verdict {
    for (index, rule) in object::list(job, "/spec/podFailurePolicy/rules").iter().enumerate() {
        let Some(why) = by_exit_code(rule, pod).or_else(|| by_condition(rule, pod)) else { continue };
        let action = object::text(rule, "/action");
        return match action {
            "FailJob" => Verdict::FailJob(format!("{why} matching {action} rule at index {index}")),
            "FailIndex" => Verdict::FailIndex,
            "Ignore" => Verdict::Ignore,
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn by_exit_code(rule: &Value, pod: &Value) -> Option<String> {
    let wanted = rule.get("onExitCodes").filter(|w| !w.is_null())?;
    let name = wanted["containerName"].as_str();
    let values = object::list(wanted, "/values");
    let both = ["/status/initContainerStatuses", "/status/containerStatuses"];
    for status in both.iter().flat_map(|pointer| object::list(pod, pointer)) {
        let Some(code) = object::int(status, "/state/terminated/exitCode").filter(|code| *code != 0) else { continue };
        if name.is_some_and(|name| status["name"] != name) {
            continue;
        }
        if values.contains(&code.into()) == (object::text(wanted, "/operator") == "In") {
            let container = object::text(status, "/name");
            return Some(format!("Container {container} for pod {} failed with exit code {code}", meta::key(pod)));
        }
    }
    None
}

fn by_condition(rule: &Value, pod: &Value) -> Option<String> {
    let wanted = object::list(rule, "/onPodConditions").iter();
    let holds = |w: &&Value| {
        let status = w["status"].as_str().unwrap_or("True");
        meta::condition(pod, object::text(w, "/type")).is_some_and(|c| c["status"] == status)
    };
    let found = wanted.clone().find(holds)?;
    Some(format!("Pod {} has condition {}", meta::key(pod), object::text(found, "/type")))
}

/// The rule of the success policy that the succeeded indexes satisfy, as the condition's message.
pub(super) fn success(job: &Value, succeeded: &Indexes, completions: i64) -> Option<String> {
    let rules = object::list(job, "/spec/successPolicy/rules").iter().enumerate();
    let satisfied = |rule: &Value| {
        let among = rule["succeededIndexes"].as_str().map(|text| indexes::parse(text, completions));
        let count = match &among {
            Some(among) => succeeded.intersection(among).count(),
            None => succeeded.len(),
        };
        let wanted = object::int(rule, "/succeededCount").and_then(|n| usize::try_from(n).ok());
        wanted.or(among.map(|among| among.len())).is_some_and(|wanted| count >= wanted)
    };
    let (index, _) = rules.into_iter().find(|(_, rule)| satisfied(rule))?;
    Some(format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_matching_rule_decides() {
        let job = json!({"spec": {"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"containerName": "main", "operator": "NotIn", "values": [1, 42]}},
        ]}}});
        let pod = |code: i64, name: &str, disrupted: bool| {
            let condition = json!({"type": "DisruptionTarget", "status": if disrupted { "True" } else { "False" }});
            json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"conditions": [condition],
                "containerStatuses": [{"name": name, "state": {"terminated": {"exitCode": code}}}]}})
        };
        let fail = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1".to_owned();
        let cases = [
            (pod(42, "c", true), Verdict::Ignore),
            (pod(42, "c", false), Verdict::FailJob(fail)),
            (pod(7, "main", false), Verdict::FailIndex),
            (pod(7, "side", false), Verdict::Count),
            (pod(1, "main", false), Verdict::Count),
            (pod(0, "main", false), Verdict::Count),
        ];
        for (pod, expected) in cases {
            assert_eq!(judge(&job, &pod), expected, "{pod}");
        }
    }

    #[test]
    fn early_success() {
        let cases = [
            (json!({"succeededIndexes": "0,2"}), "0,2", true),
            (json!({"succeededIndexes": "0,2"}), "0,1", false),
            (json!({"succeededCount": 2}), "1,3", true),
            (json!({"succeededCount": 1, "succeededIndexes": "0-1"}), "1", true),
            (json!({"succeededCount": 1, "succeededIndexes": "0-1"}), "3", false),
        ];
        for (rule, done, expected) in cases {
            let job = json!({"spec": {"successPolicy": {"rules": [rule]}}});
            let met = success(&job, &indexes::parse(done, 5), 5);
            assert_eq!(met.is_some(), expected, "{job} {done}");
            assert!(met.is_none_or(|message| message == "Matched rules at index 0"));
        }
        assert!(success(&json!({}), &indexes::parse("0-4", 5), 5).is_none());
    }
}
