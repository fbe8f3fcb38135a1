//! Pods: filled in and classified on creation, almost frozen afterwards, and deleted with grace once a kubelet knows them.

use serde_json::{Value, json};

use super::checks::{dns_subdomain, immutable, named};
use super::kind::{Fields, Kind};
use super::pod_checks;
use super::pod_defaults;
use super::tree::{at, bool_at, each, has, int_at, items, keep, map_at, remove, same, set, str_at};
use crate::errors::{ApiError, FieldError};
use crate::registry::Context;

/// The kind.
pub static POD: Kind =
    Kind { defaults: pod_defaults::pod, create, update, check, check_update, fields, grace, ..Kind::SPEC_STATUS };

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
    Ok(())
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
    let spec = at(pod, &["spec"]).unwrap_or(&Value::Null);
    pod_checks::pod_spec(errors, "spec", spec);
}

fn check_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    match sub {
        None => frozen(errors, new, old),
        Some("status") => {
            immutable(errors, "status.qosClass", new["status"].get("qosClass"), old["status"].get("qosClass"));
            status(errors, new, old);
        }
        Some("ephemeralcontainers") => ephemeral(errors, new, old),
        Some("resize") => resize(errors, new, old),
        _ => {}
    }
}

/// A nomination names a node, and a container that has ended for good stays so.
fn status(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let nominated = str_at(new, &["status", "nominatedNodeName"]);
    if !nominated.is_empty() {
        named(errors, "status.nominatedNodeName", nominated, dns_subdomain);
    }
    let policy = str_at(old, &["spec", "restartPolicy"]);
    if policy == "Always" {
        return;
    }
    for list in ["containerStatuses", "initContainerStatuses"] {
        let specs = items(old, &["spec", if list == "containerStatuses" { "containers" } else { "initContainers" }]);
        let before = items(old, &["status", list]);
        for (i, now) in items(new, &["status", list]).iter().enumerate() {
            let same = |other: &&Value| other["name"] == now["name"];
            let ended = before.iter().find(same).and_then(|s| at(s, &["state", "terminated"]));
            let Some(ended) = ended else { continue };
            let failed = int_at(ended, &["exitCode"]).unwrap_or(0) != 0;
            // A container may have a policy of its own, which counts instead of the pod's.
            let restarts =
                specs.iter().find(same).is_some_and(|c| has(c, "restartPolicy")) || (failed && policy == "OnFailure");
            if !restarts && at(now, &["state", "terminated"]).is_none() {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(format!("status.{list}[{i}].state"), detail));
            }
        }
    }
}

fn resize(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    check(errors, new);
    if apimachinery::meta::annotation(old, "kubernetes.io/config.mirror").is_some() {
        errors.push(FieldError::forbidden("", "static pods cannot be resized"));
    }
    if pod_defaults::qos_class(new) != str_at(old, &["status", "qosClass"]) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("spec", pod_defaults::qos_class(new), detail));
    }
    for list in ["containers", "initContainers"] {
        let (mine, theirs) = (items(new, &["spec", list]), items(old, &["spec", list]));
        for (i, (n, o)) in mine.iter().zip(theirs).enumerate() {
            let path = format!("spec.{list}[{i}].resources");
            for kind in ["limits", "requests"] {
                let names = |c: &Value| -> Vec<String> {
                    map_at(c, &["resources", kind]).into_iter().flatten().map(|(k, _)| k.clone()).collect()
                };
                for name in names(o) {
                    let (is, was) = (at(n, &["resources", kind, &name]), at(o, &["resources", kind, &name]));
                    let resizable = matches!(name.as_str(), "cpu" | "memory");
                    if resizable && is.is_none() {
                        let detail = format!("resource {kind} cannot be removed");
                        errors.push(FieldError::forbidden(format!("{path}.{kind}"), detail));
                    } else if !resizable && is != was {
                        errors.push(FieldError::forbidden(path.clone(), "only cpu and memory resources are mutable"));
                    }
                }
                if names(n).iter().any(|k| !matches!(k.as_str(), "cpu" | "memory") && !names(o).contains(k)) {
                    errors.push(FieldError::forbidden(path.clone(), "only cpu and memory resources are mutable"));
                }
            }
        }
    }
}

fn frozen(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
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
    if int_at(before, &["terminationGracePeriodSeconds"]).is_some_and(|n| n < 0) {
        keep(&mut rest, before, "terminationGracePeriodSeconds");
    }
    if !items(before, &["schedulingGates"]).is_empty() {
        narrowed(errors, &mut rest, before);
    }
    let gates = items(&rest, &["schedulingGates"]);
    if gates.iter().all(|g| items(before, &["schedulingGates"]).contains(g)) {
        keep(&mut rest, before, "schedulingGates");
    } else {
        errors.push(FieldError::forbidden(
            "spec.schedulingGates",
            "only deletion is allowed, but found new scheduling gate",
        ));
    }
    if !same(Some(&rest), Some(before)) {
        errors.push(FieldError::forbidden("spec", FROZEN));
    }
}

/// While a gate keeps a pod from being scheduled, the choice of its nodes may become narrower.
fn narrowed(errors: &mut Vec<FieldError>, rest: &mut Value, before: &Value) {
    let (is, was) = (map_at(rest, &["nodeSelector"]).cloned().unwrap_or_default(), map_at(before, &["nodeSelector"]));
    let kept = was.into_iter().flatten().all(|(k, v)| is.get(k) == Some(v));
    if kept {
        keep(rest, before, "nodeSelector");
    } else {
        let detail = "only additions are allowed to an existing nodeSelector";
        errors.push(FieldError::invalid("spec.nodeSelector", Value::Object(is), detail));
    }
    let terms = ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let (mine, theirs) = (items(rest, &terms), items(before, &terms));
    let narrower = |n: &Value, o: &Value| {
        ["matchExpressions", "matchFields"].iter().all(|f| items(n, &[f]).starts_with(items(o, &[f])))
    };
    let fits =
        theirs.is_empty() || (mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(n, o)| narrower(n, o)));
    if !fits {
        let path = format!("spec.{}", terms.join("."));
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(path, mine.to_vec(), detail));
    } else if !mine.is_empty() {
        let required = at(before, &terms[..3]).cloned();
        match required {
            Some(r) => set(&mut rest["affinity"]["nodeAffinity"], terms[2], r),
            None => keep(rest, before, "affinity"),
        }
    }
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
    let mine = items(new, &["spec", "ephemeralContainers"]);
    for (i, was) in items(old, &["spec", "ephemeralContainers"]).iter().enumerate() {
        let name = str_at(was, &["name"]);
        match mine.iter().find(|c| str_at(c, &["name"]) == name) {
            None => errors.push(FieldError::forbidden(
                "spec.ephemeralContainers",
                format!("existing ephemeral containers {name:?} may not be removed\n"),
            )),
            Some(now) if !same(Some(now), Some(was)) => {
                errors.push(FieldError::forbidden(
                    format!("spec.ephemeralContainers[{i}]"),
                    format!("existing ephemeral containers {name:?} may not be changed\n"),
                ));
            }
            Some(_) => {}
        }
    }
    check(errors, new);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_ended_for_good_stay_so() {
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        let running = json!({"running": {}});
        let pod = |policy: &str, own: Option<&str>, state: &Value| {
            let mut container = json!({"name": "c"});
            if let Some(own) = own {
                container["restartPolicy"] = json!(own);
            }
            json!({"spec": {"restartPolicy": policy, "containers": [container]}, "status": {"containerStatuses": [{"name": "c", "state": state}]}})
        };
        let table = [
            ("Never", None, ended(0), false),
            ("Never", None, ended(1), false),
            ("OnFailure", None, ended(0), false),
            ("OnFailure", None, ended(1), true),
            ("Always", None, ended(0), true),
            ("Never", Some("Always"), ended(0), true),
            ("Never", None, running.clone(), true),
        ];
        for (policy, own, before, allowed) in table {
            let mut errors = Vec::new();
            status(&mut errors, &pod(policy, own, &running), &pod(policy, own, &before));
            assert_eq!(errors.is_empty(), allowed, "{policy} {own:?} {before}: {errors:?}");
        }
        let mut errors = Vec::new();
        let mut nominated = pod("Never", None, &running);
        nominated["status"]["nominatedNodeName"] = json!("A_");
        status(&mut errors, &nominated, &nominated);
        assert_eq!(errors.first().map(|e| e.field.as_str()), Some("status.nominatedNodeName"));
    }
}
