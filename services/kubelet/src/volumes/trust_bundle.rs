//! Trust anchors for projected volumes (KEP-3257): the certificates of one ClusterTrustBundle, or of all of a signer that
//! match a selector, each once.
//!
//! [`select`] decides (pure). The bundles are followed from the first pod on that wants some.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::selector::LabelSelector;
use base64::Engine as _;
use client::resource::Resource;
use client::{Client, Informer, InformerParams, ListParams};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::pod::{Pod, TrustProjection};

const BUNDLES: Resource<'static> =
    Resource::new("certificates.k8s.io", "v1beta1", "clustertrustbundles", "ClusterTrustBundle", false);
/// How long a pod's start waits for the first list before it tries again later.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Characters in a line of PEM (RFC 7468).
const LINE: usize = 64;

/// The cluster's bundles and the pods that have some of them in a volume.
#[derive(Debug)]
pub struct TrustBundles {
    client: Client,
    informer: Mutex<Option<Informer>>,
    users: Arc<Mutex<BTreeSet<String>>>,
    wake: mpsc::UnboundedSender<String>,
}

/// The projections of a pod.
fn wanted(pod: &Pod) -> bool {
    let sources = pod.spec.volumes.iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| &p.sources);
    sources.into_iter().any(|s| s.cluster_trust_bundle.is_some())
}

impl TrustBundles {
    /// Follows nothing yet; uids of pods whose anchors may have changed go to `wake`.
    pub fn new(client: Client, wake: mpsc::UnboundedSender<String>) -> Self {
        TrustBundles { client, informer: Mutex::default(), users: Arc::default(), wake }
    }

    /// Waits until the bundles are known, if the pod wants some.
    ///
    /// # Errors
    /// The API server does not have the kind, or has not answered.
    pub async fn ready(&self, pod: &Pod) -> Result<(), String> {
        if !wanted(pod) {
            return Ok(());
        }
        self.users.lock().insert(pod.metadata.uid.clone());
        let known = self.informer.lock().clone();
        let informer = match known {
            Some(informer) => informer,
            None => self.start().await?,
        };
        let first = tokio::time::timeout(FIRST_ANSWER, informer.synced()).await;
        first.map_err(|_| "ClusterTrustBundle informer has not yet synced".to_owned())
    }

    /// An API server without the kind must not be asked for it for ever, and its pods are told.
    async fn start(&self) -> Result<Informer, String> {
        let probe = ListParams { limit: 1, ..ListParams::default() };
        match self.client.list(BUNDLES, None, &probe).await {
            Err(error) if error.is_not_found() => {
                return Err("ClusterTrustBundle projection is not supported: the API server does not serve \
                            clustertrustbundles in certificates.k8s.io/v1beta1"
                    .into());
            }
            Err(error) => return Err(format!("while listing ClusterTrustBundles: {error}")),
            Ok(_) => {}
        }
        let mut kept = self.informer.lock();
        if let Some(other) = kept.as_ref() {
            return Ok(other.clone());
        }
        let informer = Informer::start(self.client.clone(), BUNDLES, InformerParams::default());
        let mut changes = informer.subscribe();
        let (users, wake) = (Arc::clone(&self.users), self.wake.clone());
        tokio::spawn(async move {
            while changes.recv().await.is_some() {
                for uid in users.lock().iter() {
                    let _ = wake.send(uid.clone());
                }
            }
        });
        Ok(kept.insert(informer).clone())
    }

    /// What a projection's file holds.
    ///
    /// # Errors
    /// What it names is not there and not optional.
    pub fn anchors(&self, projection: &TrustProjection) -> Result<Vec<u8>, String> {
        let bundles = self.informer.lock().as_ref().map(Informer::list).unwrap_or_default();
        select(&bundles, projection)
    }

    /// A pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.users.lock().remove(uid);
    }
}

/// The anchors of those bundles that a projection means, in the order of their bundles' names.
fn select(bundles: &[Arc<Value>], projection: &TrustProjection) -> Result<Vec<u8>, String> {
    let name_of = |bundle: &Value| bundle["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut chosen: Vec<&Arc<Value>> = match (&projection.name, &projection.signer_name) {
        (Some(name), None) => bundles.iter().filter(|b| name_of(b) == *name).collect(),
        (None, Some(signer)) => {
            let selector = LabelSelector::from_object(projection.label_selector.as_ref().unwrap_or(&Value::Null));
            let selector = selector.map_err(|e| format!("while parsing label selector: {e}"))?;
            let matches = |b: &&Arc<Value>| {
                b["spec"]["signerName"] == signer.as_str() && selector.matches(b["metadata"]["labels"].as_object())
            };
            bundles.iter().filter(matches).collect()
        }
        _ => return Err("clusterTrustBundle: exactly one of name and signerName is required".into()),
    };
    if chosen.is_empty() && !projection.optional {
        return Err(match &projection.name {
            Some(name) => {
                format!("while getting ClusterTrustBundle: clustertrustbundles.certificates.k8s.io {name:?} not found")
            }
            None => "combination of signerName and labelSelector matched zero ClusterTrustBundles".into(),
        });
    }
    chosen.sort_by_key(|b| name_of(b));
    let (mut seen, mut text) = (HashSet::new(), String::new());
    for bundle in chosen {
        for certificate in
            CertificateDer::pem_slice_iter(bundle["spec"]["trustBundle"].as_str().unwrap_or_default().as_bytes())
        {
            let certificate = certificate.map_err(|e| format!("ClusterTrustBundle {:?}: {e}", name_of(bundle)))?;
            if seen.insert(certificate.clone()) {
                text.push_str(&pem(&certificate));
            }
        }
    }
    Ok(text.into_bytes())
}

fn pem(certificate: &[u8]) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bundle(name: &str, signer: &str, tier: &str, certificates: &[&[u8]]) -> Arc<Value> {
        let text: String = certificates.iter().map(|c| format!("comment\n{}", pem(c))).collect();
        let labels = json!({"tier": tier});
        Arc::new(
            json!({"metadata": {"name": name, "labels": labels}, "spec": {"signerName": signer, "trustBundle": text}}),
        )
    }

    #[test]
    fn projections_choose_bundles_by_name_or_by_signer_and_labels() {
        let (a, b, c) = (vec![1u8; 60], vec![2u8; 3], vec![3u8; 3]);
        let bundles = [
            bundle("z", "e.com/s", "gold", &[&b, &a]),
            bundle("y", "e.com/s", "gold", &[&a, &c]),
            bundle("x", "e.com/s", "tin", &[&c]),
            bundle("plain", "", "gold", &[&b]),
        ];
        let file = |projection: Value| -> Result<Vec<u8>, String> {
            select(&bundles, &serde_json::from_value(projection).unwrap())
        };
        let holds = |certificates: &[&[u8]]| certificates.iter().map(|c| pem(c)).collect::<String>().into_bytes();
        assert_eq!(file(json!({"name": "plain", "path": "p"})), Ok(holds(&[&b])));
        let gold = json!({"signerName": "e.com/s", "labelSelector": {"matchLabels": {"tier": "gold"}}, "path": "p"});
        assert_eq!(file(gold), Ok(holds(&[&a, &c, &b])), "each once, bundles in order of their names");
        assert_eq!(file(json!({"signerName": "e.com/s", "labelSelector": {}})), Ok(holds(&[&c, &a, &b])));
        // No selector matches nothing.
        assert!(file(json!({"signerName": "e.com/s"})).unwrap_err().contains("matched zero"));
        assert_eq!(file(json!({"signerName": "e.com/s", "optional": true})), Ok(Vec::new()));
        assert!(file(json!({"name": "none"})).unwrap_err().contains("\"none\" not found"));
        assert_eq!(file(json!({"name": "none", "optional": true})), Ok(Vec::new()));
        assert!(file(json!({})).unwrap_err().contains("exactly one of name and signerName"));
        assert!(pem(&a).lines().all(|line| line.len() <= LINE));
    }
}
