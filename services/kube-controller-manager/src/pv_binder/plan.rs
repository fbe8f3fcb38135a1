//! Which claim gets which volume, and what becomes of both. Pure: from a claim or a volume and what is around it to the
//! objects to write.
//!
//! A binding is four writes: the volume names the claim, the volume's phase, the claim names the volume, the claim's phase.
//! Any of them may be the last before a crash; each look continues with the first that is missing.

use std::sync::Arc;

use apimachinery::meta;
use apimachinery::quantity::Quantity;
use apimachinery::selector::LabelSelector;
use serde_json::{Map, Value, json};

use crate::{nodes, object};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// One write.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Replace the claim.
    Claim(Value),
    /// Replace the claim's status.
    ClaimStatus(Value),
    /// Replace the volume.
    Volume(Value),
    /// Replace the volume's status.
    VolumeStatus(Value),
    /// Look at this claim as well.
    LookAtClaim(String),
    /// An event about the claim.
    NoteClaim(&'static str, &'static str, String),
    /// An event about the volume.
    NoteVolume(&'static str, &'static str, String),
}

/// The storage class that a claim or volume names, empty for none.
pub(super) fn class_of(object: &Value) -> &str {
    meta::annotation(object, CLASS).or(object["spec"]["storageClassName"].as_str()).unwrap_or_default()
}

fn phase(object: &Value) -> &str {
    object::text(object, "/status/phase")
}

fn with_status(object: &Value, change: impl FnOnce(&mut Value)) -> Option<Value> {
    let mut new = object.clone();
    if !new["status"].is_object() {
        new["status"] = json!({});
    }
    change(&mut new["status"]);
    (new["status"] != object["status"]).then_some(new)
}

fn with_phase(object: &Value, phase: &str) -> Option<Value> {
    with_status(object, |status| status["phase"] = phase.into())
}

/// What is around a claim.
pub(super) struct Around<'a> {
    /// All volumes.
    pub(super) volumes: &'a [Arc<Value>],
    /// The claim's class, if it names one that is there.
    pub(super) class: Option<&'a Value>,
    /// The node that the scheduler chose for the claim's first pod.
    pub(super) node: Option<&'a Value>,
}

/// The node that the scheduler chose.
pub(super) fn selected_node(claim: &Value) -> Option<&str> {
    meta::annotation(claim, SELECTED_NODE)
}

/// What a claim needs next.
pub(super) fn claim(claim: &Value, around: &Around<'_>) -> Vec<Step> {
    if meta::annotation(claim, BIND_COMPLETED).is_some() {
        return bound_claim(claim, around);
    }
    let named = object::text(claim, "/spec/volumeName");
    if !named.is_empty() {
        return claim_of_a_named_volume(claim, named, around);
    }
    let waits = around.class.is_some_and(|c| c["volumeBindingMode"] == "WaitForFirstConsumer");
    let held = around.volumes.iter().find(|v| is_held_for(v, claim) && fits(v, claim));
    let found = match held {
        Some(volume) => Some(volume),
        None if waits && around.node.is_none() => None,
        None => smallest(claim, around),
    };
    if let Some(volume) = found {
        return bind(claim, volume);
    }
    let mut steps: Vec<Step> = with_phase(claim, "Pending").map(Step::ClaimStatus).into_iter().collect();
    steps.extend(why_pending(claim, around, waits));
    steps
}

fn why_pending(claim: &Value, around: &Around<'_>, waits: bool) -> Vec<Step> {
    let note = |reason, message: &str| vec![Step::NoteClaim("Normal", reason, message.to_owned())];
    if waits && around.node.is_none() {
        return note("WaitForFirstConsumer", "waiting for first consumer to be created before binding");
    }
    let provisioner = around.class.map(|class| object::text(class, "/provisioner")).unwrap_or_default();
    if provisioner.is_empty() || provisioner == NO_PROVISIONER {
        let class = class_of(claim);
        if !class.is_empty() && around.class.is_none() {
            let message = format!("storageclass.storage.k8s.io {class:?} not found");
            return vec![Step::NoteClaim("Warning", "ProvisioningFailed", message)];
        }
        return note("FailedBinding", "no persistent volumes available for this claim and no storage class is set");
    }
    let mut steps = Vec::new();
    if meta::annotation(claim, PROVISIONER) != Some(provisioner) {
        let mut new = claim.clone();
        meta::set_annotation(&mut new, PROVISIONER, provisioner);
        meta::set_annotation(&mut new, PROVISIONER_BETA, provisioner);
        steps.push(Step::Claim(new));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    steps.extend(note("ExternalProvisioning", &message));
    steps
}

fn claim_of_a_named_volume(claim: &Value, named: &str, around: &Around<'_>) -> Vec<Step> {
    let pending = || with_phase(claim, "Pending").map(Step::ClaimStatus).into_iter().collect::<Vec<_>>();
    let Some(volume) = around.volumes.iter().find(|v| meta::name(v) == named) else { return pending() };
    let free = volume["spec"]["claimRef"].is_null();
    if free && let Err(why) = suits(volume, claim) {
        let mut steps = pending();
        let message = format!("Cannot bind to requested volume {named:?}: {why}");
        steps.push(Step::NoteClaim("Warning", "VolumeMismatch", message));
        return steps;
    }
    if free || is_held_for(volume, claim) {
        return bind(claim, volume);
    }
    let mut steps = pending();
    let message = format!("volume {named:?} already bound to a different claim.");
    steps.push(Step::NoteClaim("Warning", "FailedBinding", message));
    steps
}

fn bound_claim(claim: &Value, around: &Around<'_>) -> Vec<Step> {
    let lost = |reason, message: &str| {
        let lost = with_phase(claim, "Lost").map(Step::ClaimStatus);
        let note = lost.is_some().then(|| Step::NoteClaim("Warning", reason, message.to_owned()));
        lost.into_iter().chain(note).collect()
    };
    let named = object::text(claim, "/spec/volumeName");
    let Some(volume) = around.volumes.iter().find(|v| meta::name(v) == named) else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    if volume["spec"]["claimRef"].is_null() || is_held_for(volume, claim) {
        return bind(claim, volume);
    }
    lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

/// The volume names this claim; by uid, or by a name that somebody wrote in advance.
fn is_held_for(volume: &Value, claim: &Value) -> bool {
    let held = &volume["spec"]["claimRef"];
    let uid = held["uid"].as_str().unwrap_or_default();
    held["name"] == meta::name(claim)
        && held["namespace"] == meta::namespace(claim)
        && (uid.is_empty() || uid == meta::uid(claim))
}

fn capacity(object: &Value, pointer: &str) -> Quantity {
    Quantity::parse(object::text(object, pointer)).unwrap_or(Quantity::ZERO)
}

fn mode(object: &Value) -> &str {
    object["spec"]["volumeMode"].as_str().unwrap_or("Filesystem")
}

/// Whether a volume is what the claim asks for; else what is wrong with it.
fn suits(volume: &Value, claim: &Value) -> Result<(), &'static str> {
    let asked = object::list(claim, "/spec/accessModes");
    let offered = object::list(volume, "/spec/accessModes");
    if capacity(volume, "/spec/capacity/storage") < capacity(claim, "/spec/resources/requests/storage") {
        return Err("requested PV is too small");
    }
    if class_of(volume) != class_of(claim) {
        return Err("storageClassName does not match");
    }
    if mode(volume) != mode(claim) {
        return Err("incompatible volumeMode");
    }
    if !asked.iter().all(|mode| offered.contains(mode)) {
        return Err("incompatible accessMode");
    }
    Ok(())
}

fn fits(volume: &Value, claim: &Value) -> bool {
    let selector = match &claim["spec"]["selector"] {
        Value::Null => Ok(LabelSelector::everything()),
        selector => LabelSelector::from_object(selector),
    };
    meta::deletion_timestamp(volume).is_none()
        && suits(volume, claim).is_ok()
        && selector.is_ok_and(|s| s.matches(meta::labels(volume)))
}

/// The smallest free volume that is what the claim asks for and that its node can reach.
fn smallest<'a>(claim: &Value, around: &Around<'a>) -> Option<&'a Arc<Value>> {
    let reachable = |volume: &Value| match (around.node, &volume["spec"]["nodeAffinity"]["required"]) {
        (Some(node), required) if required.is_object() => {
            let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": required});
            nodes::accepted_by(&json!({"affinity": {"nodeAffinity": affinity}}), node)
        }
        _ => true,
    };
    let free = |v: &&Arc<Value>| v["spec"]["claimRef"].is_null() && phase(v) == "Available";
    let candidates = around.volumes.iter().filter(free).filter(|v| fits(v, claim) && reachable(v));
    candidates.min_by_key(|v| (capacity(v, "/spec/capacity/storage"), meta::name(v).to_owned()))
}

/// The first missing write of a binding, and those that do not depend on it.
fn bind(claim: &Value, volume: &Value) -> Vec<Step> {
    let held = &volume["spec"]["claimRef"];
    if held["uid"] != meta::uid(claim) {
        let mut new = volume.clone();
        if held.is_null() {
            meta::set_annotation(&mut new, BOUND_BY_CONTROLLER, "yes");
        }
        new["spec"]["claimRef"] = json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta::namespace(claim),
            "name": meta::name(claim), "uid": meta::uid(claim), "resourceVersion": meta::resource_version(claim),
        });
        return vec![Step::Volume(new)];
    }
    let mut steps: Vec<Step> = with_phase(volume, "Bound").map(Step::VolumeStatus).into_iter().collect();
    let name = meta::name(volume);
    let completed = meta::annotation(claim, BIND_COMPLETED).is_some();
    if object::text(claim, "/spec/volumeName") != name || !completed {
        let mut new = claim.clone();
        if object::text(claim, "/spec/volumeName").is_empty() {
            meta::set_annotation(&mut new, BOUND_BY_CONTROLLER, "yes");
        }
        meta::set_annotation(&mut new, BIND_COMPLETED, "yes");
        new["spec"]["volumeName"] = name.into();
        steps.push(Step::Claim(new));
        return steps;
    }
    let bound = with_status(claim, |status| {
        status["phase"] = "Bound".into();
        status["accessModes"] = volume["spec"]["accessModes"].clone();
        // A volume that has grown under its claim is the expansion's business.
        if status["capacity"].is_null() {
            status["capacity"] = volume["spec"]["capacity"].clone();
        }
    });
    steps.extend(bound.map(Step::ClaimStatus));
    steps
}

/// What a volume needs next. `holder` is the claim of the name that the volume is held for.
pub(super) fn volume(volume: &Value, holder: Option<&Value>) -> Vec<Step> {
    let to = |phase: &str| with_phase(volume, phase).map(Step::VolumeStatus).into_iter().collect::<Vec<_>>();
    let held = &volume["spec"]["claimRef"];
    if held.is_null() {
        return to("Available");
    }
    let key = format!("{}/{}", object::text(held, "/namespace"), object::text(held, "/name"));
    let uid = object::text(held, "/uid");
    if uid.is_empty() {
        let mut steps = to("Available");
        steps.push(Step::LookAtClaim(key));
        return steps;
    }
    match holder.filter(|claim| meta::uid(claim) == uid) {
        None => released(volume),
        Some(claim) if object::text(claim, "/spec/volumeName") == meta::name(volume) => to("Bound"),
        Some(claim) if object::text(claim, "/spec/volumeName").is_empty() => vec![Step::LookAtClaim(key)],
        // The claim chose another volume: let go of it.
        Some(_) => {
            let mut new = volume.clone();
            if meta::annotation(volume, BOUND_BY_CONTROLLER).is_some() {
                if let Some(spec) = new["spec"].as_object_mut() {
                    spec.remove("claimRef");
                }
                remove_annotation(&mut new, BOUND_BY_CONTROLLER);
            } else if let Some(held) = new["spec"]["claimRef"].as_object_mut() {
                held.remove("uid");
            }
            vec![Step::Volume(new)]
        }
    }
}

fn remove_annotation(object: &mut Value, name: &str) {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        Map::remove(annotations, name);
    }
}

/// The claim is gone. Retained volumes wait for people; deleting is the business of whoever provisioned.
fn released(volume: &Value) -> Vec<Step> {
    let external =
        meta::annotation(volume, "pv.kubernetes.io/provisioned-by").is_some() || volume["spec"]["csi"].is_object();
    let policy = object::text(volume, "/spec/persistentVolumeReclaimPolicy");
    if policy == "Retain" || policy.is_empty() || external {
        return with_phase(volume, "Released").map(Step::VolumeStatus).into_iter().collect();
    }
    let message = match policy {
        "Delete" => "error getting deleter volume plugin for volume: no volume plugin matched",
        _ => "no recyclable volume plugin matched",
    };
    let failed = with_status(volume, |status| {
        status["phase"] = "Failed".into();
        status["message"] = message.into();
    });
    let reason = if policy == "Delete" { "VolumeFailedDelete" } else { "VolumeFailedRecycle" };
    let note = failed.is_some().then(|| Step::NoteVolume("Warning", reason, message.to_owned()));
    failed.map(Step::VolumeStatus).into_iter().chain(note).collect()
}
