//! serviceaccount-controller: every active namespace has a ServiceAccount named `default`.

use apimachinery::meta;
use client::resource::{NAMESPACES, SERVICEACCOUNTS};
use client::{Change, WorkQueue};
use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::namespace::is_active;
use crate::worker::{self, Next};

const NAME: &str = "default";

/// Runs the controller.
pub async fn run(context: Context) {
    let (namespaces, accounts) = (context.informers.get(NAMESPACES), context.informers.get(SERVICEACCOUNTS));
    namespaces.synced().await;
    accounts.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&namespaces, move |change| to.add(meta::name(change.object()).to_owned()));
    let to = queue.clone();
    worker::on_change(&accounts, move |change| {
        if let Change::Deleted(account) = &change
            && meta::name(account) == NAME
        {
            to.add(meta::namespace(account).to_owned());
        }
    });
    let sync = async |namespace: String| -> Result<Next, Error> {
        let wanted = namespaces.get("", &namespace).is_some_and(|ns| is_active(&ns));
        if !wanted || accounts.get(&namespace, NAME).is_some() {
            return Ok(Next::Done);
        }
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": namespace}});
        match context.client.create(SERVICEACCOUNTS, Some(&namespace), &account).await {
            Ok(_) => Ok(Next::Done),
            Err(error) if error.is_already_exists() => Ok(Next::Done),
            Err(error) => Err(error.into()),
        }
    };
    worker::run("serviceaccount", queue, 2, sync).await;
}
