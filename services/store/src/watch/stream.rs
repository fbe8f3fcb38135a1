//! One watch stream: its watchers, where each of them is, and what to send next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::watch_create_request::FilterType;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::mvccpb::event::EventType;
use store_api::mvccpb::{Event, KeyValue};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{Hub, Recent};
use crate::error::{Error, Refusal};
use crate::mvcc::{KeyRange, Mvcc};

/// About how much one response carries; a revision is never cut unless the client allows fragments.
const RESPONSE_BYTES: usize = 1 << 20;
/// How many stored records one step of a lagging watcher reads at most.
const HISTORY_RECORDS: usize = 10_000;
/// Clients know this id as "no watcher in particular".
const NO_WATCHER: i64 = -1;

struct Watcher {
    range: KeyRange,
    /// The next revision to look at.
    next: i64,
    prev_kv: bool,
    filters: Vec<FilterType>,
    progress: bool,
    fragment: bool,
    /// Something was sent since the last progress tick.
    active: bool,
    /// It has seen everything published at some moment. Until then it asks for history, and history ends at the compacted
    /// revision even where the ring still remembers more; from then on only falling behind the ring can cost it anything.
    synced: bool,
}

impl Watcher {
    fn wants(&self, tombstone: bool, key: &[u8]) -> bool {
        let filter = if tombstone { FilterType::Nodelete } else { FilterType::Noput };
        !self.filters.contains(&filter) && self.range.contains(key)
    }
}

/// The client is gone; nothing is left to do.
struct Gone;

/// What a watcher gets next, and the revision up to which that is complete.
struct Step {
    events: Vec<Event>,
    through: i64,
}

/// Whether the client may watch a range, given by its key and end; asked when a watcher is made, as in etcd.
type Allowed = Box<dyn Fn(&[u8], &[u8]) -> Result<(), Refusal> + Send + Sync>;

/// A stream's state.
pub struct Session {
    mvcc: Arc<Mvcc>,
    hub: Arc<Hub>,
    allowed: Allowed,
    header: pb::ResponseHeader,
    revisions: watch::Receiver<i64>,
    watchers: BTreeMap<i64, Watcher>,
    next_id: i64,
    most: usize,
    out: mpsc::Sender<Result<pb::WatchResponse, Status>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        let counted = self.watchers.values().filter(|w| w.prev_kv).count();
        (0..counted).for_each(|_| self.hub.count_previous(false));
    }
}

impl Session {
    /// A stream that answers into `out`; `header` is the response header without its revision.
    pub fn new(
        mvcc: Arc<Mvcc>,
        hub: Arc<Hub>,
        allowed: Allowed,
        header: pb::ResponseHeader,
        out: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    ) -> Self {
        let revisions = hub.subscribe();
        Session { mvcc, hub, allowed, header, revisions, watchers: BTreeMap::new(), next_id: 0, most: usize::MAX, out }
    }

    /// Limits the number of watchers.
    pub fn at_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Serves until the client ends the stream or `shutdown`.
    pub async fn run(
        mut self,
        mut inbound: tonic::Streaming<pb::WatchRequest>,
        progress: Duration,
        shutdown: daemon::Shutdown,
    ) {
        let mut ticker = tokio::time::interval(progress);
        ticker.reset();
        loop {
            let outcome = tokio::select! {
                () = shutdown.wait() => return,
                () = self.out.closed() => return,
                message = inbound.message() => match message {
                    Ok(Some(request)) => self.handle(request).await,
                    Ok(None) | Err(_) => return,
                },
                changed = self.revisions.changed() => match changed {
                    Ok(()) => self.pump().await.map(|_| ()),
                    Err(_) => return,
                },
                _ = ticker.tick() => self.tick().await,
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn handle(&mut self, request: pb::WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                // Everything up to the revision named here has been sent before it on the same stream.
                let through = self.pump().await?;
                self.send(pb::WatchResponse {
                    header: self.header(through),
                    watch_id: NO_WATCHER,
                    ..Default::default()
                })
                .await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: pb::WatchCreateRequest) -> Result<(), Gone> {
        let current = self.mvcc.revision();
        let key = if request.key.is_empty() { bytes::Bytes::from_static(&[0]) } else { request.key.clone() };
        let range = KeyRange::new(&key, &request.range_end);
        let refusal = if let Err(refusal) = (self.allowed)(&key, &request.range_end) {
            Some(as_go_prints(refusal))
        } else if self.watchers.len() >= self.most {
            Some(as_go_prints(Refusal::TooManyRequests))
        } else if range.is_empty() {
            Some("mvcc: watcher range is empty".to_owned())
        } else if request.watch_id != 0 && self.watchers.contains_key(&request.watch_id) {
            Some("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
        } else {
            None
        };
        let header = self.header(current);
        if let Some(cancel_reason) = refusal {
            let answer = pb::WatchResponse {
                header,
                watch_id: NO_WATCHER,
                created: true,
                canceled: true,
                cancel_reason,
                ..Default::default()
            };
            return self.send(answer).await;
        }
        let id = self.take_id(request.watch_id);
        let next = if request.start_revision > 0 { request.start_revision } else { current + 1 };
        if request.prev_kv {
            self.hub.count_previous(true);
        }
        let watcher = Watcher {
            range,
            next,
            prev_kv: request.prev_kv,
            filters: request.filters().collect(),
            progress: request.progress_notify,
            fragment: request.fragment,
            active: false,
            synced: next > current,
        };
        self.watchers.insert(id, watcher);
        self.send(pb::WatchResponse { header, watch_id: id, created: true, ..Default::default() }).await?;
        self.pump().await.map(|_| ())
    }

    fn take_id(&mut self, wanted: i64) -> i64 {
        if wanted != 0 {
            return wanted;
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn cancel(&mut self, id: i64) -> Result<(), Gone> {
        if !self.remove(id) {
            return Ok(());
        }
        let header = self.header(self.mvcc.revision());
        self.send(pb::WatchResponse { header, watch_id: id, canceled: true, ..Default::default() }).await
    }

    fn remove(&mut self, id: i64) -> bool {
        let removed = self.watchers.remove(&id);
        if removed.as_ref().is_some_and(|w| w.prev_kv) {
            self.hub.count_previous(false);
        }
        removed.is_some()
    }

    async fn tick(&mut self) -> Result<(), Gone> {
        let through = self.pump().await?;
        let mut quiet = Vec::new();
        for (id, watcher) in &mut self.watchers {
            if watcher.progress && !watcher.active && watcher.next == through + 1 {
                quiet.push(*id);
            }
            watcher.active = false;
        }
        for watch_id in quiet {
            self.send(pb::WatchResponse { header: self.header(through), watch_id, ..Default::default() }).await?;
        }
        Ok(())
    }

    /// Sends until every watcher has seen everything published; returns that revision.
    async fn pump(&mut self) -> Result<i64, Gone> {
        loop {
            let published = *self.revisions.borrow_and_update();
            let behind: Vec<i64> =
                self.watchers.iter().filter(|(_, w)| w.next <= published).map(|(id, _)| *id).collect();
            if behind.is_empty() {
                return Ok(published);
            }
            // Watchers that keep up all stand at the same revision and share one look into the ring.
            let mut shared: Option<(i64, Option<Recent>)> = None;
            for id in behind {
                self.advance(id, published, &mut shared).await?;
            }
        }
    }

    async fn advance(
        &mut self,
        id: i64,
        published: i64,
        shared: &mut Option<(i64, Option<Recent>)>,
    ) -> Result<(), Gone> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        let from = watcher.next;
        if !watcher.synced && from < self.mvcc.compacted() {
            return self.compacted(id).await;
        }
        if shared.as_ref().is_none_or(|(at, _)| *at != from) {
            *shared = Some((from, self.hub.recent(from, RESPONSE_BYTES)));
        }
        let recent =
            shared.as_ref().and_then(|(_, recent)| recent.as_ref()).and_then(|recent| from_ring(watcher, recent));
        let step = match recent {
            Some(step) => Ok(step),
            None => self.read_from_disk(id, from, published).await,
        };
        match step {
            Ok(step) => {
                let caught_up = step.through >= published;
                self.deliver(id, step).await?;
                if let Some(watcher) = self.watchers.get_mut(&id).filter(|_| caught_up) {
                    watcher.synced = true;
                }
                Ok(())
            }
            Err(Error::Refused(Refusal::Compacted)) => self.compacted(id).await,
            Err(error) => {
                tracing::error!(%error, "watch ends: history cannot be read");
                let _ = self.out.send(Err(error.into())).await;
                Err(Gone)
            }
        }
    }

    /// Ends a watcher whose history is gone, and tells it where history begins.
    async fn compacted(&mut self, id: i64) -> Result<(), Gone> {
        self.remove(id);
        let compact_revision = self.mvcc.compacted();
        let header = self.header(self.mvcc.revision());
        self.send(pb::WatchResponse { header, watch_id: id, canceled: true, compact_revision, ..Default::default() })
            .await
    }

    async fn read_from_disk(&self, id: i64, from: i64, to: i64) -> Result<Step, Error> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(Step { events: Vec::new(), through: to }) };
        let (mvcc, range, prev_kv, filters) =
            (self.mvcc.clone(), watcher.range.clone(), watcher.prev_kv, watcher.filters.clone());
        let read = move || read_history(&mvcc, &range, prev_kv, &filters, from, to);
        tokio::task::spawn_blocking(read).await.unwrap_or_else(|e| Err(Error::Consensus(e.to_string())))
    }

    async fn deliver(&mut self, id: i64, step: Step) -> Result<(), Gone> {
        let header = self.header(step.through);
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        watcher.next = step.through + 1;
        if step.events.is_empty() {
            return Ok(());
        }
        watcher.active = true;
        let mut parts = if watcher.fragment { fragments(step.events) } else { vec![step.events] };
        let last = parts.pop();
        for events in parts {
            self.send(pb::WatchResponse { header, watch_id: id, fragment: true, events, ..Default::default() }).await?;
        }
        self.send(pb::WatchResponse { header, watch_id: id, events: last.unwrap_or_default(), ..Default::default() })
            .await
    }

    fn header(&self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { revision, ..self.header })
    }

    async fn send(&self, response: pb::WatchResponse) -> Result<(), Gone> {
        self.out.send(Ok(response)).await.map_err(|_| Gone)
    }
}

/// Clients get the refusal as gRPC-Go prints an error, because etcd's server puts that into the response.
fn as_go_prints(refusal: Refusal) -> String {
    format!("rpc error: code = {:?} desc = {}", refusal.code(), refusal.text())
}

fn event(tombstone: bool, kv: KeyValue, prev_kv: Option<KeyValue>) -> Event {
    let kind = if tombstone { EventType::Delete } else { EventType::Put };
    Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}

/// The watcher's share of the ring; `None` if it needs replaced values that the ring does not hold.
fn from_ring(watcher: &Watcher, recent: &Recent) -> Option<Step> {
    let mut events = Vec::new();
    for batch in &recent.batches {
        for (place, change) in batch.changes.iter().enumerate() {
            if !watcher.wants(change.tombstone, &change.kv.key) {
                continue;
            }
            let previous = match (&batch.previous, change.previous) {
                (Some(previous), _) if watcher.prev_kv => previous.get(place).cloned().flatten(),
                (None, Some(_)) if watcher.prev_kv => return None,
                _ => None,
            };
            events.push(event(change.tombstone, change.kv.clone(), previous));
        }
    }
    Some(Step { events, through: recent.through })
}

fn read_history(
    mvcc: &Mvcc,
    range: &KeyRange,
    prev_kv: bool,
    filters: &[FilterType],
    from: i64,
    to: i64,
) -> Result<Step, Error> {
    let mut step = Step { events: Vec::new(), through: to };
    let (mut bytes, mut records, mut last) = (0, 0, from);
    mvcc.history(from, to, |revision, tombstone, kv| {
        if revision.main != last && (bytes > RESPONSE_BYTES || records >= HISTORY_RECORDS) {
            // Stop between revisions only.
            step.through = revision.main - 1;
            return Ok(false);
        }
        last = revision.main;
        records += 1;
        let filter = if tombstone { FilterType::Nodelete } else { FilterType::Noput };
        if range.contains(&kv.key) && !filters.contains(&filter) {
            let previous = if prev_kv { mvcc.before(&kv.key, revision.main)? } else { None };
            bytes += kv.encoded_len() + previous.as_ref().map_or(0, Message::encoded_len);
            step.events.push(event(tombstone, kv, previous));
        }
        Ok(true)
    })?;
    Ok(step)
}

/// Cuts events into parts of about the size of one response; never returns nothing.
fn fragments(events: Vec<Event>) -> Vec<Vec<Event>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = 0;
    for event in events {
        let size = event.encoded_len();
        if bytes > 0 && bytes + size > RESPONSE_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
}
