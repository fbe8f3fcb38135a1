//! A local, always current copy of one resource, fed by one list and one watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::list_watch::{self, Selection, Sink};
use crate::requests::Client;
use crate::resource::Resource;

/// Which part of a resource an informer keeps.
#[derive(Clone, Debug, Default)]
pub struct InformerParams {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Label selector in query syntax.
    pub label_selector: String,
    /// Field selector in query syntax.
    pub field_selector: String,
    /// Takes away of each object what nobody here reads: there may be many of them. Such an object must never be written
    /// back as a whole.
    pub trim: Option<fn(&mut Value)>,
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

#[derive(Debug, Default)]
struct Shared(RwLock<Cache>);

type Named = HashMap<Box<str>, Arc<Value>>;

#[derive(Debug, Default)]
struct Cache {
    /// By namespace and name.
    objects: HashMap<Box<str>, Named>,
    /// By the uids of owners; among the objects of one, each is found by where it lies.
    by_owner: HashMap<Box<str>, HashMap<usize, Arc<Value>>>,
    subscribers: Vec<mpsc::UnboundedSender<Change>>,
}

impl Informer {
    /// Starts to list and watch in a task of its own.
    pub fn start(client: Client, resource: Resource<'static>, params: InformerParams) -> Informer {
        let shared = Arc::new(Shared::default());
        let (sender, synced) = watch::channel(false);
        let InformerParams { namespace, label_selector, field_selector, trim } = params;
        let selection = Selection { namespace, label_selector, field_selector };
        let mut feeder = Feeder { resource, trim, shared: Arc::clone(&shared), synced: sender, listed: Vec::new() };
        let task = tokio::spawn(async move { list_watch::run(&client, resource, &selection, &mut feeder).await });
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
        self.shared.0.read().objects.get(namespace)?.get(name).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<Value>> {
        self.shared.0.read().all().cloned().collect()
    }

    /// All objects of a namespace, in no order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Value>> {
        let cache = self.shared.0.read();
        cache.objects.get(namespace).into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// All objects that name this uid in their owner references, in no order.
    pub fn by_owner_uid(&self, uid: &str) -> Vec<Arc<Value>> {
        let cache = self.shared.0.read();
        cache.by_owner.get(uid).into_iter().flat_map(HashMap::values).cloned().collect()
    }

    /// Every change from now on, after the current content as [`Change::Applied`].
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Change> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut cache = self.shared.0.write();
        for object in cache.all() {
            // The receiver is in our hands, so this cannot fail.
            let _ = sender.send(Change::Applied { old: None, new: Arc::clone(object) });
        }
        cache.subscribers.push(sender);
        receiver
    }
}

struct Feeder {
    resource: Resource<'static>,
    trim: Option<fn(&mut Value)>,
    shared: Arc<Shared>,
    synced: watch::Sender<bool>,
    /// The pages of the list that is being read.
    listed: Vec<Value>,
}

impl Feeder {
    /// The object as it is kept. Who owns which field is the server's business, and often the larger half of an object.
    fn kept(&self, mut object: Value) -> Value {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        if let Some(trim) = self.trim {
            trim(&mut object);
        }
        object
    }
}

impl Sink for Feeder {
    type Object = Value;

    fn version(object: &Value) -> &str {
        version(object)
    }

    fn begin(&mut self) {
        self.listed.clear();
    }

    async fn page(&mut self, items: Vec<Value>) {
        for mut item in items {
            // Lists leave out the type of their items; events have it, so readers always do.
            item["apiVersion"] = self.resource.api_version().into();
            item["kind"] = self.resource.kind.into();
            self.listed.push(self.kept(item));
        }
    }

    async fn end(&mut self) {
        self.shared.replace(std::mem::take(&mut self.listed));
        self.synced.send_replace(true);
    }

    async fn absent(&mut self) {}

    async fn applied(&mut self, object: Value) {
        let object = self.kept(object);
        self.shared.apply(object);
    }

    async fn deleted(&mut self, object: Value) {
        let object = self.kept(object);
        self.shared.remove(object);
    }

    /// The task ends with the last handle.
    fn is_closed(&self) -> bool {
        false
    }
}

impl Shared {
    fn apply(&self, object: Value) {
        self.0.write().apply(object);
    }

    fn remove(&self, object: Value) {
        let mut cache = self.0.write();
        let (namespace, name) = key(&object);
        if cache.take(namespace, name).is_some() {
            cache.publish(&Change::Deleted(Arc::new(object)));
        }
    }

    /// Makes the copy equal to a fresh list, publishing only what differs.
    fn replace(&self, items: Vec<Value>) {
        let mut cache = self.0.write();
        let listed: HashSet<(&str, &str)> = items.iter().map(key).collect();
        let vanished: Vec<Arc<Value>> = cache.all().filter(|known| !listed.contains(&key(known))).cloned().collect();
        for last in vanished {
            let (namespace, name) = key(&last);
            cache.take(namespace, name);
            cache.publish(&Change::Deleted(last));
        }
        for object in items {
            cache.apply(object);
        }
    }
}

impl Cache {
    fn all(&self) -> impl Iterator<Item = &Arc<Value>> {
        self.objects.values().flat_map(HashMap::values)
    }

    fn apply(&mut self, object: Value) {
        let new = Arc::new(object);
        let (namespace, name) = key(&new);
        let old = self.take(namespace, name);
        for uid in owner_uids(&new) {
            self.by_owner.entry(uid.into()).or_default().insert(place(&new), Arc::clone(&new));
        }
        if !self.objects.contains_key(namespace) {
            self.objects.insert(namespace.into(), HashMap::new());
        }
        if let Some(named) = self.objects.get_mut(namespace) {
            named.insert(name.into(), Arc::clone(&new));
        }
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

    fn take(&mut self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let named = self.objects.get_mut(namespace)?;
        let old = named.remove(name)?;
        if named.is_empty() {
            self.objects.remove(namespace);
        }
        for uid in owner_uids(&old) {
            if let Some(owned) = self.by_owner.get_mut(uid) {
                owned.remove(&place(&old));
                if owned.is_empty() {
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

/// Tells objects in the copy apart: none of them moves while it is there.
fn place(object: &Arc<Value>) -> usize {
    Arc::as_ptr(object).addr()
}

fn key(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
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
