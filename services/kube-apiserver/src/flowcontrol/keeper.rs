//! Keeps the default configuration in the store, follows the store's, and says of each FlowSchema whether its level exists.
//!
//! [`plan`] is pure: from the objects there are to what is to be written. As upstream: mandatory objects always have their spec; suggested ones
//! follow this server's version until somebody has edited them, which the annotation `apf.kubernetes.io/autoupdate-spec` records.

use super::{FlowControl, defaults};
use crate::bootstrap::Writer;
use crate::errors::ApiError;
use crate::registry::strategy::tree::{at, int_at, items, str_at};
use crate::registry::{Resource, lookup};
use crate::server::Shared;
use crate::storage::{Preconditions, Stored};
use daemon::backoff::Backoff;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const ANNOTATION: &str = "apf.kubernetes.io/autoupdate-spec";
/// How often seats are divided anew, by what was asked for meanwhile (KEP-1040).
const ADJUST: Duration = Duration::from_secs(10);

/// A write to one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is missing.
    Create(Value),
    /// Its spec and whether it follows this server's version.
    Update(String, Value, bool),
    /// Only whether it follows.
    Annotate(String, bool),
    /// It was a default once.
    Delete(String),
    /// A FlowSchema's condition.
    Condition(String, Value),
}

/// What is to be written so that `objects` are as they should be.
pub fn plan(kind: &str, objects: &[Value], defaults: &[Value]) -> Vec<Action> {
    let mut actions = Vec::new();
    for wanted in defaults {
        let name = str_at(wanted, &["metadata", "name"]);
        match objects.iter().find(|o| str_at(o, &["metadata", "name"]) == name) {
            None => {
                let mut object = wanted.clone();
                object["metadata"]["annotations"] = json!({ANNOTATION: "true"});
                actions.push(Action::Create(object));
            }
            Some(found) => actions.extend(align(kind, name, found, wanted)),
        }
    }
    let is_default = |name: &str| defaults.iter().any(|d| str_at(d, &["metadata", "name"]) == name);
    let stale = objects.iter().filter(|o| !is_default(str_at(o, &["metadata", "name"])) && follows(o) == Some(true));
    actions.extend(stale.map(|o| Action::Delete(str_at(o, &["metadata", "name"]).to_owned())));
    actions
}

fn align(kind: &str, name: &str, found: &Value, wanted: &Value) -> Option<Action> {
    let spec = &found["spec"];
    let fixed = defaults::fixed_spec(kind, name, spec);
    // Without the annotation, an object that was never changed follows.
    let follow = fixed.is_some()
        || follows(found).unwrap_or_else(|| int_at(found, &["metadata", "generation"]).unwrap_or(1) == 1);
    let wanted = fixed.unwrap_or_else(|| wanted["spec"].clone());
    match (follow && *spec != wanted, follows(found) != Some(follow)) {
        (true, _) => Some(Action::Update(name.to_owned(), wanted, follow)),
        (false, true) => Some(Action::Annotate(name.to_owned(), follow)),
        (false, false) => None,
    }
}

/// What the annotation says; what is no boolean counts as none.
fn follows(object: &Value) -> Option<bool> {
    str_at(object, &["metadata", "annotations", ANNOTATION]).parse().ok()
}

/// The conditions of schemas that do not say whether their level exists.
pub fn conditions(schemas: &[Value], levels: &[Value], now: &str) -> Vec<Action> {
    let condition = |schema: &Value| {
        let level = str_at(schema, &["spec", "priorityLevelConfiguration", "name"]);
        let exists = levels.iter().any(|l| str_at(l, &["metadata", "name"]) == level);
        let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
        let (status, reason, message) = match exists {
            true => ("False", "Found", format!("{about} and it exists")),
            false => ("True", "NotFound", format!("{about} but there is no such object")),
        };
        let has = items(schema, &["status", "conditions"]).iter().any(|c| {
            c["type"] == "Dangling" && c["status"] == status && c["reason"] == reason && c["message"] == message
        });
        let condition = json!({"type": "Dangling", "status": status, "lastTransitionTime": now, "reason": reason, "message": message});
        (!has).then(|| Action::Condition(str_at(schema, &["metadata", "name"]).to_owned(), condition))
    };
    schemas.iter().filter_map(condition).collect()
}

/// Runs until shutdown.
pub async fn run(state: Shared) {
    let Some(control) = state.flow.fair() else { return };
    let rows = [lookup(GROUP, "v1", "prioritylevelconfigurations"), lookup(GROUP, "v1", "flowschemas")];
    let [Some(levels), Some(schemas)] = rows else { return };
    let caches = [levels, schemas].map(|res| state.storage.cache(res));
    let mut changes = [caches[0].subscribe(), caches[1].subscribe()];
    for cache in &caches {
        cache.synced().await;
    }
    let mut adjust = tokio::time::interval(ADJUST);
    adjust.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut seen, mut backoff, mut retry) = (None, Backoff::default(), None);
    loop {
        let ends = [caches[0].end(), caches[1].end()];
        if seen != Some(ends) || retry.is_some_and(|at| tokio::time::Instant::now() >= at) {
            retry = None;
            match follow(&state, control, levels, schemas).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::warn!(%error, "configuration of priority and fairness; trying again");
                    retry = Some(tokio::time::Instant::now() + backoff.next_delay());
                }
            }
            seen = Some(ends);
        }
        let [one, other] = &mut changes;
        tokio::select! {
            () = state.shutdown.wait() => return,
            _ = one.changed() => {}
            _ = other.changed() => {}
            () = async { match retry { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {}
            _ = adjust.tick() => control.adjust(),
        }
    }
}

async fn follow(
    state: &Shared,
    control: &FlowControl,
    levels: &'static Resource,
    schemas: &'static Resource,
) -> Result<(), ApiError> {
    let read = |res| -> Vec<Value> { state.storage.cached(res).iter().map(|o: &Arc<Stored>| o.object()).collect() };
    let (found_levels, found_schemas) = (read(levels), read(schemas));
    control.configure(&found_levels, &found_schemas);
    let writer = Writer::new(state);
    for action in plan(levels.kind, &found_levels, &defaults::priority_levels()) {
        carry_out(state, &writer, levels, action).await?;
    }
    let for_schemas = plan(schemas.kind, &found_schemas, &defaults::flow_schemas());
    // What has just been made says so in the next round.
    for action in for_schemas.into_iter().chain(conditions(&found_schemas, &found_levels, writer.now())) {
        carry_out(state, &writer, schemas, action).await?;
    }
    Ok(())
}

async fn carry_out(
    state: &Shared,
    writer: &Writer<'_>,
    res: &'static Resource,
    action: Action,
) -> Result<(), ApiError> {
    let (name, spec, follow, condition) = match action {
        Action::Create(object) => return writer.ensure(GROUP, res.plural, object).await.map(drop),
        Action::Delete(name) => {
            return match state.storage.delete(res, "", &name, &Preconditions::default()).await {
                Err(e) if e.reason() != "NotFound" => Err(e),
                _ => Ok(()),
            };
        }
        Action::Update(name, spec, follow) => (name, Some(spec), Some(follow), None),
        Action::Annotate(name, follow) => (name, None, Some(follow), None),
        Action::Condition(name, condition) => (name, None, None, Some(condition)),
    };
    let change = |mut object: Value| {
        if let Some(spec) = &spec {
            object["spec"] = spec.clone();
            let generation = int_at(&object, &["metadata", "generation"]).unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
        if let Some(follow) = follow {
            object["metadata"]["annotations"][ANNOTATION] = json!(follow.to_string());
        }
        if let Some(condition) = &condition {
            set_condition(&mut object, condition);
        }
        Ok(object)
    };
    match state.storage.guaranteed_update(res, "", &name, &Preconditions::default(), change).await {
        // Somebody has just deleted it.
        Err(e) if e.reason() != "NotFound" => Err(e),
        _ => Ok(()),
    }
}

fn set_condition(object: &mut Value, condition: &Value) {
    let mut conditions: Vec<Value> = items(object, &["status", "conditions"]).to_vec();
    let mut condition = condition.clone();
    if let Some(old) = conditions.iter().find(|c| c["type"] == condition["type"] && c["status"] == condition["status"])
        && let Some(time) = at(old, &["lastTransitionTime"])
    {
        condition["lastTransitionTime"] = time.clone();
    }
    conditions.retain(|c| c["type"] != condition["type"]);
    conditions.push(condition);
    object["status"]["conditions"] = json!(conditions);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "PriorityLevelConfiguration";

    fn stored(name: &str, annotation: Option<&str>, generation: i64, shares: i64) -> Value {
        let mut object = defaults::priority_levels().into_iter().find(|o| o["metadata"]["name"] == name).expect("one");
        object["metadata"]["generation"] = json!(generation);
        if let Some(text) = annotation {
            object["metadata"]["annotations"] = json!({ANNOTATION: text});
        }
        if shares > 0 {
            object["spec"]["limited"]["nominalConcurrencyShares"] = json!(shares);
        }
        object
    }

    #[test]
    fn suggested_objects_follow_until_they_are_edited() {
        let wanted: Vec<Value> = defaults::priority_levels();
        let system = wanted.iter().find(|o| o["metadata"]["name"] == "system").expect("one").clone();
        let name = || "system".to_owned();
        let update = |follow| vec![Action::Update(name(), system["spec"].clone(), follow)];
        let table = [
            ("as it should be", stored("system", Some("true"), 1, 0), vec![]),
            ("an older version", stored("system", Some("true"), 3, 7), update(true)),
            ("edited, and said so", stored("system", Some("false"), 3, 7), vec![]),
            ("never edited, not said", stored("system", None, 1, 7), update(true)),
            ("edited, not said", stored("system", None, 2, 7), vec![Action::Annotate(name(), false)]),
            ("nonsense", stored("system", Some("maybe"), 1, 0), vec![Action::Annotate(name(), true)]),
        ];
        for (what, object, want) in table {
            assert_eq!(plan(KIND, &[object], std::slice::from_ref(&system)), want, "{what}");
        }
    }

    #[test]
    fn mandatory_objects_are_put_right_and_missing_ones_made() {
        let wanted: Vec<Value> = defaults::priority_levels();
        let fixed = wanted.iter().find(|o| o["metadata"]["name"] == "catch-all").expect("one").clone();
        let got = plan(KIND, &[stored("catch-all", Some("false"), 4, 99)], std::slice::from_ref(&fixed));
        assert_eq!(got, [Action::Update("catch-all".into(), fixed["spec"].clone(), true)]);
        let made = plan(KIND, &[], &wanted);
        assert_eq!(made.len(), 8);
        assert!(made.iter().all(|a| matches!(a, Action::Create(o) if follows(o) == Some(true))));
        let mut old = stored("system", Some("true"), 1, 0);
        old["metadata"]["name"] = json!("gone");
        let mut own = old.clone();
        own["metadata"] = json!({"name": "own"});
        assert_eq!(plan(KIND, &[old, own], &[]), [Action::Delete("gone".into())]);
    }

    #[test]
    fn schemas_without_their_level_dangle() {
        let schema = json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let level = json!({"metadata": {"name": "l"}});
        let [Action::Condition(_, condition)] = &conditions(std::slice::from_ref(&schema), &[], "now")[..] else {
            panic!("one")
        };
        assert_eq!((condition["status"].as_str(), condition["reason"].as_str()), (Some("True"), Some("NotFound")));
        let mut marked = schema;
        set_condition(&mut marked, condition);
        assert_eq!(conditions(std::slice::from_ref(&marked), &[], "later"), []);
        let [Action::Condition(_, found)] = &conditions(std::slice::from_ref(&marked), &[level], "later")[..] else {
            panic!("one")
        };
        set_condition(&mut marked, found);
        assert_eq!(marked["status"]["conditions"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            marked["status"]["conditions"][0]["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists"
        );
    }
}
