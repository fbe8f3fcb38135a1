//! legacy-serviceaccount-token-cleaner-controller (KEP-2799): tokens that clusters before 1.24 made for every service account, and
//! that nobody has used for a year, are first marked invalid, then, after as long again, deleted.
//!
//! The API server says since when it notes the use of tokens, and when one was used last ([`plan`] has the names).

mod plan;

use std::sync::Arc;

use apimachinery::meta;
use client::resource::{CONFIGMAPS, PODS, SECRETS, SERVICEACCOUNTS};
use client::{Client, DeleteParams, Informer, ListParams, Patch, WorkQueue};
use jiff::Timestamp;
use serde_json::json;

use self::plan::Step;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::worker::{self, Next};

struct Controller {
    client: Client,
    secrets: Informer,
    accounts: Informer,
    notes: Informer,
    /// Seconds without use after which a token is marked, and once more after which it goes.
    period: i64,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        secrets: context.informers.get(SECRETS),
        accounts: context.informers.get(SERVICEACCOUNTS),
        notes: context.informers.get(CONFIGMAPS),
        client: context.client,
        period: context.legacy_token_period,
    });
    for informer in [&controller.secrets, &controller.accounts, &controller.notes] {
        informer.synced().await;
    }
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&controller.secrets, move |change| {
        if plan::is_token(change.object()) {
            to.add(meta::key(change.object()));
        }
    });
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.notes, move |change| {
        if meta::name(change.object()) == plan::NOTE && meta::namespace(change.object()) == plan::NAMESPACE {
            this.secrets.each().filter(|secret| plan::is_token(secret)).for_each(|secret| to.add(meta::key(&secret)));
        }
    });
    worker::run("legacy-service-account-token-cleaner", queue, 1, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(note) = controller.notes.get(plan::NAMESPACE, plan::NOTE) else { return Ok(Next::Done) };
    let Some(secret) = controller.secrets.get(namespace, name).filter(|s| plan::is_token(s)) else {
        return Ok(Next::Done);
    };
    let account = controller.accounts.get(namespace, plan::account_of(&secret));
    let now = Timestamp::now();
    match plan::plan(&secret, account.as_deref(), &note, controller.period, now) {
        Step::Nothing => return Ok(Next::Done),
        Step::WaitUntil(then) => return Ok(Next::After(clock::until(now, then))),
        Step::Mark | Step::Delete if controller.is_mounted(namespace, name).await? => {
            // A pod that ends tells nobody here; tomorrow is early enough.
            return Ok(Next::After(clock::until(now, clock::plus(now, plan::DAY))));
        }
        Step::Mark => {
            let labels = json!({(plan::INVALID_SINCE): plan::date(now)});
            let patch = json!({"metadata": {"uid": meta::uid(&secret), "resourceVersion": meta::resource_version(&secret), "labels": labels}});
            ignore_not_found(
                controller.client.patch(SECRETS, Some(namespace), name, None, &Patch::Merge(patch)).await,
            )?;
        }
        Step::Delete => {
            let only_this = DeleteParams {
                uid: Some(meta::uid(&secret).to_owned()),
                // Whoever uses it meanwhile wins.
                resource_version: Some(meta::resource_version(&secret).to_owned()),
                ..DeleteParams::default()
            };
            ignore_not_found(controller.client.delete(SECRETS, Some(namespace), name, &only_this).await)?;
        }
    }
    Ok(Next::Done)
}

impl Controller {
    /// Whether a pod has the Secret in a volume. Asked of the server: the copies here lack such volumes.
    async fn is_mounted(&self, namespace: &str, name: &str) -> Result<bool, Error> {
        let pods = self.client.list(PODS, Some(namespace), &ListParams::default()).await?;
        Ok(pods.items.iter().any(|pod| plan::mounts(pod, name)))
    }
}
