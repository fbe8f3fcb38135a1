//! root-ca-certificate-publisher-controller: every active namespace has the cluster's CA in `kube-root-ca.crt`.

use apimachinery::meta;
use client::WorkQueue;
use client::resource::{CONFIGMAPS, NAMESPACES};
use serde_json::{Value, json};
use tracing::warn;

use crate::context::Context;
use crate::error::Error;
use crate::namespace::is_active;
use crate::worker::{self, Next};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
    distributions of Kubernetes clusters.";

/// Runs the controller; without a bundle there is nothing to publish.
pub async fn run(context: Context) {
    if context.root_ca.is_empty() {
        warn!("no --root-ca-file: kube-root-ca.crt is not published, so no pod with a token volume can start");
        return context.shutdown.wait().await;
    }
    let (namespaces, maps) = (context.informers.get(NAMESPACES), context.informers.get(CONFIGMAPS));
    namespaces.synced().await;
    maps.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&namespaces, move |change| to.add(meta::name(change.object()).to_owned()));
    let to = queue.clone();
    worker::on_change(&maps, move |change| {
        if meta::name(change.object()) == NAME {
            to.add(meta::namespace(change.object()).to_owned());
        }
    });
    let sync = async |namespace: String| -> Result<Next, Error> {
        if !namespaces.get("", &namespace).is_some_and(|ns| is_active(&ns)) {
            return Ok(Next::Done);
        }
        let found = maps.get(&namespace, NAME);
        let Some(wanted) = plan(found.as_deref(), &namespace, &context.root_ca) else { return Ok(Next::Done) };
        let written = match found {
            None => context.client.create(CONFIGMAPS, Some(&namespace), &wanted).await,
            Some(_) => context.client.update(CONFIGMAPS, Some(&namespace), NAME, &wanted).await,
        };
        match written {
            Ok(_) => Ok(Next::Done),
            Err(error) if error.is_already_exists() => Ok(Next::Done),
            Err(error) => Err(error.into()),
        }
    };
    worker::run("root-ca-publisher", queue, 2, sync).await;
}

/// The ConfigMap to write, if it is not as it should be.
fn plan(found: Option<&Value>, namespace: &str, bundle: &str) -> Option<Value> {
    let data = json!({"ca.crt": bundle});
    let annotation = "kubernetes.io/description";
    let Some(found) = found else {
        return Some(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": namespace, "annotations": {annotation: DESCRIPTION}}, "data": data,
        }));
    };
    if found["data"] == data && found["metadata"]["annotations"].get(annotation).is_some() {
        return None;
    }
    let mut wanted = found.clone();
    wanted["data"] = data;
    wanted["metadata"]["annotations"][annotation] = DESCRIPTION.into();
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_what_is_missing_or_altered() {
        let fresh = plan(None, "n", "PEM").unwrap();
        assert_eq!(fresh["data"]["ca.crt"], "PEM");
        assert!(plan(Some(&fresh), "n", "PEM").is_none());
        let mut altered = fresh.clone();
        altered["data"]["ca.crt"] = "".into();
        assert_eq!(plan(Some(&altered), "n", "PEM").unwrap(), fresh);
    }
}
