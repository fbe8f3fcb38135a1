//! Pods: filled in and classified on creation, almost frozen afterwards, and deleted with grace once a kubelet knows them.

use serde_json::{Value, json};

use super::kind::{Fields, Kind};
use super::tree::{at, bool_at, each, has, int_at, items, keep, map_at, object, remove, same, set, str_at, within};
use super::{pod_annotations, pod_checks, pod_defaults, pod_status_checks};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// The kind.
pub static POD: Kind = Kind {
    defaults: pod_defaults::pod,
    create,
    update,
    check,
    check_create,
    check_update,
    fields,
    grace,
    ..Kind::SPEC_STATUS
};

const FROZEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

fn create(_: &Context<'_>, pod: &mut Value) -> Result<(), ApiError> {
    let mut status = json!({"phase": "Pending", "qosClass": pod_defaults::qos_class(pod)});
    if !items(pod, &["spec", "schedulingGates"]).is_empty() {
        status["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    }
    set(pod, "status", status);
    if int_at(pod, &["spec", "terminationGracePeriodSeconds"]).is_some_and(|n| n < 0) {
        set(&mut pod["spec"], "terminationGracePeriodSeconds", 1);
    }
    let labels = pod["metadata"]["labels"].clone();
    each(&mut pod["spec"], "topologySpreadConstraints", |c| select_by_own_labels(c, &labels));
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(wishes) = pod.pointer_mut(&format!("/spec/affinity/{kind}")) else { continue };
        each(wishes, "requiredDuringSchedulingIgnoredDuringExecution", |t| select_by_own_labels(t, &labels));
        each(wishes, "preferredDuringSchedulingIgnoredDuringExecution", |w| {
            within(w, "podAffinityTerm", |t| select_by_own_labels(t, &labels));
        });
    }
    Ok(())
}

/// Keys whose values are the pod's own become part of the selector, so that everybody who reads it sees the same pods (KEP-3633).
fn select_by_own_labels(term: &mut Value, labels: &Value) {
    if !has(term, "labelSelector") {
        return;
    }
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in items(term, &[field]).to_vec() {
            let Some(value) = key.as_str().and_then(|k| labels.get(k)).cloned() else { continue };
            let mut list = items(term, &["labelSelector", "matchExpressions"]).to_vec();
            list.push(json!({"key": key, "operator": operator, "values": [value]}));
            set(&mut term["labelSelector"], "matchExpressions", list);
        }
    }
}

fn update(_: &Context<'_>, sub: Option<&str>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    match sub {
        // The class was decided at creation; a kubelet may repeat it or leave it out.
        Some("status") if !has(&new["status"], "qosClass") && has(&old["status"], "qosClass") => {
            let class = old["status"]["qosClass"].clone();
            set(&mut new["status"], "qosClass", class);
        }
        Some("ephemeralcontainers") => {
            let wanted = remove(&mut new["spec"], "ephemeralContainers");
            let mut spec = old["spec"].clone();
            if let Some(list) = wanted {
                set(&mut spec, "ephemeralContainers", list);
            }
            set(new, "spec", spec);
            keep(new, old, "status");
            pod_defaults::pod(new);
        }
        Some("resize") => resized(new, old),
        None => keep(&mut new["spec"], &old["spec"], "ephemeralContainers"),
        _ => {}
    }
    Ok(())
}

/// A resize changes what containers ask for, and nothing else.
fn resized(new: &mut Value, old: &Value) {
    let mut spec = old["spec"].clone();
    for list in ["containers", "initContainers"] {
        let wanted = items(new, &["spec", list]).to_vec();
        each(&mut spec, list, |c| {
            let name = str_at(c, &["name"]).to_owned();
            if let Some(w) = wanted.iter().find(|w| str_at(w, &["name"]) == name) {
                for field in ["resources", "resizePolicy"] {
                    keep(c, w, field);
                }
            }
        });
    }
    set(new, "spec", spec);
    keep(new, old, "status");
    keep(&mut new["metadata"], &old["metadata"], "labels");
    keep(&mut new["metadata"], &old["metadata"], "annotations");
}

fn check(errors: &mut Vec<FieldError>, pod: &Value) {
    let (metadata, spec) = (&pod["metadata"], at(pod, &["spec"]).unwrap_or(&Value::Null));
    pod_annotations::check(errors, "metadata.annotations", metadata, spec);
    pod_checks::pod_spec(errors, "spec", spec, Some(metadata));
}

fn check_create(errors: &mut Vec<FieldError>, pod: &Value) {
    let spec = at(pod, &["spec"]).unwrap_or(&Value::Null);
    if !items(spec, &["ephemeralContainers"]).is_empty() {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    if !str_at(spec, &["nodeName"]).is_empty() && !items(spec, &["schedulingGates"]).is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden("spec.nodeName", detail));
    }
    pod_annotations::agree(errors, "spec", &pod["metadata"], spec);
}

fn check_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    match sub {
        None => frozen(errors, new, old),
        Some("status") => pod_status_checks::check(errors, new, old),
        Some("ephemeralcontainers") => ephemeral(errors, new, old),
        Some("resize") => resize(errors, new, old),
        _ => {}
    }
}

/// What containers ask for may change, but of cpu and memory only, and never to nothing.
fn resize(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let whole = |pod: &Value| {
        ["requests", "limits"].iter().any(|k| map_at(pod, &["spec", "resources", k]).is_some_and(|m| !m.is_empty()))
    };
    let refused = if whole(new) || whole(old) {
        "pods with pod-level resources cannot be resized"
    } else if apimachinery::meta::annotation(old, pod_annotations::MIRROR).is_some() {
        "static pods cannot be resized"
    } else if str_at(old, &["spec", "os", "name"]) == "windows" {
        "windows pods cannot be resized"
    } else {
        ""
    };
    if !refused.is_empty() {
        errors.push(FieldError::forbidden("", refused));
        return;
    }
    check(errors, new);
    if pod_defaults::qos_class(new) != str_at(old, &["status", "qosClass"]) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", str_at(new, &["status", "qosClass"]), detail));
    }
    let running = items(old, &["status", "containerStatuses"]).iter().find(|c| at(c, &["state", "running"]).is_some());
    if running.is_some_and(|c| at(c, &["resources"]).is_none()) {
        errors.push(FieldError::forbidden("spec", "Pod running on node without support for resize"));
    }
    for list in ["initContainers", "containers"] {
        let (mine, theirs) = (items(new, &["spec", list]), items(old, &["spec", list]));
        for (i, (n, o)) in mine.iter().zip(theirs).enumerate() {
            let stays = list == "containers" || str_at(o, &["restartPolicy"]) == "Always";
            resized_container(errors, &format!("spec.{list}[{i}].resources"), n, o, stays, list);
        }
    }
}

fn resized_container(errors: &mut Vec<FieldError>, path: &str, n: &Value, o: &Value, stays: bool, list: &str) {
    if !stays {
        if !same(n.get("resources"), o.get("resources")) {
            errors.push(FieldError::forbidden("spec", "resources for non-sidecar init containers are immutable"));
        }
        return;
    }
    let mut fixed = true;
    for kind in ["requests", "limits"] {
        let all = |c: &Value| map_at(c, &["resources", kind]).cloned().unwrap_or_default();
        let (is, was) = (all(n), all(o));
        if was.keys().any(|name| !is.contains_key(name)) {
            let detail = format!("resource {kind} cannot be removed");
            errors.push(FieldError::forbidden(format!("{path}.{kind}"), detail));
        }
        let other = |name: &&String| !matches!(name.as_str(), "cpu" | "memory");
        fixed &= is.keys().chain(was.keys()).filter(other).all(|name| is.get(name) == was.get(name));
    }
    if !fixed {
        let detail = match list {
            "containers" => "only cpu and memory resources are mutable",
            _ => "only cpu and memory resources for sidecar containers are mutable",
        };
        errors.push(FieldError::forbidden("spec", detail));
    }
}

fn frozen(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    pod_annotations::check_update(errors, new, old);
    for list in LISTS {
        if items(new, &["spec", list]).len() != items(old, &["spec", list]).len() {
            errors.push(FieldError::forbidden(format!("spec.{list}"), "pod updates may not add or remove containers"));
            return;
        }
    }
    deadline(errors, new, old);
    let (mine, theirs) = (items(new, &["spec", "tolerations"]), items(old, &["spec", "tolerations"]));
    if !theirs.iter().all(|t| mine.iter().any(|m| same_toleration(m, t))) {
        errors.push(FieldError::forbidden(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        ));
    }
    // What may change is taken from the old pod; then nothing may differ.
    let mut rest = new["spec"].clone();
    let before = &old["spec"];
    for list in LISTS {
        let old_list = items(before, &[list]);
        super::tree::each_indexed(&mut rest, list, |i, c| keep(c, &old_list[i], "image"));
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        keep(&mut rest, before, field);
    }
    if int_at(before, &["terminationGracePeriodSeconds"]).is_some_and(|n| n < 0)
        && int_at(&rest, &["terminationGracePeriodSeconds"]) == Some(1)
    {
        keep(&mut rest, before, "terminationGracePeriodSeconds");
    }
    if !items(before, &["schedulingGates"]).is_empty() {
        narrowed(errors, &mut rest, before);
    }
    let known = items(before, &["schedulingGates"]);
    for (i, gate) in items(&rest, &["schedulingGates"]).iter().enumerate().filter(|(_, g)| !known.contains(g)) {
        let name = str_at(gate, &["name"]);
        let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
        errors.push(FieldError::forbidden(format!("spec.schedulingGates[{i}].name"), detail));
    }
    keep(&mut rest, before, "schedulingGates");
    if !same(Some(&rest), Some(before)) {
        errors.push(FieldError::forbidden("spec", FROZEN));
    }
}

/// While a gate keeps a pod from being scheduled, the choice of its nodes may become narrower.
fn narrowed(errors: &mut Vec<FieldError>, rest: &mut Value, before: &Value) {
    let (is, was) = (map_at(rest, &["nodeSelector"]).cloned().unwrap_or_default(), map_at(before, &["nodeSelector"]));
    let kept = was.into_iter().flatten().all(|(k, v)| is.get(k) == Some(v));
    if !kept {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid("spec.nodeSelector", Value::Object(is), detail));
    }
    keep(rest, before, "nodeSelector");
    let terms = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let (mine, theirs) = (items(rest, &terms), items(before, &terms));
    let path = format!("spec.{}", terms.join("."));
    if !theirs.is_empty() && mine.len() != theirs.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, mine.to_vec(), detail));
    } else {
        for (i, (n, _)) in mine.iter().zip(theirs).enumerate().filter(|(_, (n, o))| !narrower(n, o)) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(format!("{path}[{i}]"), n.clone(), detail));
        }
    }
    // The choice of nodes is judged; what else stands in the affinity may not differ.
    let node = ["affinity", "nodeAffinity"];
    if same(at(rest, &node), at(before, &node)) {
        return;
    }
    let others =
        at(rest, &["affinity"]).and_then(Value::as_object).is_some_and(|a| a.keys().any(|k| k != "nodeAffinity"));
    if at(before, &["affinity"]).is_none() && !others {
        keep(rest, before, "affinity");
    } else {
        keep(object(rest, "affinity"), before.get("affinity").unwrap_or(&Value::Null), "nodeAffinity");
    }
}

/// A term that asks for what it asked before, and maybe for more. An empty one matches nothing, so nothing may be added to it.
fn narrower(n: &Value, o: &Value) -> bool {
    let parts = ["matchExpressions", "matchFields"];
    let empty = |term: &Value| parts.iter().all(|f| items(term, &[f]).is_empty());
    (!empty(o) || empty(n)) && parts.iter().all(|f| items(n, &[f]).starts_with(items(o, &[f])))
}

fn deadline(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let (n, o) = (int_at(new, &["spec", "activeDeadlineSeconds"]), int_at(old, &["spec", "activeDeadlineSeconds"]));
    match (n, o) {
        (Some(n), Some(o)) if n > o => {
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                n,
                "must be less than or equal to previous value",
            ));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(
                "spec.activeDeadlineSeconds",
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

fn same_toleration(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|f| str_at(a, &[f]) == str_at(b, &[f]))
}

fn ephemeral(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    if apimachinery::meta::annotation(old, pod_annotations::MIRROR).is_some() {
        errors.push(FieldError::forbidden("", "static pods do not support ephemeral containers"));
        return;
    }
    check(errors, new);
    pod_annotations::check_update(errors, new, old);
    let mine = items(new, &["spec", "ephemeralContainers"]);
    for was in items(old, &["spec", "ephemeralContainers"]) {
        let name = str_at(was, &["name"]);
        let happened = match mine.iter().find(|c| str_at(c, &["name"]) == name) {
            None => "removed",
            Some(now) if !same(Some(now), Some(was)) => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers {name:?} may not be {happened}\n");
        errors.push(FieldError::forbidden("spec.ephemeralContainers", detail));
    }
}

fn fields(pod: &Value) -> Fields {
    let text = |path: &[&str]| str_at(pod, path).to_owned();
    let ips: Vec<&str> = items(pod, &["status", "podIPs"]).iter().map(|ip| str_at(ip, &["ip"])).collect();
    vec![
        ("spec.nodeName", text(&["spec", "nodeName"])),
        ("spec.restartPolicy", text(&["spec", "restartPolicy"])),
        ("spec.schedulerName", text(&["spec", "schedulerName"])),
        ("spec.serviceAccountName", text(&["spec", "serviceAccountName"])),
        ("spec.hostNetwork", bool_at(pod, &["spec", "hostNetwork"]).to_string()),
        ("status.phase", text(&["status", "phase"])),
        ("status.podIP", ips.first().map_or_else(|| text(&["status", "podIP"]), |ip| (*ip).to_owned())),
        ("status.podIPs", ips.join(",")),
        ("status.nominatedNodeName", text(&["status", "nominatedNodeName"])),
    ]
}

/// A pod no kubelet has, or that has ended, goes at once; the others wait for their kubelet.
fn grace(pod: &Value, requested: Option<i64>) -> Option<i64> {
    let finished = matches!(str_at(pod, &["status", "phase"]), "Failed" | "Succeeded");
    if finished || str_at(pod, &["spec", "nodeName"]).is_empty() {
        return None;
    }
    let seconds = requested.or_else(|| int_at(pod, &["spec", "terminationGracePeriodSeconds"])).unwrap_or(30);
    let seconds = if seconds < 0 { 1 } else { seconds };
    (seconds > 0).then_some(seconds)
}
