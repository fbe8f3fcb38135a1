//! What clients are told besides the answer, by kind: a use of something that is deprecated, or that does not do what its author seems to think.
//! Pure. The texts are upstream's, which kubectl prints and people search for.
//!
//! [`TABLE`] is for objects that are written, [`DEPRECATED`] for kinds that should no longer be asked for at all (KEP-1693).

mod pod;
#[cfg(test)]
mod tests;

use super::Resource;
use super::strategy::tree::{at, int_at, items, map_at, str_at};
use apimachinery::names;
use apimachinery::quantity::Quantity;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};

/// A kind that is served and deprecated.
#[derive(Debug)]
pub struct Deprecation {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    /// What every answer about it carries.
    pub text: &'static str,
}

/// Those that upstream's types mark.
const DEPRECATED: &[Deprecation] = &[
    Deprecation {
        group: "",
        version: "v1",
        plural: "componentstatuses",
        text: "v1 ComponentStatus is deprecated in v1.19+",
    },
    Deprecation {
        group: "",
        version: "v1",
        plural: "endpoints",
        text: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
    },
];

/// Whether a kind is deprecated.
pub fn deprecation(group: &str, version: &str, plural: &str) -> Option<&'static Deprecation> {
    DEPRECATED.iter().find(|d| d.plural == plural && d.version == version && d.group == group)
}

/// An object that is written, and what it was before, if it was.
type Written<'a> = (&'a Value, Option<&'a Value>);

struct Row {
    group: &'static str,
    plural: &'static str,
    say: fn(&mut Vec<String>, Written<'_>),
}

const fn row(group: &'static str, plural: &'static str, say: fn(&mut Vec<String>, Written<'_>)) -> Row {
    Row { group, plural, say }
}

const TABLE: &[Row] = &[
    row("", "endpoints", endpoints),
    row("", "persistentvolumeclaims", |out, (claim, _)| {
        class_annotation(out, claim);
        storage(out, "spec", &claim["spec"]);
    }),
    row("", "persistentvolumes", |out, (volume, _)| {
        class_annotation(out, volume);
        if str_at(volume, &["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
            out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".into());
        }
    }),
    // Nobody touches a pod by hand once it runs, and kubelets do often.
    row("", "pods", |out, (pod, old)| {
        if old.is_none() {
            hostname(out, pod, "the Pod's hostname");
            pod::say(out, "", pod);
        }
    }),
    row("", "podtemplates", |out, (object, _)| pod::say(out, "template.", &object["template"])),
    row("", "replicationcontrollers", |out, written| template(out, written, &["spec", "template"])),
    row("", "services", |out, (service, _)| services(out, service)),
    row("apps", "daemonsets", |out, written| template(out, written, &["spec", "template"])),
    row("apps", "deployments", |out, written| template(out, written, &["spec", "template"])),
    row("apps", "replicasets", |out, written| template(out, written, &["spec", "template"])),
    row("apps", "statefulsets", |out, written| template(out, written, &["spec", "template"])),
    row("batch", "cronjobs", |out, written| template(out, written, &["spec", "jobTemplate", "spec", "template"])),
    row("batch", "jobs", |out, written| template(out, written, &["spec", "template"])),
    row("discovery.k8s.io", "endpointslices", slices),
    row("networking.k8s.io", "ingresses", |out, (ingress, old)| {
        const CLASS: &str = "kubernetes.io/ingress.class";
        let annotated = at(ingress, &["metadata", "annotations", CLASS]).is_some();
        if old.is_none() && annotated && at(ingress, &["spec", "ingressClassName"]).is_none() {
            out.push(format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"));
        }
    }),
    row("node.k8s.io", "runtimeclasses", |out, (class, _)| {
        let keys = map_at(class, &["scheduling", "nodeSelector"]).into_iter().flat_map(|m| m.keys());
        out.extend(keys.filter_map(|k| node_label(k)).map(|why| format!("scheduling.nodeSelector: {why}")));
    }),
];

/// What is to be said of an object that may be written. Parts of an object say nothing.
pub fn of(res: &Resource, sub: Option<&str>, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(row) = TABLE.iter().find(|r| r.plural == res.plural && r.group == res.group).filter(|_| sub.is_none()) {
        (row.say)(&mut out, (new, old));
    }
    out
}

/// A name that becomes a host's should be one.
fn hostname(out: &mut Vec<String>, object: &Value, used_in: &str) {
    let wrong = names::dns1123_label(str_at(object, &["metadata", "name"]));
    if !wrong.is_empty() {
        out.push(format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
}

/// A template of pods, if it is new.
fn template(out: &mut Vec<String>, (new, old): Written<'_>, path: &[&str]) {
    if old.is_none() {
        hostname(out, new, "Pod names and hostnames");
    }
    let generation = |object: &Value| int_at(object, &["metadata", "generation"]);
    if old.is_none_or(|old| generation(old) != generation(new))
        && let Some(template) = at(new, path)
    {
        pod::say(out, &format!("{}.", path.join(".")), template);
    }
}

/// What a label of nodes should no longer be used for, if it should not.
fn node_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#,
        "beta.kubernetes.io/os" => r#"deprecated since v1.14; use "kubernetes.io/os" instead"#,
        "failure-domain.beta.kubernetes.io/region" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#
        }
        "beta.kubernetes.io/instance-type" => {
            r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => r#"use "node-role.kubernetes.io/control-plane" instead"#,
        _ => return None,
    })
}

fn class_annotation(out: &mut Vec<String>, object: &Value) {
    const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    if at(object, &["metadata", "annotations", CLASS]).is_some() {
        out.push(format!(
            r#"metadata.annotations[{CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead"#
        ));
    }
}

/// What a claim asks for.
fn storage(out: &mut Vec<String>, path: &str, spec: &Value) {
    for kind in ["requests", "limits"] {
        whole_bytes(out, &format!("{path}.resources.{kind}"), at(spec, &["resources", kind]), &["storage"]);
    }
}

/// Of some resources there is no part of one.
fn whole_bytes(out: &mut Vec<String>, path: &str, amounts: Option<&Value>, of: &[&str]) {
    for name in of {
        let amount = amounts.and_then(|a| a[*name].as_str()).and_then(|text| Quantity::parse(text).ok());
        if let Some(amount) = amount.filter(|a| a.milli() % 1000 != 0) {
            let amount = amount.to_string();
            out.push(format!("{path}[{name}]: fractional byte value {amount:?} is invalid, must be an integer"));
        }
    }
}

fn services(out: &mut Vec<String>, service: &Value) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let spec = &service["spec"];
    if at(service, &["metadata", "annotations", HINTS]).is_some() {
        out.push(format!("annotation {HINTS} is deprecated, please use service.kubernetes.io/topology-mode instead"));
    }
    let (kind, cluster_ip) = (str_at(spec, &["type"]), str_at(spec, &["clusterIP"]));
    if kind != "ExternalName" && !matches!(cluster_ip, "" | "None") {
        addresses(out, "spec.clusterIPs", items(spec, &["clusterIPs"]));
    }
    if kind == "ClusterIP" && cluster_ip == "None" {
        let ignored = [
            ("loadBalancerIP", !str_at(spec, &["loadBalancerIP"]).is_empty()),
            ("externalIPs", !items(spec, &["externalIPs"]).is_empty()),
            ("SessionAffinity", str_at(spec, &["sessionAffinity"]) != "None"),
        ];
        let ignored = ignored.into_iter().filter(|(_, set)| *set);
        out.extend(ignored.map(|(field, _)| format!("spec.{field} is ignored for headless services")));
    }
    addresses(out, "spec.externalIPs", items(spec, &["externalIPs"]));
    out.extend(address("spec.loadBalancerIP", str_at(spec, &["loadBalancerIP"])));
    if kind == "ExternalName" && !items(spec, &["externalIPs"]).is_empty() {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if kind != "ExternalName" && !str_at(spec, &["externalName"]).is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
}

/// Those that the controller wrote repeat what pods have.
fn endpoints(out: &mut Vec<String>, (endpoints, _): Written<'_>) {
    const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
    if str_at(endpoints, &["metadata", "labels", MANAGED_BY]) == "endpoint-controller" {
        return;
    }
    for (i, subset) in items(endpoints, &["subsets"]).iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (j, one) in items(subset, &[list]).iter().enumerate() {
                out.extend(address(&format!("subsets[{i}].{list}[{j}].ip"), str_at(one, &["ip"])));
            }
        }
    }
}

fn slices(out: &mut Vec<String>, (slice, _): Written<'_>) {
    if str_at(slice, &["addressType"]) == "FQDN" {
        return;
    }
    for (i, endpoint) in items(slice, &["endpoints"]).iter().enumerate() {
        addresses(out, &format!("endpoints[{i}].addresses"), items(endpoint, &["addresses"]));
    }
}

fn addresses(out: &mut Vec<String>, path: &str, list: &[Value]) {
    let texts = list.iter().enumerate().filter_map(|(i, v)| Some((i, v.as_str()?)));
    out.extend(texts.filter_map(|(i, text)| address(&format!("{path}[{i}]"), text)));
}

/// Addresses that were let in once and will not be: with leading zeros, IPv4 within IPv6, or IPv6 not as RFC 5952 has it.
fn address(path: &str, text: &str) -> Option<String> {
    let odd = |canonical: &dyn std::fmt::Display| {
        format!(
            "{path}: non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use \"{canonical}\""
        )
    };
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => None,
        Ok(IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
            Some(v4) => Some(odd(&v4)),
            None if ip.to_string() == text => None,
            None => Some(format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{ip}\")")),
        },
        Err(_) => {
            let parts: Option<Vec<u8>> = text.split('.').map(|part| part.parse().ok()).collect();
            let ip: [u8; 4] = parts?.try_into().ok()?;
            Some(odd(&Ipv4Addr::from(ip)))
        }
    }
}
