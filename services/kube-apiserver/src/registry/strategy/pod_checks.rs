//! What makes a pod spec well formed, in pods and in templates.
//!
//! [`super::container_checks`], [`super::probe_checks`], [`super::volume_checks`], [`super::scheduling_checks`] and
//! [`super::security_checks`] have the parts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::{
    Rule, dns_label, dns_subdomain, ip, labels, named, optional_named, optional_one_of, path_segment, qualified_name,
    required_one_of,
};
use super::container_checks::{Scope, container, host_network, resource_name, resources};
use super::tree::{at, has, int_at, items, str_at};
use super::volume_checks::{Volumes, volumes};
use super::{os_checks, scheduling_checks, security_checks};
use crate::admission::pod_resources::{amounts, total};
use crate::errors::FieldError;

const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// A whole pod spec; `pod` is the metadata of the pod it belongs to, none in templates.
pub fn pod_spec(errors: &mut Vec<FieldError>, path: &str, spec: &Value, pod: Option<&Value>) {
    let known = volumes(errors, &format!("{path}.volumes"), spec, pod);
    containers(errors, path, spec, &known, pod.is_some());
    let restart = str_at(spec, &["restartPolicy"]);
    required_one_of(errors, &format!("{path}.restartPolicy"), restart, &["Always", "OnFailure", "Never"]);
    dns(errors, path, spec);
    labels(errors, &format!("{path}.nodeSelector"), at(spec, &["nodeSelector"]));
    times(errors, path, spec);
    names(errors, path, spec);
    scheduling_checks::tolerations(errors, &format!("{path}.tolerations"), spec);
    scheduling_checks::spreading(errors, path, spec);
    scheduling_checks::affinity(errors, &format!("{path}.affinity"), spec);
    gates(errors, path, spec);
    security_checks::pod(errors, path, spec);
    let preemption = str_at(spec, &["preemptionPolicy"]);
    optional_one_of(errors, &format!("{path}.preemptionPolicy"), preemption, &["PreemptLowerPriority", "Never"]);
    os_checks::os(errors, path, spec);
    whole_pod(errors, path, spec);
    if let Some(overhead) = at(spec, &["overhead"]) {
        resources(errors, &format!("{path}.overhead"), &json!({"limits": overhead}), resource_name);
    }
    for (i, alias) in items(spec, &["hostAliases"]).iter().enumerate() {
        let path = format!("{path}.hostAliases[{i}]");
        ip(errors, &format!("{path}.ip"), str_at(alias, &["ip"]));
        for (j, name) in items(alias, &["hostnames"]).iter().enumerate() {
            named(errors, &format!("{path}.hostnames[{j}]"), name.as_str().unwrap_or_default(), dns_subdomain);
        }
    }
}

/// Resources that can be given for a pod as a whole.
const WHOLE: [&str; 3] = ["cpu", "hugepages-", "memory"];

fn whole_name(errors: &mut Vec<FieldError>, path: &str, name: &str) {
    let before = errors.len();
    super::container_checks::any_resource_name(errors, path, name);
    if errors.len() == before && !matches!(name, "cpu" | "memory") && !name.starts_with("hugepages-") {
        errors.push(FieldError::not_supported(path, name, &WHOLE));
    }
}

/// What the pod as a whole may use: at least what its containers ask for, and no container more than that.
fn whole_pod(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let Some(own) = at(spec, &["resources"]) else { return };
    let path = format!("{path}.resources");
    if has(own, "claims") {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(FieldError::forbidden(format!("{path}.claims"), detail));
    }
    resources(errors, &path, own, whole_name);
    let mut parts = spec.clone();
    super::tree::remove(&mut parts, "resources");
    super::tree::remove(&mut parts, "overhead");
    let requests = amounts(at(own, &["requests"]));
    for (name, sum) in total(&json!({"spec": parts}), "requests") {
        let given = requests.get(&name).filter(|given| given.milli() < sum.milli());
        if let Some(given) = given {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(format!("{path}.requests[{name}]"), given.to_string(), detail));
        }
    }
    let limits = amounts(at(own, &["limits"]));
    for (i, c) in items(spec, &["containers"]).iter().enumerate() {
        for (name, limit) in amounts(at(c, &["resources", "limits"])) {
            if let Some(most) = limits.get(&name).filter(|most| limit.milli() > most.milli()) {
                let detail = format!("must be less than or equal to pod limits of {most}");
                let path = format!("{path}.containers[{i}][{name}].limits");
                errors.push(FieldError::invalid(path, limit.to_string(), detail));
            }
        }
    }
}

fn times(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    if let Some(n) = int_at(spec, &["activeDeadlineSeconds"]).filter(|n| !(1..=i64::from(i32::MAX)).contains(n)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.push(FieldError::invalid(format!("{path}.activeDeadlineSeconds"), n, detail));
    }
}

fn names(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let rules: [(&str, Rule); 7] = [
        ("nodeName", dns_subdomain),
        ("serviceAccountName", dns_subdomain),
        ("hostname", dns_label),
        ("subdomain", dns_label),
        ("priorityClassName", dns_subdomain),
        ("runtimeClassName", dns_subdomain),
        ("schedulerName", path_segment),
    ];
    for (field, rule) in rules {
        optional_named(errors, &format!("{path}.{field}"), str_at(spec, &[field]), rule);
    }
}

fn dns(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    let policy = str_at(spec, &["dnsPolicy"]);
    required_one_of(errors, &format!("{path}.dnsPolicy"), policy, &DNS_POLICIES);
    let path = format!("{path}.dnsConfig");
    let servers = items(spec, &["dnsConfig", "nameservers"]);
    if policy == "None" && at(spec, &["dnsConfig"]).is_none() {
        errors.push(FieldError::required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        return;
    }
    if policy == "None" && servers.is_empty() {
        let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{path}.nameservers"), detail));
        return;
    }
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(format!("{path}.nameservers"), servers.to_vec(), detail));
    }
    for (i, server) in servers.iter().enumerate() {
        ip(errors, &format!("{path}.nameservers[{i}]"), server.as_str().unwrap_or_default());
    }
    let searches: Vec<&str> = items(spec, &["dnsConfig", "searches"]).iter().filter_map(Value::as_str).collect();
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(format!("{path}.searches"), searches.clone(), detail));
    }
    if searches.join(" ").len() > MAX_SEARCH_CHARACTERS {
        let detail =
            format!("must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(format!("{path}.searches"), searches.clone(), detail));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| **s != ".") {
        // A trailing dot means the name is complete, and host labels may begin with an underscore here.
        let plain = search.trim_end_matches('.').replace('_', "a");
        let problems = dns_subdomain(&plain);
        errors.extend(problems.into_iter().map(|d| FieldError::invalid(format!("{path}.searches[{i}]"), *search, d)));
    }
    for (i, option) in items(spec, &["dnsConfig", "options"]).iter().enumerate() {
        if str_at(option, &["name"]).is_empty() {
            errors.push(FieldError::required(format!("{path}.options[{i}]"), "must not be empty"));
        }
    }
}

fn gates(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    for (i, gate) in items(spec, &["readinessGates"]).iter().enumerate() {
        let kind = str_at(gate, &["conditionType"]);
        named(errors, &format!("{path}.readinessGates[{i}].conditionType"), kind, qualified_name);
    }
    let list = items(spec, &["schedulingGates"]);
    for (i, gate) in list.iter().enumerate() {
        let path = format!("{path}.schedulingGates[{i}]");
        let name = str_at(gate, &["name"]);
        named(errors, &path, name, qualified_name);
        if list[..i].iter().any(|o| str_at(o, &["name"]) == name) {
            errors.push(FieldError::duplicate(path, name));
        }
    }
}

fn containers(errors: &mut Vec<FieldError>, path: &str, spec: &Value, known: &Volumes<'_>, pod: bool) {
    if items(spec, &["containers"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.containers"), ""));
    }
    let claims = claims(errors, path, spec);
    let grace = int_at(spec, &["terminationGracePeriodSeconds"]).unwrap_or(30);
    let scope = Scope {
        volumes: known,
        host_network: host_network(spec),
        pod,
        grace,
        claims: &claims,
        never: str_at(spec, &["restartPolicy"]) == "Never",
        host_users: at(spec, &["hostUsers"]).is_none_or(|v| v != false),
    };
    let mut seen = BTreeSet::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, c) in items(spec, &[list]).iter().enumerate() {
            let path = format!("{path}.{list}[{i}]");
            container(errors, &path, c, list, &scope);
            let name = str_at(c, &["name"]);
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
            let target = str_at(c, &["targetContainerName"]);
            let others = ["containers", "initContainers"];
            let exists = others.iter().any(|l| items(spec, &[l]).iter().any(|o| str_at(o, &["name"]) == target));
            if list == "ephemeralContainers" && !target.is_empty() && !exists {
                errors.push(FieldError::not_found(format!("{path}.targetContainerName"), target));
            }
        }
    }
    host_ports(errors, path, spec);
}

fn host_ports(errors: &mut Vec<FieldError>, path: &str, spec: &Value) {
    for list in ["containers", "initContainers"] {
        let mut taken = BTreeSet::new();
        for (i, c) in items(spec, &[list]).iter().enumerate() {
            // Init containers run one after the other, so each is judged alone.
            if list == "initContainers" {
                taken.clear();
            }
            for (j, p) in items(c, &["ports"]).iter().enumerate() {
                let Some(host) = int_at(p, &["hostPort"]).filter(|n| *n != 0) else { continue };
                let key = format!("{}/{}/{host}", str_at(p, &["protocol"]), str_at(p, &["hostIP"]));
                if !taken.insert(key.clone()) {
                    errors.push(FieldError::duplicate(format!("{path}.{list}[{i}].ports[{j}].hostPort"), key));
                }
            }
        }
    }
}

/// The pod's resource claims by name.
fn claims<'a>(errors: &mut Vec<FieldError>, path: &str, spec: &'a Value) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::new();
    for (i, claim) in items(spec, &["resourceClaims"]).iter().enumerate() {
        let path = format!("{path}.resourceClaims[{i}]");
        let name = str_at(claim, &["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if known.insert(name) {
            named(errors, &format!("{path}.name"), name, dns_label);
        } else {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|s| has(claim, s)).count() {
            0 => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(path.clone(), claim.clone(), detail));
            }
            1 => {}
            _ => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(path.clone(), claim.clone(), detail));
            }
        }
        for source in sources {
            if let Some(name) = at(claim, &[source]).and_then(Value::as_str) {
                named(errors, &format!("{path}.{source}"), name, dns_subdomain);
            }
        }
    }
    known
}
