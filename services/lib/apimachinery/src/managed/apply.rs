//! Server-side apply: a manager states all the fields it cares about, and the server finds what that changes, adds, gives up and contradicts.

use super::entries::{Conflict, Entry, Managers, Operation};
use super::update::{conflicts, settle, update};
use super::{Scope, Writer};
use crate::fields::{self, FieldSet, ListError};
use crate::meta;
use serde_json::{Value, json};

/// Owns what was there before anybody applied.
const BEFORE: &str = "before-first-apply";
/// Where kubectl keeps what it applied on the client's side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Why a configuration cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own what it changes.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// A list in it does not tell its elements apart.
    #[error("{0}")]
    List(#[from] ListError),
}

/// The object after `config` has been applied, with its new ownership. `live` is an empty object if there is none yet.
pub fn apply(writer: &Writer<'_>, live: &Value, config: &Value, force: bool) -> Result<Value, ApplyError> {
    let mut own = fields::of(writer.ty, config)?;
    writer.limit_scope(&mut own);
    let mut managers = Managers::of(live).unwrap_or_default();
    if managers.0.is_empty() && !meta::uid(live).is_empty() {
        managers = before(writer, live);
    }
    let last = managers.take(Operation::Apply, writer);
    let merged = fields::merge(writer.ty, live, config);
    let mut new = match &last {
        Some(last) => prune(writer, &merged, &managers, &last.fields, &own),
        None => merged,
    };
    let mut changes = fields::compare(writer.ty, live, &new);
    changes.each(|set| writer.limit(set));
    let contested = conflicts(&managers, &changes);
    if !contested.is_empty() && !force && !was_applied_by_client(writer, live, &managers, &changes) {
        return Err(ApplyError::Conflicts(contested));
    }
    settle(&mut managers, &changes);
    writer.limit(&mut own);
    managers.0.push(Entry {
        manager: writer.manager.into(),
        operation: Operation::Apply,
        api_version: writer.api_version.into(),
        subresource: writer.subresource.into(),
        time: Some(writer.now.into()),
        fields: own,
    });
    managers.drop_empty();
    keep_last_applied(writer, config, &mut new);
    managers.write(&mut new);
    Ok(new)
}

/// An object that nobody manages has been made by someone all the same.
fn before(writer: &Writer<'_>, live: &Value) -> Managers {
    let writer = Writer { manager: BEFORE, subresource: "", scope: Scope::Except(&[]), ..writer.clone() };
    let mut copy = live.clone();
    update(&writer, &json!({}), &mut copy);
    Managers::of(&copy).unwrap_or_default()
}

/// Takes out what the manager applied last time and no longer does, unless another one owns it.
fn prune(writer: &Writer<'_>, merged: &Value, others: &Managers, last: &FieldSet, own: &FieldSet) -> Value {
    let ty = writer.ty;
    let last = fields::named_members(ty, last);
    let set_of = |object: &Value| fields::named_members(ty, &fields::observed(ty, object));
    let all = set_of(merged);
    let pruned = set_of(&fields::hollow_out(ty, merged, &last));
    let claimed = others.0.iter().fold(own.clone(), |claimed, entry| claimed.union(&entry.fields));
    let kept = pruned.union(&fields::named_members(ty, &claimed));
    // Removing an element of a list or a struct must not take along what others put below it.
    let pruned = set_of(&fields::hollow_out(ty, merged, &all.clone().difference(&kept)));
    let gone = all.difference(&pruned).intersection(&last);
    fields::remove(ty, merged, &gone)
}

/// Whether all that is contested is as kubectl's client-side apply left it: that user is now applying on the server.
fn was_applied_by_client(writer: &Writer<'_>, live: &Value, managers: &Managers, changes: &fields::Comparison) -> bool {
    let applied = meta::annotation(live, LAST_APPLIED).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(applied) = applied.filter(|a| meta::api_version(a) == writer.api_version) else { return false };
    let Ok(set) = fields::of(writer.ty, &applied) else { return false };
    let drift = fields::compare(writer.ty, &applied, live);
    let allowed = set.difference(&drift.modified).difference(&drift.added).difference(&drift.removed);
    let taken = changes.added.clone().union(&changes.modified);
    managers.0.iter().all(|entry| entry.fields.intersection(&taken).difference(&allowed).is_empty())
}

/// kubectl's annotation follows its server-side applies, so that users can go back.
fn keep_last_applied(writer: &Writer<'_>, config: &Value, new: &mut Value) {
    if writer.manager != "kubectl" || meta::annotation(new, LAST_APPLIED).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    meta::set_annotation(new, LAST_APPLIED, &config.to_string());
}

fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.field);
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(conflicts.iter().filter(|c| c.manager == manager).map(|c| format!("- {}", c.field)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
