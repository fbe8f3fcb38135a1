//! Who may do what: superusers, kubelets ([`node`]), then the cluster's RBAC rules ([`rbac`]).
//!
//! [`rbac`] and [`node`] are pure; this file feeds them from the watch caches. [`reviews`] answers the questions clients may ask about it.

pub mod node;
pub mod rbac;
mod review_checks;
pub mod reviews;

use crate::authn::UserInfo;
use crate::errors::ApiError;
use crate::registry::{Resource, lookup};
use crate::storage::{Cacher, Storage};
use arc_swap::ArcSwap;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::watch;

/// What is to be decided. For paths that are no resources, `path` is set and the rest up to `verb` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// get, list, create, …
    pub verb: String,
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// Empty for cluster scope or all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// The path, if this is not about a resource.
    pub path: Option<String>,
    /// Which objects of a collection are meant, as the query has it.
    pub field_selector: String,
}

impl Attributes {
    /// The resource as rules write it: `pods` or `pods/log`.
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go ahead; the text says by which rule.
    Allow(String),
    /// Nobody allowed it; the text may say why.
    Deny(String),
}

impl Decision {
    /// Whether to go ahead.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }
}

/// The rules in force, rebuilt when a role or binding changes.
pub struct Authorizer {
    node: bool,
    caches: Option<[Arc<Cacher>; 4]>,
    pods: Option<&'static Resource>,
    storage: Storage,
    rules: ArcSwap<(Vec<u64>, rbac::Rules)>,
    /// Whether the default roles and bindings are among the rules.
    complete: watch::Sender<bool>,
}

impl Authorizer {
    /// Starts the caches of roles and bindings.
    pub fn new(storage: Storage, modes: &[String]) -> Self {
        let rbac = |plural| lookup("rbac.authorization.k8s.io", "v1", plural).map(|res| storage.cache(res));
        let caches = match (rbac("clusterroles"), rbac("clusterrolebindings"), rbac("roles"), rbac("rolebindings")) {
            (Some(a), Some(b), Some(c), Some(d)) if modes.iter().any(|m| m == "RBAC") => Some([a, b, c, d]),
            _ => None,
        };
        let node = modes.iter().any(|m| m == "Node");
        let pods = lookup("", "v1", "pods");
        Self { node, caches, pods, storage, rules: ArcSwap::default(), complete: watch::Sender::new(false) }
    }

    /// Waits until the rules in the store are known.
    pub async fn filled(&self) {
        for cache in self.caches.iter().flatten() {
            cache.synced().await;
        }
        // What decides whether an object has to do with a node.
        let related = [("", "pods"), ("", "persistentvolumes"), ("storage.k8s.io", "volumeattachments")];
        for res in related.iter().filter(|_| self.node).filter_map(|(group, plural)| lookup(group, "v1", plural)) {
            self.storage.cache(res).synced().await;
        }
    }

    /// The default roles and bindings are in the store: requests may be decided as soon as they are known here too.
    pub async fn bootstrapped(&self) -> Result<(), ApiError> {
        let revision = self.storage.store().revision().await?;
        for cache in self.caches.iter().flatten() {
            cache.at_least(revision).await?;
        }
        self.complete.send_replace(true);
        Ok(())
    }

    /// Waits until requests may be decided. Before that everybody would be refused, and would not try again for a while.
    pub async fn complete(&self) {
        // The sender lives as long as `self`.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// The RBAC rules as of now.
    pub fn rules(&self) -> Arc<(Vec<u64>, rbac::Rules)> {
        let Some(caches) = &self.caches else { return self.rules.load_full() };
        let now: Vec<u64> = caches.iter().map(|c| c.end()).collect();
        let current = self.rules.load_full();
        if current.0 == now {
            return current;
        }
        let objects: Vec<Vec<Value>> =
            caches.iter().map(|c| c.snapshot("").0.iter().map(|s| s.object()).collect()).collect();
        let built = Arc::new((now, rbac::Rules::build(&objects[0], &objects[1], &objects[2], &objects[3])));
        self.rules.store(built.clone());
        built
    }

    /// Decides.
    pub fn authorize(&self, user: &UserInfo, attributes: &Attributes) -> Decision {
        if user.in_group("system:masters") {
            return Decision::Allow(String::new());
        }
        let refused = match user.node_name().filter(|_| self.node).map(|node| node::decide(node, attributes, self)) {
            Some(Ok(())) => return Decision::Allow(String::new()),
            Some(Err(why)) => why,
            None => String::new(),
        };
        let rules = self.rules();
        match rules.1.find(user, attributes) {
            Some(why) => Decision::Allow(why),
            // Each that has something to say says it in a line of its own.
            None => {
                let unresolved = rules.1.unresolved(user, &attributes.namespace);
                let reasons = [refused, unresolved].into_iter().filter(|why| !why.is_empty());
                Decision::Deny(reasons.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

impl node::Cluster for Authorizer {
    fn pods_of(&self, node: &str, namespace: &str) -> Vec<Value> {
        let Some(pods) = self.pods else { return Vec::new() };
        let on_node = |(field, value): &(&str, String)| *field == "spec.nodeName" && value == node;
        let (items, _) = self.storage.cache(pods).snapshot(&format!("{namespace}/"));
        items.iter().filter(|p| p.fields.iter().any(on_node)).map(|p| p.object()).collect()
    }

    fn volumes_with_secret(&self, namespace: &str, name: &str) -> Vec<String> {
        let Some(volumes) = lookup("", "v1", "persistentvolumes") else { return Vec::new() };
        let (items, _) = self.storage.cache(volumes).snapshot("");
        let needing = items.iter().map(|v| v.object()).filter(|v| node::needs_secret(v, namespace, name));
        needing.filter_map(|v| v["metadata"]["name"].as_str().map(str::to_owned)).collect()
    }

    fn object(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let res = lookup(group, "v1", plural)?;
        self.storage.cached_get(res, namespace, name).map(|found| found.object())
    }
}

/// The 403 a denied request gets.
pub fn forbidden(user: &UserInfo, a: &Attributes, why: &str) -> ApiError {
    let suffix = if why.is_empty() { String::new() } else { format!(": {why}") };
    if let Some(path) = &a.path {
        let message = format!("forbidden: User {:?} cannot {} path {path:?}{suffix}", user.name, a.verb);
        return ApiError::new(403, "Forbidden", message);
    }
    let place = if a.namespace.is_empty() {
        "at the cluster scope".into()
    } else {
        format!("in the namespace {:?}", a.namespace)
    };
    let resource = a.full_resource();
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}{suffix}",
        user.name, a.verb, a.group
    );
    ApiError::forbidden(&a.group, &a.resource, &a.name, &why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_reads_as_upstreams() {
        let user = UserInfo::authenticated("x", []);
        let a =
            Attributes { verb: "list".into(), resource: "pods".into(), namespace: "y".into(), ..Default::default() };
        let want =
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"y\"";
        assert_eq!(forbidden(&user, &a, "").to_string(), want);
        let a = Attributes {
            verb: "get".into(),
            group: "apps".into(),
            resource: "deployments".into(),
            subresource: "scale".into(),
            name: "d".into(),
            ..a
        };
        let a = Attributes { namespace: String::new(), ..a };
        let want = "deployments.apps \"d\" is forbidden: User \"x\" cannot get resource \"deployments/scale\" in API group \"apps\" at the cluster scope";
        assert_eq!(forbidden(&user, &a, "").to_string(), want);
    }
}
