//! Ownership after an ordinary write: whoever changed a field owns it.

use super::Writer;
use super::entries::{Conflict, Entry, Managers, Operation};
use crate::fields::{self, Comparison, FieldSet};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// More managers by update than this are folded into one, oldest first.
const UPDATERS_MAX: usize = 10;
/// The name of the one they are folded into.
const FOLDED: &str = "ancient-changes";

/// Writes the ownership that follows from a write into `new`. `old` is the state before, an empty object for a creation. A client may send managedFields of its own; what
/// cannot be read of them is replaced by what was there.
pub fn update(writer: &Writer<'_>, old: &Value, new: &mut Value) {
    let sent = &new["metadata"]["managedFields"];
    // A list of one empty element means: forget.
    if *sent == json!([{}]) && writer.subresource.is_empty() {
        crate::meta::metadata_mut(new).remove("managedFields");
        return;
    }
    let kept = if writer.subresource.is_empty() && sent.as_array().is_some_and(|list| !list.is_empty()) {
        Managers::of(new).or_else(|| Managers::of(old))
    } else {
        Managers::of(old)
    };
    let mut managers = kept.unwrap_or_default();
    // Once given up, ownership is not tracked again until someone applies.
    let exists = !crate::meta::uid(old).is_empty();
    if !(exists && managers.0.is_empty()) {
        follow(writer, old, new, &mut managers);
    }
    managers.write(new);
}

fn follow(writer: &Writer<'_>, old: &Value, new: &Value, managers: &mut Managers) {
    let changes = Changes::between(writer, old, new, managers);
    if changes.own.is_empty() {
        return;
    }
    changes.settle(managers);
    let mut own = managers.take(Operation::Update, writer).unwrap_or_else(|| Entry {
        manager: writer.manager.into(),
        operation: Operation::Update,
        api_version: writer.api_version.into(),
        subresource: writer.subresource.into(),
        time: None,
        fields: FieldSet::default(),
    });
    let taken = changes.own.added.union(&changes.own.modified);
    if !taken.is_empty() {
        own.time = Some(writer.now.into());
    }
    own.fields = own.fields.union(&taken);
    managers.0.push(own);
    managers.drop_empty();
    fold(managers);
}

/// What differs between two states, as every version in which fields are owned shows it.
pub(super) struct Changes {
    /// In the writer's version.
    pub own: Comparison,
    others: BTreeMap<String, Comparison>,
}

impl Changes {
    /// Compares. Managers that speak a version which is no longer served are forgotten: nobody can tell any more what they own.
    pub fn between(writer: &Writer<'_>, old: &Value, new: &Value, managers: &mut Managers) -> Self {
        let compared = |version: &str| {
            let ((ty, old), (_, new)) = (writer.shown(old, version)?, writer.shown(new, version)?);
            let mut changes = fields::compare(ty, &old, &new);
            changes.each(|set| writer.limit(set));
            Some(changes)
        };
        let mut others = BTreeMap::new();
        managers.0.retain(|entry| {
            let version = &entry.api_version;
            if version == writer.api_version || others.contains_key(version) {
                return true;
            }
            compared(version).map(|changes| others.insert(version.clone(), changes)).is_some()
        });
        let mut own = fields::compare(writer.ty, old, new);
        own.each(|set| writer.limit(set));
        Self { own, others }
    }

    fn of(&self, entry: &Entry) -> &Comparison {
        self.others.get(&entry.api_version).unwrap_or(&self.own)
    }

    /// What of an entry's fields the new state writes.
    pub fn taken(&self, entry: &Entry) -> FieldSet {
        let changes = self.of(entry);
        entry.fields.intersection(&changes.added.clone().union(&changes.modified))
    }

    /// Takes changed and removed fields from whoever owned them.
    pub fn settle(&self, managers: &mut Managers) {
        for entry in &mut managers.0 {
            let changes = self.of(entry);
            let gone = changes.added.clone().union(&changes.modified).union(&changes.removed);
            entry.fields = std::mem::take(&mut entry.fields).difference(&gone);
        }
        managers.drop_empty();
    }

    /// What others own of the changed fields.
    pub fn conflicts(&self, managers: &Managers) -> Vec<Conflict> {
        let of = |entry: &Entry| {
            let manager = entry.description();
            self.taken(entry).paths().into_iter().map(move |field| Conflict { manager: manager.clone(), field })
        };
        managers.0.iter().flat_map(of).collect()
    }
}

fn fold(managers: &mut Managers) {
    let updaters = managers.0.iter().filter(|e| e.operation == Operation::Update).count();
    let Some(surplus) = updaters.checked_sub(UPDATERS_MAX).filter(|n| *n > 0) else { return };
    managers.0.sort_by_key(|e| (e.operation, e.time.clone()));
    let first = managers.0.iter().position(|e| e.operation == Operation::Update).unwrap_or(0);
    // One bucket for each version, as paths of different versions do not mix.
    let old: Vec<Entry> = managers.0.drain(first..=first + surplus).collect();
    for entry in old {
        let known = managers.0.iter_mut().find(|e| e.manager == FOLDED && e.api_version == entry.api_version);
        match known {
            Some(bucket) => {
                bucket.fields = std::mem::take(&mut bucket.fields).union(&entry.fields);
                bucket.time = bucket.time.take().max(entry.time);
            }
            None => managers.0.push(Entry { manager: FOLDED.into(), subresource: String::new(), ..entry }),
        }
    }
}

/// Whether two states differ in nothing but when their managers last wrote: not worth a write.
pub fn same_but_for_times(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    old.len() == new.len()
        && old.iter().all(|(key, a)| match (key.as_str(), new.get(key)) {
            (_, None) => false,
            ("metadata", Some(b)) => same_metadata(a, b),
            (_, Some(b)) => a == b,
        })
}

fn same_metadata(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    old.len() == new.len()
        && old.iter().all(|(key, a)| match (key.as_str(), new.get(key)) {
            (_, None) => false,
            ("managedFields", Some(b)) => same_managers(a, b),
            (_, Some(b)) => a == b,
        })
}

/// Their order depends on the times.
fn same_managers(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_array(), new.as_array()) else { return old == new };
    let same = |a: &Value, b: &Value| {
        ["manager", "operation", "apiVersion", "subresource", "fieldsV1"].iter().all(|f| a.get(*f) == b.get(*f))
    };
    old.len() == new.len() && old.iter().all(|a| new.iter().any(|b| same(a, b)))
}
