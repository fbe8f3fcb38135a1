//! The chain every request passes, in order: panic guard, request info, authentication, impersonation, priority and fairness, authorization,
//! then the endpoint.

use super::body::{Request, Response};
use super::listener::Peer;
use super::metrics::{self, Attempt, Labels};
use super::negotiate::{self, Accepted, Form};
use super::query::Query;
use super::request_info::RequestInfo;
use super::{Shared, respond, routes};
use crate::admission::quota::{self, Charges};
use crate::audit::{Asked, Record};
use crate::authn::{self, UserInfo, front_proxy, impersonate};
use crate::authz::{self, Attributes, Decision};
use crate::config;
use crate::endpoints;
use crate::errors::{ApiError, FieldError};
use crate::flowcontrol::{self, Class, Seat, Work};
use crate::registry::warnings::{self, Deprecation};
use crate::registry::{Context, lookup};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Method};
use hyper::body::Body as _;
use parking_lot::Mutex;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A request that is not a watch or a stream has failed after this long.
const LIMIT: Duration = Duration::from_secs(60);
/// How long requests wait for the rules that would authorize them, just after start.
const RULES_PATIENCE: Duration = Duration::from_secs(10);
const AUDIT_ID: &str = "audit-id";

/// Everything known about a request besides its body.
pub struct Call {
    /// The server.
    pub state: Shared,
    /// From where.
    pub peer: std::net::SocketAddr,
    /// Who asks.
    pub user: UserInfo,
    /// What for.
    pub info: RequestInfo,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The query.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The time every field this request sets shows.
    pub now: String,
    /// What is being recorded of it.
    pub audit: Option<Arc<Record>>,
    /// What admission tells the client besides the answer.
    pub warnings: Mutex<Vec<String>>,
    /// What quotas were charged for it; outlives it, as it is given back if the request fails.
    pub charges: Arc<Mutex<Charges>>,
}

impl Call {
    /// A header's text.
    pub fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// What the client wants back.
    pub fn accepted(&self) -> Result<Accepted, ApiError> {
        let accepted = negotiate::accept(self.header(http::header::ACCEPT))?;
        let include = self.query.get("includeObject");
        if matches!(accepted.form, Form::Table(_)) && !matches!(include, "" | "None" | "Metadata" | "Object") {
            let error = FieldError::invalid("includeObject", include, "must be 'Metadata', 'Object', 'None', or empty");
            return Err(ApiError::bad_request(format!("Unable to convert to Table as requested: {error}")));
        }
        Ok(accepted)
    }

    /// Whether nothing may be persisted.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        match self.query.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => {
                let options = match self.method {
                    http::Method::POST => "CreateOptions",
                    http::Method::PUT => "UpdateOptions",
                    http::Method::PATCH => "PatchOptions",
                    _ => "DeleteOptions",
                };
                let error = FieldError::not_supported("dryRun", serde_json::json!([other]), &["All"]);
                Err(ApiError::invalid("meta.k8s.io", options, "", &[error]))
            }
        }
    }

    /// What strategies and admission see.
    pub fn context(&self, dry_run: bool) -> Context<'_> {
        let (user, state, warnings, charges) = (&self.user, &self.state, &self.warnings, &*self.charges);
        Context { user, now: self.now.clone(), dry_run, state, warnings, charges }
    }

    /// The request's attributes.
    pub fn attributes(&self) -> &Attributes {
        &self.info.attributes
    }

    fn is_long_running(&self) -> bool {
        let a = self.attributes();
        a.verb == "watch" || matches!(a.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

/// What is known of a request whatever becomes of it.
#[derive(Default)]
struct Noted {
    record: Option<Arc<Record>>,
    class: Option<Arc<Class>>,
    deprecated: Option<&'static Deprecation>,
    /// It was cut short.
    terminated: bool,
}

/// Answers one request; whatever goes wrong, the answer is a response.
pub async fn handle(state: Shared, peer: Peer, request: Request) -> Response {
    let shared = state.clone();
    let metrics = &shared.metrics;
    let begun = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_string();
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::resolve(&method, &path, &query);
    let accept = request.headers().get(http::header::ACCEPT).cloned();
    let labels = Labels::of(&info.attributes, is_apply(request.headers()));
    metrics.in_flight(&labels).fetch_add(1, Ordering::Relaxed);
    let (id, mut noted) = (audit_id(request.headers()), Noted::default());
    let answer = chain(state, peer, request, query, info, &id, &mut noted);
    let guarded = AssertUnwindSafe(answer).catch_unwind().await;
    let mut response = match guarded {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => respond::error(accept.as_ref(), &error),
        Err(_) => {
            tracing::error!(%method, path, "a handler panicked");
            if let Some(record) = &noted.record {
                record.panicked();
            }
            noted.terminated = true;
            respond::error(accept.as_ref(), &ApiError::internal("this request caused the server to panic"))
        }
    };
    let (code, size) = (response.status().as_u16(), response.body().size_hint().exact());
    metrics.in_flight(&labels).fetch_sub(1, Ordering::Relaxed);
    metrics.record(labels, code, begun.elapsed(), size);
    if noted.terminated {
        metrics.terminated(labels, code);
    }
    if size.is_none() && labels.is_list() {
        response = response.map(|body| metrics::measured(shared.clone(), labels, code, body));
    }
    if let Some(record) = noted.record {
        record.answered(code, labels.is_watch());
    }
    tracing::debug!(%method, path, status = code, "request");
    if let Some(class) = noted.class {
        class.mark(response.headers_mut());
    }
    if let Some(deprecation) = noted.deprecated {
        respond::add_warnings(response.headers_mut(), &[deprecation.text]);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(AUDIT_ID, id);
    }
    response
}

/// The id that the client, or a server before this one, gave the request, or a new one.
fn audit_id(headers: &HeaderMap) -> String {
    let given = headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_string)
}

/// How long the request may take: what it says itself, if that is less than [`LIMIT`].
fn limit(call: &Call) -> Result<Duration, ApiError> {
    let asked = match call.query.get("timeout") {
        "" => return Ok(LIMIT),
        // One that is negative is none.
        text => config::duration(text.strip_prefix('-').unwrap_or(text))
            .map_err(|why| ApiError::bad_request(format!("invalid timeout specified in the request URL - {why}")))?,
    };
    let none = asked.is_zero() || call.query.get("timeout").starts_with('-');
    Ok(if none { LIMIT } else { asked.min(LIMIT) })
}

fn is_apply(headers: &HeaderMap) -> bool {
    headers.get(http::header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/apply-patch"))
}

async fn chain(
    state: Shared,
    peer: Peer,
    mut request: Request,
    query: Query,
    info: RequestInfo,
    id: &str,
    noted: &mut Noted,
) -> Result<Response, ApiError> {
    let path = request.uri().path().to_string();
    let user = authenticate(&state, &peer, request.headers(), &path).await?;
    front_proxy::clear(request.headers_mut(), &state.config.front_proxy);
    let mut call = Call {
        peer: peer.address,
        user,
        info,
        method: request.method().clone(),
        path,
        query,
        headers: request.headers().clone(),
        now: apimachinery::time::now_rfc3339(),
        audit: None,
        warnings: Mutex::default(),
        charges: Arc::default(),
        state,
    };
    noted.record = follow(&call, &peer, id, request.uri());
    call.audit.clone_from(&noted.record);
    let public = routes::is_public(&call.path);
    if !public {
        // Superusers need no rules.
        let ruled = !call.user.in_group("system:masters");
        if ruled && tokio::time::timeout(RULES_PATIENCE, call.state.authorizer.complete()).await.is_err() {
            return Err(ApiError::unavailable("the default access rules are not in place yet"));
        }
        become_other(&mut call)?;
    }
    let Ok(_seat) = seat(&call, &mut noted.class).await else {
        noted.terminated = true;
        return Ok(too_many(noted.class.as_ref()));
    };
    if !public {
        authorize(&call, &request)?;
    }
    let a = call.attributes();
    noted.deprecated = warnings::deprecation(&a.group, &a.version, &a.resource);
    if call.is_long_running() {
        return endpoints::dispatch(call, request).await;
    }
    let limit = limit(&call)?;
    if call.attributes().path.is_some() {
        return routes::serve(&call).await;
    }
    let (state, charges) = (call.state.clone(), call.charges.clone());
    match tokio::time::timeout(limit, endpoints::dispatch(call, request)).await {
        Ok(result) => {
            let refused = result.as_ref().is_err_and(|error| error.code() < 500);
            let charges = std::mem::take(&mut *charges.lock());
            if refused && !charges.is_empty() {
                quota::refund(&state, charges).await;
            }
            result
        }
        Err(_) => {
            noted.terminated = true;
            Err(ApiError::timeout("request did not complete within the allotted timeout", 0))
        }
    }
}

/// Waits until the request may run. What goes on for long needs no seat, but for a watch while it begins.
async fn seat(call: &Call, class: &mut Option<Arc<Class>>) -> Result<Option<Seat>, flowcontrol::queues::Reason> {
    let a = call.attributes();
    if call.is_long_running() && a.verb != "watch" {
        return Ok(None);
    }
    call.state.flow.enter(&call.user, a, work(call), class).await.map(Some)
}

/// What the request does, as far as its width goes.
fn work(call: &Call) -> Work {
    let (a, query) = (call.attributes(), &call.query);
    let begins_with_list = a.verb == "list" || (a.verb == "watch" && query.flag("sendInitialEvents"));
    let writes = matches!(a.verb.as_str(), "create" | "update" | "patch" | "delete");
    let Some(res) = (begins_with_list || writes).then(|| lookup(&a.group, &a.version, &a.resource)).flatten() else {
        return Work::Plain;
    };
    if writes {
        return Work::Write(call.state.watchers.interested((res.group, res.plural), &a.namespace, &a.name));
    }
    let Some(stored) = call.state.storage.stored(res) else { return Work::Plain };
    let (version, limit) = (query.get("resourceVersion"), query.get("limit").parse().unwrap_or(0));
    let exact = query.get("resourceVersionMatch") == "Exact"
        || !query.get("continue").is_empty()
        || (limit > 0 && !matches!(version, "" | "0") && query.get("resourceVersionMatch").is_empty());
    Work::List {
        stored,
        limit,
        single: !a.name.is_empty(),
        selective: !query.get("labelSelector").is_empty() || !query.get("fieldSelector").is_empty(),
        cached: a.verb == "watch" || !exact,
    }
}

/// Upstream's answer, which is text and not a Status.
fn too_many(class: Option<&Arc<Class>>) -> Response {
    let mut response = respond::text(429, "Too many requests, please try again later.\n");
    let after = class.map_or(1, |class| class.refused());
    response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(after));
    response
}

async fn authenticate(state: &Shared, peer: &Peer, headers: &HeaderMap, path: &str) -> Result<UserInfo, ApiError> {
    let (attempt, result) = match authn::authenticate(state, peer, headers).await {
        Ok(Some(user)) => (Attempt::Success, Ok(user)),
        Ok(None) if state.outside.admits_anonymous(path, routes::is_public(path)) => {
            (Attempt::Success, Ok(UserInfo::anonymous()))
        }
        Ok(None) => (Attempt::Failure, Err(ApiError::unauthorized())),
        Err(why) => {
            tracing::debug!(peer = %peer.address, why, "a token was refused");
            (Attempt::Error, Err(ApiError::unauthorized()))
        }
    };
    state.metrics.attempted(attempt);
    if let Ok(user) = &result {
        state.metrics.asked_by(&user.name);
    }
    result
}

/// Begins to record the request, if the audit policy says so.
fn follow(call: &Call, peer: &Peer, id: &str, uri: &http::Uri) -> Option<Arc<Record>> {
    let auditor = call.state.audit.as_ref()?;
    auditor.follow(&Asked {
        id,
        user: &call.user,
        attributes: call.attributes(),
        uri: uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        source: peer.address.ip().to_string(),
        agent: call.header(http::header::USER_AGENT).unwrap_or_default(),
    })
}

fn become_other(call: &mut Call) -> Result<(), ApiError> {
    let Some(other) = impersonate::requested(&call.headers).map_err(ApiError::internal)? else { return Ok(()) };
    for needed in &other.needs {
        if let Decision::Deny(why) = call.state.authorizer.authorize(&call.user, needed) {
            return Err(authz::forbidden(&call.user, needed, &why));
        }
    }
    call.user = other.user;
    if let Some(record) = &call.audit {
        record.impersonates(&call.user);
    }
    Ok(())
}

fn authorize(call: &Call, request: &Request) -> Result<(), ApiError> {
    let attributes = call.attributes();
    let decision = call.state.authorizer.authorize(&call.user, attributes);
    if let Some(record) = &call.audit {
        match &decision {
            Decision::Allow(why) => record.decided("allow", why),
            Decision::Deny(why) => record.decided("forbid", why),
        }
    }
    if let Decision::Deny(why) = decision {
        return Err(authz::forbidden(&call.user, attributes, &why));
    }
    // A WebSocket begins with GET, yet running a command is more than reading.
    let upgrade = request.headers().contains_key(http::header::UPGRADE);
    if upgrade
        && attributes.verb == "get"
        && matches!(attributes.subresource.as_str(), "exec" | "attach" | "portforward")
    {
        let create = Attributes { verb: "create".into(), ..attributes.clone() };
        if let Decision::Deny(why) = call.state.authorizer.authorize(&call.user, &create) {
            return Err(authz::forbidden(&call.user, &create, &why));
        }
    }
    Ok(())
}
