//! Which nodes a volume is attached to, and which it leaves. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{object, pods};

/// How long a node that is not ready may keep a volume that its last status calls mounted.
pub(super) const UNMOUNT_MAX: Duration = Duration::from_secs(360);
/// Says that a node is off for good, so nothing on it writes any more (KEP-2268).
pub(super) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A pod that uses the volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct User<'a> {
    pub(super) node: &'a str,
    pub(super) name: &'a str,
}

impl<'a> User<'a> {
    pub(super) fn of(pod: &'a Value) -> Self {
        User { node: object::text(pod, "/spec/nodeName"), name: meta::name(pod) }
    }
}

/// What to do about one volume.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Ask its driver to attach it.
    Attach { node: String },
    /// Ask its driver to detach it.
    Detach { attachment: Arc<Value> },
    /// Tell the pods on a node that they have to wait for those on another.
    Refuse { node: String, message: String },
    /// Look again when this has passed.
    Wait(Duration),
}

/// Decides. `users` are in the order in which they may have the volume; `node` looks one up; `unused_for` says how long an
/// attachment has had no user, and learns whether it has one now.
pub(super) fn plan(
    volume: &Value,
    users: &[User<'_>],
    attachments: &[Arc<Value>],
    node: impl Fn(&str) -> Option<Arc<Value>>,
    unused_for: &mut dyn FnMut(&str, bool) -> Duration,
) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut wait: Option<Duration> = None;
    let mut held: Vec<&str> = Vec::new();
    for attachment in attachments {
        let on = object::text(attachment, "/spec/nodeName");
        held.push(on);
        let used = users.iter().any(|user| user.node == on);
        let idle = unused_for(meta::uid(attachment), !used);
        let ours = meta::name(attachment) == attachment_name(volume, on);
        if used || !ours || meta::deletion_timestamp(attachment).is_some() {
            continue;
        }
        match keeps(node(on).as_deref(), &unique_name(volume), idle) {
            Keeps::No => actions.push(Action::Detach { attachment: Arc::clone(attachment) }),
            Keeps::For(left) => wait = Some(wait.map_or(left, |other| other.min(left))),
        }
    }
    let shared = may_be_shared(volume);
    let mut wanted: Vec<&str> = Vec::new();
    for user in users.iter().filter(|user| !held.contains(&user.node)) {
        if !wanted.contains(&user.node) && node(user.node).is_some() {
            wanted.push(user.node);
        }
    }
    for name in wanted {
        if shared || held.is_empty() {
            held.push(name);
            actions.push(Action::Attach { node: name.to_owned() });
        } else {
            let others: Vec<&str> = users.iter().filter(|u| held.contains(&u.node)).map(|u| u.name).collect();
            let message = refusal(meta::name(volume), &others);
            actions.push(Action::Refuse { node: name.to_owned(), message });
        }
    }
    actions.extend(wait.map(Action::Wait));
    actions
}

enum Keeps {
    No,
    For(Duration),
}

/// Whether a node holds a volume that none of its pods uses. A node that is ready says itself when it is done; of one that
/// is not, six minutes are enough.
fn keeps(node: Option<&Value>, unique_name: &str, idle: Duration) -> Keeps {
    let left = UNMOUNT_MAX.saturating_sub(idle);
    let expired = if left.is_zero() { Keeps::No } else { Keeps::For(left) };
    let Some(node) = node else { return expired };
    let mounted = object::list(node, "/status/volumesInUse").iter().any(|volume| volume == unique_name);
    if !mounted || object::list(node, "/spec/taints").iter().any(|taint| taint["key"] == OUT_OF_SERVICE) {
        return Keeps::No;
    }
    if meta::is_condition_true(node, "Ready") {
        // Its next status wakes us; the wait covers that it stops being ready without another word.
        return Keeps::For(UNMOUNT_MAX);
    }
    expired
}

/// Volumes that several nodes may read or write at once; one that does not say is trusted.
fn may_be_shared(volume: &Value) -> bool {
    let modes = object::list(volume, "/spec/accessModes");
    modes.is_empty() || modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

fn refusal(volume: &str, others: &[&str]) -> String {
    let mut message = format!("Multi-Attach error for volume \"{volume}\" ");
    if others.is_empty() {
        message.push_str("Volume is already exclusively attached to one node and can't be attached to another");
    } else {
        // Writing to a String cannot fail.
        let _ = write!(message, "Volume is already used by pod(s) {}", others.join(", "));
    }
    message
}

/// Whether a pod holds its volumes: it has a node and its containers have not all ended.
pub(super) fn holds(pod: &Value) -> bool {
    if object::text(pod, "/spec/nodeName").is_empty() || pods::is_finished(pod) {
        return false;
    }
    let stopped = |status: &Value| status["state"]["running"].is_null();
    !(pods::is_terminating(pod) && object::list(pod, "/status/containerStatuses").iter().all(stopped))
}

/// Whether a change of a node can change a decision.
pub(super) fn matters(old: &Value, new: &Value) -> bool {
    let ready = |node: &Value| meta::is_condition_true(node, "Ready");
    old["status"]["volumesInUse"] != new["status"]["volumesInUse"]
        || old["status"]["volumesAttached"] != new["status"]["volumesAttached"]
        || old["spec"]["taints"] != new["spec"]["taints"]
        || ready(old) != ready(new)
}

/// The volume's name in a node's status, which kubelets compute in the same way.
fn unique_name(volume: &Value) -> String {
    let csi = &volume["spec"]["csi"];
    format!("kubernetes.io/csi/{}^{}", object::text(csi, "/driver"), object::text(csi, "/volumeHandle"))
}

/// The name of the attachment of a volume to a node, which kubelets compute in the same way.
pub(super) fn attachment_name(volume: &Value, node: &str) -> String {
    let csi = &volume["spec"]["csi"];
    let text = format!("{}{}{node}", object::text(csi, "/volumeHandle"), object::text(csi, "/driver"));
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().fold("csi-".to_owned(), |mut name, byte| {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// The attachment to create.
pub(super) fn attachment(volume: &Value, node: &str) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
        "metadata": {"name": attachment_name(volume, node)},
        "spec": {"attacher": object::text(volume, "/spec/csi/driver"), "nodeName": node,
                 "source": {"persistentVolumeName": meta::name(volume)}},
    })
}

/// The volume that an attachment is about; empty for one that is described inside a pod.
pub(super) fn volume_of(attachment: &Value) -> &str {
    object::text(attachment, "/spec/source/persistentVolumeName")
}

/// What a change of an attachment means to the pods that wait for it: an event's type, reason and message.
pub(super) fn outcome(old: Option<&Value>, new: &Value) -> Option<(&'static str, &'static str, String)> {
    let was = |pointer: &str| old.and_then(|old| old.pointer(pointer));
    let name = volume_of(new);
    let error = new.pointer("/status/attachError/message");
    if new["status"]["attached"] == true {
        // One that was attached when this process began is no news.
        let news = old.is_some() && was("/status/attached") != Some(&Value::Bool(true));
        let message = format!("AttachVolume.Attach succeeded for volume \"{name}\" ");
        return news.then_some(("Normal", "SuccessfulAttachVolume", message));
    }
    let error = error.filter(|error| was("/status/attachError/message") != Some(error))?;
    let message = format!("AttachVolume.Attach failed for volume \"{name}\" : {}", error.as_str().unwrap_or_default());
    Some(("Warning", "FailedAttachVolume", message))
}

/// A node's status.volumesAttached: what is attached and stays so.
pub(super) fn attached<'a>(
    attachments: impl Iterator<Item = &'a Arc<Value>>,
    volume: impl Fn(&str) -> Option<Arc<Value>>,
) -> Vec<Value> {
    let mut by_name = BTreeMap::new();
    for attachment in attachments {
        if attachment["status"]["attached"] != true || meta::deletion_timestamp(attachment).is_some() {
            continue;
        }
        let Some(volume) = volume(volume_of(attachment)).filter(|volume| volume["spec"]["csi"].is_object()) else {
            continue;
        };
        let name = unique_name(&volume);
        by_name.insert(name.clone(), json!({"devicePath": "", "name": name}));
    }
    by_name.into_values().collect()
}
