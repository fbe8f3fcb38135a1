//! A Job's pods as objects: what they carry, and what became of them. Pure.

use apimachinery::meta;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::plan;
use super::policy::{self, Verdict};
use crate::{clock, object, pod_control};

/// Held by every pod that has not been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Unknown,
    Succeeded,
    Failed,
}

/// It has not been counted.
pub(super) fn is_tracked(pod: &Value) -> bool {
    meta::finalizers(pod).contains(&FINALIZER)
}

/// A pod that is being deleted counts as failed at once, unless its replacement has to wait until it has ended.
pub(super) fn outcome(job: &Value, pod: &Value) -> Outcome {
    match object::text(pod, "/status/phase") {
        "Succeeded" => Outcome::Succeeded,
        "Failed" => Outcome::Failed,
        _ if meta::deletion_timestamp(pod).is_some() && !replaces_only_failed(job) => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}

/// A pod is replaced only once it has ended.
pub(super) fn replaces_only_failed(job: &Value) -> bool {
    object::text(job, "/spec/podReplacementPolicy") == "Failed"
        || job["spec"].get("podFailurePolicy").is_some_and(|policy| !policy.is_null())
}

/// The pod's completion index.
pub(super) fn index(pod: &Value) -> Option<i64> {
    meta::annotation(pod, INDEX)?.parse().ok()
}

fn number(pod: &Value, annotation: &str) -> i64 {
    meta::annotation(pod, annotation).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Failures of the pod's index, this one included.
pub(super) fn failures_after(job: &Value, pod: &Value) -> i64 {
    number(pod, FAILURES) + i64::from(policy::judge(job, pod) != Verdict::Ignore)
}

/// Restarts of all its containers.
pub(super) fn restarts(pod: &Value) -> i64 {
    let both = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let all = both.iter().flat_map(|pointer| object::list(pod, pointer));
    all.map(|status| object::int(status, "/restartCount").unwrap_or(0)).sum()
}

/// When its last container ended; when it was made, if it never had any.
pub(super) fn ended_at(pod: &Value) -> Option<Timestamp> {
    let statuses = object::list(pod, "/status/containerStatuses").iter();
    let ended = statuses.filter_map(|s| clock::parse(s.pointer("/state/terminated/finishedAt")?.as_str()?)).max();
    ended.or_else(|| clock::parse(meta::creation_timestamp(pod)))
}

/// The pod to create; with an index for an indexed Job. `earlier` is the pod of that index that failed last.
pub(super) fn build(job: &Value, index: Option<i64>, earlier: Option<&Value>) -> Value {
    let mut pod = pod_control::from_template(job, &job["spec"]["template"]);
    let mut finalizers = object::list(&pod, "/metadata/finalizers").to_vec();
    finalizers.push(FINALIZER.into());
    pod["metadata"]["finalizers"] = finalizers.into();
    let Some(index) = index.filter(|_| plan::is_indexed(job)) else { return pod };
    let text = index.to_string();
    let host = format!("{}-{index}", meta::name(job));
    pod["metadata"]["generateName"] = format!("{host}-").into();
    meta::set_annotation(&mut pod, INDEX, &text);
    meta::set_label(&mut pod, INDEX, &text);
    pod["spec"]["hostname"] = host.into();
    if job["spec"].get("backoffLimitPerIndex").is_some_and(|limit| !limit.is_null()) {
        let (mut counted, mut ignored) = (0, 0);
        if let Some(earlier) = earlier {
            let ignore = policy::judge(job, earlier) == Verdict::Ignore;
            counted = number(earlier, FAILURES) + i64::from(!ignore);
            ignored = number(earlier, IGNORED_FAILURES) + i64::from(ignore);
        }
        meta::set_annotation(&mut pod, FAILURES, &counted.to_string());
        if ignored > 0 {
            meta::set_annotation(&mut pod, IGNORED_FAILURES, &ignored.to_string());
        }
    }
    let from = json!({"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}});
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            let mut env = object::list(container, "/env").to_vec();
            if !env.iter().any(|e| e["name"] == "JOB_COMPLETION_INDEX") {
                env.push(json!({"name": "JOB_COMPLETION_INDEX", "valueFrom": from}));
                container["env"] = env.into();
            }
        }
    }
    pod
}
