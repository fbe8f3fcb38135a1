//! A local, always current copy of one resource, fed by one list and one watch.
//!
//! ```text
//! Listing ──page──▶ Listing ──last page──▶ Watching ──event──▶ Watching
//!    ▲                                        │ 410, or a broken stream before any event
//!    └────────────────────────────────────────┘
//! ```

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::error::Error;
use crate::params::{List, ListParams, WatchEvent, WatchKind, WatchParams};
use crate::requests::Client;
use crate::resource::Resource;

const PAGE_SIZE: u32 = 500;
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// A kind that the server does not have may come with its next version, or with a custom resource definition.
const ABSENT_RETRY_LIMIT: Duration = Duration::from_secs(120);

/// Which part of a resource an informer keeps.
#[derive(Clone, Debug, Default)]
pub struct InformerParams {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector in query syntax.
    pub label_selector: String,
    /// Field selector in query syntax.
    pub field_selector: String,
}

/// What changed in the local copy.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is new or differs from `old`.
    Applied {
        /// The state before, if there was one.
        old: Option<Arc<Value>>,
        /// The state now.
        new: Arc<Value>,
    },
    /// The object is gone; its last known state.
    Deleted(Arc<Value>),
}

impl Change {
    /// The object that the change is about, in its newest known state.
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Change::Applied { new, .. } => new,
            Change::Deleted(last) => last,
        }
    }
}

/// A handle on the local copy; clones share it. The feeding task ends with the last handle.
#[derive(Clone, Debug)]
pub struct Informer {
    shared: Arc<Shared>,
    synced: watch::Receiver<bool>,
    _task: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Key = (String, String);

#[derive(Debug, Default)]
struct Shared(RwLock<Cache>);

#[derive(Debug, Default)]
struct Cache {
    objects: HashMap<Key, Arc<Value>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    subscribers: Vec<mpsc::UnboundedSender<Change>>,
}

impl Informer {
    /// Starts to list and watch in a task of its own.
    pub fn start(client: Client, resource: Resource<'static>, params: InformerParams) -> Informer {
        Self::start_owned(client, OwnedResource::from(resource), params)
    }

    /// As [`Informer::start`], for resources found by discovery.
    pub fn start_owned(client: Client, resource: OwnedResource, params: InformerParams) -> Informer {
        let shared = Arc::new(Shared::default());
        let (sender, synced) = watch::channel(false);
        let feeder = Feeder { client, resource, params, shared: Arc::clone(&shared), synced: sender };
        let task = tokio::spawn(feeder.run());
        Informer { shared, synced, _task: Arc::new(AbortOnDrop(task.abort_handle())) }
    }

    /// Waits until the first complete list is in the copy.
    pub async fn synced(&self) {
        let mut synced = self.synced.clone();
        let _ = synced.wait_for(|s| *s).await;
    }

    /// Whether the first complete list is in the copy.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// One object; `namespace` is empty for cluster-wide resources.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.shared.0.read().objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<Value>> {
        self.shared.0.read().objects.values().cloned().collect()
    }

    /// All objects of a namespace, in no order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Value>> {
        let cache = self.shared.0.read();
        cache.objects.iter().filter(|((ns, _), _)| ns == namespace).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// All objects that name this uid in their owner references.
    pub fn by_owner_uid(&self, uid: &str) -> Vec<Arc<Value>> {
        let cache = self.shared.0.read();
        let keys = cache.by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| cache.objects.get(key).cloned()).collect()
    }

    /// Every change from now on, after the current content as [`Change::Applied`].
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut cache = self.shared.0.write();
        for object in cache.objects.values() {
            // The receiver is in our hands, so this cannot fail.
            let _ = sender.send(Change::Applied { old: None, new: Arc::clone(object) });
        }
        cache.subscribers.push(sender);
        receiver
    }
}

/// A [`Resource`] that owns its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnedResource {
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Lower-case plural.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl OwnedResource {
    /// The borrowed form that requests take.
    pub fn as_resource(&self) -> Resource<'_> {
        Resource::new(&self.group, &self.version, &self.plural, &self.kind, self.namespaced)
    }
}

impl From<Resource<'_>> for OwnedResource {
    fn from(resource: Resource<'_>) -> Self {
        OwnedResource {
            group: resource.group.to_owned(),
            version: resource.version.to_owned(),
            plural: resource.plural.to_owned(),
            kind: resource.kind.to_owned(),
            namespaced: resource.namespaced,
        }
    }
}

struct Feeder {
    client: Client,
    resource: OwnedResource,
    params: InformerParams,
    shared: Arc<Shared>,
    synced: watch::Sender<bool>,
}

impl Feeder {
    async fn run(self) {
        let mut delay = RETRY_FIRST;
        loop {
            match self.list_then_watch(&mut delay).await {
                Ok(()) => debug!(resource = %self.resource.plural, "listing again"),
                Err(error) if error.is_gone() => {
                    debug!(resource = %self.resource.plural, "watch expired, listing again")
                }
                Err(error) if error.is_not_found() => {
                    debug!(resource = %self.resource.plural, "the server does not have it");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(ABSENT_RETRY_LIMIT);
                }
                Err(error) => {
                    warn!(resource = %self.resource.plural, %error, "list or watch failed");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY_LIMIT);
                }
            }
        }
    }

    /// Lists once and watches until the server says that the version is too old, or the server is away.
    async fn list_then_watch(&self, delay: &mut Duration) -> Result<(), Error> {
        let list = self.list_all().await?;
        let mut version = list.resource_version;
        self.shared.replace(list.items);
        self.synced.send_replace(true);
        *delay = RETRY_FIRST;
        loop {
            let before = version.clone();
            match self.watch_from(&mut version).await {
                Ok(()) => {}
                // Nothing came since: retry from the same version, but not in a hot loop.
                Err(error) if error.is_gone() => return Err(error),
                Err(error) => {
                    debug!(resource = %self.resource.plural, %error, "watch broke");
                    if version == before {
                        tokio::time::sleep(*delay).await;
                        *delay = (*delay * 2).min(RETRY_LIMIT);
                        continue;
                    }
                }
            }
            if version == before {
                tokio::time::sleep(RETRY_FIRST).await;
            } else {
                *delay = RETRY_FIRST;
            }
        }
    }

    async fn list_all(&self) -> Result<List, Error> {
        let mut params = ListParams {
            label_selector: self.params.label_selector.clone(),
            field_selector: self.params.field_selector.clone(),
            limit: PAGE_SIZE,
            ..ListParams::default()
        };
        let mut items = Vec::new();
        loop {
            let page = self.client.list(self.resource.as_resource(), self.params.namespace.as_deref(), &params).await?;
            items.extend(page.items);
            if page.continue_token.is_empty() {
                return Ok(List { items, ..page });
            }
            params.continue_token = page.continue_token;
        }
    }

    async fn watch_from(&self, version: &mut String) -> Result<(), Error> {
        let params = WatchParams {
            label_selector: self.params.label_selector.clone(),
            field_selector: self.params.field_selector.clone(),
            resource_version: version.clone(),
        };
        let namespace = self.params.namespace.as_deref();
        let mut events = self.client.watch(self.resource.as_resource(), namespace, &params).await?;
        while let Some(event) = events.next().await {
            let WatchEvent { kind, object } = event?;
            if let Some(newer) = object["metadata"]["resourceVersion"].as_str() {
                newer.clone_into(version);
            }
            match kind {
                WatchKind::Added | WatchKind::Modified => self.shared.apply(object),
                WatchKind::Deleted => self.shared.remove(object),
                WatchKind::Bookmark => {}
            }
        }
        Ok(())
    }
}

impl Shared {
    fn apply(&self, object: Value) {
        self.0.write().apply(object);
    }

    fn remove(&self, object: Value) {
        let mut cache = self.0.write();
        let key = key(&object);
        if cache.take(&key).is_some() {
            cache.publish(&Change::Deleted(Arc::new(object)));
        }
    }

    /// Makes the copy equal to a fresh list, publishing only what differs.
    fn replace(&self, items: Vec<Value>) {
        let mut cache = self.0.write();
        let listed: HashSet<Key> = items.iter().map(key).collect();
        let vanished: Vec<Key> = cache.objects.keys().filter(|k| !listed.contains(*k)).cloned().collect();
        for key in vanished {
            if let Some(last) = cache.take(&key) {
                cache.publish(&Change::Deleted(last));
            }
        }
        for object in items {
            cache.apply(object);
        }
    }
}

impl Cache {
    fn apply(&mut self, object: Value) {
        let key = key(&object);
        let old = self.take(&key);
        let new = Arc::new(object);
        for uid in owner_uids(&new) {
            self.by_owner.entry(uid.to_owned()).or_default().insert(key.clone());
        }
        self.objects.insert(key, Arc::clone(&new));
        let same = old.as_ref().is_some_and(|old| version(old) == version(&new) && !version(&new).is_empty());
        if same {
            return;
        }
        // A name that was deleted and created again between two looks is two objects to everyone who cares about uids.
        let old = match old {
            Some(old) if uid(&old) != uid(&new) => {
                self.publish(&Change::Deleted(old));
                None
            }
            old => old,
        };
        self.publish(&Change::Applied { old, new });
    }

    fn take(&mut self, key: &Key) -> Option<Arc<Value>> {
        let old = self.objects.remove(key)?;
        for uid in owner_uids(&old) {
            if let Some(keys) = self.by_owner.get_mut(uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_owner.remove(uid);
                }
            }
        }
        Some(old)
    }

    fn publish(&mut self, change: &Change) {
        self.subscribers.retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }
}

fn key(object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    let references = object["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    references.iter().filter_map(|reference| reference["uid"].as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: &str, owner: &str) -> Value {
        json!({"metadata": {"namespace": "n", "name": name, "resourceVersion": version, "ownerReferences": [{"uid": owner}]}})
    }

    #[test]
    fn a_relist_publishes_only_differences_and_keeps_the_owner_index() {
        let shared = Shared::default();
        shared.replace(vec![object("a", "1", "x"), object("b", "2", "x")]);
        let (sender, mut changes) = mpsc::unbounded_channel();
        shared.0.write().subscribers.push(sender);
        shared.replace(vec![object("b", "2", "x"), object("c", "3", "y")]);
        assert!(matches!(changes.try_recv(), Ok(Change::Deleted(o)) if o["metadata"]["name"] == "a"));
        assert!(matches!(changes.try_recv(), Ok(Change::Applied { old: None, new }) if new["metadata"]["name"] == "c"));
        assert!(changes.try_recv().is_err());
        let cache = shared.0.read();
        assert_eq!(cache.by_owner["x"].len(), 1);
        assert_eq!(cache.by_owner["y"].len(), 1);
    }

    #[test]
    fn a_name_taken_by_another_object_is_a_deletion_and_a_creation() {
        let shared = Shared::default();
        let with_uid = |version: &str, uid: &str| {
            let mut object = object("a", version, "x");
            object["metadata"]["uid"] = uid.into();
            object
        };
        shared.apply(with_uid("1", "first"));
        let (sender, mut changes) = mpsc::unbounded_channel();
        shared.0.write().subscribers.push(sender);
        shared.apply(with_uid("2", "first"));
        assert!(matches!(changes.try_recv(), Ok(Change::Applied { old: Some(_), .. })));
        shared.apply(with_uid("4", "second"));
        assert!(matches!(changes.try_recv(), Ok(Change::Deleted(o)) if o["metadata"]["uid"] == "first"));
        assert!(
            matches!(changes.try_recv(), Ok(Change::Applied { old: None, new }) if new["metadata"]["uid"] == "second")
        );
    }

    #[test]
    fn deleting_an_unknown_object_says_nothing() {
        let shared = Shared::default();
        let (sender, mut changes) = mpsc::unbounded_channel();
        shared.0.write().subscribers.push(sender);
        shared.remove(object("a", "1", "x"));
        assert!(changes.try_recv().is_err());
    }
}
