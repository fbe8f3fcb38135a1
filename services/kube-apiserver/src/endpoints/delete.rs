//! DELETE of an object or a collection: at once, after a grace period, or when the last finalizer goes.

use super::list::{self, ListOptions};
use super::{Target, encode};
use crate::admission::{self, AdmissionRequest, Operation};
use crate::errors::{ApiError, FieldError};
use crate::registry::{Resource, Strategy, deletion_returns_object};
use crate::server::body::{self, Request, Response};
use crate::server::handler::Call;
use crate::storage::{Preconditions, Stored, Swap};
use apimachinery::{meta, time};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::sync::Arc;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How many objects of a collection are deleted at a time.
const PARALLEL: usize = 8;

/// What a DELETE asks for.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Overrides the object's own grace period.
    pub grace: Option<i64>,
    /// Which state is meant.
    pub preconditions: Preconditions,
    /// Orphan, Background, Foreground, or empty for the kind's default.
    pub propagation: String,
    /// Do everything but write.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a DeleteOptions object; what it leaves out may stand in the query.
    pub fn parse(options: &Value, call: &Call) -> Result<Self, ApiError> {
        let query = &call.query;
        let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_string);
        let mut propagation = text("/propagationPolicy").unwrap_or_else(|| query.get("propagationPolicy").to_string());
        let orphan = options["orphanDependents"]
            .as_bool()
            .or(query.has("orphanDependents").then(|| query.flag("orphanDependents")));
        if let Some(orphan) = orphan {
            if !propagation.is_empty() {
                let error = FieldError::invalid(
                    "propagationPolicy",
                    propagation,
                    "orphanDependents and deletionPropagation cannot be both set",
                );
                return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
            }
            propagation = if orphan { "Orphan" } else { "Background" }.into();
        }
        if !matches!(propagation.as_str(), "" | "Orphan" | "Background" | "Foreground") {
            let error = FieldError::not_supported(
                "propagationPolicy",
                propagation,
                &["Foreground", "Background", "Orphan", "nil"],
            );
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &[error]));
        }
        let all = options["dryRun"].as_array().is_some_and(|list| list.iter().any(|v| v == "All"));
        Ok(Self {
            grace: options["gracePeriodSeconds"].as_i64().or_else(|| query.get("gracePeriodSeconds").parse().ok()),
            preconditions: Preconditions {
                uid: text("/preconditions/uid"),
                resource_version: text("/preconditions/resourceVersion"),
            },
            propagation,
            dry_run: all || call.dry_run()?,
        })
    }

    async fn read(call: &Call, request: Request) -> Result<Self, ApiError> {
        let content = call.header(http::header::CONTENT_TYPE).map(str::to_string);
        let text = body::read(request.into_body()).await?;
        let options =
            if text.is_empty() { json!({}) } else { super::decode::delete_options(&text, content.as_deref())? };
        let kind = meta::kind(&options);
        if !matches!(kind, "" | "DeleteOptions") {
            return Err(ApiError::bad_request(format!("expected DeleteOptions, got {kind}")));
        }
        Self::parse(&options, call)
    }
}

/// What a delete did.
pub enum Outcome {
    /// Gone; the last state.
    Removed(Arc<Stored>),
    /// Marked: something has to happen first.
    Marked(Arc<Stored>),
}

/// DELETE of one object.
pub async fn delete(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    call.accepted()?;
    let options = DeleteOptions::read(call, request).await?;
    let res = target.res;
    match remove(call, res, &target.namespace, &target.name, &options).await? {
        Outcome::Marked(stored) => encode::one(call, res, 200, &stored, &[]),
        Outcome::Removed(stored) if deletion_returns_object(res.group, res.plural) => {
            encode::one(call, res, 200, &stored, &[])
        }
        Outcome::Removed(stored) => {
            let details = json!({"name": stored.name, "group": res.group, "kind": res.plural, "uid": stored.uid()});
            let mut status =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            if res.group.is_empty() {
                status["details"].as_object_mut().map(|d| d.remove("group"));
            }
            Ok(crate::server::respond::status(call.headers.get(http::header::ACCEPT), 200, &status))
        }
    }
}

/// Deletes one object as the options say.
pub async fn remove(
    call: &Call,
    res: &'static Resource,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Outcome, ApiError> {
    let (storage, cx) = (&call.state.storage, call.context(options.dry_run));
    let mut current = storage.get(res, namespace, name).await?;
    loop {
        let Some(stored) = current else { return Err(ApiError::not_found(res.group, res.plural, name)) };
        options.preconditions.check(res, &stored)?;
        let old = stored.object();
        let admission = AdmissionRequest {
            operation: Operation::Delete,
            resource: res,
            subresource: None,
            namespace,
            name,
            object: &mut Value::Null,
            old: Some(&old),
        };
        admission::admit(&cx, admission).await?;
        let swap = match plan(res.strategy, &old, options, &call.now) {
            Plan::Nothing => return Ok(Outcome::Marked(stored)),
            Plan::Mark(new) if options.dry_run => {
                return crate::storage::codec::stored(res, new, stored.revision).map(|s| Outcome::Marked(Arc::new(s)));
            }
            Plan::Remove if options.dry_run => return Ok(Outcome::Removed(stored)),
            Plan::Mark(new) => match storage.swap(res, new, stored.revision).await? {
                Swap::Done(stored) => return Ok(Outcome::Marked(stored)),
                lost => lost,
            },
            Plan::Remove => match storage.remove(res, &stored).await? {
                Swap::Done(stored) => {
                    res.strategy.after_delete(&cx, &old);
                    return Ok(Outcome::Removed(stored));
                }
                lost => lost,
            },
        };
        current = match swap {
            Swap::Done(stored) | Swap::Lost(Some(stored)) => Some(stored),
            Swap::Lost(None) => None,
        };
    }
}

/// What a delete does to an object in a given state.
#[derive(Debug, PartialEq)]
enum Plan {
    /// It is on its way out already.
    Nothing,
    /// Write this.
    Mark(Value),
    /// Take it out.
    Remove,
}

fn plan(strategy: &dyn Strategy, old: &Value, options: &DeleteOptions, now: &str) -> Plan {
    let mut new = old.clone();
    set_finalizers(&mut new, &options.propagation);
    let waits = !meta::finalizers(&new).is_empty();
    let grace = strategy.graceful_deletion(old, options.grace);
    if grace.is_none() && !waits {
        return Plan::Remove;
    }
    let seconds = grace.unwrap_or(0).max(0);
    let pending = meta::deletion_timestamp(old).is_some();
    let shorter = meta::deletion_grace_period_seconds(old).is_none_or(|before| seconds < before);
    // A second delete may shorten the wait when it says so, and never prolongs it.
    if !pending || (shorter && options.grace.is_some()) || (shorter && grace.is_none()) {
        mark(strategy, &mut new, seconds, now, pending);
    }
    if new == *old { Plan::Nothing } else { Plan::Mark(new) }
}

fn mark(strategy: &dyn Strategy, object: &mut Value, seconds: i64, now: &str, pending: bool) {
    let generation = meta::generation(object);
    let metadata = meta::metadata_mut(object);
    let base = time::parse_rfc3339(now).ok();
    let until = base
        .and_then(|t| t.checked_add(std::time::Duration::from_secs(seconds.unsigned_abs())).ok())
        .map_or(now.to_string(), time::rfc3339);
    metadata.insert("deletionTimestamp".into(), until.into());
    metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
    if generation > 0 && !pending {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    strategy.mark_deleted(object);
}

/// The finalizers that carry out the propagation policy; an object that is already being collected one way keeps to it unless told otherwise.
fn set_finalizers(object: &mut Value, propagation: &str) {
    if propagation.is_empty() {
        return;
    }
    let mut list: Vec<Value> =
        meta::finalizers(object).into_iter().filter(|f| !matches!(*f, ORPHAN | FOREGROUND)).map(Value::from).collect();
    match propagation {
        "Orphan" => list.push(ORPHAN.into()),
        "Foreground" => list.push(FOREGROUND.into()),
        _ => {}
    }
    let metadata = meta::metadata_mut(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), list.into());
    }
}

/// Whether nothing keeps a marked object any more.
pub fn is_finished(res: &Resource, object: &Value) -> bool {
    meta::deletion_timestamp(object).is_some()
        && meta::finalizers(object).is_empty()
        && meta::deletion_grace_period_seconds(object).unwrap_or(0) == 0
        && res.strategy.graceful_deletion(object, Some(0)).is_none()
}

/// DELETE of a collection: of what a list with the same selectors would show.
pub async fn collection(call: &Call, target: &Target, request: Request) -> Result<Response, ApiError> {
    call.accepted()?;
    let options = DeleteOptions::read(call, request).await?;
    let wanted = ListOptions::parse(target.res, &call.query)?;
    let (items, meta) = list::read(call, target, &wanted).await?;
    let deletions = items.into_iter().map(|item| {
        let options = &options;
        async move {
            match remove(call, target.res, &item.namespace, &item.name, options).await {
                Ok(Outcome::Removed(stored) | Outcome::Marked(stored)) => Ok(Some(stored)),
                Err(error) if error.reason() == "NotFound" => Ok(None),
                Err(error) => Err(error),
            }
        }
    });
    let deleted: Vec<Option<Arc<Stored>>> =
        futures_util::stream::iter(deletions).buffered(PARALLEL).try_collect().await?;
    let deleted: Vec<Arc<Stored>> = deleted.into_iter().flatten().collect();
    encode::list(call, target.res, deleted, &meta)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pods;
    impl Strategy for Pods {
        fn graceful_deletion(&self, _: &Value, requested: Option<i64>) -> Option<i64> {
            Some(requested.unwrap_or(30)).filter(|s| *s > 0)
        }
    }

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn with(grace: Option<i64>, propagation: &str) -> DeleteOptions {
        DeleteOptions { grace, propagation: propagation.into(), ..DeleteOptions::default() }
    }

    #[test]
    fn a_pod_waits_for_its_kubelet() {
        let pod = json!({"metadata": {"name": "p"}});
        let Plan::Mark(marked) = plan(&Pods, &pod, &with(None, ""), NOW) else { panic!("not marked") };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:35Z");
        assert_eq!(plan(&Pods, &marked, &with(None, ""), "2026-01-02T03:04:10Z"), Plan::Nothing);
        let Plan::Mark(shorter) = plan(&Pods, &marked, &with(Some(5), ""), NOW) else { panic!("not shortened") };
        assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
        assert_eq!(plan(&Pods, &shorter, &with(Some(9), ""), NOW), Plan::Nothing);
        assert_eq!(plan(&Pods, &marked, &with(Some(0), ""), NOW), Plan::Remove);
    }

    #[test]
    fn finalizers_keep_an_object() {
        let generic = crate::registry::Generic;
        let object = json!({"metadata": {"name": "d", "generation": 3}});
        assert_eq!(plan(&generic, &object, &with(None, "Background"), NOW), Plan::Remove);
        let Plan::Mark(marked) = plan(&generic, &object, &with(None, "Foreground"), NOW) else { panic!("not marked") };
        assert_eq!(marked["metadata"]["finalizers"], json!([FOREGROUND]));
        assert_eq!(
            (&marked["metadata"]["generation"], &marked["metadata"]["deletionGracePeriodSeconds"]),
            (&json!(4), &json!(0))
        );
        assert_eq!(plan(&generic, &marked, &with(None, ""), NOW), Plan::Nothing);
        assert_eq!(plan(&generic, &marked, &with(None, "Background"), NOW), Plan::Remove);
        let Plan::Mark(orphaned) = plan(&generic, &marked, &with(None, "Orphan"), NOW) else { panic!("not changed") };
        assert_eq!(orphaned["metadata"]["finalizers"], json!([ORPHAN]));
    }
}
