//! volumeattributesclass-protection-controller: a class stays while a volume or a claim names it.

use apimachinery::meta;
use client::resource::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES};
use client::{Change, WorkQueue};
use serde_json::Value;

use crate::context::Context;
use crate::error::Error;
use crate::resource::VOLUMEATTRIBUTESCLASSES;
use crate::worker::{self, Next};
use crate::{object, protection};

const FINALIZER: &str = "kubernetes.io/vac-protection";

/// Runs the controller.
pub async fn run(context: Context) {
    let classes = context.informers.get(VOLUMEATTRIBUTESCLASSES);
    let users = [context.informers.get(PERSISTENTVOLUMES), context.informers.get(PERSISTENTVOLUMECLAIMS)];
    for informer in std::iter::once(&classes).chain(&users) {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&classes, move |change| to.add(meta::name(change.object()).to_owned()));
    for informer in &users {
        let to = queue.clone();
        worker::on_change(informer, move |change| {
            // What a user no longer names may go.
            let before = match &change {
                Change::Applied { old, .. } => old.as_ref(),
                Change::Deleted(last) => Some(last),
            };
            named(before.map_or(&Value::Null, |user| user)).for_each(|class| to.add(class.to_owned()));
        });
    }
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(class) = classes.get("", &name) else { return Ok(Next::Done) };
        let uses = |user: &Value| named(user).any(|class| class == name);
        let in_use = meta::deletion_timestamp(&class).is_some()
            && users.iter().any(|informer| informer.list().iter().any(|user| uses(user)));
        let plan = protection::plan(&class, FINALIZER, in_use);
        protection::apply(&context.client, VOLUMEATTRIBUTESCLASSES, &class, plan).await?;
        Ok(Next::Done)
    };
    worker::run("vac-protection", queue, 1, sync).await;
}

/// The classes that a volume or a claim has, wants or is being changed to.
fn named(user: &Value) -> impl Iterator<Item = &str> {
    let pointers = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ];
    pointers.into_iter().map(|pointer| object::text(user, pointer)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_wanted_and_what_is_there_are_both_used() {
        let claim = json!({"spec": {"volumeAttributesClassName": "fast"},
            "status": {"currentVolumeAttributesClassName": "slow",
                       "modifyVolumeStatus": {"targetVolumeAttributesClassName": "fast"}}});
        assert_eq!(named(&claim).collect::<Vec<_>>(), ["fast", "slow", "fast"]);
        assert_eq!(named(&json!({"spec": {}})).count(), 0);
    }
}
