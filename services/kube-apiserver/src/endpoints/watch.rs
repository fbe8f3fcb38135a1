//! GET of a collection with watch=true: a stream of events from the cache's ring. There is no queue and no task per watcher: each one
//! keeps its place in the ring and reads on when woken.

use super::Target;
use super::encode::{self, ListMeta};
use super::list::ListOptions;
use super::read::invalid_version;
use super::watch_socket;
use crate::errors::{ApiError, FieldError};
use crate::flowcontrol::watchers::Watching;
use crate::protobuf;
use crate::server::body::{self, Request, Response, StreamError};
use crate::server::handler::Call;
use crate::server::metrics::{self, Events, Labels, Running};
use crate::server::negotiate::{Encoding, Form, WRITTEN};
use crate::server::respond;
use crate::storage::cache::{Event, Kind, TooOld, frame};
use crate::storage::selection::Selection;
use crate::storage::{Cacher, Stored};
use apimachinery::schema::builtin;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use rand::Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How many events are taken from the ring at a time.
const BATCH: usize = 256;
/// How often a watcher that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watcher gets a last bookmark this long before its time is up.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Small events are joined up to this size before they are sent.
const PIECE: usize = 64 * 1024;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// With the current state, at least this new (`None`: newest), then on.
    State(Option<i64>),
    /// After this version.
    After(i64),
}

struct Options {
    from: From,
    selection: Selection,
    bookmarks: bool,
    /// A bookmark ends the initial events.
    announce_end: bool,
    limit: Duration,
}

impl Options {
    fn parse(call: &Call, target: &Target) -> Result<Self, ApiError> {
        let query = &call.query;
        let selection = ListOptions::parse_selection(target.res, query)?;
        let (version, matching) = (query.get("resourceVersion"), query.get("resourceVersionMatch"));
        let initial = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
        let refuse = |error: FieldError| Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &[error]));
        match initial {
            None if !matching.is_empty() => {
                return refuse(FieldError::forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            Some(_) if matching != "NotOlderThan" => {
                return refuse(FieldError::forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            _ => {}
        }
        let revision: Option<i64> = match version {
            "" => None,
            text => Some(text.parse().ok().filter(|r| *r >= 0).ok_or_else(|| invalid_version(text))?),
        };
        let from = match (initial, revision) {
            (Some(true), revision) => From::State(revision),
            (_, Some(revision)) if revision > 0 => From::After(revision),
            // Only new events: from whatever is newest.
            (Some(false), _) => From::After(0),
            (None, revision) => From::State(revision),
        };
        let limit = match query.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
            // Watches end at different times, so that they do not all come back at once.
            _ => Duration::from_secs(call.state.config.min_request_timeout).mul_f64(1.0 + rand::rng().random::<f64>()),
        };
        Ok(Self {
            from,
            selection,
            bookmarks: query.flag("allowWatchBookmarks"),
            // Without bookmarks nothing can say where the initial events end.
            announce_end: initial == Some(true) && query.flag("allowWatchBookmarks"),
            limit,
        })
    }
}

/// Answers with the stream.
pub async fn watch(call: Call, target: Target, request: Request) -> Result<Response, ApiError> {
    let accepted = call.accepted()?;
    let (encoding, media_type) = match accepted.encoding {
        Encoding::Protobuf if accepted.form == Form::Object && has_message(&target) => {
            (Encoding::Protobuf, "application/vnd.kubernetes.protobuf;stream=watch")
        }
        Encoding::Protobuf if matches!(accepted.form, Form::Metadata(_)) => {
            (Encoding::Protobuf, "application/vnd.kubernetes.protobuf;stream=watch")
        }
        Encoding::Json => (Encoding::Json, "application/json"),
        Encoding::Protobuf if accepted.or_json => (Encoding::Json, "application/json"),
        // YAML has no frames.
        _ => return Err(ApiError::not_acceptable(&[WRITTEN[0], WRITTEN[2]])),
    };
    let options = Options::parse(&call, &target)?;
    let cacher = call.state.storage.cache(target.res);
    let changed = cacher.subscribe();
    let prefix = if target.namespace.is_empty() { String::new() } else { format!("{}/", target.namespace) };
    let (initial, reached, start, failure) = match begin(&cacher, &prefix, options.from).await {
        Ok((initial, reached, start)) => (initial, reached, start, None),
        // The request itself was right: clients look for this in the stream.
        Err(error) if matches!(error.code(), 410 | 504) => (Vec::new(), 0, 0, Some(error)),
        Err(error) => return Err(error),
    };
    let now = Instant::now();
    // Kubelets look at the pods of their own node: as upstream counts, no write is charged for them.
    let counted = options.selection.exact("spec.nodeName").is_none();
    let name = if target.name.is_empty() { options.selection.single_name().unwrap_or_default() } else { &target.name };
    let place = (target.res.group, target.res.plural);
    let watching = counted.then(|| call.state.watchers.begin(place, &target.namespace, name));
    let mut watcher = Watcher {
        _watching: watching,
        _running: Running::begin(&call.state, Labels::of(call.attributes(), false)),
        sizes: call.state.metrics.events(target.res),
        form: accepted.form,
        headed: AtomicBool::default(),
        encoding,
        bookmark_at: options.bookmarks.then(|| next_bookmark(now, now + options.limit)),
        deadline: now + options.limit,
        initial: initial.into_iter(),
        end_bookmark: options.announce_end,
        selection: options.selection,
        after: reached,
        ended: false,
        failure,
        call,
        target,
        cacher,
        changed,
        place: start,
        reached,
    };
    watcher.narrow();
    let stream = futures_util::stream::unfold(watcher, |mut watcher| async move {
        watcher.next().await.map(|piece| (piece, watcher))
    });
    if watch_socket::is_wanted(request.headers()) {
        return watch_socket::answer(request, stream, encoding == Encoding::Protobuf);
    }
    let stream = stream.map(Ok::<_, StreamError>);
    Ok(respond::with_type(200, media_type, body::stream(stream)))
}

/// The objects to begin with, the version they show, and the place in the ring that follows.
async fn begin(cacher: &Cacher, prefix: &str, from: From) -> Result<(Vec<Arc<Stored>>, i64, u64), ApiError> {
    match from {
        From::State(revision) => {
            match revision {
                None => drop(cacher.fresh().await?),
                Some(revision) => cacher.at_least(revision).await?,
            }
            Ok(cacher.snapshot_and_place(prefix))
        }
        From::After(0) => {
            cacher.fresh().await?;
            let (revision, place) = cacher.now();
            Ok((Vec::new(), revision, place))
        }
        From::After(revision) => {
            cacher.at_least(0).await?;
            let place = cacher.place_after(revision).map_err(|TooOld| too_old(revision, cacher))?;
            Ok((Vec::new(), revision, place))
        }
    }
}

fn too_old(revision: i64, cacher: &Cacher) -> ApiError {
    ApiError::expired(format!("too old resource version: {revision} ({})", cacher.begin()))
}

fn next_bookmark(now: Instant, deadline: Instant) -> Instant {
    let last = deadline.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(now);
    let next = now + BOOKMARK_EVERY;
    if now < last { next.min(last) } else { next }
}

struct Watcher {
    _watching: Option<Watching>,
    _running: Running,
    sizes: Arc<Events>,
    call: Call,
    target: Target,
    cacher: Arc<Cacher>,
    changed: tokio::sync::watch::Receiver<i64>,
    selection: Selection,
    form: Form,
    /// Whether a Table has named the columns: those after it do not.
    headed: AtomicBool,
    encoding: Encoding,
    initial: std::vec::IntoIter<Arc<Stored>>,
    end_bookmark: bool,
    place: u64,
    /// Events up to here are not for this watcher: it began later.
    after: i64,
    /// Everything up to here has been sent.
    reached: i64,
    bookmark_at: Option<Instant>,
    deadline: Instant,
    ended: bool,
    /// Why the watch ends at once.
    failure: Option<ApiError>,
}

impl Watcher {
    /// A watch on one object by its path is a selection of that name.
    fn narrow(&mut self) {
        let name = std::mem::take(&mut self.target.name);
        if self.selection.single_name().is_none() && !name.is_empty() {
            self.selection.restrict_to_name(&name);
        }
    }

    fn matches(&self, object: &Stored) -> bool {
        (self.target.namespace.is_empty() || object.namespace == self.target.namespace)
            && self.selection.matches(object)
    }

    /// The next piece of the stream; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(error) = self.failure.take() {
            self.ended = true;
            return Some(self.line("ERROR", &error.to_value()));
        }
        if let Some(piece) = self.initial_piece() {
            return Some(piece);
        }
        loop {
            if self.ended || Instant::now() >= self.deadline {
                return None;
            }
            // Marked as seen before the ring is read: what comes in between wakes us again.
            self.changed.borrow_and_update();
            let (events, place, reached) = match self.cacher.events(self.place, BATCH) {
                Ok(found) => found,
                Err(TooOld) => {
                    self.ended = true;
                    return Some(self.line("ERROR", &too_old(self.reached, &self.cacher).to_value()));
                }
            };
            self.place = place;
            self.reached = self.reached.max(reached);
            let piece = self.encode(&events);
            if !piece.is_empty() {
                return Some(piece);
            }
            if events.len() == BATCH {
                continue;
            }
            if let Some(piece) = self.wait().await? {
                return Some(piece);
            }
        }
    }

    /// Sleeps until there may be something to read; a bookmark that has come due is returned, the end of the watch is `None`.
    async fn wait(&mut self) -> Option<Option<Bytes>> {
        let bookmark_at = self.bookmark_at;
        let bookmark = async {
            match bookmark_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, or a busy resource would never let a watch end.
            biased;
            () = self.call.state.closing.wait() => None,
            () = tokio::time::sleep_until(self.deadline) => None,
            () = bookmark => {
                self.bookmark_at = Some(next_bookmark(Instant::now(), self.deadline));
                self.cacher.ask_progress();
                Some(Some(self.bookmark(false)))
            }
            changed = self.changed.changed() => changed.ok().map(|()| None),
        }
    }

    fn initial_piece(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        while piece.len() < PIECE
            && let Some(object) = self.initial.next()
        {
            if self.matches(&object) {
                let frame = self.frame(Kind::Added, &object.json);
                metrics::sent(&self.sizes, [&frame]);
                piece.extend_from_slice(&frame);
            }
        }
        if self.end_bookmark && self.initial.as_slice().is_empty() {
            self.end_bookmark = false;
            piece.extend_from_slice(&self.bookmark(true));
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }

    fn encode(&self, events: &[Arc<Event>]) -> Bytes {
        let frames: Vec<Bytes> = events
            .iter()
            .filter(|event| event.revision > self.after)
            .filter_map(|event| {
                let kind = event.kind_for(|object| self.matches(object))?;
                Some(self.shared(event, kind).unwrap_or_else(|| self.frame(kind, &event.json(kind))))
            })
            .collect();
        if !frames.is_empty() {
            metrics::sent(&self.sizes, &frames);
        }
        // One event, the usual case, is shared with every other watcher; several are joined.
        if frames.len() == 1 { frames.into_iter().next().unwrap_or_default() } else { frames.concat().into() }
    }

    /// The frame that all watchers of whole objects send.
    fn shared(&self, event: &Event, kind: Kind) -> Option<Bytes> {
        match (self.form, self.encoding) {
            (Form::Object, Encoding::Protobuf) => event.protobuf_frame(self.target.res, kind),
            (Form::Object, _) => Some(event.frame(kind)),
            _ => None,
        }
    }

    fn frame(&self, kind: Kind, text: &[u8]) -> Bytes {
        if self.form == Form::Object && self.encoding == Encoding::Json {
            return frame(kind, text);
        }
        let object: Value = serde_json::from_slice(text).unwrap_or_default();
        let revision = apimachinery::meta::resource_version(&object).parse().unwrap_or_default();
        let meta = ListMeta { revision, ..ListMeta::default() };
        let mut shown = encode::transformed(&self.call, self.target.res, self.form, &object, &meta);
        if matches!(self.form, Form::Table(_)) && self.headed.swap(true, Ordering::Relaxed) {
            shown["columnDefinitions"] = Value::Null;
        }
        self.line(kind.name(), &shown)
    }

    fn bookmark(&self, end_of_initial: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.reached.to_string()});
        if end_of_initial {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.form {
            Form::Object => {
                json!({"kind": self.target.res.kind, "apiVersion": self.target.res.api_version(), "metadata": metadata})
            }
            Form::Metadata(version) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata})
            }
            Form::Table(version) => {
                let version = version.api_version();
                json!({"kind": "Table", "apiVersion": version, "metadata": metadata, "columnDefinitions": [],
                "rows": [{"cells": [], "object": {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": metadata}}]})
            }
        };
        self.line("BOOKMARK", &object)
    }

    /// A frame of its own, for what is not shared.
    fn line(&self, kind: &str, object: &Value) -> Bytes {
        if self.encoding == Encoding::Protobuf {
            let whole = match apimachinery::meta::kind(object) {
                kind @ "PartialObjectMetadata" => protobuf::metadata(object)
                    .map(|m| protobuf::envelope(apimachinery::meta::api_version(object), kind, &[&m])),
                _ => protobuf::object(object),
            };
            return protobuf::watch_frame(kind, &whole.unwrap_or_default()).into();
        }
        let mut text = json!({"type": kind, "object": object}).to_string();
        text.push('\n');
        text.into()
    }
}

fn has_message(target: &Target) -> bool {
    let res = target.res;
    builtin().kind(res.group, res.version, res.kind).is_some_and(|ty| protobuf::message(&json!({}), ty).is_ok())
}
