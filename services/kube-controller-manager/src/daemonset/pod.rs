//! A DaemonSet's pods as objects: bound to a node by affinity, tolerant of what befalls nodes. Pure.

use apimachinery::meta;
use serde_json::{Value, json};

use crate::revisions::HASH_LABEL;
use crate::{object, pod_control};

const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// The template's tolerations and those that every daemon has.
pub(super) fn tolerations(spec: &Value) -> Vec<Value> {
    let mut all = object::list(spec, "/tolerations").to_vec();
    let mut always = vec![
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    if spec["hostNetwork"] == true {
        always.push(("network-unavailable", "NoSchedule"));
    }
    for (name, effect) in always {
        let toleration = json!({"key": format!("node.kubernetes.io/{name}"), "operator": "Exists", "effect": effect});
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// The pod for one node, in the revision with that hash.
pub(super) fn build(set: &Value, node: &str, hash: &str) -> Value {
    let mut pod = pod_control::from_template(set, &set["spec"]["template"]);
    meta::set_label(&mut pod, HASH_LABEL, hash);
    if let Some(generation) = meta::annotation(set, GENERATION_ANNOTATION) {
        meta::set_label(&mut pod, GENERATION_LABEL, generation);
    }
    let spec = &mut pod["spec"];
    let by_name = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    // Whatever else the template requires has been checked; this binds.
    spec["affinity"]["nodeAffinity"][REQUIRED] = json!({"nodeSelectorTerms": [{"matchFields": [by_name]}]});
    spec["tolerations"] = tolerations(spec).into();
    pod
}

/// The node that a pod is on, or bound for.
pub(super) fn node_of(pod: &Value) -> &str {
    let placed = object::text(pod, "/spec/nodeName");
    if !placed.is_empty() {
        return placed;
    }
    let terms = object::list(pod, &format!("/spec/affinity/nodeAffinity/{REQUIRED}/nodeSelectorTerms"));
    let mut fields = terms.iter().flat_map(|term| object::list(term, "/matchFields"));
    fields.find(|f| f["key"] == "metadata.name").map_or("", |f| object::text(f, "/values/0"))
}
