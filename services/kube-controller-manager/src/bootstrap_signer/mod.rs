//! bootstrap-signer-controller: signs `kube-public/cluster-info` with each bootstrap token, so that whoever has a token can
//! trust the authority that it names.

mod jws;

use std::collections::BTreeMap;

use apimachinery::meta;
use client::resource::{CONFIGMAPS, SECRETS};
use client::{Patch, WorkQueue};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::clock;
use crate::context::Context;
use crate::error::Error;
use crate::token_cleaner::{entry, expiry, is_token};
use crate::worker::{self, Next};

const NAMESPACE: &str = "kube-public";
const NAME: &str = "cluster-info";
const SIGNATURE: &str = "jws-kubeconfig-";

/// Runs the controller.
pub async fn run(context: Context) {
    let (maps, secrets) = (context.informers.get(CONFIGMAPS), context.informers.get(SECRETS));
    maps.synced().await;
    secrets.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&maps, move |change| {
        if meta::name(change.object()) == NAME && meta::namespace(change.object()) == NAMESPACE {
            to.add(NAME.to_owned());
        }
    });
    let to = queue.clone();
    worker::on_change(&secrets, move |change| {
        if is_token(change.object()) {
            to.add(NAME.to_owned());
        }
    });
    let sync = async |_: String| -> Result<Next, Error> {
        let Some(info) = maps.get(NAMESPACE, NAME) else { return Ok(Next::Done) };
        let now = Timestamp::now();
        let tokens: BTreeMap<String, String> =
            secrets.list().iter().filter_map(|secret| signing_token(secret, now)).collect();
        let Some(changes) = plan(&info, &tokens) else { return Ok(Next::Done) };
        let metadata = json!({"uid": meta::uid(&info), "resourceVersion": meta::resource_version(&info)});
        let patch = Patch::Merge(json!({"metadata": metadata, "data": changes}));
        context.client.patch(CONFIGMAPS, Some(NAMESPACE), NAME, None, &patch).await?;
        Ok(Next::Done)
    };
    worker::run("bootstrap-signer", queue, 1, sync).await;
}

/// Id and secret of a token that may sign.
fn signing_token(secret: &Value, now: Timestamp) -> Option<(String, String)> {
    let may = is_token(secret) && entry(secret, "usage-bootstrap-signing").as_deref() == Some("true");
    let expired = expiry(secret).is_some_and(|expiry| clock::until(now, expiry).is_zero());
    if !may || expired {
        return None;
    }
    let id = entry(secret, "token-id").filter(|id| meta::name(secret) == format!("bootstrap-token-{id}"))?;
    Some((id, entry(secret, "token-secret")?))
}

/// What to change in the ConfigMap's data, null for what goes; none if it is as it should be.
fn plan(info: &Value, tokens: &BTreeMap<String, String>) -> Option<Map<String, Value>> {
    let content = info["data"]["kubeconfig"].as_str()?;
    let data = info["data"].as_object()?;
    let wanted: BTreeMap<String, String> = tokens
        .iter()
        .map(|(id, secret)| (format!("{SIGNATURE}{id}"), jws::detached(content, id, &format!("{id}.{secret}"))))
        .collect();
    let stale = data.keys().filter(|key| key.starts_with(SIGNATURE) && !wanted.contains_key(*key));
    let mut changes: Map<String, Value> = stale.map(|key| (key.clone(), Value::Null)).collect();
    for (key, signature) in wanted {
        if data.get(&key).and_then(Value::as_str) != Some(&signature) {
            changes.insert(key, signature.into());
        }
    }
    (!changes.is_empty()).then_some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_come_and_go_with_tokens() {
        let mut info = json!({"data": {"kubeconfig": "x", "jws-kubeconfig-old": "y"}});
        let tokens = BTreeMap::from([("abcdef".to_owned(), "0123456789abcdef".to_owned())]);
        let changes = plan(&info, &tokens).unwrap();
        assert_eq!(changes["jws-kubeconfig-old"], Value::Null);
        assert!(changes["jws-kubeconfig-abcdef"].as_str().unwrap().contains(".."));
        info["data"] = json!({"kubeconfig": "x", "jws-kubeconfig-abcdef": changes["jws-kubeconfig-abcdef"]});
        assert_eq!(plan(&info, &tokens), None, "settled");
        assert_eq!(plan(&json!({"data": {}}), &tokens), None);
    }
}
