//! Priority and fairness (KEP-1040): which requests run, which wait and which are refused when many come at once, so that one client's flood
//! does not starve the others.
//!
//! [`classify`] finds a request's FlowSchema and flow, [`shares`] divides the server's seats among priority levels, [`queues`] hands a level's
//! seats out; all three are pure. [`defaults`] is the configuration a cluster begins with, [`keeper`] keeps it in the store and follows it.
//! This file is the thin layer: locks, the clock, and futures that wait. A request that finds a free seat costs one lock and no allocation
//! but that of its hand of queues.
//!
//! Watches hold their seats until their initial events are gathered, other long-running requests need none, as upstream has it. A write that wakes
//! many watchers keeps its seats for a while after it has been answered ([`width`](Work)); [`watchers`] counts them, [`retry`] tells the refused when to
//! come again.

pub mod classify;
pub mod defaults;
pub mod inflight;
pub mod keeper;
pub mod metrics;
pub mod queues;
mod retry;
pub mod shares;
pub mod watchers;
mod width;

#[cfg(test)]
mod tests;

use crate::authn::UserInfo;
use crate::authz::Attributes;
use crate::config::Config;
use arc_swap::ArcSwap;
use classify::Schema;
use http::{HeaderMap, HeaderValue};
use metrics::Counts;
use parking_lot::Mutex;
use queues::{Arrival, Grant, Place, Queues, Reason, Shape};
use serde_json::Value;
use shares::{Bounds, Claim, Share};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
pub use width::{Stored, Width, Work};

/// How long a request waits for a seat: a quarter of the time all of it may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Refusals are counted from a moment so long before the start that the first ones already count.
const RETRY_BASE: u64 = 60;
/// Which FlowSchema and which level a request was assigned to, by uid.
const HEADERS: [&str; 2] = ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];

/// How requests are held back.
pub enum Admission {
    /// By priority and fairness.
    Fair(FlowControl),
    /// By two counts.
    Limits(inflight::InFlight),
}

/// The right of a request to run.
pub enum Seat {
    /// By priority and fairness.
    Fair(Ticket),
    /// By a count, if it needs a place at all.
    Place(Option<tokio::sync::OwnedSemaphorePermit>),
}

impl Admission {
    /// What the flags say: limits of reads and of writes at a time, whose sum is divided among priority levels if those are used.
    pub fn new(config: &Config) -> Result<Self, String> {
        let (reads, writes) = (config.max_requests_inflight, config.max_mutating_requests_inflight);
        if !config.enable_priority_and_fairness {
            return Ok(Self::Limits(inflight::InFlight::new(reads, writes)));
        }
        match reads.saturating_add(writes) {
            0 => Err("--max-requests-inflight and --max-mutating-requests-inflight: with priority and fairness their sum must be positive".into()),
            server => Ok(Self::Fair(FlowControl::new(server))),
        }
    }

    /// Priority and fairness, if that is used.
    pub fn fair(&self) -> Option<&FlowControl> {
        match self {
            Self::Fair(control) => Some(control),
            Self::Limits(_) => None,
        }
    }

    /// Waits until the request may run; `Err` if it may not. `class` is told how it was classified, either way.
    pub async fn enter(
        &self,
        user: &UserInfo,
        a: &Attributes,
        work: Work,
        class: &mut Option<Arc<Class>>,
    ) -> Result<Seat, Reason> {
        match self {
            Self::Fair(control) => match control.classify(user, a) {
                Some(found) => {
                    *class = Some(found.clone());
                    found.enter(user, a, work).await.map(Seat::Fair)
                }
                // Only who is neither authenticated nor anonymous, and so has no rights anyway.
                None => Err(Reason::ConcurrencyLimit),
            },
            Self::Limits(limits) => {
                let reads = matches!(a.verb.as_str(), "get" | "list" | "watch");
                limits.enter(user, reads).map(Seat::Place)
            }
        }
    }
}

/// The server's seats.
pub struct FlowControl {
    server: u32,
    begun: Instant,
    plan: ArcSwap<Plan>,
    /// What part of its target every level got last time.
    fair: Mutex<f64>,
}

/// The configuration in force.
#[derive(Default)]
struct Plan {
    /// In the order in which they are asked.
    classes: Vec<Arc<Class>>,
    levels: BTreeMap<String, Planned>,
}

struct Planned {
    level: Arc<Level>,
    uid: String,
    share: Share,
    bounds: Bounds,
}

/// One priority level's seats. It outlives its configuration while requests hold some.
struct Level {
    name: String,
    refusals: Mutex<retry::Refusals>,
    state: Mutex<Queues<Token>>,
    demand: Mutex<LevelDemand>,
}

/// What the last adjustment saw and decided.
#[derive(Clone, Copy, Debug, Default)]
struct LevelDemand {
    high: f64,
    smooth: f64,
}

/// A FlowSchema with its level: what a request is assigned to.
pub struct Class {
    schema: Schema,
    level: Arc<Level>,
    /// The widest a request may be.
    widest: u32,
    headers: [Option<HeaderValue>; 2],
    counts: Arc<Counts>,
    begun: Instant,
}

/// The seats of a request that runs; given back when dropped.
pub struct Ticket {
    class: Arc<Class>,
    /// Taken when it is given back.
    grant: Option<Grant>,
    /// How long it is kept when the request has ended.
    after: Duration,
}

/// What a waiting request is known by.
struct Token {
    class: Arc<Class>,
    after: Duration,
    send: oneshot::Sender<Ticket>,
}

/// A request that waits; it leaves the queue when dropped.
struct Waiting {
    class: Arc<Class>,
    place: Place,
    ticket: oneshot::Receiver<Ticket>,
}

impl FlowControl {
    /// The default configuration for a server of this many seats, until the one in the store is known.
    pub fn new(server: u32) -> Self {
        let control = Self { server, begun: Instant::now(), plan: ArcSwap::default(), fair: Mutex::default() };
        control.configure(&defaults::priority_levels(), &defaults::flow_schemas());
        control
    }

    /// Another configuration. What is mandatory and missing is supplied; schemas of levels that do not exist do not count.
    pub fn configure(&self, levels: &[Value], schemas: &[Value]) {
        let old = self.plan.load();
        let levels = with_mandatory(levels, &defaults::priority_levels());
        let schemas = with_mandatory(schemas, &defaults::flow_schemas());
        let read: Vec<(Share, Shape)> = levels.iter().map(classify::level).collect();
        let shares: Vec<Share> = read.iter().map(|(share, _)| *share).collect();
        let bounds = shares::bounds(self.server, &shares);
        let plan_one = |((object, (share, shape)), bounds): ((&Value, &(Share, Shape)), &Bounds)| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let level = self.level(&old, &name, *share, *shape, *bounds);
            let uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            (name, Planned { level, uid, share: *share, bounds: *bounds })
        };
        let levels: BTreeMap<String, Planned> = levels.iter().zip(&read).zip(&bounds).map(plan_one).collect();
        let mut schemas: Vec<Schema> = schemas.iter().map(Schema::from_object).collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let class = |schema: Schema| {
            let planned = levels.get(&schema.level)?;
            let known = old.classes.iter().find(|c| c.schema.name == schema.name && c.schema.level == schema.level);
            Some(Arc::new(Class {
                headers: [&schema.uid, &planned.uid]
                    .map(|uid| HeaderValue::from_str(uid).ok().filter(|u| !u.is_empty())),
                level: planned.level.clone(),
                widest: width::widest(planned.bounds.nominal),
                counts: known.map(|c| c.counts.clone()).unwrap_or_default(),
                begun: self.begun,
                schema,
            }))
        };
        let classes = schemas.into_iter().filter_map(class).collect();
        self.plan.store(Arc::new(Plan { classes, levels }));
        self.adjust();
    }

    fn level(&self, old: &Plan, name: &str, share: Share, shape: Shape, bounds: Bounds) -> Arc<Level> {
        let limit = if share.exempt { u32::MAX } else { bounds.nominal };
        let level = match old.levels.get(name) {
            Some(planned) => planned.level.clone(),
            None => Arc::new(Level {
                name: name.to_owned(),
                refusals: Mutex::default(),
                state: Mutex::new(Queues::new(shape, limit)),
                demand: Mutex::default(),
            }),
        };
        level.state.lock().reshape(shape);
        level
    }

    /// Divides the seats anew by what the levels have asked for since the last time.
    pub fn adjust(&self) {
        let plan = self.plan.load_full();
        let observe = |planned: &Planned| {
            let observed = planned.level.state.lock().take_demand(self.begun.elapsed());
            let mut demand = planned.level.demand.lock();
            *demand = LevelDemand { high: observed.high, smooth: shares::smooth(demand.smooth, &observed) };
            Claim { bounds: planned.bounds, exempt: planned.share.exempt, high: demand.high, smooth: demand.smooth }
        };
        let claims: Vec<Claim> = plan.levels.values().map(observe).collect();
        let (fair, limits) = shares::divide(self.server, &claims);
        for (planned, limit) in plan.levels.values().zip(limits) {
            let limit = if planned.share.exempt { u32::MAX } else { limit };
            let started = planned.level.state.lock().resize(self.begun.elapsed(), limit);
            hand_over(started);
        }
        *self.fair.lock() = fair;
    }

    /// The schema and level of a request; the last default schema matches everybody who is somebody.
    pub fn classify(&self, user: &UserInfo, a: &Attributes) -> Option<Arc<Class>> {
        self.plan.load().classes.iter().find(|c| c.schema.matches(user, a)).cloned()
    }
}

impl Class {
    /// Waits for as many seats as the work takes.
    pub async fn enter(self: Arc<Self>, user: &UserInfo, a: &Attributes, work: Work) -> Result<Ticket, Reason> {
        let flow = self.schema.flow(user, a);
        let Width { seats, after } = work.width(self.widest);
        let (class, mut ticket) = (self.clone(), None);
        let token = || {
            let (send, receive) = oneshot::channel();
            ticket = Some(receive);
            Token { class, after, send }
        };
        let arrival = self.level.state.lock().arrive(self.begun.elapsed(), flow, seats, token);
        let result = match (arrival, ticket) {
            (Arrival::Run(grant), _) => Ok(Ticket { class: self.clone(), grant: Some(grant), after }),
            (Arrival::Wait(place), Some(ticket)) => Waiting { class: self.clone(), place, ticket }.wait().await,
            (Arrival::Wait(_), None) => Err(Reason::Cancelled),
            (Arrival::Refuse(reason), _) => Err(reason),
        };
        match &result {
            Ok(ticket) => self.counts.dispatched(ticket.grant.as_ref().map_or(0, Grant::seats)),
            Err(reason) => self.counts.rejected(*reason),
        }
        result
    }

    /// Notes a refusal; after how many seconds the client should come again.
    pub fn refused(&self) -> u32 {
        self.level.refusals.lock().add(self.begun.elapsed().as_secs() + RETRY_BASE)
    }

    /// Tells the client how it was classified; not by name, which might tell more than it should.
    pub fn mark(&self, headers: &mut HeaderMap) {
        for (name, value) in HEADERS.iter().zip(&self.headers) {
            if let Some(value) = value {
                headers.insert(*name, value.clone());
            }
        }
    }
}

impl Waiting {
    async fn wait(mut self) -> Result<Ticket, Reason> {
        self.class.counts.queued(1);
        let begun = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, &mut self.ticket).await;
        self.class.counts.waited(begun.elapsed(), matches!(outcome, Ok(Ok(_))));
        match outcome {
            Ok(Ok(ticket)) => Ok(ticket),
            Ok(Err(_)) => Err(Reason::Cancelled),
            Err(_) => Err(Reason::TimeOut),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.class.counts.queued(-1);
        let (_, started) = self.class.level.state.lock().leave(self.class.begun.elapsed(), self.place);
        // If it does not wait any more, its ticket is in the channel, and both are dropped.
        hand_over(started);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        self.class.counts.finished(grant.seats());
        let (class, after) = (self.class.clone(), self.after);
        let give_back = move || {
            let started = class.level.state.lock().finish(class.begun.elapsed(), &grant);
            hand_over(started);
        };
        if after.is_zero() {
            return give_back();
        }
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            give_back();
        });
    }
}

/// Wakes those who may run. The ticket of one who has just left comes back and is dropped, which starts the next.
fn hand_over(started: Vec<(Token, Grant)>) {
    for (Token { class, after, send }, grant) in started {
        // Who has left did nothing that anybody is told of.
        if let Err(mut ticket) = send.send(Ticket { class, grant: Some(grant), after }) {
            ticket.after = Duration::ZERO;
        }
    }
}

fn with_mandatory(objects: &[Value], defaults: &[Value]) -> Vec<Value> {
    let is = |object: &Value, name: &str| object["metadata"]["name"] == name;
    let missing = defaults.iter().filter(|d| {
        defaults::MANDATORY.iter().any(|name| is(d, name) && !objects.iter().any(|object| is(object, name)))
    });
    objects.iter().chain(missing).cloned().collect()
}
