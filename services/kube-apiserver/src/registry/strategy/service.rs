//! Services: stable addresses in front of pods. The addresses themselves come from [`crate::registry::alloc`], through admission,
//! because taking one must be visible to every server at once.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::checks::{
    IP, cidr, dns_1035_label, dns_label, dns_subdomain, labels, named, one_of, optional_named, optional_one_of, port,
    qualified_name, required_one_of,
};
use super::container_checks::port_or_name;
use super::kind::{Fields, Kind};
use super::tree::{at, default, each, has, int_at, items, map_at, object, remove, same, set, str_at};
use crate::errors::{ApiError, FieldError};
use crate::registry::{Context, alloc};

/// The kind.
pub static SERVICE: Kind = Kind {
    names: dns_1035_label,
    generation: false,
    defaults,
    update,
    check,
    check_update,
    fields,
    updated: |cx, new, old| alloc::release_dropped(cx, &new.object(), old),
    deleted: alloc::release,
    ..Kind::SPEC_STATUS
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// The spec's type, after defaulting.
pub fn kind(svc: &Value) -> &str {
    str_at(svc, &["spec", "type"])
}

/// Every type but ExternalName has a cluster address (or says None).
pub fn wants_cluster_ip(svc: &Value) -> bool {
    kind(svc) != "ExternalName"
}

/// clusterIP None: the name resolves to the pods themselves.
pub fn is_headless(svc: &Value) -> bool {
    str_at(svc, &["spec", "clusterIP"]) == "None"
}

/// The types whose ports are opened on every node.
pub fn wants_node_ports(svc: &Value) -> bool {
    match kind(svc) {
        "NodePort" => true,
        "LoadBalancer" => at(svc, &["spec", "allocateLoadBalancerNodePorts"]).is_none_or(|v| v == true),
        _ => false,
    }
}

/// A load balancer asks such a Service's nodes whether they have an endpoint of it (KEP-1669).
pub fn wants_health_port(svc: &Value) -> bool {
    kind(svc) == "LoadBalancer" && str_at(svc, &["spec", "externalTrafficPolicy"]) == "Local"
}

fn defaults(svc: &mut Value) {
    let balancer = object(object(svc, "status"), "loadBalancer");
    each(balancer, "ingress", |point| {
        if has(point, "ip") {
            default(point, "ipMode", "VIP");
        }
    });
    let spec = object(svc, "spec");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    if str_at(spec, &["sessionAffinity"]) == "None" {
        remove(spec, "sessionAffinityConfig");
    } else if int_at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_none() {
        set(object(object(spec, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds", 10800);
    }
    let external = str_at(spec, &["type"]) == "ExternalName";
    let reachable =
        matches!(str_at(spec, &["type"]), "NodePort" | "LoadBalancer") || !items(spec, &["externalIPs"]).is_empty();
    if !external {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if reachable && !external {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if str_at(spec, &["type"]) == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
    }
    each(spec, "ports", |p| {
        default(p, "protocol", "TCP");
        let unset =
            matches!(p.get("targetPort"), None | Some(Value::Null)) || p["targetPort"] == 0 || p["targetPort"] == "";
        if unset && has(p, "port") {
            let number = p["port"].clone();
            set(p, "targetPort", number);
        }
    });
    let (one, many) = (str_at(spec, &["clusterIP"]).to_owned(), items(spec, &["clusterIPs"]));
    match (one.is_empty(), many.first().cloned()) {
        (false, None) => set(spec, "clusterIPs", json!([one])),
        (true, Some(first)) => set(spec, "clusterIP", first),
        _ => {}
    }
}

/// What a change of type leaves behind goes, and what the server once allocated stays when a client leaves it out.
fn update(_: &Context<'_>, sub: Option<&str>, new: &mut Value, old: &Value) -> Result<(), ApiError> {
    if sub.is_some() {
        return Ok(());
    }
    keep_allocated(new, old);
    drop_by_type(new, old);
    Ok(())
}

fn keep_allocated(new: &mut Value, old: &Value) {
    if wants_cluster_ip(new) && wants_cluster_ip(old) {
        let unset = str_at(new, &["spec", "clusterIP"]).is_empty() && items(new, &["spec", "clusterIPs"]).is_empty();
        if unset {
            for field in ["clusterIP", "clusterIPs"] {
                super::tree::keep(&mut new["spec"], &old["spec"], field);
            }
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if !has(&new["spec"], field) {
                super::tree::keep(&mut new["spec"], &old["spec"], field);
            }
        }
        // The single field is the older one: a client that only knows it changes both.
        let (was, is) = (str_at(old, &["spec", "clusterIP"]), str_at(new, &["spec", "clusterIP"]).to_owned());
        if was != is && same(at(new, &["spec", "clusterIPs"]), at(old, &["spec", "clusterIPs"])) {
            set(&mut new["spec"], "clusterIPs", json!([is]));
        }
    }
    if wants_node_ports(new) && wants_node_ports(old) {
        let before: Vec<Value> = items(old, &["spec", "ports"]).to_vec();
        let taken: BTreeSet<i64> =
            items(new, &["spec", "ports"]).iter().filter_map(|p| int_at(p, &["nodePort"])).collect();
        each(&mut new["spec"], "ports", |p| {
            if int_at(p, &["nodePort"]).unwrap_or(0) != 0 {
                return;
            }
            let twin = before.iter().find(|o| o["port"] == p["port"] && o["protocol"] == p["protocol"]);
            if let Some(number) = twin.and_then(|o| int_at(o, &["nodePort"])).filter(|n| *n != 0 && !taken.contains(n))
            {
                set(p, "nodePort", number);
            }
        });
    }
    let unset = int_at(new, &["spec", "healthCheckNodePort"]).unwrap_or(0) == 0;
    if unset && wants_health_port(new) && wants_health_port(old) {
        remove(&mut new["spec"], "healthCheckNodePort");
        super::tree::keep(&mut new["spec"], &old["spec"], "healthCheckNodePort");
    }
}

fn drop_by_type(new: &mut Value, old: &Value) {
    if wants_cluster_ip(old) && !wants_cluster_ip(new) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            remove(&mut new["spec"], field);
        }
    }
    let ports_kept = wants_node_ports(new) || kind(new) == "LoadBalancer";
    if wants_node_ports(old) && !ports_kept {
        each(&mut new["spec"], "ports", |p| {
            remove(p, "nodePort");
        });
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            remove(&mut new["spec"], field);
        }
        set(new, "status", json!({"loadBalancer": {}}));
    }
    let dropped = wants_health_port(old) && !wants_health_port(new);
    if dropped && same(at(new, &["spec", "healthCheckNodePort"]), at(old, &["spec", "healthCheckNodePort"])) {
        remove(&mut new["spec"], "healthCheckNodePort");
    }
    let reachable =
        matches!(kind(new), "NodePort" | "LoadBalancer") || !items(new, &["spec", "externalIPs"]).is_empty();
    if !reachable {
        remove(&mut new["spec"], "externalTrafficPolicy");
    }
    if kind(old) == "ExternalName"
        && kind(new) != "ExternalName"
        && str_at(new, &["spec", "externalName"]) == str_at(old, &["spec", "externalName"])
    {
        remove(&mut new["spec"], "externalName");
    }
}

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn check(errors: &mut Vec<FieldError>, svc: &Value) {
    let spec = at(svc, &["spec"]).unwrap_or(&Value::Null);
    let note = |name: &str| at(svc, &["metadata", "annotations", name]).and_then(Value::as_str);
    if let (Some(mode), Some(hints)) = (note(TOPOLOGY), note(HINTS))
        && mode != hints
    {
        let detail = format!("must match annotations[{HINTS}] when both are specified");
        errors.push(FieldError::invalid(format!("metadata.annotations[{TOPOLOGY}]"), mode, detail));
    }
    required_one_of(errors, "spec.type", kind(svc), &TYPES);
    let affinity = str_at(spec, &["sessionAffinity"]);
    required_one_of(errors, "spec.sessionAffinity", affinity, &["ClientIP", "None"]);
    labels(errors, "spec.selector", spec.get("selector"));
    addresses(errors, svc, spec);
    ports(errors, svc, spec);
    let internal = str_at(spec, &["internalTrafficPolicy"]);
    optional_one_of(errors, "spec.internalTrafficPolicy", internal, &["Cluster", "Local"]);
    exposure(errors, svc, spec);
    let path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    if let Some(n) =
        int_at(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).filter(|n| !(1..=86400).contains(n))
    {
        errors.push(FieldError::invalid(path, n, "must be greater than 0 and less than 86400"));
    }
}

/// How the Service is reached from outside; most of it is about load balancers.
fn exposure(errors: &mut Vec<FieldError>, svc: &Value, spec: &Value) {
    for (i, address) in items(spec, &["externalIPs"]).iter().enumerate() {
        let (path, text) = (format!("spec.externalIPs[{i}]"), address.as_str().unwrap_or_default());
        match text.parse::<IpAddr>() {
            Err(_) => errors.push(FieldError::invalid(path, text, IP)),
            Ok(ip) => super::endpoints::usable(errors, &path, text, ip),
        }
    }
    let balancer = kind(svc) == "LoadBalancer";
    let only = "may only be used when `type` is 'LoadBalancer'";
    let ranges = items(spec, &["loadBalancerSourceRanges"]);
    let path = "spec.LoadBalancerSourceRanges";
    if !ranges.is_empty() {
        if !balancer {
            errors.push(FieldError::forbidden(path, only));
        }
        for (i, range) in ranges.iter().enumerate() {
            cidr(errors, &format!("{path}[{i}]"), range.as_str().unwrap_or_default().trim());
        }
    } else if let Some(list) = at(svc, &["metadata", "annotations", SOURCE_RANGES]).and_then(Value::as_str) {
        let path = format!("metadata.annotations[{SOURCE_RANGES}]");
        if !balancer {
            errors.push(FieldError::forbidden(path.clone(), only));
        }
        for range in list.split(',').map(str::trim).filter(|_| !list.trim().is_empty()) {
            cidr(errors, &path, range);
        }
    }
    if has(spec, "allocateLoadBalancerNodePorts") && !balancer {
        errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", only));
    }
    if let Some(class) = at(spec, &["loadBalancerClass"]).and_then(Value::as_str) {
        if balancer {
            named(errors, "spec.loadBalancerClass", class, qualified_name);
        } else {
            errors.push(FieldError::forbidden("spec.loadBalancerClass", only));
        }
    }
    let reachable = matches!(kind(svc), "NodePort" | "LoadBalancer")
        || (kind(svc) == "ClusterIP" && !items(spec, &["externalIPs"]).is_empty());
    let policy = str_at(spec, &["externalTrafficPolicy"]);
    if reachable {
        required_one_of(errors, "spec.externalTrafficPolicy", policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", policy, detail));
    }
    let health = int_at(spec, &["healthCheckNodePort"]).unwrap_or(0);
    if health != 0 && !(balancer && policy == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", health, detail));
    } else if health != 0 {
        port(errors, "spec.healthCheckNodePort", health);
    }
    let distribution = str_at(spec, &["trafficDistribution"]);
    let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    optional_one_of(errors, "spec.trafficDistribution", distribution, &known);
}

fn addresses(errors: &mut Vec<FieldError>, svc: &Value, spec: &Value) {
    let list = items(spec, &["clusterIPs"]);
    let external = kind(svc) == "ExternalName";
    if external {
        for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let set = at(spec, &[field]).is_some_and(|v| v.as_array().is_none_or(|l| !l.is_empty()));
            if set || (field == "clusterIPs" && !str_at(spec, &["clusterIP"]).is_empty()) {
                let detail = "may not be set for ExternalName services";
                errors.push(FieldError::forbidden(format!("spec.{field}"), detail));
            }
        }
        let name = str_at(spec, &["externalName"]);
        match name.strip_suffix('.').unwrap_or(name) {
            "" => errors.push(FieldError::required("spec.externalName", "")),
            name => named(errors, "spec.externalName", name, dns_subdomain),
        }
        return;
    }
    if is_headless(svc) && list.len() == 1 && kind(svc) != "ClusterIP" {
        let detail = format!("may not be set to 'None' for {} services", kind(svc));
        errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
    }
    let path = "spec.clusterIPs";
    match (str_at(spec, &["clusterIP"]), list.first().and_then(Value::as_str)) {
        ("", Some(_)) => {
            let detail = "must be empty when `clusterIP` is not specified";
            errors.push(FieldError::invalid(path, list.to_vec(), detail));
        }
        ("", None) => {}
        (_, None) => errors.push(FieldError::required(path, "")),
        (one, Some(first)) if one != first => {
            errors.push(FieldError::invalid(path, list.to_vec(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    family_names(errors, spec);
    let before = errors.len();
    for (i, ip) in list.iter().enumerate() {
        let text = ip.as_str().unwrap_or_default();
        if i == 0 && text == "None" {
            if list.len() > 1 {
                let detail = "'None' must be the first and only value";
                errors.push(FieldError::invalid(path, list.to_vec(), detail));
            }
        } else if text.parse::<IpAddr>().is_err() {
            errors.push(FieldError::invalid(format!("{path}[{i}]"), text, IP));
        }
    }
    let unreadable = errors.len() > before;
    if list.len() > 2 {
        errors.push(FieldError::invalid(path, list.to_vec(), "may only hold up to 2 values"));
    }
    let six = list.iter().filter(|ip| ip.as_str().is_some_and(|t| t.contains(':'))).count();
    if list.len() > 1 && !unreadable && (six == 0 || six == list.len()) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, list.to_vec(), detail));
    }
}

fn family_names(errors: &mut Vec<FieldError>, spec: &Value) {
    let families = items(spec, &["ipFamilies"]);
    for (i, family) in families.iter().enumerate() {
        let (path, text) = (format!("spec.ipFamilies[{i}]"), family.as_str().unwrap_or_default());
        one_of(errors, &path, text, &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            errors.push(FieldError::duplicate(path, text));
        }
    }
    let policy = str_at(spec, &["ipFamilyPolicy"]);
    optional_one_of(errors, "spec.ipFamilyPolicy", policy, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
}

fn ports(errors: &mut Vec<FieldError>, svc: &Value, spec: &Value) {
    let list = items(spec, &["ports"]);
    if list.is_empty() && !is_headless(svc) && kind(svc) != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (i, p) in list.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let name = str_at(p, &["name"]);
        if name.is_empty() {
            if list.len() > 1 {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            }
        } else {
            named(errors, &format!("{path}.name"), name, dns_label);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        let number = int_at(p, &["port"]).unwrap_or(0);
        port(errors, &format!("{path}.port"), number);
        let protocol = str_at(p, &["protocol"]);
        required_one_of(errors, &format!("{path}.protocol"), protocol, &PROTOCOLS);
        port_or_name(errors, &format!("{path}.targetPort"), p.get("targetPort"));
        if let Some(name) = at(p, &["appProtocol"]).and_then(Value::as_str) {
            named(errors, &format!("{path}.appProtocol"), name, qualified_name);
        }
        if !numbers.insert((protocol, number)) {
            errors.push(FieldError::duplicate(path.clone(), json!({"port": number, "protocol": protocol})));
        }
        let node_port = int_at(p, &["nodePort"]).unwrap_or(0);
        if node_port != 0 {
            if kind(svc) == "ClusterIP" {
                let detail = "may not be used when `type` is 'ClusterIP'";
                errors.push(FieldError::forbidden(format!("{path}.nodePort"), detail));
            }
            if !node_ports.insert((protocol, node_port)) {
                errors.push(FieldError::duplicate(format!("{path}.nodePort"), node_port));
            }
        }
    }
}

fn check_update(errors: &mut Vec<FieldError>, sub: Option<&str>, new: &Value, old: &Value) {
    if sub == Some("status") {
        ingress_points(errors, new);
    }
    let balancer = |svc: &Value| kind(svc) == "LoadBalancer";
    let class = |svc: &Value| at(svc, &["spec", "loadBalancerClass"]).cloned();
    if sub.is_none() && balancer(new) && balancer(old) && !same(class(new).as_ref(), class(old).as_ref()) {
        let value = class(new).unwrap_or(Value::Null);
        errors.push(FieldError::invalid("spec.loadBalancerClass", value, "may not change once set"));
    }
    if sub.is_some() {
        return;
    }
    let health = |svc: &Value| int_at(svc, &["spec", "healthCheckNodePort"]);
    if wants_health_port(new) && wants_health_port(old) && health(new) != health(old) {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", super::checks::IMMUTABLE));
    }
    if wants_cluster_ip(new) && wants_cluster_ip(old) {
        kept(errors, new, old, "clusterIPs", "clusterIP", is_headless(new) && is_headless(old));
        kept(errors, new, old, "ipFamilies", "ipFamily", is_headless(new) || is_headless(old));
    }
}

/// A second address, or family, may come and go; the first stays. A service without addresses is free.
fn kept(errors: &mut Vec<FieldError>, new: &Value, old: &Value, field: &str, one: &str, free: bool) {
    let (was, is) = (items(old, &["spec", field]), items(new, &["spec", field]));
    if free {
        return;
    }
    let path = |i: usize| format!("spec.{field}[{i}]");
    let shown = is.to_vec();
    if was.len() == is.len() {
        for (i, _) in was.iter().zip(is).enumerate().filter(|(_, (w, n))| w != n && **w != "") {
            let place = if field == "ipFamilies" { 0 } else { i };
            errors.push(FieldError::invalid(path(place), shown.clone(), "may not change once set"));
        }
        return;
    }
    if was.len() > is.len() && is.is_empty() {
        errors.push(FieldError::invalid(path(0), shown.clone(), format!("primary {one} can not be unset")));
    }
    if !was.is_empty() && !is.is_empty() && was[0] != is[0] {
        errors.push(FieldError::invalid(path(0), shown, "may not change once set"));
    }
    let policy = at(new, &["spec", "ipFamilyPolicy"]).cloned().unwrap_or(Value::Null);
    if was.len() > is.len() && is.len() == 1 && policy != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, detail));
    }
}

/// What a load balancer says about where it is.
fn ingress_points(errors: &mut Vec<FieldError>, svc: &Value) {
    let list = items(svc, &["status", "loadBalancer", "ingress"]);
    if !list.is_empty() && kind(svc) != "LoadBalancer" {
        let detail = "may only be used when `spec.type` is 'LoadBalancer'";
        errors.push(FieldError::forbidden("status.loadBalancer.ingress", detail));
        return;
    }
    for (i, point) in list.iter().enumerate() {
        let path = format!("status.loadBalancer.ingress[{i}]");
        let ip = str_at(point, &["ip"]);
        if !ip.is_empty() {
            super::checks::ip(errors, &format!("{path}.ip"), ip);
        }
        match at(point, &["ipMode"]).and_then(Value::as_str) {
            None if ip.is_empty() => {}
            None => errors.push(FieldError::required(format!("{path}.ipMode"), "must be specified when `ip` is set")),
            Some(_) if ip.is_empty() => {
                let detail = "may not be specified when `ip` is not set";
                errors.push(FieldError::forbidden(format!("{path}.ipMode"), detail));
            }
            Some(mode) => one_of(errors, &format!("{path}.ipMode"), mode, &["Proxy", "VIP"]),
        }
        host_name(errors, &format!("{path}.hostname"), str_at(point, &["hostname"]));
    }
}

/// A name by which traffic arrives: of a machine, not its address.
pub fn host_name(errors: &mut Vec<FieldError>, path: &str, host: &str) {
    optional_named(errors, path, host, dns_subdomain);
    if host.parse::<IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path, host, "must be a DNS name, not an IP address"));
    }
}

fn fields(svc: &Value) -> Fields {
    vec![("spec.clusterIP", str_at(svc, &["spec", "clusterIP"]).to_owned()), ("spec.type", kind(svc).to_owned())]
}

/// Fills ipFamilyPolicy and ipFamilies for what this cluster has: its families, the preferred one first.
pub fn families(svc: &mut Value, cluster: &[&'static str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(primary) = cluster.first() else { return errors };
    if !wants_cluster_ip(svc) {
        remove(&mut svc["spec"], "ipFamilyPolicy");
        remove(&mut svc["spec"], "ipFamilies");
        return errors;
    }
    let headless_alone = is_headless(svc) && map_at(svc, &["spec", "selector"]).is_none_or(serde_json::Map::is_empty);
    let given: Vec<String> =
        items(svc, &["spec", "ipFamilies"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mut list = given.clone();
    for (i, ip) in items(svc, &["spec", "clusterIPs"]).iter().enumerate() {
        let Some(family) = ip.as_str().and_then(|t| t.parse::<IpAddr>().ok()).map(family_of) else { continue };
        match list.get(i) {
            None => list.push(family.to_owned()),
            Some(claimed) if claimed != family => {
                let detail = format!("expected an {claimed} value as indicated by `spec.ipFamilies[{i}]`");
                errors.push(FieldError::invalid(format!("spec.clusterIPs[{i}]"), ip.clone(), detail));
            }
            Some(_) => {}
        }
    }
    let two = list.len() == 2 || headless_alone;
    default(&mut svc["spec"], "ipFamilyPolicy", if two { "RequireDualStack" } else { "SingleStack" });
    let policy = str_at(svc, &["spec", "ipFamilyPolicy"]).to_owned();
    one_of(&mut errors, "spec.ipFamilyPolicy", &policy, &["SingleStack", "PreferDualStack", "RequireDualStack"]);
    if policy == "RequireDualStack" && cluster.len() < 2 && !headless_alone {
        errors.push(FieldError::invalid(
            "spec.ipFamilyPolicy",
            policy.as_str(),
            "Cluster is not configured for dual-stack services",
        ));
    }
    if policy == "SingleStack" && list.len() == 2 {
        errors.push(FieldError::invalid(
            "spec.ipFamilyPolicy",
            policy.as_str(),
            "must be RequireDualStack or PreferDualStack when multiple `ipFamilies` are specified",
        ));
    }
    if list.is_empty() {
        list.push((*primary).to_owned());
    }
    if policy != "SingleStack" && list.len() == 1 && (cluster.len() == 2 || headless_alone) {
        list.push(if list[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    for (i, family) in list.iter().enumerate() {
        if !["IPv4", "IPv6"].contains(&family.as_str()) {
            errors.push(FieldError::not_supported(format!("spec.ipFamilies[{i}]"), family.as_str(), &["IPv4", "IPv6"]));
        } else if !cluster.contains(&family.as_str()) && !headless_alone {
            errors.push(FieldError::invalid(
                format!("spec.ipFamilies[{i}]"),
                family.as_str(),
                "not configured on this cluster",
            ));
        }
    }
    set(&mut svc["spec"], "ipFamilies", list);
    errors
}

/// The family's name.
pub fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}
