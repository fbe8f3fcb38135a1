//! Which resources the server has: read from its discovery documents, preferred versions only.

use std::collections::HashSet;
use std::sync::LazyLock;

use client::{Client, Resource};
use parking_lot::Mutex;
use serde_json::Value;

use crate::object;

/// A discovered resource and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Where it lives.
    pub resource: Resource<'static>,
    /// Its verbs.
    pub verbs: Vec<String>,
}

impl Discovered {
    /// Whether all verbs are there.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|v| v == verb))
    }
}

/// What discovery found, and the groups that did not answer.
#[derive(Debug, Default)]
pub struct Discovery {
    /// All top-level resources.
    pub resources: Vec<Discovered>,
    /// `group/version: why`.
    pub failures: Vec<String>,
}

/// Asks the server. A group that fails is named and left out: one broken aggregated API must not stop the rest.
pub async fn discover(client: &Client) -> Result<Discovery, client::Error> {
    let mut discovery = Discovery::default();
    discovery.resources.extend(parse("", "v1", &client.get_raw("/api/v1").await?));
    let groups = client.get_raw("/apis").await?;
    for group_version in preferred_versions(&groups) {
        let (group, version) = group_version.split_once('/').unwrap_or(("", &group_version));
        match client.get_raw(&format!("/apis/{group_version}")).await {
            Ok(document) => discovery.resources.extend(parse(group, version, &document)),
            Err(error) => discovery.failures.push(format!("{group_version}: {error}")),
        }
    }
    Ok(discovery)
}

fn preferred_versions(groups: &Value) -> Vec<String> {
    let groups = object::list(groups, "/groups").iter();
    groups.map(|g| object::text(g, "/preferredVersion/groupVersion").to_owned()).filter(|gv| !gv.is_empty()).collect()
}

fn parse(group: &str, version: &str, document: &Value) -> Vec<Discovered> {
    let top_level = object::list(document, "/resources").iter().filter(|r| !object::text(r, "/name").contains('/'));
    let read = |r: &Value| Discovered {
        resource: Resource::new(
            intern(group),
            intern(version),
            intern(object::text(r, "/name")),
            intern(object::text(r, "/kind")),
            r["namespaced"] == true,
        ),
        verbs: object::list(r, "/verbs").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    };
    top_level.map(read).collect()
}

/// Names of resources live as long as the process: there are few, and informers are keyed by them.
fn intern(text: &str) -> &'static str {
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock();
    if let Some(known) = names.get(text) {
        return known;
    }
    let leaked: &'static str = Box::leak(text.to_owned().into_boxed_str());
    names.insert(leaked);
    leaked
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_documents() {
        let groups = json!({"groups": [{"name": "apps", "preferredVersion": {"groupVersion": "apps/v1"}}]});
        assert_eq!(preferred_versions(&groups), ["apps/v1"]);
        let found = parse(
            "apps",
            "v1",
            &json!({"resources": [
                {"name": "deployments", "kind": "Deployment", "namespaced": true, "verbs": ["get", "list"]},
                {"name": "deployments/status", "kind": "Deployment", "namespaced": true, "verbs": ["get"]},
            ]}),
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].resource, client::resource::DEPLOYMENTS);
        assert!(found[0].can(&["list"]) && !found[0].can(&["delete"]));
    }
}
