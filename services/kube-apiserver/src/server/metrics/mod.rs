//! Counters for /metrics and /metrics/slis, under upstream's names, in the text format of Prometheus: here they are declared and counted,
//! [`text`] writes them, [`process`] asks Linux. What a request costs here is counted in tens of nanoseconds: series that follow from others are
//! made when they are asked for.

mod histogram;
mod process;
mod text;

pub use histogram::Histogram;
pub use text::{slis, text};

use super::Shared;
use super::body::Body;
use crate::admission::{Operation, PLUGINS};
use crate::authz::Attributes;
use crate::registry::{Resource, lookup};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histograms of durations, in seconds; a subset of upstream's.
const SECONDS: [f64; 14] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 10.0, 30.0, 60.0];
/// Of sizes of answers, in bytes.
const SIZES: [f64; 7] = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Of sizes of events, in bytes.
const EVENTS: [f64; 8] = [1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0, 131_072.0];
/// Of what admission takes, in seconds.
const ADMISSION: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// Users of whom requests are told apart: upstream's own. All others are `other`, or `email_id` if they look like that.
const USERS: [&str; 5] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

/// The counters.
pub struct Metrics {
    /// Reads being served.
    pub reading: AtomicU64,
    /// Writes being served.
    pub writing: AtomicU64,
    requests: Mutex<BTreeMap<Labels, Series>>,
    terminated: Mutex<BTreeMap<Labels, u64>>,
    running: Mutex<BTreeMap<Labels, u64>>,
    events: Mutex<BTreeMap<Kind, Arc<Events>>>,
    /// By plugin; within, by phase, operation and whether it refused.
    admission: Vec<Mutex<[Histogram<6>; 16]>>,
    attempts: [AtomicU64; 3],
    users: [AtomicU64; USERS.len() + 2],
    checks: Mutex<BTreeMap<(&'static str, &'static str), Checked>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reading: AtomicU64::default(),
            writing: AtomicU64::default(),
            requests: Mutex::default(),
            terminated: Mutex::default(),
            running: Mutex::default(),
            events: Mutex::default(),
            admission: PLUGINS.iter().map(|_| Mutex::default()).collect(),
            attempts: Default::default(),
            users: Default::default(),
            checks: Mutex::default(),
        }
    }
}

/// Group, version and kind.
type Kind = (&'static str, &'static str, &'static str);

/// Sizes of the events of one kind that watchers were sent.
pub type Events = Mutex<Histogram<8>>;

/// Events have been sent.
pub fn sent<'a>(sizes: &Events, frames: impl IntoIterator<Item = &'a Bytes>) {
    let mut sizes = sizes.lock();
    frames.into_iter().for_each(|frame| sizes.observe(&EVENTS, frame.len() as f64));
}

/// How an attempt to say who one is ended.
#[derive(Clone, Copy, Debug)]
pub enum Attempt {
    /// They are known, if only as nobody.
    Success,
    /// They said nothing, which is not enough.
    Failure,
    /// They said what is wrong.
    Error,
}

/// What admission is doing.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// It may change the object.
    Admit,
    /// It may only refuse it.
    Validate,
}

/// A health check's results.
#[derive(Default)]
struct Checked {
    good: bool,
    successes: u64,
    errors: u64,
}

/// What requests are told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    code: u16,
}

#[derive(Default)]
struct Series {
    durations: Histogram<14>,
    sizes: Histogram<7>,
}

impl Labels {
    /// Labels of a request; only what the table knows becomes a label, so that clients cannot invent series.
    pub fn of(a: &Attributes, apply: bool) -> Self {
        let verb = match a.verb.as_str() {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if apply => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let Some(res) = lookup(&a.group, &a.version, &a.resource).filter(|_| a.path.is_none()) else {
            return Self { verb, ..Self::default() };
        };
        Self {
            verb,
            group: res.group,
            version: res.version,
            resource: res.plural,
            subresource: res.subresource(&a.subresource).map_or("", |s| s.name),
            scope: scope(res, a),
            code: 0,
        }
    }

    /// Whether it changes nothing.
    pub fn is_read_only(&self) -> bool {
        matches!(self.verb, "GET" | "LIST" | "WATCH")
    }

    /// Whether its answer goes on for long.
    pub fn is_watch(&self) -> bool {
        self.verb == "WATCH"
    }

    /// Whether it asks for a collection.
    pub fn is_list(&self) -> bool {
        self.verb == "LIST"
    }

    /// Whether how long it takes is up to the client.
    fn goes_on(&self) -> bool {
        self.is_watch() || matches!(self.subresource, "attach" | "exec" | "log" | "portforward" | "proxy")
    }

    /// Whether the size of its answer is of interest.
    fn is_sized(&self) -> bool {
        matches!(self.verb, "GET" | "LIST")
    }
}

fn scope(res: &Resource, a: &Attributes) -> &'static str {
    match () {
        () if !a.name.is_empty() || a.verb == "create" => "resource",
        () if res.namespaced && !a.namespace.is_empty() => "namespace",
        () => "cluster",
    }
}

impl Metrics {
    /// The gauge that counts such requests while they are served.
    pub fn in_flight(&self, labels: &Labels) -> &AtomicU64 {
        if labels.is_read_only() { &self.reading } else { &self.writing }
    }

    /// A request has been answered, with so many bytes if that is known by now.
    pub fn record(&self, labels: Labels, code: u16, took: Duration, size: Option<u64>) {
        let mut requests = self.requests.lock();
        let series = requests.entry(Labels { code, ..labels }).or_default();
        series.durations.observe(&SECONDS, took.as_secs_f64());
        if let Some(size) = size.filter(|_| labels.is_sized()) {
            series.sizes.observe(&SIZES, size as f64);
        }
    }

    /// A request was cut short: turned away, out of time, or by a fault of this server.
    pub fn terminated(&self, labels: Labels, code: u16) {
        *self.terminated.lock().entry(Labels { code, ..labels }).or_default() += 1;
    }

    /// The sizes of a kind's events.
    pub fn events(&self, res: &Resource) -> Arc<Events> {
        self.events.lock().entry((res.group, res.version, res.kind)).or_default().clone()
    }

    /// A plugin of admission, by its place, has decided.
    pub fn admitted(&self, plugin: usize, phase: Phase, operation: Operation, rejected: bool, took: Duration) {
        if let Some(cells) = self.admission.get(plugin) {
            let cell = (phase as usize * 4 + operation as usize) * 2 + usize::from(rejected);
            cells.lock()[cell].observe(&ADMISSION, took.as_secs_f64());
        }
    }

    /// Somebody has said who they are.
    pub fn attempted(&self, attempt: Attempt) {
        self.attempts[attempt as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A known user asks for something.
    pub fn asked_by(&self, user: &str) {
        let other = if user.contains('@') { USERS.len() } else { USERS.len() + 1 };
        let index = USERS.iter().position(|name| *name == user).unwrap_or(other);
        self.users[index].fetch_add(1, Ordering::Relaxed);
    }

    /// A health check has been made for one of the paths of health.
    pub fn checked(&self, which: &'static str, name: &'static str, good: bool) {
        let mut checks = self.checks.lock();
        let checked = checks.entry((name, which)).or_default();
        checked.good = good;
        *(if good { &mut checked.successes } else { &mut checked.errors }) += 1;
    }
}

/// Counts what is sent of an answer whose size nobody knows, to record it when that ends.
pub fn measured(state: Shared, labels: Labels, code: u16, body: Body) -> Body {
    let mut sent = Sent { state, labels: Labels { code, ..labels }, bytes: 0 };
    let counted = body.map_frame(move |frame| {
        sent.count(&frame);
        frame
    });
    counted.boxed_unsync()
}

struct Sent {
    state: Shared,
    labels: Labels,
    bytes: usize,
}

impl Sent {
    fn count(&mut self, frame: &Frame<Bytes>) {
        self.bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut requests = self.state.metrics.requests.lock();
        requests.entry(self.labels).or_default().sizes.observe(&SIZES, self.bytes as f64);
    }
}

/// A request that goes on for long, while it does.
pub struct Running {
    state: Shared,
    labels: Labels,
}

impl Running {
    /// It begins.
    pub fn begin(state: &Shared, labels: Labels) -> Self {
        *state.metrics.running.lock().entry(labels).or_default() += 1;
        Self { state: state.clone(), labels }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(count) = self.state.metrics.running.lock().get_mut(&self.labels) {
            *count -= 1;
        }
    }
}

/// The head of a family of series.
pub fn family(out: &mut String, name: &str, kind: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# TYPE {name} {kind}");
}

/// One series.
pub fn line(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ =
        if labels.is_empty() { writeln!(out, "{name} {value}") } else { writeln!(out, "{name}{{{labels}}} {value}") };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_those_of_the_table() {
        let a = |verb: &str, resource: &str, name: &str| Attributes {
            verb: verb.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace: "n".into(),
            name: name.into(),
            ..Attributes::default()
        };
        let got = Labels::of(&a("list", "pods", ""), false);
        assert_eq!((got.verb, got.resource, got.scope), ("LIST", "pods", "namespace"));
        assert_eq!(Labels::of(&a("patch", "pods", "p"), true).verb, "APPLY");
        assert_eq!(Labels::of(&a("brew", "coffee", "x"), false), Labels { verb: "other", ..Labels::default() });
    }
}
