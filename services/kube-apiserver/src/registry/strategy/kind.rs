//! The shape of a kind: which rule its names follow, whether it has a status of its own, its defaults and its checks.

use serde_json::{Value, json};

use super::checks::{self, Rule, dns_subdomain};
use super::tree::{has, int_at, keep, remove, same, set};
use crate::errors::{ApiError, FieldError};
use crate::registry::{Context, Strategy};
use crate::storage::Stored;

/// Names and values of the fields a selector can ask for.
pub type Fields = Vec<(&'static str, String)>;

/// A kind as data. Start from [`Kind::BASE`].
pub struct Kind {
    /// The rule of its names; the text says what is wrong.
    pub names: Rule,
    /// It has a status that only its subresource writes.
    pub status: bool,
    /// Parts of the metadata that a write of the status leaves alone.
    pub status_leaves: &'static [&'static str],
    /// metadata.generation counts changes of the desired state.
    pub generation: bool,
    /// What an unset field means. Must change nothing the second time.
    pub defaults: fn(&mut Value),
    /// Last touches on a new object.
    pub create: fn(&Context<'_>, &mut Value) -> Result<(), ApiError>,
    /// Last touches on a changed object.
    pub update: fn(&Context<'_>, Option<&str>, &mut Value, &Value) -> Result<(), ApiError>,
    /// Checks besides metadata.
    pub check: fn(&mut Vec<FieldError>, &Value),
    /// Checks that only new objects must pass.
    pub check_create: fn(&mut Vec<FieldError>, &Value),
    /// Checks of a change.
    pub check_update: fn(&mut Vec<FieldError>, Option<&str>, &Value, &Value),
    /// Selectable fields.
    pub fields: fn(&Value) -> Fields,
    /// Seconds to wait for the owner on deletion.
    pub grace: fn(&Value, Option<i64>) -> Option<i64>,
    /// The change is in the store.
    pub updated: fn(&Context<'_>, &Stored, &Value),
    /// The object is gone.
    pub deleted: fn(&Context<'_>, &Value),
    /// The object in the stored version, where that is another than the served one.
    pub stored: fn(&Value) -> Option<Value>,
    /// What an unset field means there.
    pub completed: fn(&mut Value),
    /// Turns what is stored into the served version.
    pub served: fn(&mut Value),
}

impl Kind {
    /// Nothing special: a subdomain name, no status, no defaults, no checks.
    pub const BASE: Kind = Kind {
        names: dns_subdomain,
        status: false,
        status_leaves: &["ownerReferences"],
        generation: false,
        defaults: |_| {},
        create: |_, _| Ok(()),
        update: |_, _, _, _| Ok(()),
        check: |_, _| {},
        check_create: |_, _| {},
        check_update: |_, _, _, _| {},
        fields: |_| Vec::new(),
        grace: |_, _| None,
        updated: |_, _, _| {},
        deleted: |_, _| {},
        stored: |_| None,
        completed: |_| {},
        served: |_| {},
    };

    /// A desired state and an observed one, written by different people.
    pub const SPEC_STATUS: Kind = Kind { status: true, generation: true, ..Kind::BASE };

    /// All metadata that a client may set.
    pub const CLIENTS_METADATA: &'static [&'static str] = &["labels", "annotations", "finalizers", "ownerReferences"];
}

impl Strategy for Kind {
    fn default(&self, obj: &mut Value) {
        (self.defaults)(obj);
    }

    fn prepare_for_create(&self, cx: &Context<'_>, obj: &mut Value) -> Result<(), ApiError> {
        if self.status {
            set(obj, "status", json!({}));
        }
        let metadata = &mut obj["metadata"];
        if self.generation {
            set(metadata, "generation", 1);
        } else {
            remove(metadata, "generation");
        }
        (self.defaults)(obj);
        (self.create)(cx, obj)
    }

    fn prepare_for_update(
        &self,
        cx: &Context<'_>,
        sub: Option<&str>,
        new: &mut Value,
        old: &Value,
    ) -> Result<(), ApiError> {
        match sub {
            None if self.status => keep(new, old, "status"),
            Some("status") => isolate_status(new, old, self.status_leaves),
            _ => {}
        }
        (self.defaults)(new);
        (self.update)(cx, sub, new, old)?;
        if self.generation {
            let generation = int_at(old, &["metadata", "generation"]).unwrap_or(1);
            let step = i64::from(desired_state_changed(new, old));
            set(&mut new["metadata"], "generation", generation + step);
        } else {
            remove(&mut new["metadata"], "generation");
        }
        Ok(())
    }

    fn validate(&self, obj: &Value) -> Vec<FieldError> {
        let mut errors = checks::metadata(obj, self.names);
        (self.check)(&mut errors, obj);
        (self.check_create)(&mut errors, obj);
        errors
    }

    fn validate_update(&self, sub: Option<&str>, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = checks::metadata_update(new, old);
        if sub.is_none() {
            (self.check)(&mut errors, new);
        }
        (self.check_update)(&mut errors, sub, new, old);
        errors
    }

    fn selectable_fields(&self, obj: &Value) -> Fields {
        (self.fields)(obj)
    }

    fn graceful_deletion(&self, obj: &Value, requested: Option<i64>) -> Option<i64> {
        (self.grace)(obj, requested)
    }

    fn after_update(&self, cx: &Context<'_>, new: &Stored, old: &Value) {
        (self.updated)(cx, new, old);
    }

    fn converted(&self, obj: &Value) -> Option<Value> {
        (self.stored)(obj)
    }

    fn stored_form(&self, obj: &Value) -> Option<Value> {
        let mut stored = (self.stored)(obj)?;
        (self.completed)(&mut stored);
        Some(stored)
    }

    fn served_form(&self, obj: &mut Value) {
        (self.served)(obj);
    }

    fn after_delete(&self, cx: &Context<'_>, obj: &Value) {
        (self.deleted)(cx, obj);
    }
}

/// A status write keeps everything but status and the free parts of metadata.
fn isolate_status(new: &mut Value, old: &Value, metadata: &[&str]) {
    let fields: Vec<String> =
        old.as_object().into_iter().chain(new.as_object()).flatten().map(|(k, _)| k.clone()).collect();
    for field in fields {
        if field != "status" && field != "metadata" {
            keep(new, old, &field);
        }
    }
    for field in metadata {
        keep(&mut new["metadata"], &old["metadata"], field);
    }
}

/// Anything outside metadata and status, or the request to delete.
fn desired_state_changed(new: &Value, old: &Value) -> bool {
    let keys = new.as_object().into_iter().chain(old.as_object()).flatten().map(|(k, _)| k);
    let mut spec = keys.filter(|k| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"));
    spec.any(|k| !same(new.get(k), old.get(k)))
        || has(&new["metadata"], "deletionTimestamp") != has(&old["metadata"], "deletionTimestamp")
}
