//! Clients and watchers that record what they did and saw.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::compare::{CompareTarget, TargetUnion};
use store_api::etcdserverpb::request_op::Request;
use store_api::etcdserverpb::response_op::Response as OpResponse;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::mvccpb::KeyValue;
use store_api::mvccpb::event::EventType;
use tokio::sync::watch;
use tonic::Status;

use super::model::{Answer, Call, Reason, Value};
use super::replay::LocalRead;
use super::watch::{Event, Response, Watch};
use super::wgl::Operation;
use crate::client::{Clients, prefix, put};

const KEYS: usize = 8;
const LEASES: i64 = 4;
/// A client gives up on an answer after this long and goes on.
const PATIENCE: Duration = Duration::from_secs(3);
/// Compactions leave this many revisions, so that watchers that lag can go on.
const KEPT_REVISIONS: i64 = 1500;

/// What was done and seen.
pub struct Record {
    base: Instant,
    pub operations: Mutex<Vec<Operation<Call, Answer>>>,
    pub local: Mutex<Vec<LocalRead>>,
    pub watches: Mutex<Vec<Watch>>,
    /// The newest revision anyone was told.
    pub newest: watch::Sender<i64>,
}

impl Record {
    pub fn new() -> Arc<Self> {
        Arc::new(Record {
            base: Instant::now(),
            operations: Mutex::default(),
            local: Mutex::default(),
            watches: Mutex::default(),
            newest: watch::Sender::new(1),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap()
    }

    fn told(&self, revision: i64) {
        self.newest.send_if_modified(|newest| {
            let more = revision > *newest;
            *newest = revision.max(*newest);
            more
        });
    }
}

fn value(kv: &KeyValue) -> Value {
    Value {
        value: String::from_utf8_lossy(&kv.value).into_owned(),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

fn key(kv: &KeyValue) -> String {
    String::from_utf8_lossy(&kv.key).into_owned()
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.map_or(0, |header| header.revision)
}

/// Whether a request certainly never left the client: nobody listened.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}

/// What a refusal means; anything that is none of these leaves open whether the request happened.
fn refused(status: &Status) -> Answer {
    let reasons = [
        ("required revision has been compacted", Reason::Compacted),
        ("required revision is a future revision", Reason::Future),
        ("requested lease not found", Reason::LeaseNotFound),
        ("lease already exists", Reason::LeaseExists),
    ];
    let found = reasons.iter().find(|(text, _)| status.message().contains(text));
    found.map_or(Answer::Unknown, |(_, reason)| Answer::Refused(*reason))
}

fn update(name: &str, expected: i64, text: &str) -> pb::TxnRequest {
    let compare = pb::Compare {
        key: name.to_owned().into(),
        target: CompareTarget::Mod.into(),
        target_union: Some(TargetUnion::ModRevision(expected)),
        ..Default::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put(name, text)))],
        failure: vec![op(Request::RequestRange(prefix(name)))],
    }
}

fn updated(answer: pb::TxnResponse) -> Answer {
    let revision = revision(answer.header);
    if answer.succeeded {
        return Answer::Updated { revision };
    }
    let found = match answer.responses.into_iter().next().and_then(|op| op.response) {
        Some(OpResponse::ResponseRange(range)) => range.kvs.first().map(value),
        _ => None,
    };
    Answer::NotUpdated { revision, found }
}

async fn run(clients: &mut Clients, call: &Call) -> Result<Answer, Status> {
    let done = |header| Answer::Done { revision: revision(header) };
    Ok(match call.clone() {
        Call::List { prefix: start } => {
            let found = clients.kv.range(prefix(&start)).await?.into_inner();
            let values = found.kvs.iter().map(|kv| (key(kv), value(kv))).collect();
            Answer::Values { revision: revision(found.header), values }
        }
        Call::Put { key, value, lease } => {
            done(clients.kv.put(pb::PutRequest { lease, ..put(&key, &value) }).await?.into_inner().header)
        }
        Call::Delete { key } => {
            let request = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
            let answer = clients.kv.delete_range(request).await?.into_inner();
            Answer::Deleted { revision: revision(answer.header), count: answer.deleted }
        }
        Call::Update { key, expected, value } => {
            updated(clients.kv.txn(update(&key, expected, &value)).await?.into_inner())
        }
        Call::Compact { to } => {
            let request = pb::CompactionRequest { revision: to, physical: false };
            done(clients.kv.compact(request).await?.into_inner().header)
        }
        Call::Grant { id } => {
            done(clients.lease.lease_grant(pb::LeaseGrantRequest { ttl: 3600, id }).await?.into_inner().header)
        }
        Call::Revoke { id } => {
            done(clients.lease.lease_revoke(pb::LeaseRevokeRequest { id }).await?.into_inner().header)
        }
    })
}

/// The next request; `seen` is what the client read last.
fn choose(random: &mut SmallRng, text: String, seen: &[(String, Value)], newest: i64) -> Call {
    let name = format!("/k{}", random.random_range(0..KEYS));
    let known = seen.iter().find(|(key, _)| *key == name).map_or(0, |(_, held)| held.modified);
    let id = random.random_range(1..=LEASES);
    match random.random_range(0..100) {
        0..25 => Call::Put { key: name, value: text, lease: 0 },
        25..30 => Call::Put { key: name, value: text, lease: id },
        30..55 => Call::Update { key: name, expected: known, value: text },
        55..65 => Call::Delete { key: name },
        65..68 => Call::Grant { id },
        68..70 => Call::Revoke { id },
        70 if newest > KEPT_REVISIONS => Call::Compact { to: newest - KEPT_REVISIONS },
        71..85 => Call::List { prefix: "/k".into() },
        _ => Call::List { prefix: name },
    }
}

/// One client that goes from member to member until `stop`.
pub async fn client(
    number: usize,
    seed: u64,
    mut members: Vec<Clients>,
    record: Arc<Record>,
    stop: watch::Receiver<bool>,
    pace: Duration,
) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut seen = Vec::new();
    for turn in 0.. {
        if *stop.borrow() {
            return;
        }
        let place = random.random_range(0..members.len());
        let newest = *record.newest.borrow();
        let call = choose(&mut random, format!("{number}.{turn}"), &seen, newest);
        if random.random_bool(0.1) {
            local_read(&mut members[place], &record).await;
        }
        let start = record.now();
        let result = tokio::time::timeout(PATIENCE, run(&mut members[place], &call)).await;
        let end = record.now();
        let answer = match result {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) if never_sent(&status) => {
                tokio::time::sleep(pace).await;
                continue;
            }
            Ok(Err(status)) => refused(&status),
            Err(_) => Answer::Unknown,
        };
        match &answer {
            Answer::Values { values, revision } => {
                seen.clone_from(values);
                record.told(*revision);
            }
            Answer::Done { revision } | Answer::Updated { revision } | Answer::Deleted { revision, .. } => {
                record.told(*revision);
            }
            _ => {}
        }
        // A read without an answer says nothing.
        if call.writes() || answer != Answer::Unknown {
            record.operations.lock().push(Operation { client: number, call, answer, start, end });
        }
        // A fault must last for many requests, but not for so many that checking them takes longer than making them.
        tokio::time::sleep(pace).await;
    }
}

async fn local_read(member: &mut Clients, record: &Record) {
    let request = pb::RangeRequest { serializable: true, ..prefix("/k") };
    let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, member.kv.range(request)).await else { return };
    let found = found.into_inner();
    let values = found.kvs.iter().map(|kv| (key(kv), value(kv))).collect();
    record.local.lock().push(LocalRead { prefix: "/k".into(), revision: revision(found.header), values });
}

fn event(event: &store_api::mvccpb::Event) -> Event {
    let kv = event.kv.clone().unwrap_or_default();
    let deleted = event.r#type() == EventType::Delete;
    let held = value(&kv);
    Event {
        key: key(&kv),
        deleted,
        value: held.value,
        modified: held.modified,
        create: held.create,
        version: held.version,
        previous: event.prev_kv.as_ref().map(|kv| value(kv).value),
    }
}

/// Watches `range` on a member from `start` until `stop`, the stream's end or `until`; returns what it saw.
async fn watch_once(
    member: &mut Clients,
    range: pb::RangeRequest,
    start: i64,
    stop: &mut watch::Receiver<bool>,
    until: Duration,
) -> Watch {
    let name = String::from_utf8_lossy(&range.key).into_owned();
    let mut seen = Watch { prefix: name, start, previous: false, responses: Vec::new() };
    if seen.prefix == "\0" {
        seen.prefix.clear();
    }
    let create = pb::WatchCreateRequest {
        key: range.key,
        range_end: range.range_end,
        start_revision: start,
        progress_notify: true,
        prev_kv: true,
        ..Default::default()
    };
    let Ok(Ok((requests, mut responses))) = tokio::time::timeout(PATIENCE, member.watch(create)).await else {
        return seen;
    };
    let deadline = tokio::time::Instant::now() + until;
    let mut progress = tokio::time::interval(Duration::from_millis(300));
    loop {
        let response = tokio::select! {
            response = responses.message() => response,
            _ = stop.wait_for(|stop| *stop) => return seen,
            () = tokio::time::sleep_until(deadline) => return seen,
            _ = progress.tick() => {
                let request = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                // A stream that is closing answers on the other side.
                let _ = requests.try_send(pb::WatchRequest { request_union: Some(request) });
                continue;
            }
        };
        let Ok(Some(response)) = response else { return seen };
        if response.canceled {
            return seen;
        }
        if !response.events.is_empty() {
            seen.responses.push(Response::Events(response.events.iter().map(event).collect()));
        } else if !response.created {
            seen.responses.push(Response::Progress(revision(response.header)));
        }
    }
}

/// Watches everything on one member, again and again, until `stop`; `until` reports how far it got.
pub async fn collector(mut member: Clients, record: Arc<Record>, stop: watch::Receiver<bool>, got: watch::Sender<i64>) {
    let mut next = 1;
    while !*stop.borrow() {
        let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        // In slices, so that how far it got is known and resuming is tried all the time.
        let slice = Duration::from_millis(1500);
        let seen = watch_once(&mut member, all, next, &mut stop.clone(), slice).await;
        let events = seen.responses.iter().flat_map(|response| match response {
            Response::Events(events) => events.as_slice(),
            Response::Progress(_) => &[],
        });
        if let Some(last) = events.map(|event| event.modified).max() {
            next = last + 1;
            got.send_replace(last);
        }
        if seen.responses.is_empty() {
            // The member is away; there is no event for its return.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        record.watches.lock().push(seen);
    }
}

/// Short watches of single keys on changing members, from revisions around the newest.
pub async fn watcher(seed: u64, mut members: Vec<Clients>, record: Arc<Record>, mut stop: watch::Receiver<bool>) {
    let mut random = SmallRng::seed_from_u64(seed);
    while !*stop.borrow() {
        let newest = *record.newest.borrow();
        let start = (newest + random.random_range(-50..20)).max(1);
        let name = format!("/k{}", random.random_range(0..KEYS));
        let place = random.random_range(0..members.len());
        let long = Duration::from_millis(random.random_range(200..2500));
        let mut seen = watch_once(&mut members[place], prefix(&name), start, &mut stop, long).await;
        seen.previous = true;
        if seen.responses.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        record.watches.lock().push(seen);
    }
}
