//! ControllerRevisions: the history of a StatefulSet's or DaemonSet's template. The decisions are pure; [`History`]
//! carries them out.
//!
//! A template that was there before takes its old revision again, with a new number: names follow content.

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::meta;
use apimachinery::selector::LabelSelector;
use client::{Client, DeleteParams, Informer, Patch, Resource};
use serde_json::{Value, json};

use crate::error::{Error, ignore_not_found};
use crate::resource::CONTROLLERREVISIONS;
use crate::{hash, object, owners};

/// The label on pods and revisions.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// What a revision keeps: a patch that puts the template back.
pub fn data(owner: &Value) -> Value {
    let mut template = owner["spec"]["template"].clone();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template in a revision.
pub fn template(revision: &Value) -> Value {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(fields) = template.as_object_mut() {
        fields.remove("$patch");
    }
    template
}

/// The hash in a revision's label.
pub fn hash_of(revision: &Value) -> &str {
    meta::label(revision, HASH_LABEL).unwrap_or_default()
}

fn number(revision: &Value) -> i64 {
    object::int(revision, "/revision").unwrap_or(0)
}

/// Oldest first; among equal numbers the one made first.
pub fn sort(revisions: &mut [Arc<Value>]) {
    revisions.sort_by_key(|r| (number(r), meta::creation_timestamp(r).to_owned(), meta::name(r).to_owned()));
}

/// Which revision the owner's template has.
#[derive(Debug, PartialEq)]
pub enum Choice {
    /// This one, and it is the newest.
    Keep(Arc<Value>),
    /// This older one, which becomes the newest under this number.
    Raise(Arc<Value>, i64),
    /// None yet; the newest gets this number.
    Create(i64),
}

/// Finds the owner's template among its revisions, which are sorted.
pub fn choose(owner: &Value, revisions: &[Arc<Value>]) -> Choice {
    let wanted = data(owner);
    let next = revisions.last().map_or(0, |r| number(r)) + 1;
    match revisions.iter().rev().find(|r| r["data"] == wanted) {
        Some(found) if number(found) == next - 1 => Choice::Keep(Arc::clone(found)),
        Some(found) => Choice::Raise(Arc::clone(found), next),
        None => Choice::Create(next),
    }
}

/// A new revision of the owner's template.
pub fn new(owner: &Value, number: i64, collisions: Option<i64>) -> Value {
    let data = data(owner);
    let hash = hash::label(&data.to_string(), collisions);
    let mut revision = json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision",
        "metadata": {
            "name": format!("{}-{hash}", meta::name(owner)), "namespace": meta::namespace(owner),
            "labels": owner["spec"]["template"]["metadata"]["labels"],
            "ownerReferences": [meta::controller_reference(owner)],
        },
        "data": data, "revision": number,
    });
    if let Some(annotations) = meta::annotations(owner) {
        let mut kept = annotations.clone();
        kept.remove("kubectl.kubernetes.io/last-applied-configuration");
        revision["metadata"]["annotations"] = kept.into();
    }
    meta::set_label(&mut revision, HASH_LABEL, &hash);
    revision
}

/// Revisions beyond the owner's history limit that nothing `live` names, by name or by hash; oldest first.
pub fn surplus(owner: &Value, revisions: &[Arc<Value>], live: &BTreeSet<String>) -> Vec<Arc<Value>> {
    let limit = object::int(owner, "/spec/revisionHistoryLimit").unwrap_or(10);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let dead = revisions.iter().filter(|r| !live.contains(meta::name(r)) && !live.contains(hash_of(r)));
    let dead: Vec<Arc<Value>> = dead.cloned().collect();
    let surplus = dead.len().saturating_sub(limit);
    dead.into_iter().take(surplus).collect()
}

/// Reads and writes the revisions of one kind of owner.
pub struct History {
    /// The API.
    pub client: Client,
    /// All revisions.
    pub revisions: Informer,
    /// The owner's kind.
    pub owner: Resource<'static>,
}

impl History {
    /// The owner's revisions, oldest first. Ownerless ones that its selector matches are adopted.
    pub async fn of(&self, owner: &Value, selector: &LabelSelector) -> Result<Vec<Arc<Value>>, Error> {
        let uid = meta::uid(owner);
        let mut candidates = self.revisions.list_namespace(meta::namespace(owner));
        candidates.retain(|r| meta::controller_of(r).is_none_or(|c| c["uid"] == uid));
        let claim = owners::claim(owner, candidates, |r| selector.matches(meta::labels(r)));
        let mut revisions = owners::carry_out(&self.client, owner, self.owner, CONTROLLERREVISIONS, claim).await?;
        sort(&mut revisions);
        Ok(revisions)
    }

    /// The revision of the owner's template, made or raised as needed, and the owner's new collision count.
    pub async fn settle(&self, owner: &Value, revisions: &[Arc<Value>]) -> Result<(Arc<Value>, Option<i64>), Error> {
        let mut collisions = object::int(owner, "/status/collisionCount");
        let number = match choose(owner, revisions) {
            Choice::Keep(revision) => return Ok((revision, collisions)),
            Choice::Raise(revision, number) => {
                let patch = Patch::Merge(json!({"metadata": {"uid": meta::uid(&revision)}, "revision": number}));
                let namespace = Some(meta::namespace(owner));
                let name = meta::name(&revision);
                let raised = self.client.patch(CONTROLLERREVISIONS, namespace, name, None, &patch).await?;
                return Ok((Arc::new(raised), collisions));
            }
            Choice::Create(number) => number,
        };
        loop {
            let wanted = new(owner, number, collisions);
            let namespace = Some(meta::namespace(owner));
            match self.client.create(CONTROLLERREVISIONS, namespace, &wanted).await {
                Ok(created) => return Ok((Arc::new(created), collisions)),
                Err(error) if error.is_already_exists() => {
                    let found = self.client.get(CONTROLLERREVISIONS, namespace, meta::name(&wanted)).await?;
                    if found["data"] == wanted["data"] && meta::is_controlled_by(&found, owner) {
                        return Ok((Arc::new(found), collisions));
                    }
                    collisions = Some(collisions.unwrap_or(0) + 1);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes what the history limit leaves no room for.
    pub async fn truncate(
        &self,
        owner: &Value,
        revisions: &[Arc<Value>],
        live: &BTreeSet<String>,
    ) -> Result<(), Error> {
        for revision in surplus(owner, revisions, live) {
            let only_this = DeleteParams { uid: Some(meta::uid(&revision).to_owned()), ..DeleteParams::default() };
            let (namespace, name) = (Some(meta::namespace(owner)), meta::name(&revision));
            ignore_not_found(self.client.delete(CONTROLLERREVISIONS, namespace, name, &only_this).await)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "web", "namespace": "n", "uid": "u"},
            "spec": {"revisionHistoryLimit": 1,
                     "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"image": image}}},
        })
    }

    fn revision(image: &str, number: i64) -> Arc<Value> {
        Arc::new(new(&owner(image), number, None))
    }

    #[test]
    fn content_finds_its_old_revision() {
        let history = [revision("a", 1), revision("b", 2)];
        assert_eq!(choose(&owner("b"), &history), Choice::Keep(Arc::clone(&history[1])));
        assert_eq!(choose(&owner("a"), &history), Choice::Raise(Arc::clone(&history[0]), 3));
        assert_eq!(choose(&owner("c"), &history), Choice::Create(3));
        assert_eq!(choose(&owner("a"), &[]), Choice::Create(1));
        assert_eq!(template(&history[0]), owner("a")["spec"]["template"]);
    }

    #[test]
    fn names_follow_content_and_collisions() {
        let (first, other) = (revision("a", 1), revision("a", 7));
        assert_eq!(meta::name(&first), meta::name(&other));
        assert_ne!(meta::name(&first), meta::name(&new(&owner("a"), 1, Some(1))));
        assert_eq!(meta::name(&first), format!("web-{}", hash_of(&first)));
    }

    #[test]
    fn history_keeps_the_live_and_the_newest_dead() {
        let history: Vec<_> = ["a", "b", "c", "d"].iter().zip(1..).map(|(i, n)| revision(i, n)).collect();
        let live = BTreeSet::from([meta::name(&history[3]).to_owned(), hash_of(&history[0]).to_owned()]);
        let names: Vec<_> = surplus(&owner("d"), &history, &live).iter().map(|r| meta::name(r).to_owned()).collect();
        assert_eq!(names, [meta::name(&history[1])]);
    }
}
