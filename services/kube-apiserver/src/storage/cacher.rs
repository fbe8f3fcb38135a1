//! The task that keeps a watch cache in step with the store, and the handle through which requests read it.

use super::cache::{Cache, Event, TooOld};
use super::codec::Stored;
use super::encryption::Encryption;
use super::etcd::{Entry, Store, StoreError};
use super::keys;
use crate::errors::ApiError;
use crate::flowcontrol;
use crate::registry::Resource;
use daemon::backoff::Backoff;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use store_api::etcdserverpb as pb;
use store_api::mvccpb::event::EventType;
use tokio::sync::{mpsc, watch};

/// How many entries the first read asks for at a time.
const PAGE: i64 = 2000;
/// How long a request waits for the cache to catch up.
const PATIENCE: Duration = Duration::from_secs(3);
/// How soon a progress request is repeated: the first may have been dropped with a broken stream.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// One resource's watch cache.
pub struct Cacher {
    res: &'static Resource,
    store: Store,
    encryption: Arc<Encryption>,
    cache: RwLock<Cache>,
    /// The cache's revision, for those who wait; -1 before the first read.
    revision: watch::Sender<i64>,
    /// An object in the store cannot be read: clients are not served from here until it can. What was cached before stays for the server's own decisions.
    broken: AtomicBool,
    /// Where to ask for progress on the running stream.
    ask: RwLock<Option<mpsc::Sender<pb::WatchRequest>>>,
}

impl Cacher {
    /// Starts the task that fills it.
    pub fn start(store: Store, encryption: Arc<Encryption>, res: &'static Resource) -> Arc<Self> {
        let cacher = Arc::new(Self {
            res,
            store,
            encryption,
            cache: RwLock::default(),
            revision: watch::channel(-1).0,
            broken: AtomicBool::new(false),
            ask: RwLock::default(),
        });
        tokio::spawn(feed(Arc::downgrade(&cacher)));
        cacher
    }

    /// Waits until the store has been read once.
    pub async fn synced(&self) {
        let _ = self.revision.subscribe().wait_for(|r| *r >= 0).await;
    }

    /// Whether the store has been read once.
    pub fn is_synced(&self) -> bool {
        *self.revision.borrow() >= 0
    }

    /// Whether lists and watches can be served: the store has been read, and every object in it could be.
    pub fn is_ready(&self) -> bool {
        self.is_synced() && !self.is_broken()
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// A receiver that changes with every change of the cache.
    pub fn subscribe(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }

    /// The resource.
    pub fn resource(&self) -> &'static Resource {
        self.res
    }

    /// Everything up to this revision is in the cache.
    pub fn revision(&self) -> i64 {
        self.cache.read().revision()
    }

    /// A watch may begin after this revision or a later one.
    pub fn begin(&self) -> i64 {
        self.cache.read().begin()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.cache.read().len()
    }

    /// How many objects there are and how large they are in sum.
    pub fn stored(&self) -> flowcontrol::Stored {
        let cache = self.cache.read();
        flowcontrol::Stored { count: cache.len() as u64, bytes: cache.bytes() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One object by its key below the resource's prefix.
    pub fn get(&self, key: &str) -> Option<Arc<Stored>> {
        self.cache.read().get(key)
    }

    /// One object and the revision it was seen at.
    pub fn get_at(&self, key: &str) -> (Option<Arc<Stored>>, i64) {
        let cache = self.cache.read();
        (cache.get(key), cache.revision())
    }

    /// Asks the store how far it has come, so that an idle cache learns it is not behind.
    pub fn ask_progress(&self) {
        if let Some(ask) = self.ask.read().as_ref() {
            // A full channel holds such a request already.
            let _ = ask.try_send(progress_request());
        }
    }

    /// The objects below a key prefix and the revision they were seen at.
    pub fn snapshot(&self, prefix: &str) -> (Vec<Arc<Stored>>, i64) {
        let cache = self.cache.read();
        let items = if prefix.is_empty() { Vec::with_capacity(cache.len()) } else { Vec::new() };
        let items = cache.range(prefix).fold(items, |mut items, object| {
            items.push(object.clone());
            items
        });
        (items, cache.revision())
    }

    /// As [`Self::snapshot`], with the place in the ring where its future begins.
    pub fn snapshot_and_place(&self, prefix: &str) -> (Vec<Arc<Stored>>, i64, u64) {
        let cache = self.cache.read();
        (cache.range(prefix).cloned().collect(), cache.revision(), cache.end())
    }

    /// A number that changes with every event, and only then.
    pub fn end(&self) -> u64 {
        self.cache.read().end()
    }

    /// The revision reached and the place in the ring where the future begins.
    pub fn now(&self) -> (i64, u64) {
        let cache = self.cache.read();
        (cache.revision(), cache.end())
    }

    /// The place after which every event is newer than `revision`.
    pub fn place_after(&self, revision: i64) -> Result<u64, TooOld> {
        self.cache.read().place_after(revision)
    }

    /// Events from a place on, the place after them, and the revision reached if they are all there are.
    pub fn events(&self, place: u64, limit: usize) -> Result<(Vec<Arc<Event>>, u64, i64), TooOld> {
        let cache = self.cache.read();
        let (events, next) = cache.events(place, limit)?;
        let reached = if next == cache.end() { cache.revision() } else { events.last().map_or(0, |e| e.revision) };
        Ok((events, next, reached))
    }

    /// Waits until the cache holds every write that had been committed when the call began.
    pub async fn fresh(&self) -> Result<i64, ApiError> {
        let revision = self.store.revision().await?;
        self.at_least(revision).await?;
        Ok(revision)
    }

    /// Waits until the cache has reached a revision.
    pub async fn at_least(&self, revision: i64) -> Result<(), ApiError> {
        if self.is_broken() {
            return Err(self.behind(revision));
        }
        let mut reached = self.revision.subscribe();
        if *reached.borrow() >= revision {
            return Ok(());
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            // The events may be on their way, but if the newest writes were to other resources only progress tells.
            self.ask_progress();
            match tokio::time::timeout(ASK_AGAIN, reached.wait_for(|r| *r >= revision)).await {
                Ok(_) => return Ok(()),
                Err(_) if self.is_broken() => return Err(self.behind(revision)),
                Err(_) if tokio::time::Instant::now() >= deadline => return Err(self.behind(revision)),
                Err(_) => {}
            }
        }
    }

    fn behind(&self, revision: i64) -> ApiError {
        let current = self.revision();
        if !self.is_ready() {
            return ApiError::too_many_requests(
                format!("storage is (re)initializing: {}", self.res.group_resource()),
                1,
            );
        }
        ApiError::timeout(format!("Too large resource version: {revision}, current: {current}"), 1).with_cause(
            "ResourceVersionTooLarge",
            "Too large resource version",
            "",
        )
    }

    fn publish(&self) {
        let revision = self.cache.read().revision();
        // Every event wakes the watchers, also when several share a revision.
        self.revision.send_replace(revision);
    }

    async fn read_everything(&self) -> Result<i64, StoreError> {
        let prefix = self.store.prefix(self.res);
        let (mut items, mut start, mut revision) = (Vec::new(), String::new(), 0);
        loop {
            let page = self.store.timed("list", self.res, self.store.page(&prefix, &start, PAGE, revision)).await?;
            if revision == 0 {
                revision = page.revision;
            }
            for entry in &page.entries {
                items.push((relative(&prefix, &entry.key), self.decode(entry).await?));
            }
            match page.entries.last() {
                Some(last) if page.more => start = format!("{}\0", relative(&prefix, &last.key)),
                _ => break,
            }
        }
        tracing::debug!(resource = ?self.res, objects = items.len(), revision, "cache filled");
        self.cache.write().reset(items, revision);
        self.broken.store(false, Ordering::Release);
        self.publish();
        Ok(revision)
    }

    async fn decode(&self, entry: &Entry) -> Result<Arc<Stored>, StoreError> {
        super::opened(&self.encryption, self.res, entry).await.map_err(|error| match error.code() {
            // A key service that is away comes back.
            503 => StoreError::Unavailable(error.to_string()),
            _ => StoreError::Unreadable(super::unreadable(entry, &error)),
        })
    }

    /// Lists and watches end here until everything can be read; whoever watches begins anew and is told why not.
    fn stop_serving(&self) {
        self.broken.store(true, Ordering::Release);
        self.cache.write().forget();
        self.revision.send_modify(|_| {});
    }

    async fn apply(&self, prefix: &str, reply: &pb::WatchResponse) -> Result<(), StoreError> {
        let mut changes = Vec::with_capacity(reply.events.len());
        for event in &reply.events {
            let Some(kv) = &event.kv else { continue };
            let deleted = event.r#type() == EventType::Delete;
            // Parsing happens outside the lock.
            let state = if deleted { None } else { Some(self.decode(kv).await?) };
            changes.push((relative(prefix, &kv.key), kv.mod_revision, state));
        }
        {
            let mut cache = self.cache.write();
            for (key, revision, state) in changes {
                match state {
                    Some(stored) => cache.put(key, stored),
                    None => cache.remove(&key, revision),
                }
            }
            // An event's header may be newer than its events while others are still to come; a progress notice has nothing pending.
            if reply.events.is_empty()
                && !reply.created
                && let Some(header) = &reply.header
            {
                cache.advance(header.revision);
            }
        }
        self.publish();
        Ok(())
    }
}

fn relative(prefix: &str, key: &[u8]) -> String {
    String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned()
}

fn progress_request() -> pb::WatchRequest {
    pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
    }
}

fn create_request(prefix: &str, start: i64) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest {
        key: prefix.as_bytes().to_vec().into(),
        range_end: keys::range_end(prefix.as_bytes()).into(),
        start_revision: start,
        progress_notify: true,
        ..Default::default()
    };
    pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }
}

/// Reads everything, then follows; resumes where it was after a broken stream and starts over after a compaction.
async fn feed(cacher: Weak<Cacher>) {
    let mut backoff = Backoff::default();
    let mut position: Option<i64> = None;
    loop {
        let Some(strong) = cacher.upgrade() else { return };
        let result = match position {
            None => strong.read_everything().await.map(|revision| position = Some(revision)),
            Some(revision) => follow(&strong, revision, &mut backoff).await,
        };
        match result {
            Ok(()) => backoff.reset(),
            Err(StoreError::Compacted) => position = None,
            Err(StoreError::Unreadable(why)) => {
                tracing::error!(resource = ?strong.res, why, "an object cannot be read; nothing is listed or watched until it can");
                position = None;
                strong.stop_serving();
                drop(strong);
                tokio::time::sleep(backoff.next_delay()).await;
            }
            Err(error) => {
                tracing::warn!(resource = ?strong.res, %error, "the store's watch broke; trying again");
                // What arrived before the break has been applied: go on after it.
                position = position.map(|_| strong.revision());
                drop(strong);
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn follow(cacher: &Cacher, revision: i64, backoff: &mut Backoff) -> Result<(), StoreError> {
    let prefix = cacher.store.prefix(cacher.res);
    let (ask, requests) = mpsc::channel(8);
    // The channel is empty and open: this cannot fail.
    let _ = ask.try_send(create_request(&prefix, revision + 1));
    let mut stream = cacher.store.watch(tokio_stream::wrappers::ReceiverStream::new(requests)).await?;
    *cacher.ask.write() = Some(ask);
    loop {
        let Some(reply) = stream.message().await? else { return Err(StoreError::Unavailable("stream ended".into())) };
        backoff.reset();
        if reply.compact_revision > 0 {
            return Err(StoreError::Compacted);
        }
        if reply.canceled {
            return Err(StoreError::Other(format!("watch cancelled: {}", reply.cancel_reason)));
        }
        cacher.apply(&prefix, &reply).await?;
    }
}
