//! Field ownership as requests carry it: who the manager is, what a path can change, and the answers to conflicts.

use crate::errors::{ApiError, FieldError};
use crate::registry::{Resource, group_resource};
use crate::server::handler::Call;
use apimachinery::managed::{self, ApplyError, Scope, Writer};
use apimachinery::meta;
use apimachinery::schema::builtin;
use serde_json::Value;

/// As upstream, in bytes.
const MANAGER_MAX: usize = 128;

/// Which manager a write is recorded for.
#[derive(Clone, Debug)]
pub enum Tracking {
    /// This one, by comparing before and after.
    By(String),
    /// The new state says already who owns what.
    Done,
}

impl Tracking {
    /// The manager of an ordinary write: the fieldManager parameter, else the client program's name. `options` is the kind that its parameters are refused as.
    pub fn of(call: &Call, options: &str) -> Result<Self, ApiError> {
        let named = call.query.get("fieldManager");
        check(named, options)?;
        Ok(Tracking::By(if named.is_empty() { program(call) } else { named.to_string() }))
    }

    /// Writes what this write means for ownership into the new state.
    pub fn follow(&self, call: &Call, res: &Resource, sub: Option<&str>, old: &Value, new: &mut Value) {
        let Tracking::By(manager) = self else { return };
        with_writer(call, res, sub, manager, |writer| managed::update(writer, old, new));
    }
}

/// The manager of an apply, which must be named.
pub fn applier(call: &Call) -> Result<String, ApiError> {
    let named = call.query.get("fieldManager");
    if named.is_empty() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    check(named, "PatchOptions")?;
    Ok(named.to_string())
}

fn check(manager: &str, options: &str) -> Result<(), ApiError> {
    let error = if manager.len() > MANAGER_MAX {
        FieldError::too_long("fieldManager", MANAGER_MAX)
    } else if manager.chars().any(char::is_control) {
        FieldError::invalid("fieldManager", manager, "should only contain printable characters")
    } else {
        return Ok(());
    };
    Err(ApiError::invalid("meta.k8s.io", options, "", &[error]))
}

/// The first part of the User-Agent.
fn program(call: &Call) -> String {
    let agent = call.header(http::header::USER_AGENT).unwrap_or_default();
    let mut name: String = agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    let end = (0..=name.len().min(MANAGER_MAX)).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name.truncate(end);
    if name.is_empty() { "unknown".into() } else { name }
}

/// What a write through a path leaves alone: the server resets it.
fn scope(res: &Resource, sub: Option<&str>) -> Scope<'static> {
    match sub {
        Some("status") => Scope::Only(&["metadata", "status"]),
        None if res.subresource("status").is_some() => Scope::Except(&["status"]),
        _ => Scope::Except(&[]),
    }
}

fn with_writer<T>(
    call: &Call,
    res: &Resource,
    sub: Option<&str>,
    manager: &str,
    act: impl FnOnce(&Writer<'_>) -> T,
) -> Option<T> {
    let ty = builtin().kind(res.group, res.version, res.kind)?;
    let api_version = res.api_version();
    let writer = Writer {
        ty,
        manager,
        api_version: &api_version,
        subresource: sub.unwrap_or_default(),
        now: &call.now,
        scope: scope(res, sub),
    };
    Some(act(&writer))
}

/// The object after a configuration has been applied to it.
pub fn apply(
    call: &Call,
    res: &Resource,
    sub: Option<&str>,
    manager: &str,
    live: &Value,
    config: &Value,
) -> Result<Value, ApiError> {
    let force = call.query.flag("force");
    match with_writer(call, res, sub, manager, |writer| managed::apply(writer, live, config, force)) {
        Some(Ok(new)) => Ok(new),
        Some(Err(error @ ApplyError::Conflicts(_))) => Err(conflict(&error)),
        Some(Err(ApplyError::List(error))) => Err(untyped(config, &error.to_string())),
        None => Err(ApiError::not_implemented(format!(
            "server-side apply of {}: its schema is not known",
            group_resource(res.group, res.plural)
        ))),
    }
}

/// What upstream answers to a configuration that does not fit its schema; it has no reason of its own.
pub fn untyped(config: &Value, why: &str) -> ApiError {
    let (namespace, name) = (meta::namespace(config), meta::name(config));
    let (version, kind) = (meta::api_version(config), meta::kind(config));
    let message = format!("failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): {why}");
    ApiError::new(500, "", message)
}

fn conflict(error: &ApplyError) -> ApiError {
    let ApplyError::Conflicts(conflicts) = error else { return ApiError::internal(error) };
    conflicts.iter().fold(ApiError::new(409, "Conflict", error.to_string()), |answer, conflict| {
        answer.with_cause("FieldManagerConflict", format!("conflict with {}", conflict.manager), conflict.field.clone())
    })
}
