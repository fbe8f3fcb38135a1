//! Field ownership as requests carry it: who the manager is, what a path can change, and the answers to conflicts.

use crate::errors::{ApiError, FieldError};
use crate::registry::{Resource, group_resource, table};
use crate::server::handler::Call;
use apimachinery::managed::{self, ApplyError, Scope, Versions, Writer};
use apimachinery::meta;
use apimachinery::schema::{TypeRef, builtin};
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

/// The rows that show the same stored objects.
#[derive(Debug)]
struct Rows<'a>(&'a Resource);

impl Rows<'_> {
    fn row(&self, api_version: &str) -> Option<&'static Resource> {
        let alike = |row: &&Resource| row.storage == self.0.storage && row.kind == self.0.kind;
        table().iter().filter(alike).find(|row| row.api_version() == api_version)
    }
}

impl Versions for Rows<'_> {
    fn ty(&self, api_version: &str) -> Option<TypeRef<'_>> {
        let row = self.row(api_version)?;
        builtin().kind(row.group, row.version, row.kind)
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        let (from, to) = (self.row(from)?, self.row(to)?);
        let mut converted = from.strategy.converted(object).unwrap_or_else(|| object.clone());
        to.strategy.served_form(&mut converted);
        Some(converted)
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
        versions: &Rows(res),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::lookup;
    use serde_json::json;

    fn apply_as(manager: &str, version: &str, live: &Value, spec: Value, force: bool) -> Result<Value, ApplyError> {
        let res = lookup("autoscaling", version, "horizontalpodautoscalers").expect("in the table");
        let versions = Rows(res);
        let api_version = res.api_version();
        let writer = Writer {
            ty: versions.ty(&api_version).expect("a type"),
            versions: &versions,
            manager,
            api_version: &api_version,
            subresource: "",
            now: "2026-01-01T00:00:00Z",
            scope: Scope::Except(&["status"]),
        };
        let config = json!({"apiVersion": api_version, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": spec});
        let live = versions.convert(live, "autoscaling/v2", &api_version).expect("served");
        let live = if live["metadata"].get("uid").is_some() { live } else { json!({}) };
        let mut new = managed::apply(&writer, &live, &config, force)?;
        new["metadata"]["uid"] = json!("u");
        Ok(versions.convert(&new, &api_version, "autoscaling/v2").expect("stored"))
    }

    fn cpu(percent: i64) -> Value {
        json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
    }

    #[test]
    fn managers_speak_different_versions() {
        let target = json!({"kind": "Deployment", "name": "d"});
        let v1 = |percent: i64| json!({"maxReplicas": 5, "scaleTargetRef": target, "targetCPUUtilizationPercentage": percent});
        let v2 = |percent: i64| json!({"maxReplicas": 5, "scaleTargetRef": target, "metrics": [cpu(percent)]});
        let live = apply_as("old", "v1", &json!({}), v1(50), false).expect("created");
        assert_eq!(live["spec"]["metrics"], json!([cpu(50)]));
        let shared = apply_as("new", "v2", &live, v2(50), false).expect("they agree");
        let versions = |object: &Value| {
            let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
            entries.iter().map(|e| format!("{} {}", e["manager"], e["apiVersion"])).collect::<Vec<_>>()
        };
        assert_eq!(versions(&shared), ["\"new\" \"autoscaling/v2\"", "\"old\" \"autoscaling/v1\""]);
        let error = apply_as("new", "v2", &live, v2(60), false).expect_err("another's field").to_string();
        assert_eq!(error, "Apply failed with 1 conflict: conflict with \"old\": .spec.targetCPUUtilizationPercentage");
        let forced = apply_as("new", "v2", &live, v2(60), true).expect("by force");
        let error = apply_as("old", "v1", &forced, v1(50), false).expect_err("it has changed hands").to_string();
        assert_eq!(error, "Apply failed with 1 conflict: conflict with \"new\": .spec.metrics");
        // What a manager applied in one version it gives up in the other.
        let only =
            json!({"maxReplicas": 5, "minReplicas": 2, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50});
        let live = apply_as("one", "v1", &json!({}), only, false).expect("created");
        let moved = apply_as("one", "v2", &live, v2(50), false).expect("in the other version");
        assert_eq!((moved["spec"].get("minReplicas"), versions(&moved).len()), (None, 1));
        assert_eq!(moved["spec"]["metrics"], json!([cpu(50)]));
        // A version that is served no longer takes its owners along.
        let mut stale = live;
        stale["metadata"]["managedFields"][0]["apiVersion"] = json!("autoscaling/v2beta2");
        let taken = apply_as("two", "v2", &stale, v2(70), false).expect("nobody is left to object");
        assert_eq!(versions(&taken), ["\"two\" \"autoscaling/v2\""]);
    }
}
