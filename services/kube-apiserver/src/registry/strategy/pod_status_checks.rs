//! What a kubelet may say about a pod: addresses, conditions, containers that stay ended once they have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::checks::{dns_subdomain, immutable, ip, named, optional_named, qualified_name};
use super::tree::{at, has, int_at, items, map_at, str_at};
use crate::errors::FieldError;

/// Conditions whose names need no domain check.
const SYSTEM: [&str; 3] = ["Initialized", "PodScheduled", "Ready"];

/// A change of a pod's status.
pub fn check(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    super::pod_annotations::check_update(errors, new, old);
    for (i, c) in items(new, &["status", "conditions"]).iter().enumerate() {
        let kind = str_at(c, &["type"]);
        if !SYSTEM.contains(&kind) {
            named(errors, &format!("metadata.conditions[{i}].Type"), kind, qualified_name);
        }
    }
    let nominated = str_at(new, &["status", "nominatedNodeName"]);
    if nominated != str_at(old, &["status", "nominatedNodeName"]) {
        optional_named(errors, "status.nominatedNodeName", nominated, dns_subdomain);
    }
    immutable(errors, "status.qosClass", new["status"].get("qosClass"), old["status"].get("qosClass"));
    ended(errors, new, old);
    claims(errors, new);
    addresses(errors, new, "podIPs");
    addresses(errors, new, "hostIPs");
    let hosts = items(new, &["status", "hostIPs"]);
    if let Some(first) = hosts.first().map(|h| str_at(h, &["ip"])).filter(|h| *h != str_at(new, &["status", "hostIP"]))
    {
        errors.push(FieldError::invalid("status.hostIPs[0].ip", first, "must be equal to `hostIP`"));
    }
    for (list, specs) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        for (i, status) in items(new, &["status", list]).iter().enumerate() {
            let path = format!("status.{list}[{i}]");
            user(errors, &path, status, str_at(new, &["spec", "os", "name"]));
            let spec = items(new, &["spec", specs]).iter().find(|c| c["name"] == status["name"]);
            allocated(errors, &path, status, (!specs.is_empty()).then_some(spec));
        }
    }
}

/// A container that has ended for good stays so.
fn ended(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let pod = str_at(old, &["spec", "restartPolicy"]);
    for (list, specs) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        // What a user adds for debugging never starts again.
        let policy = if specs.is_empty() { "Never" } else { pod };
        for (i, before) in items(old, &["status", list]).iter().enumerate() {
            let Some(end) = at(before, &["state", "terminated"]) else { continue };
            let same = |other: &&Value| other["name"] == before["name"];
            let failed = int_at(end, &["exitCode"]).unwrap_or(0) != 0;
            // A container may have a policy of its own, which counts instead of the pod's.
            let own = items(old, &["spec", specs]).iter().find(same).is_some_and(|c| has(c, "restartPolicy"));
            if policy == "Always" || own || (failed && policy == "OnFailure") {
                continue;
            }
            let now = items(new, &["status", list]).iter().find(same);
            if now.is_some_and(|n| at(n, &["state", "terminated"]).is_none()) {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(format!("status.{list}[{i}].state"), detail));
            }
        }
    }
}

fn claims(errors: &mut Vec<FieldError>, pod: &Value) {
    let mut seen = BTreeSet::new();
    for (i, status) in items(pod, &["status", "resourceClaimStatuses"]).iter().enumerate() {
        let (path, name) = (format!("status.resourceClaimStatuses[{i}].name"), str_at(status, &["name"]));
        if !items(pod, &["spec", "resourceClaims"]).iter().any(|c| str_at(c, &["name"]) == name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(path.clone(), name, detail));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.clone(), name));
        }
        if let Some(claim) = at(status, &["resourceClaimName"]).and_then(Value::as_str) {
            named(errors, &path, claim, dns_subdomain);
        }
    }
}

/// At most one address of each family.
fn addresses(errors: &mut Vec<FieldError>, pod: &Value, field: &str) {
    let (path, list) = (format!("status.{field}"), items(pod, &["status", field]));
    let mut seen = BTreeSet::new();
    for (i, entry) in list.iter().enumerate() {
        let text = str_at(entry, &["ip"]);
        ip(errors, &format!("{path}[{i}]"), text);
        if !seen.insert(text) {
            errors.push(FieldError::duplicate(format!("{path}[{i}]"), entry.clone()));
        }
    }
    let six = list.iter().filter_map(|e| str_at(e, &["ip"]).parse::<IpAddr>().ok()).filter(IpAddr::is_ipv6).count();
    if list.len() > 2 || (list.len() == 2 && six != 1) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
}

fn user(errors: &mut Vec<FieldError>, path: &str, status: &Value, os: &str) {
    let Some(linux) = at(status, &["user", "linux"]) else { return };
    let path = format!("{path}.linux");
    if os == "windows" {
        errors.push(FieldError::forbidden(path, "cannot be set for a windows pod"));
        return;
    }
    for field in ["uid", "gid"] {
        super::security_checks::id(errors, &format!("{path}.{field}"), int_at(linux, &[field]));
    }
    for (i, group) in items(linux, &["supplementalGroups"]).iter().enumerate() {
        super::security_checks::id(errors, &format!("{path}.supplementalGroups[{i}]"), group.as_i64());
    }
}

/// The health of what a container was given; `spec` is none for containers that get nothing.
fn allocated(errors: &mut Vec<FieldError>, path: &str, status: &Value, spec: Option<Option<&Value>>) {
    let list = items(status, &["allocatedResourcesStatus"]);
    let path = format!("{path}.allocatedResourcesStatus");
    let Some(spec) = spec else {
        if !list.is_empty() {
            errors.push(FieldError::forbidden(path, "must not be specified in container status"));
        }
        return;
    };
    for (j, resource) in list.iter().enumerate() {
        let name = str_at(resource, &["name"]);
        if let Some(detail) = spec.and_then(|container| unknown(container, name)) {
            errors.push(FieldError::invalid(format!("{path}[{j}].name"), name, detail));
        }
        let mut ids = BTreeSet::new();
        for (k, r) in items(resource, &["resources"]).iter().enumerate() {
            let path = format!("{path}[{j}].resources[{k}]");
            let health = str_at(r, &["health"]);
            super::checks::one_of(errors, &format!("{path}.health"), health, &["Healthy", "Unhealthy", "Unknown"]);
            if !ids.insert(str_at(r, &["resourceID"])) {
                errors.push(FieldError::duplicate(format!("{path}.resourceID"), str_at(r, &["resourceID"])));
            }
        }
    }
}

fn unknown(container: &Value, name: &str) -> Option<&'static str> {
    if name.starts_with("claim:") {
        let of = |c: &Value| match (str_at(c, &["name"]), str_at(c, &["request"])) {
            (claim, "") => format!("claim:{claim}"),
            (claim, request) => format!("claim:{claim}/{request}"),
        };
        let known = items(container, &["resources", "claims"]).iter().any(|c| of(c) == name);
        return (!known).then_some(
            "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
        );
    }
    let known = map_at(container, &["resources", "requests"]).is_some_and(|m| m.contains_key(name));
    (!known).then_some("must match one of the container's resource requests")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
            check(&mut errors, &pod(policy, own, &running), &pod(policy, own, &before));
            assert_eq!(errors.is_empty(), allowed, "{policy} {own:?} {before}: {errors:?}");
        }
        let mut errors = Vec::new();
        let mut nominated = pod("Never", None, &running);
        nominated["status"]["nominatedNodeName"] = json!("A_");
        check(&mut errors, &nominated, &pod("Never", None, &running));
        assert_eq!(errors.first().map(|e| e.field.as_str()), Some("status.nominatedNodeName"));
    }
}
