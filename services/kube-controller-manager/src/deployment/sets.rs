//! A Deployment and its ReplicaSets as the plan sees them: numbers, annotations, hashes.

use std::cmp::Ordering;

use apimachinery::intstr::{self, Round};
use apimachinery::meta;
use serde_json::{Value, json};

use crate::{hash, object, pods};

pub(super) const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// The Deployment's annotations that say nothing about a ReplicaSet.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
];

/// The Deployment's wishes.
pub(super) struct Deployment<'a>(pub(super) &'a Value);

impl Deployment<'_> {
    pub(super) fn replicas(&self) -> i64 {
        object::int(self.0, "/spec/replicas").unwrap_or(1)
    }

    pub(super) fn is_rolling(&self) -> bool {
        object::text(self.0, "/spec/strategy/type") != "Recreate"
    }

    pub(super) fn is_paused(&self) -> bool {
        self.0["spec"]["paused"] == true
    }

    /// Surge and unavailable in pods: surge rounds up, unavailable down, and they are never both zero.
    fn fences(&self) -> (i64, i64) {
        let rolling = &self.0["spec"]["strategy"]["rollingUpdate"];
        let surge = scaled(&rolling["maxSurge"], self.replicas(), Round::Up);
        let unavailable = scaled(&rolling["maxUnavailable"], self.replicas(), Round::Down);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    pub(super) fn max_surge(&self) -> i64 {
        if self.is_rolling() { self.fences().0 } else { 0 }
    }

    pub(super) fn max_unavailable(&self) -> i64 {
        if !self.is_rolling() || self.replicas() == 0 { 0 } else { self.fences().1.min(self.replicas()) }
    }

    pub(super) fn min_ready_seconds(&self) -> i64 {
        object::int(self.0, "/spec/minReadySeconds").unwrap_or(0)
    }

    /// Seconds a rollout may stand still; none if there is no limit.
    pub(super) fn progress_deadline(&self) -> Option<i64> {
        object::int(self.0, "/spec/progressDeadlineSeconds").filter(|s| *s < i64::from(i32::MAX))
    }

    fn copied_annotations(&self) -> impl Iterator<Item = (&String, &Value)> {
        let all = object::map(self.0, "/metadata/annotations").into_iter().flatten();
        all.filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()))
    }
}

/// The default of both fences is 25 %; the API server lets nothing else through that is neither number nor percentage.
fn scaled(value: &Value, total: i64, round: Round) -> i64 {
    let default = || intstr::scaled_value(&json!("25%"), total, round);
    intstr::scaled_value(value, total, round).or_else(|_| default()).unwrap_or(0)
}

/// A ReplicaSet while a plan is made: changes are made here first and become steps in the end.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) object: Value,
    before: Value,
    /// Made by this plan, to be created.
    pub(super) fresh: bool,
}

impl Set {
    pub(super) fn observed(object: Value) -> Self {
        Set { before: object.clone(), object, fresh: false }
    }

    pub(super) fn name(&self) -> &str {
        meta::name(&self.object)
    }

    pub(super) fn uid(&self) -> &str {
        meta::uid(&self.object)
    }

    pub(super) fn replicas(&self) -> i64 {
        object::int(&self.object, "/spec/replicas").unwrap_or(1)
    }

    pub(super) fn replicas_before(&self) -> i64 {
        if self.fresh { 0 } else { object::int(&self.before, "/spec/replicas").unwrap_or(1) }
    }

    /// A number of its status.
    pub(super) fn observed_count(&self, field: &str) -> i64 {
        self.object["status"][field].as_i64().unwrap_or(0)
    }

    pub(super) fn available(&self) -> i64 {
        self.observed_count("availableReplicas")
    }

    pub(super) fn created(&self) -> (&str, &str) {
        (object::text(&self.object, "/metadata/creationTimestamp"), self.name())
    }

    pub(super) fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or(0)
    }

    pub(super) fn number(&self, annotation: &str) -> Option<i64> {
        meta::annotation(&self.object, annotation)?.parse().ok()
    }

    pub(super) fn desired(&self) -> Option<i64> {
        self.number(DESIRED)
    }

    pub(super) fn max(&self) -> Option<i64> {
        self.number(MAX)
    }

    pub(super) fn is_terminating(&self) -> bool {
        pods::is_terminating(&self.object)
    }

    /// The whole workload runs in this set and nothing is missing.
    pub(super) fn is_saturated(&self, deployment: &Deployment<'_>) -> bool {
        let wanted = deployment.replicas();
        self.replicas() == wanted && self.desired() == Some(wanted) && self.available() == wanted
    }

    /// Sets the size, and notes the whole it is a part of.
    pub(super) fn scale(&mut self, replicas: i64, deployment: &Deployment<'_>) {
        self.object["spec"]["replicas"] = replicas.into();
        self.note_size(deployment);
    }

    pub(super) fn note_size(&mut self, deployment: &Deployment<'_>) {
        self.annotate(DESIRED, &deployment.replicas().to_string());
        self.annotate(MAX, &(deployment.replicas() + deployment.max_surge()).to_string());
    }

    fn annotate(&mut self, name: &str, value: &str) {
        meta::set_annotation(&mut self.object, name, value);
    }

    /// Copies the Deployment's annotations and takes `revision` if it is newer; the old one is remembered.
    pub(super) fn describe(&mut self, deployment: &Deployment<'_>, revision: i64) {
        for (name, value) in deployment.copied_annotations() {
            self.annotate(name, value.as_str().unwrap_or_default());
        }
        let old = self.revision();
        if old >= revision {
            return;
        }
        if old > 0 {
            let history = meta::annotation(&self.object, REVISION_HISTORY).unwrap_or_default();
            let history = if history.is_empty() { old.to_string() } else { format!("{history},{old}") };
            self.annotate(REVISION_HISTORY, &history);
        }
        self.annotate(REVISION, &revision.to_string());
    }

    /// What has to be written, if anything.
    pub(super) fn patch(&self) -> Option<Value> {
        if self.object == self.before {
            return None;
        }
        let metadata = &self.object["metadata"];
        Some(json!({
            "metadata": {"annotations": metadata["annotations"], "uid": metadata["uid"],
                         "resourceVersion": metadata["resourceVersion"]},
            "spec": {"replicas": self.replicas(), "minReadySeconds": self.object["spec"]["minReadySeconds"]},
        }))
    }
}

/// Oldest first.
pub(super) fn by_creation(a: &Set, b: &Set) -> Ordering {
    a.created().cmp(&b.created())
}

/// The set with the Deployment's template, whatever its hash: the oldest if there are several.
pub(super) fn position_of_new(deployment: &Value, sets: &[Set]) -> Option<usize> {
    let wanted = without_hash(&deployment["spec"]["template"]);
    sets.iter().position(|set| without_hash(&set.object["spec"]["template"]) == wanted)
}

/// A template as it was written by the user.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|m| !m.is_empty()));
    }
    template
}

/// Does a set that exists under the new set's name carry the same template?
pub(super) fn same_template(deployment: &Value, set: &Value) -> bool {
    without_hash(&deployment["spec"]["template"]) == without_hash(&set["spec"]["template"])
}

/// A ReplicaSet for the Deployment's current template.
pub(super) fn new_set(deployment: &Value) -> Set {
    let hash = template_hash(deployment);
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH_LABEL] = hash.as_str().into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][HASH_LABEL] = hash.as_str().into();
    let object = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", meta::name(deployment)),
            "namespace": meta::namespace(deployment),
            "labels": template["metadata"]["labels"],
            "ownerReferences": [meta::controller_reference(deployment)],
        },
        "spec": {
            "replicas": 0, "minReadySeconds": Deployment(deployment).min_ready_seconds(),
            "selector": selector, "template": template,
        },
    });
    Set { before: object.clone(), object, fresh: true }
}

/// The template and how often its hash was found taken.
fn template_hash(deployment: &Value) -> String {
    let text = without_hash(&deployment["spec"]["template"]).to_string();
    hash::label(&text, object::int(deployment, "/status/collisionCount"))
}
