//! What there is: the legacy discovery documents and the aggregated one, all read off the resource table.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::registry::{Resource, Verb, table};

/// Where groups stand in lists: clients try them in this order when a name is ambiguous.
const ORDER: [&str; 17] = [
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];

/// /api. `address` is where clients from everywhere find the server.
pub fn core_versions(address: Option<SocketAddr>) -> Value {
    let addresses: Vec<Value> =
        address.iter().map(|a| json!({"clientCIDR": "0.0.0.0/0", "serverAddress": a.to_string()})).collect();
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses})
}

/// Every path that documents are found under.
pub fn paths() -> Vec<String> {
    let mut paths: Vec<String> = ["/api", "/apis", "/apis/"].map(str::to_string).into();
    for group in std::iter::once("").chain(group_names()) {
        let root = if group.is_empty() { "/api".to_string() } else { format!("/apis/{group}") };
        paths.extend(versions(group).into_iter().map(|version| format!("{root}/{version}")));
        if !group.is_empty() {
            paths.push(root);
        }
    }
    paths
}

/// /apis
pub fn groups() -> Value {
    let groups: Vec<Value> = group_names().into_iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// /apis/<group>
pub fn group(name: &str) -> Option<Value> {
    let name = group_names().into_iter().find(|g| *g == name)?;
    let mut entry = group_entry(name);
    entry["kind"] = json!("APIGroup");
    entry["apiVersion"] = json!("v1");
    Some(entry)
}

/// /api/v1 and /apis/<group>/<version>
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Resource> = table().iter().filter(|r| r.group == group && r.version == version).collect();
    let first = rows.first()?;
    let mut list = Vec::new();
    for r in &rows {
        list.push(legacy(r));
        for s in r.subresources {
            list.push(legacy_sub(r, s));
        }
    }
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Some(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": list}))
}

/// /api or /apis as a whole, as it is sent.
pub struct Aggregated {
    /// What it says.
    pub bytes: Bytes,
    /// Upstream's entity tag.
    pub hash: String,
}

/// The same for all: every client begins with it.
pub fn aggregated_document(core: bool) -> &'static Aggregated {
    static CORE: LazyLock<Aggregated> = LazyLock::new(|| document(&aggregated(true)));
    static GROUPS: LazyLock<Aggregated> = LazyLock::new(|| document(&aggregated(false)));
    if core { &CORE } else { &GROUPS }
}

fn document(value: &Value) -> Aggregated {
    let bytes = value.to_string().into_bytes();
    let hash = Sha512::digest(&bytes).iter().fold(String::with_capacity(128), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    });
    Aggregated { bytes: bytes.into(), hash }
}

/// /api or /apis as apidiscovery.k8s.io/v2: everything in one answer.
fn aggregated(core: bool) -> Value {
    let names = if core { vec![""] } else { group_names() };
    let items: Vec<Value> = names.into_iter().map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn group_names() -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for r in table().iter().filter(|r| !r.group.is_empty()) {
        if !names.contains(&r.group) {
            names.push(r.group);
        }
    }
    // A group that is not in the list comes last, in the table's order (the sort is stable).
    names.sort_by_key(|n| ORDER.iter().position(|o| o == n).unwrap_or(ORDER.len()));
    names
}

fn versions(group: &str) -> Vec<&'static str> {
    let mut versions: Vec<&'static str> = Vec::new();
    for r in table().iter().filter(|r| r.group == group) {
        if !versions.contains(&r.version) {
            versions.push(r.version);
        }
    }
    versions
}

fn group_entry(name: &str) -> Value {
    let versions: Vec<Value> =
        versions(name).into_iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = verbs.iter().map(|v| v.name()).collect();
    names.sort_unstable();
    names
}

fn legacy(r: &Resource) -> Value {
    let mut out = json!({
        "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": verbs(r.verbs),
    });
    if !r.short_names.is_empty() {
        out["shortNames"] = json!(r.short_names);
    }
    if !r.categories.is_empty() {
        out["categories"] = json!(r.categories);
    }
    if !r.virtual_ {
        out["storageVersionHash"] = json!(storage_version_hash(r));
    }
    out
}

fn legacy_sub(r: &Resource, s: &crate::registry::Subresource) -> Value {
    let mut out = json!({
        "name": format!("{}/{}", r.plural, s.name), "singularName": "", "namespaced": r.namespaced, "kind": s.kind, "verbs": verbs(s.verbs),
    });
    if (s.group, s.version) != (r.group, r.version) {
        out["group"] = json!(s.group);
        out["version"] = json!(s.version);
    }
    out
}

/// Changes when objects are stored in another version; eight bytes of a digest of group, version and kind.
fn storage_version_hash(r: &Resource) -> String {
    let digest = Sha256::digest(format!("{}/{}/{}", r.group, r.version, r.kind));
    STANDARD.encode(&digest[..8])
}

fn aggregated_group(name: &str) -> Value {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|v| {
            let rows = table().iter().filter(|r| r.group == name && r.version == v);
            // Sorted, so that the document is the same whatever the table's order.
            let sorted: BTreeMap<&str, Value> = rows.map(|r| (r.plural, aggregated_row(r))).collect();
            json!({"version": v, "freshness": "Current", "resources": sorted.into_values().collect::<Vec<_>>()})
        })
        .collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_row(r: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut out = json!({
        "resource": r.plural,
        "responseKind": kind(r.group, r.version, r.kind),
        "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular,
        "verbs": verbs(r.verbs),
    });
    if !r.short_names.is_empty() {
        out["shortNames"] = json!(r.short_names);
    }
    if !r.categories.is_empty() {
        out["categories"] = json!(r.categories);
    }
    if !r.subresources.is_empty() {
        let subs: Vec<Value> = r
            .subresources
            .iter()
            .map(|s| json!({"subresource": s.name, "responseKind": kind(s.group, s.version, s.kind), "verbs": verbs(s.verbs)}))
            .collect();
        out["subresources"] = json!(subs);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_documents() {
        let apps = resources("apps", "v1").expect("apps");
        let names: Vec<&str> =
            apps["resources"].as_array().into_iter().flatten().filter_map(|r| r["name"].as_str()).collect();
        assert!(names.contains(&"deployments") && names.contains(&"deployments/scale"));
        let list = apps["resources"].as_array().expect("list");
        let scale = list.iter().find(|r| r["name"] == "deployments/scale").expect("scale");
        assert_eq!((&scale["group"], &scale["kind"]), (&json!("autoscaling"), &json!("Scale")));
        assert!(resources("apps", "v2").is_none() && group("nope").is_none());
        for g in groups()["groups"].as_array().expect("groups") {
            assert!(g["versions"].as_array().is_some_and(|v| v.contains(&g["preferredVersion"])));
        }
        assert_eq!(groups()["groups"][0]["name"], "apiregistration.k8s.io");
    }

    #[test]
    fn the_aggregated_document_has_every_row() {
        let count = |core| {
            let doc = aggregated(core);
            let groups = doc["items"].as_array().cloned().unwrap_or_default();
            groups
                .iter()
                .flat_map(|g| g["versions"].as_array().cloned().unwrap_or_default())
                .map(|v| v["resources"].as_array().map_or(0, Vec::len))
                .sum::<usize>()
        };
        assert_eq!(count(true) + count(false), table().len());
        let core = aggregated(true);
        let pods = core["items"][0]["versions"][0]["resources"]
            .as_array()
            .and_then(|l| l.iter().find(|r| r["resource"] == "pods").cloned())
            .expect("pods");
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert_eq!(pods["scope"], "Namespaced");
        assert!(pods["subresources"].as_array().is_some_and(|s| s.iter().any(|s| s["subresource"] == "eviction")));
    }
}
