//! An identity for each controller: a service account in kube-system, and tokens for it that are renewed in time. What a
//! controller may do is then what its own role says, whatever the others need.

use std::time::Duration;

use client::resource::SERVICEACCOUNTS;
use client::{Client, EventRecorder};
use jiff::Timestamp;
use serde_json::json;
use tracing::warn;

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::events::Events;
use crate::{clock, object};

const NAMESPACE: &str = "kube-system";
/// What a token is asked to live for, in seconds.
const LIFETIME: i64 = 3600;

/// A token, and when to fetch the next one.
struct Token {
    text: String,
    renew_in: Duration,
}

/// The context as a controller is to have it: its own client, where that was asked for. Waits until there is a token.
pub async fn for_controller(context: Context, account: &'static str) -> Context {
    if !context.own_identities || account.is_empty() {
        return context;
    }
    let manager = context.client.clone();
    let token = fetch_until_there(&manager, account).await;
    let own = match manager.with_token(&token.text) {
        Ok(own) => own,
        Err(error) => {
            // Only a token that is no token; the manager's own identity still works.
            warn!("{account}: {error}");
            return context;
        }
    };
    tokio::spawn(renew(manager, own.clone(), account, token.renew_in));
    let events = Events::new(EventRecorder::new(own.clone(), account, None));
    Context { client: own, events, ..context }
}

async fn renew(manager: Client, own: Client, account: &'static str, first: Duration) {
    let mut wait = first;
    loop {
        tokio::time::sleep(wait).await;
        let token = fetch_until_there(&manager, account).await;
        if let Err(error) = own.set_token(&token.text) {
            warn!("{account}: {error}");
        }
        wait = token.renew_in;
    }
}

async fn fetch_until_there(manager: &Client, account: &str) -> Token {
    let mut backoff = daemon::backoff::Backoff::default();
    loop {
        match fetch(manager, account, Timestamp::now()).await {
            Ok(token) => return token,
            Err(error) => {
                warn!("token of {account}: {error}; trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn create(manager: &Client, account: &str) -> Result<(), Error> {
    let object =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": NAMESPACE}});
    match manager.create(SERVICEACCOUNTS, Some(NAMESPACE), &object).await {
        Err(error) if !error.is_already_exists() => Err(error.into()),
        _ => Ok(()),
    }
}

async fn fetch(manager: &Client, account: &str, now: Timestamp) -> Result<Token, Error> {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                         "spec": {"expirationSeconds": LIFETIME}});
    let ask = || manager.create_sub(SERVICEACCOUNTS, Some(NAMESPACE), account, "token", &request);
    // All starts but a cluster's first find the account there.
    let answer = match ignore_not_found(ask().await)? {
        Some(answer) => answer,
        None => {
            create(manager, account).await?;
            ask().await?
        }
    };
    let text = object::text(&answer, "/status/token").to_owned();
    if text.is_empty() {
        return Err(Error::Object(format!("the server gave no token for {account}")));
    }
    let ends = clock::parse(object::text(&answer, "/status/expirationTimestamp"));
    let lives = ends.map_or(Duration::from_secs(60), |ends| clock::until(now, ends));
    Ok(Token { text, renew_in: lives * 4 / 5 })
}
