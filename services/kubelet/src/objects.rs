//! The ConfigMaps and Secrets that this node's pods refer to, each kept current by a watch on its name alone: a node may
//! read nothing else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informer, InformerParams};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::pod::Pod;
use crate::sync::env::Kind;

/// How long a pod's start waits for the first answer about an object before it tries again later.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// One object.
pub type Key = (Kind, String, String);

/// The watched objects and who uses them.
#[derive(Debug)]
pub struct Objects {
    client: Client,
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
    wake: mpsc::UnboundedSender<String>,
}

#[derive(Debug)]
struct Entry {
    informer: Informer,
    users: BTreeSet<String>,
}

impl Objects {
    /// Starts empty; uids of pods whose objects changed go to `wake`.
    pub fn new(client: Client, wake: mpsc::UnboundedSender<String>) -> Self {
        Objects { client, entries: Arc::default(), wake }
    }

    /// Makes the pod a user of exactly these objects. Watches without users end.
    pub fn refer(&self, uid: &str, wanted: &BTreeSet<Key>) {
        let mut entries = self.entries.lock();
        entries.retain(|key, entry| {
            if !wanted.contains(key) {
                entry.users.remove(uid);
            }
            !entry.users.is_empty() || wanted.contains(key)
        });
        for key in wanted {
            let entry = entries.entry(key.clone()).or_insert_with(|| self.start(key));
            entry.users.insert(uid.to_owned());
        }
    }

    fn start(&self, key: &Key) -> Entry {
        let resource = match key.0 {
            Kind::ConfigMap => client::resource::CONFIGMAPS,
            Kind::Secret => client::resource::SECRETS,
        };
        let params = InformerParams {
            namespace: Some(key.1.clone()),
            field_selector: format!("metadata.name={}", key.2),
            ..InformerParams::default()
        };
        let informer = Informer::start(self.client.clone(), resource, params);
        let mut changes = informer.subscribe();
        let (entries, wake, key) = (Arc::clone(&self.entries), self.wake.clone(), key.clone());
        // Ends when the informer is dropped with its entry.
        tokio::spawn(async move {
            while changes.recv().await.is_some() {
                let users = entries.lock().get(&key).map(|e| e.users.clone()).unwrap_or_default();
                for uid in users {
                    let _ = wake.send(uid);
                }
            }
        });
        Entry { informer, users: BTreeSet::new() }
    }

    /// Waits until the server has answered about every object of the pod.
    ///
    /// # Errors
    /// Names the first object about which there is no answer yet.
    pub async fn ready(&self, wanted: &BTreeSet<Key>) -> Result<(), String> {
        for key in wanted {
            let informer = self.entries.lock().get(key).map(|e| e.informer.clone());
            let Some(informer) = informer else { continue };
            if tokio::time::timeout(FIRST_ANSWER, informer.synced()).await.is_err() {
                return Err(format!(
                    "failed to sync {:?} {}/{}: timed out waiting for the API server",
                    key.0, key.1, key.2
                ));
            }
        }
        Ok(())
    }

    /// The object as last seen.
    pub fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.entries.lock().get(&key).and_then(|e| e.informer.get(namespace, name))
    }
}

/// Every object that a pod refers to.
pub fn references(pod: &Pod) -> BTreeSet<Key> {
    let namespace = &pod.metadata.namespace;
    let mut set = BTreeSet::new();
    let mut add = |kind: Kind, name: &str| {
        if !name.is_empty() {
            set.insert((kind, namespace.clone(), name.to_owned()));
        }
    };
    for container in pod.every_container() {
        for source in &container.env_from {
            source.config_map_ref.iter().for_each(|r| add(Kind::ConfigMap, &r.name));
            source.secret_ref.iter().for_each(|r| add(Kind::Secret, &r.name));
        }
        for source in container.env.iter().filter_map(|e| e.value_from.as_ref()) {
            source.config_map_key_ref.iter().for_each(|r| add(Kind::ConfigMap, &r.name));
            source.secret_key_ref.iter().for_each(|r| add(Kind::Secret, &r.name));
        }
    }
    pod.spec.image_pull_secrets.iter().for_each(|r| add(Kind::Secret, &r.name));
    for volume in &pod.spec.volumes {
        volume.config_map.iter().for_each(|v| add(Kind::ConfigMap, &v.name));
        volume.secret.iter().for_each(|v| add(Kind::Secret, &v.secret_name));
        for source in volume.projected.iter().flat_map(|p| &p.sources) {
            source.config_map.iter().for_each(|v| add(Kind::ConfigMap, &v.name));
            source.secret.iter().for_each(|v| add(Kind::Secret, &v.name));
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_come_from_env_and_volumes() {
        let pod = Pod::from_value(&json!({
            "metadata": {"namespace": "n"},
            "spec": {
                "containers": [{"envFrom": [{"secretRef": {"name": "s1"}}],
                    "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}}]}],
                "volumes": [{"name": "v", "configMap": {"name": "m2"}}, {"name": "w", "secret": {"secretName": "s2"}},
                    {"name": "p", "projected": {"sources": [{"configMap": {"name": "m1"}}, {"serviceAccountToken": {"path": "t"}}]}}],
            },
        }))
        .unwrap();
        let names: Vec<String> =
            references(&pod).into_iter().map(|(kind, _, name)| format!("{kind:?}/{name}")).collect();
        assert_eq!(names, ["ConfigMap/m1", "ConfigMap/m2", "Secret/s1", "Secret/s2"]);
    }
}
