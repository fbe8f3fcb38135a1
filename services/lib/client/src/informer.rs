//! A local, always current copy of one resource, fed by one list and one watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::kept::Kept;
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
    /// Keeps text instead of trees: for objects that are many and seldom looked at. Each read then costs a few microseconds.
    pub compact: bool,
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

type Named = HashMap<Box<str>, Kept>;

#[derive(Debug, Default)]
struct Cache {
    /// By namespace and name.
    objects: HashMap<Box<str>, Named>,
    /// By the uids of owners; among the objects of one, each is found by where it lies.
    by_owner: HashMap<Box<str>, HashMap<usize, Kept>>,
    compact: bool,
    subscribers: Vec<mpsc::UnboundedSender<News>>,
}

/// What a subscriber has not heard yet.
#[derive(Debug)]
enum News {
    /// What was there when it subscribed. The whole copy waits here, so it waits as it is kept.
    Present(Kept),
    Changed(Change),
}

/// Every change of the copy, in order.
#[derive(Debug)]
pub struct Changes(mpsc::UnboundedReceiver<News>);

impl Changes {
    /// The next change; `None` if the informer has ended. Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Option<Change> {
        self.0.recv().await.map(News::change)
    }

    /// A change that is there already.
    pub fn try_recv(&mut self) -> Result<Change, mpsc::error::TryRecvError> {
        self.0.try_recv().map(News::change)
    }
}

impl News {
    fn change(self) -> Change {
        match self {
            News::Present(kept) => Change::Applied { old: None, new: kept.object() },
            News::Changed(change) => change,
        }
    }
}

impl Informer {
    /// Starts to list and watch in a task of its own.
    pub fn start(client: Client, resource: Resource<'static>, params: InformerParams) -> Informer {
        let InformerParams { namespace, label_selector, field_selector, trim, compact } = params;
        let shared = Arc::new(Shared(RwLock::new(Cache { compact, ..Cache::default() })));
        let (sender, synced) = watch::channel(false);
        let selection = Selection { namespace, label_selector, field_selector };
        let mut feeder =
            Feeder { resource, trim, compact, shared: Arc::clone(&shared), synced: sender, listed: Vec::new() };
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
        let kept = self.shared.0.read().objects.get(namespace)?.get(name).cloned();
        kept.map(|kept| kept.object())
    }

    /// All objects as they are now, in no order, one at a time.
    pub fn each(&self) -> impl Iterator<Item = Arc<Value>> + use<> {
        let now: Vec<Kept> = self.shared.0.read().all().cloned().collect();
        now.into_iter().map(|kept| kept.object())
    }

    /// All objects of a namespace as they are now, in no order, one at a time.
    pub fn each_in(&self, namespace: &str) -> impl Iterator<Item = Arc<Value>> + use<> {
        let cache = self.shared.0.read();
        let now: Vec<Kept> = cache.objects.get(namespace).into_iter().flat_map(HashMap::values).cloned().collect();
        now.into_iter().map(|kept| kept.object())
    }

    /// The objects in which a field of this name may hold this text, wherever it stands, one at a time: of those that are kept
    /// as text the others are not even read.
    pub fn each_naming(&self, field: &str, value: &str) -> impl Iterator<Item = Arc<Value>> + use<> {
        let needle = format!("{}:{}", Value::from(field), Value::from(value));
        let now: Vec<Kept> = self.shared.0.read().all().cloned().collect();
        now.into_iter().filter(move |kept| kept.may_contain(&needle)).map(|kept| kept.object())
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<Value>> {
        self.each().collect()
    }

    /// All objects of a namespace, in no order.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Value>> {
        self.each_in(namespace).collect()
    }

    /// All objects that name this uid in their owner references, in no order.
    pub fn by_owner_uid(&self, uid: &str) -> Vec<Arc<Value>> {
        let cache = self.shared.0.read();
        let now: Vec<Kept> = cache.by_owner.get(uid).into_iter().flat_map(HashMap::values).cloned().collect();
        drop(cache);
        now.into_iter().map(|kept| kept.object()).collect()
    }

    /// Every change from now on, after the current content as [`Change::Applied`].
    pub fn subscribe(&self) -> Changes {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut cache = self.shared.0.write();
        for kept in cache.all() {
            // The receiver is in our hands, so this cannot fail.
            let _ = sender.send(News::Present(kept.clone()));
        }
        cache.subscribers.push(sender);
        Changes(receiver)
    }
}

struct Feeder {
    resource: Resource<'static>,
    trim: Option<fn(&mut Value)>,
    compact: bool,
    shared: Arc<Shared>,
    synced: watch::Sender<bool>,
    /// The pages of the list that is being read.
    listed: Vec<Kept>,
}

impl Feeder {
    /// The object as it is kept. Who owns which field is the server's business, and often the larger half of an object.
    fn trimmed(&self, mut object: Value) -> Arc<Value> {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        if let Some(trim) = self.trim {
            trim(&mut object);
        }
        Arc::new(object)
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
            self.listed.push(Kept::new(&self.trimmed(item), self.compact));
        }
    }

    async fn end(&mut self) {
        self.shared.replace(std::mem::take(&mut self.listed));
        self.synced.send_replace(true);
    }

    async fn absent(&mut self) {}

    async fn applied(&mut self, object: Value) {
        let object = self.trimmed(object);
        self.shared.apply(object);
    }

    async fn deleted(&mut self, object: Value) {
        let object = self.trimmed(object);
        self.shared.remove(object);
    }

    /// The task ends with the last handle.
    fn is_closed(&self) -> bool {
        false
    }
}

impl Shared {
    fn apply(&self, object: Arc<Value>) {
        self.0.write().apply(object);
    }

    fn remove(&self, object: Arc<Value>) {
        let mut cache = self.0.write();
        let (namespace, name) = key(&object);
        if cache.take(namespace, name).is_some() {
            cache.publish(|| News::Changed(Change::Deleted(Arc::clone(&object))));
        }
    }

    /// Makes the copy equal to a fresh list, publishing only what differs.
    fn replace(&self, items: Vec<Kept>) {
        let mut cache = self.0.write();
        let mut vanished = cache.keys();
        for kept in &items {
            let object = kept.object();
            let (namespace, name) = key(&object);
            vanished.remove(&(namespace.into(), name.into()));
        }
        for (namespace, name) in vanished {
            if let Some(last) = cache.take(&namespace, &name) {
                cache.publish(|| News::Changed(Change::Deleted(Arc::clone(&last))));
            }
        }
        for kept in items {
            cache.apply_listed(kept);
        }
    }
}

impl Cache {
    fn all(&self) -> impl Iterator<Item = &Kept> {
        self.objects.values().flat_map(HashMap::values)
    }

    fn keys(&self) -> HashSet<(Box<str>, Box<str>)> {
        let all = self.objects.iter().flat_map(|(namespace, named)| named.keys().map(move |name| (namespace, name)));
        all.map(|(namespace, name)| (namespace.clone(), name.clone())).collect()
    }

    fn apply(&mut self, new: Arc<Value>) {
        let old = self.put(&new, Kept::new(&new, self.compact));
        self.publish_applied(old, &new);
    }

    /// A whole list arrives at once, faster than anyone listens.
    fn apply_listed(&mut self, kept: Kept) {
        let new = kept.object();
        match self.put(&new, kept.clone()) {
            None => self.publish(|| News::Present(kept.clone())),
            old => self.publish_applied(old, &new),
        }
    }

    /// Puts an object in its place and returns what was there.
    fn put(&mut self, new: &Value, kept: Kept) -> Option<Arc<Value>> {
        let (namespace, name) = key(new);
        let old = self.take(namespace, name);
        for uid in owner_uids(new) {
            self.by_owner.entry(uid.into()).or_default().insert(kept.place(), kept.clone());
        }
        if !self.objects.contains_key(namespace) {
            self.objects.insert(namespace.into(), HashMap::new());
        }
        if let Some(named) = self.objects.get_mut(namespace) {
            named.insert(name.into(), kept);
        }
        old
    }

    fn publish_applied(&mut self, old: Option<Arc<Value>>, new: &Arc<Value>) {
        let same = old.as_ref().is_some_and(|old| version(old) == version(new) && !version(new).is_empty());
        if same {
            return;
        }
        // A name that was deleted and created again between two looks is two objects to everyone who cares about uids.
        let old = match old {
            Some(old) if uid(&old) != uid(new) => {
                self.publish(|| News::Changed(Change::Deleted(Arc::clone(&old))));
                None
            }
            old => old,
        };
        self.publish(|| News::Changed(Change::Applied { old: old.clone(), new: Arc::clone(new) }));
    }

    fn take(&mut self, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let named = self.objects.get_mut(namespace)?;
        let kept = named.remove(name)?;
        if named.is_empty() {
            self.objects.remove(namespace);
        }
        let old = kept.object();
        for uid in owner_uids(&old) {
            if let Some(owned) = self.by_owner.get_mut(uid) {
                owned.remove(&kept.place());
                if owned.is_empty() {
                    self.by_owner.remove(uid);
                }
            }
        }
        Some(old)
    }

    fn publish(&mut self, news: impl Fn() -> News) {
        self.subscribers.retain(|subscriber| subscriber.send(news()).is_ok());
    }
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

    fn copy(compact: bool) -> Shared {
        Shared(RwLock::new(Cache { compact, ..Cache::default() }))
    }

    fn listed(shared: &Shared, items: Vec<Value>) {
        let compact = shared.0.read().compact;
        shared.replace(items.into_iter().map(|item| Kept::new(&Arc::new(item), compact)).collect());
    }

    fn subscribe(shared: &Shared) -> Changes {
        let (sender, changes) = mpsc::unbounded_channel();
        shared.0.write().subscribers.push(sender);
        Changes(changes)
    }

    #[test]
    fn a_relist_publishes_only_differences_and_keeps_the_owner_index() {
        for compact in [false, true] {
            let shared = copy(compact);
            listed(&shared, vec![object("a", "1", "x"), object("b", "2", "x")]);
            let mut changes = subscribe(&shared);
            listed(&shared, vec![object("b", "2", "x"), object("c", "3", "y")]);
            assert!(matches!(changes.try_recv(), Ok(Change::Deleted(o)) if o["metadata"]["name"] == "a"));
            let came = changes.try_recv();
            assert!(matches!(came, Ok(Change::Applied { old: None, new }) if *new == object("c", "3", "y")));
            assert!(changes.try_recv().is_err());
            let cache = shared.0.read();
            assert_eq!(cache.by_owner["x"].len(), 1);
            assert_eq!(cache.by_owner["y"].len(), 1);
        }
    }

    #[test]
    fn a_name_taken_by_another_object_is_a_deletion_and_a_creation() {
        for compact in [false, true] {
            let shared = copy(compact);
            let with_uid = |version: &str, uid: &str| {
                let mut object = object("a", version, "x");
                object["metadata"]["uid"] = uid.into();
                Arc::new(object)
            };
            shared.apply(with_uid("1", "first"));
            let mut changes = subscribe(&shared);
            shared.apply(with_uid("2", "first"));
            let seen = changes.try_recv();
            assert!(matches!(seen, Ok(Change::Applied { old: Some(old), .. }) if old == with_uid("1", "first")));
            shared.apply(with_uid("4", "second"));
            assert!(matches!(changes.try_recv(), Ok(Change::Deleted(o)) if o["metadata"]["uid"] == "first"));
            let came = changes.try_recv();
            assert!(matches!(came, Ok(Change::Applied { old: None, new }) if new["metadata"]["uid"] == "second"));
            assert_eq!(shared.0.read().by_owner["x"].len(), 1);
        }
    }

    #[test]
    fn deleting_an_unknown_object_says_nothing() {
        let shared = Shared::default();
        let mut changes = subscribe(&shared);
        shared.remove(Arc::new(object("a", "1", "x")));
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn text_is_searched_before_it_is_read() {
        let object = Arc::new(json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n\"1"}}));
        for (needle, is_there) in [(r#""nodeName":"n\"1""#, true), (r#""nodeName":"n""#, false)] {
            assert_eq!(Kept::new(&object, true).may_contain(needle), is_there, "{needle}");
            assert!(Kept::new(&object, false).may_contain(needle), "a tree is looked at by who asks");
        }
    }

    #[test]
    fn text_is_read_back_as_it_was() {
        let object =
            Arc::new(json!({"a": [1, -2, 1.5, 18446744073709551615_u64], "ü": "\u{0}\"\n", "n": null, "o": {}}));
        assert_eq!(Kept::new(&object, true).object(), object);
    }
}
