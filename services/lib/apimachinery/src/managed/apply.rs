//! Server-side apply: a manager states all the fields it cares about, and the server finds what that changes, adds, gives up and contradicts.

use super::entries::{Conflict, Entry, Managers, Operation};
use super::update::{Changes, update};
use super::{Scope, Writer};
use crate::fields::{self, FieldSet, ListError};
use crate::meta;
use crate::schema::TypeRef;
use serde_json::{Value, json};
use std::collections::BTreeMap;

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
        Some(last) => prune(writer, &merged, &managers, last, &own),
        None => merged,
    };
    let changes = Changes::between(writer, live, &new, &mut managers);
    let contested = changes.conflicts(&managers);
    if !contested.is_empty() && !force && !was_applied_by_client(writer, live, &managers, &changes) {
        return Err(ApplyError::Conflicts(contested));
    }
    changes.settle(&mut managers);
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

/// Takes out what the manager applied last time and no longer does, unless another one owns it. What each owns is looked at in its own version.
fn prune(writer: &Writer<'_>, merged: &Value, others: &Managers, last: &Entry, own: &FieldSet) -> Value {
    let Some((ty, shown)) = writer.shown(merged, &last.api_version) else { return merged.clone() };
    let mut claims: BTreeMap<&str, FieldSet> = BTreeMap::from([(writer.api_version, own.clone())]);
    for entry in &others.0 {
        let claimed = claims.remove(entry.api_version.as_str()).unwrap_or_default();
        claims.insert(&entry.api_version, claimed.union(&entry.fields));
    }
    let named = fields::named_members(ty, &last.fields);
    let mut pruned = fields::hollow_out(ty, &shown, &named);
    // In the version of what is taken out first: the others are computed from it and may need what is given back.
    let mut versions: Vec<&str> = claims.keys().copied().collect();
    versions.sort_by_key(|version| *version != last.api_version);
    for version in versions {
        if let Some(kept) = give_back(writer, merged, (&pruned, &last.api_version), version, &claims[version]) {
            pruned = kept;
        }
    }
    // Removing an element of a list or a struct must not take along what others put below it.
    let gone = members(ty, &shown).difference(&members(ty, &pruned)).intersection(&named);
    let pruned = fields::remove(ty, &shown, &gone);
    if last.api_version == writer.api_version {
        return pruned;
    }
    writer.versions.convert(&pruned, &last.api_version, writer.api_version).unwrap_or_else(|| merged.clone())
}

fn members(ty: TypeRef<'_>, object: &Value) -> FieldSet {
    fields::named_members(ty, &fields::observed(ty, object))
}

/// Puts back what is claimed in a version; takes and returns the pruned object in its own.
fn give_back(
    writer: &Writer<'_>,
    merged: &Value,
    (pruned, pruned_version): (&Value, &str),
    version: &str,
    claimed: &FieldSet,
) -> Option<Value> {
    let (ty, merged) = writer.shown(merged, version)?;
    let convert = |object: &Value, from: &str, to: &str| {
        if from == to { Some(object.clone()) } else { writer.versions.convert(object, from, to) }
    };
    let pruned = convert(pruned, pruned_version, version)?;
    let kept = members(ty, &pruned).union(&fields::named_members(ty, claimed));
    let pruned = fields::hollow_out(ty, &merged, &members(ty, &merged).difference(&kept));
    convert(&pruned, version, pruned_version)
}

/// Whether all that is contested is as kubectl's client-side apply left it: that user is now applying on the server.
fn was_applied_by_client(writer: &Writer<'_>, live: &Value, managers: &Managers, changes: &Changes) -> bool {
    let applied = meta::annotation(live, LAST_APPLIED).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(applied) = applied.filter(|a| meta::api_version(a) == writer.api_version) else { return false };
    let Ok(set) = fields::of(writer.ty, &applied) else { return false };
    let drift = fields::compare(writer.ty, &applied, live);
    let allowed = set.difference(&drift.modified).difference(&drift.added).difference(&drift.removed);
    managers.0.iter().all(|entry| {
        let taken = changes.taken(entry);
        taken.is_empty() || (entry.api_version == writer.api_version && taken.difference(&allowed).is_empty())
    })
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
