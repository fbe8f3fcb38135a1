//! serviceaccount-token-controller: fills Secrets that ask for the token of a service account, and removes them with the account.
//!
//! The API server signs: the token is one of its TokenRequest, bound to the Secret, for as long as such a token can live. It
//! ends with the Secret, as upstream's do, and no second process needs the key.

mod plan;

use std::sync::Arc;

use apimachinery::meta;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::resource::{SECRETS, SERVICEACCOUNTS};
use client::{Change, Client, DeleteParams, Informer, WorkQueue};
use serde_json::json;

use self::plan::Step;
use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::object;
use crate::worker::{self, Next};

/// The longest that a token may be asked for, in seconds: 136 years.
const LIFETIME: i64 = 1 << 32;

struct Controller {
    client: Client,
    secrets: Informer,
    accounts: Informer,
    root_ca: Arc<str>,
}

/// Runs the controller.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        secrets: context.informers.get(SECRETS),
        accounts: context.informers.get(SERVICEACCOUNTS),
        client: context.client,
        root_ca: context.root_ca,
    });
    controller.secrets.synced().await;
    controller.accounts.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&controller.secrets, move |change| {
        if plan::is_token(change.object()) {
            to.add(meta::key(change.object()));
        }
    });
    let (this, to) = (Arc::clone(&controller), queue.clone());
    worker::on_change(&controller.accounts, move |change| {
        // A status or an annotation of the account concerns no token.
        if matches!(&change, Change::Applied { old: Some(_), .. }) {
            return;
        }
        let account = change.object();
        for secret in this.secrets.list_namespace(meta::namespace(account)) {
            if plan::is_token(&secret) && plan::account_of(&secret) == meta::name(account) {
                to.add(meta::key(&secret));
            }
        }
    });
    worker::run("serviceaccount-token", queue, 5, |key| sync(&controller, key)).await;
}

async fn sync(controller: &Controller, key: String) -> Result<Next, Error> {
    let (namespace, name) = meta::split_key(&key);
    let Some(known) = controller.secrets.get(namespace, name).filter(|secret| plan::is_token(secret)) else {
        return Ok(Next::Done);
    };
    let account = controller.accounts.get(namespace, plan::account_of(&known));
    if plan::plan(&known, account.as_deref(), &controller.root_ca) == Step::Nothing {
        return Ok(Next::Done);
    }
    // What is deleted or written back is looked at once more: the copies here may be late.
    let Some(mut secret) = ignore_not_found(controller.client.get(SECRETS, Some(namespace), name).await)? else {
        return Ok(Next::Done);
    };
    let owner = plan::account_of(&secret).to_owned();
    let account = ignore_not_found(controller.client.get(SERVICEACCOUNTS, Some(namespace), &owner).await)?;
    match plan::plan(&secret, account.as_ref(), &controller.root_ca) {
        Step::Nothing => {}
        Step::Delete => {
            let params = DeleteParams {
                uid: Some(meta::uid(&secret).to_owned()),
                resource_version: Some(meta::resource_version(&secret).to_owned()),
                ..DeleteParams::default()
            };
            ignore_not_found(controller.client.delete(SECRETS, Some(namespace), name, &params).await)?;
        }
        Step::Fill { entries, token } => {
            for (entry, value) in entries {
                secret["data"][entry] = value.into();
            }
            if token {
                let text = controller.token(namespace, &owner, meta::uid(&secret), name).await?;
                secret["data"]["token"] = STANDARD.encode(text).into();
            }
            let uid = account.as_ref().map(|account| meta::uid(account).to_owned()).unwrap_or_default();
            meta::set_annotation(&mut secret, plan::UID, &uid);
            ignore_not_found(controller.client.update(SECRETS, Some(namespace), name, &secret).await)?;
        }
    }
    Ok(Next::Done)
}

impl Controller {
    async fn token(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Result<String, Error> {
        let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": secret, "uid": uid});
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                             "spec": {"expirationSeconds": LIFETIME, "boundObjectRef": bound}});
        let answer = self.client.create_sub(SERVICEACCOUNTS, Some(namespace), account, "token", &request).await?;
        let text = object::text(&answer, "/status/token");
        if text.is_empty() {
            return Err(Error::Object(format!("the server gave no token for {namespace}/{account}")));
        }
        Ok(text.to_owned())
    }
}
