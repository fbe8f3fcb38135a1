//! Objects in the store: keys, transactions, caches.
//!
//! [`etcd`] speaks the protocol, [`codec`] turns objects into texts and back, [`encryption`] texts into values, [`cache`] is the pure watch cache and [`cacher`] the task
//! that feeds it. This file is what the rest of the server uses.

pub mod cache;
pub mod cacher;
pub mod codec;
pub mod compactor;
pub mod connector;
pub mod encryption;
pub mod etcd;
pub mod keys;
pub mod selection;
mod timings;
mod versions;

use crate::errors::ApiError;
use crate::flowcontrol;
use crate::registry::Resource;
use apimachinery::meta;
pub use cacher::Cacher;
pub use codec::Stored;
use encryption::Encryption;
pub use etcd::{Store, StoreError};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// What must hold for an update or delete to go ahead.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resourceVersion.
    pub resource_version: Option<String>,
}

impl Preconditions {
    /// 409 if the object is not the one meant.
    pub fn check(&self, res: &Resource, object: &Stored) -> Result<(), ApiError> {
        let uid = object.uid();
        if let Some(want) = &self.uid
            && *want != uid
        {
            let why = format!(
                "the UID in the precondition ({want}) does not match the UID in record ({uid}). \
                 The object might have been deleted and then recreated"
            );
            return Err(ApiError::conflict(res.group, res.kind, &object.name, &why));
        }
        if let Some(want) = &self.resource_version
            && *want != object.revision.to_string()
        {
            let why = format!(
                "the ResourceVersion in the precondition ({want}) does not match the ResourceVersion in record ({}). \
                 The object might have been modified",
                object.revision
            );
            return Err(ApiError::conflict(res.group, res.kind, &object.name, &why));
        }
        Ok(())
    }
}

/// How a compare-and-swap ended.
#[derive(Debug)]
pub enum Swap {
    /// The write went through.
    Done(Arc<Stored>),
    /// Someone else wrote first; this is what stands there now, if anything.
    Lost(Option<Arc<Stored>>),
}

/// Group, version and place: two groups or versions may serve the same objects in their own shape.
type CacheKey = (&'static str, &'static str, &'static str);

struct Inner {
    store: Store,
    encryption: Arc<Encryption>,
    caches: Mutex<HashMap<CacheKey, Arc<Cacher>>>,
    event_ttl: i64,
}

/// The server's view of the store.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

impl Storage {
    /// Objects in `store`, written and read by `encryption`; events vanish after `event_ttl` seconds.
    pub fn new(store: Store, encryption: Arc<Encryption>, event_ttl: i64) -> Self {
        Self(Arc::new(Inner { store, encryption, caches: Mutex::new(HashMap::new()), event_ttl }))
    }

    /// The connection, for what is not an object: health, compaction, revisions.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// How values are encrypted, for its health.
    pub fn encryption(&self) -> &Encryption {
        &self.0.encryption
    }

    /// The newest committed state of one object.
    pub async fn get(
        &self,
        res: &'static Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Stored>>, ApiError> {
        let key = self.0.store.key(res, namespace, name);
        // What the cache holds need not be sent and parsed again if it is still the newest.
        if let Some(cached) = self.peek(res, namespace, name)
            && self.0.store.timed("get", res, self.0.store.version(key.clone())).await? == Some(cached.revision)
        {
            return Ok(Some(cached));
        }
        let found = self.0.store.timed("get", res, self.0.store.get(&key)).await?;
        self.read(res, found).await
    }

    /// An entry as an object.
    pub async fn opened(&self, res: &'static Resource, entry: &etcd::Entry) -> Result<Arc<Stored>, ApiError> {
        opened(&self.0.encryption, res, entry).await
    }

    async fn read(&self, res: &'static Resource, found: Option<etcd::Entry>) -> Result<Option<Arc<Stored>>, ApiError> {
        match found {
            Some(entry) => self.opened(res, &entry).await.map(Some),
            None => Ok(None),
        }
    }

    /// What the cache, if one is running, last saw of an object. It may be out of date: good to begin with where a lost compare-and-swap tells.
    /// Nothing once the way objects are encrypted has changed: what the cache holds does not say that it is to be written anew.
    pub fn peek(&self, res: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        if self.0.encryption.has_changed(res) {
            return None;
        }
        let cache = self.0.caches.lock().get(&(res.group, res.version, res.storage)).cloned()?;
        cache.get(&keys::relative(res, namespace, name))
    }

    /// Stores a new object, named by its metadata. A resourceVersion in it is dropped.
    pub async fn create(&self, res: &'static Resource, mut object: Value) -> Result<Arc<Stored>, ApiError> {
        let (namespace, name) = (meta::namespace(&object).to_string(), meta::name(&object).to_string());
        let key = self.0.store.key(res, &namespace, &name);
        let text = self.0.encryption.seal(res, &key, codec::encode(res, &mut object)?).await?;
        let lease =
            if is_event(res) { self.0.store.lease(self.0.event_ttl).await.map_err(ApiError::from)? } else { 0 };
        match self.0.store.timed("create", res, self.0.store.create(&key, text, lease)).await? {
            Some(revision) => Ok(Arc::new(codec::stored(res, object, revision)?)),
            None => Err(ApiError::already_exists(res.group, res.plural, &name)),
        }
    }

    /// Replaces an object if it is still at `revision`.
    pub async fn swap(&self, res: &'static Resource, mut object: Value, revision: i64) -> Result<Swap, ApiError> {
        let (namespace, name) = (meta::namespace(&object).to_string(), meta::name(&object).to_string());
        let key = self.0.store.key(res, &namespace, &name);
        let text = self.0.encryption.seal(res, &key, codec::encode(res, &mut object)?).await?;
        let lease =
            if is_event(res) { self.0.store.lease(self.0.event_ttl).await.map_err(ApiError::from)? } else { 0 };
        match self.0.store.timed("update", res, self.0.store.swap(&key, text, revision, lease)).await? {
            Ok(written) => Ok(Swap::Done(Arc::new(codec::stored(res, object, written)?))),
            Err(found) => self.read(res, found).await.map(Swap::Lost),
        }
    }

    /// Removes an object if it is still at `revision`; on success the last state carries the version of its deletion.
    pub async fn remove(&self, res: &'static Resource, object: &Stored) -> Result<Swap, ApiError> {
        let key = self.0.store.key(res, &object.namespace, &object.name);
        match self.0.store.timed("delete", res, self.0.store.remove(&key, object.revision)).await? {
            Ok(removed) => Ok(Swap::Done(Arc::new(codec::stored(res, object.object(), removed)?))),
            Err(found) => self.read(res, found).await.map(Swap::Lost),
        }
    }

    /// Reads, changes and writes one object, again from the start when someone else wrote in between. `change` gets the object with its
    /// resourceVersion; an unchanged result is not written unless the value is stale.
    pub async fn guaranteed_update<F>(
        &self,
        res: &'static Resource,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
        mut change: F,
    ) -> Result<Arc<Stored>, ApiError>
    where
        F: FnMut(Value) -> Result<Value, ApiError>,
    {
        let mut current = self.get(res, namespace, name).await?;
        loop {
            let Some(stored) = current else { return Err(ApiError::not_found(res.group, res.plural, name)) };
            preconditions.check(res, &stored)?;
            let old = stored.object();
            let new = change(old.clone())?;
            if new == old && !stored.stale {
                return Ok(stored);
            }
            match self.swap(res, new, stored.revision).await? {
                Swap::Done(stored) => return Ok(stored),
                Swap::Lost(found) => current = found,
            }
        }
    }

    /// Removes one object whatever its version, unless the preconditions fail.
    pub async fn delete(
        &self,
        res: &'static Resource,
        namespace: &str,
        name: &str,
        preconditions: &Preconditions,
    ) -> Result<Arc<Stored>, ApiError> {
        let mut current = self.get(res, namespace, name).await?;
        loop {
            let Some(stored) = current else { return Err(ApiError::not_found(res.group, res.plural, name)) };
            preconditions.check(res, &stored)?;
            match self.remove(res, &stored).await? {
                Swap::Done(stored) => return Ok(stored),
                Swap::Lost(found) => current = found,
            }
        }
    }

    /// The resource's watch cache, started on first use. It may not have read the store yet: see [`Cacher::synced`].
    pub fn cache(&self, res: &'static Resource) -> Arc<Cacher> {
        let mut caches = self.0.caches.lock();
        let key = (res.group, res.version, res.storage);
        caches.entry(key).or_insert_with(|| Cacher::start(self.0.store.clone(), self.0.encryption.clone(), res)).clone()
    }

    /// What the resource's cache holds, if it is running.
    pub fn stored(&self, res: &'static Resource) -> Option<flowcontrol::Stored> {
        self.0.caches.lock().get(&(res.group, res.version, res.storage)).map(|cache| cache.stored())
    }

    /// How many objects each started cache holds, by resource.
    pub fn sizes(&self) -> Vec<(&'static Resource, usize)> {
        let caches = self.0.caches.lock();
        let mut sizes: Vec<_> = caches.values().map(|c| (c.resource(), c.len())).collect();
        sizes.sort_unstable_by_key(|(res, _)| (res.group, res.plural, res.version));
        sizes.dedup_by_key(|(res, _)| (res.group, res.plural));
        sizes
    }

    /// Every cached object, without waiting: empty while the cache has not read the store. For decisions that tolerate a slightly old view.
    pub fn cached(&self, res: &'static Resource) -> Vec<Arc<Stored>> {
        self.cache(res).snapshot("").0
    }

    /// One cached object, without waiting.
    pub fn cached_get(&self, res: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.cache(res).get(&keys::relative(res, namespace, name))
    }

    /// Every object (of one namespace, if given) at least as new as the moment of the call.
    pub async fn list(
        &self,
        res: &'static Resource,
        namespace: Option<&str>,
    ) -> Result<(Vec<Arc<Stored>>, i64), ApiError> {
        let cacher = self.cache(res);
        cacher.fresh().await?;
        Ok(cacher.snapshot(&namespace.filter(|n| !n.is_empty()).map(|n| format!("{n}/")).unwrap_or_default()))
    }
}

/// An entry as an object.
async fn opened(encryption: &Encryption, res: &Resource, entry: &etcd::Entry) -> Result<Arc<Stored>, ApiError> {
    let opened = encryption.open(res, &entry.key, &entry.value).await?;
    let stored = codec::decode(res, &opened.text, entry.mod_revision)?;
    Ok(Arc::new(Stored { stale: opened.stale, ..stored }))
}

/// What is said of an entry that [`opened`] refuses, where many are read and it matters which.
pub fn unreadable(entry: &etcd::Entry, error: &ApiError) -> String {
    let why = error.to_string();
    let why = why.strip_prefix("Internal error occurred: ").unwrap_or(&why);
    format!("unable to transform key {:?}: {why}", String::from_utf8_lossy(&entry.key))
}

fn is_event(res: &Resource) -> bool {
    res.storage == "events"
}

impl From<encryption::EncryptionError> for ApiError {
    fn from(error: encryption::EncryptionError) -> Self {
        match error {
            encryption::EncryptionError::Kms(..) => ApiError::unavailable(error.to_string()),
            other => ApiError::internal(other),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted => ApiError::expired("The provided resource version is too old."),
            StoreError::Unavailable(why) => ApiError::unavailable(format!("the store cannot be reached: {why}")),
            StoreError::Timeout => ApiError::timeout("the store did not answer in time", 1),
            StoreError::TooLarge => ApiError::too_large("the object is larger than the store accepts"),
            StoreError::Unreadable(why) | StoreError::Other(why) => ApiError::internal(why),
        }
    }
}
