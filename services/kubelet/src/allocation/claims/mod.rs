//! Dynamic resources (KEP-4381): a pod's claims are prepared by their drivers before its containers start and given back
//! after they ended.
//!
//! [`plan`] decides (pure), [`state`] is the file that remembers: a claim is written down before its drivers are called, so
//! what was prepared is given back whoever comes later.

mod plan;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::resource::Resource;
use cri_api::dra;
use cri_api::dra::dra_plugin_client::DraPluginClient;
use cri_api::v1;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::plugins::{Handler, Plugin};
use crate::pod::Pod;
use crate::runtime::text;
use state::{Claim, Device};

const CLAIMS: Resource<'static> = Resource::new("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", true);
/// The version of the interface, as plugins name it when they register.
const VERSION: &str = "v1.DRAPlugin";
/// Drivers may have to switch hardware over; upstream waits as long.
const LIMIT: Duration = Duration::from_secs(45);

/// Namespace and name of a claim.
type Key = (String, String);

/// A registered driver.
#[derive(Clone, Debug)]
struct Driver {
    endpoint: PathBuf,
    client: DraPluginClient<Channel>,
}

/// The claims of this node's pods.
#[derive(Debug)]
pub struct Claims {
    client: client::Client,
    file: PathBuf,
    drivers: Mutex<HashMap<String, Driver>>,
    known: Mutex<BTreeMap<Key, Claim>>,
    /// Claims that this process has seen prepared: others are prepared again, which drivers must bear.
    prepared: Mutex<BTreeSet<Key>>,
    /// Pods that wait for a driver.
    waiting: Mutex<BTreeSet<String>>,
    wake: mpsc::UnboundedSender<String>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(LIMIT);
    request
}

fn message(claim: &Claim) -> dra::Claim {
    dra::Claim { namespace: claim.namespace.clone(), uid: claim.uid.clone(), name: claim.name.clone() }
}

impl Claims {
    /// Takes up what the file in `root` says; uids of pods that can go on go to `wake`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn restore(root: &Path, client: client::Client, wake: mpsc::UnboundedSender<String>) -> Result<Self, String> {
        let file = root.join(state::FILE);
        let claims = match super::checkpoint::read(&file)? {
            Some(text) => state::decode(&text).map_err(|e| format!("{}: {e}", file.display()))?,
            None => Vec::new(),
        };
        let known = claims.into_iter().map(|c| ((c.namespace.clone(), c.name.clone()), c)).collect();
        Ok(Claims {
            client,
            file,
            drivers: Mutex::default(),
            known: Mutex::new(known),
            prepared: Mutex::default(),
            waiting: Mutex::default(),
            wake,
            one_at_a_time: tokio::sync::Mutex::default(),
        })
    }

    fn keep(&self) -> Result<(), String> {
        super::checkpoint::write(&self.file, &state::encode(self.known.lock().values())?)
    }

    fn driver(&self, name: &str) -> Result<Driver, String> {
        let found = self.drivers.lock().get(name).cloned();
        found.ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    /// Has the drivers prepare a pod's claims. May be repeated.
    ///
    /// # Errors
    /// A claim is not there or not for the pod, or a driver refused.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        if pod.spec.resource_claims.is_empty() {
            return Ok(());
        }
        let _turn = self.one_at_a_time.lock().await;
        for (_, name) in plan::names(pod)? {
            let key = (pod.metadata.namespace.clone(), name);
            let mine = self.known.lock().get(&key).is_some_and(|c| c.pods.contains(&pod.metadata.uid));
            if mine && self.prepared.lock().contains(&key) {
                continue;
            }
            let object = self.client.get(CLAIMS, Some(&key.0), &key.1).await;
            let object = object.map_err(|e| format!("fetch ResourceClaim {}: {e}", key.1))?;
            self.prepare_one(pod, key, &object).await?;
        }
        Ok(())
    }

    async fn prepare_one(&self, pod: &Pod, key: Key, object: &Value) -> Result<(), String> {
        let fresh = plan::wanted(pod, object)?;
        let claim = {
            let mut known = self.known.lock();
            let claim = known.entry(key.clone()).or_insert_with(|| fresh.clone());
            if claim.uid != fresh.uid {
                return Err(format!(
                    "old ResourceClaim with same name {} and different UID {} still exists",
                    key.1, claim.uid
                ));
            }
            claim.pods.extend(fresh.pods);
            claim.clone()
        };
        self.keep()?;
        if self.prepared.lock().contains(&key) {
            return Ok(());
        }
        for name in claim.drivers.keys() {
            let driver = self.driver(name).inspect_err(|_| {
                self.waiting.lock().insert(pod.metadata.uid.clone());
            })?;
            let devices = driver.prepare(&claim).await.map_err(|e| format!("prepare ResourceClaim {}: {e}", key.1))?;
            if let Some(kept) = self.known.lock().get_mut(&key) {
                kept.drivers.insert(name.clone(), devices);
            }
        }
        self.prepared.lock().insert(key);
        self.keep()
    }

    /// Gives a pod's claims back: those that no other pod uses are unprepared.
    ///
    /// # Errors
    /// A driver is not there or refused; it can be tried again.
    pub async fn release(&self, uid: &str) -> Result<(), String> {
        self.waiting.lock().remove(uid);
        if !self.uids().contains(uid) {
            return Ok(());
        }
        let _turn = self.one_at_a_time.lock().await;
        let mine: Vec<(Key, Claim)> = {
            let known = self.known.lock();
            known.iter().filter(|(_, c)| c.pods.contains(uid)).map(|(k, c)| (k.clone(), c.clone())).collect()
        };
        for (key, claim) in mine {
            let last = claim.pods.len() == 1;
            if last {
                self.prepared.lock().remove(&key);
                for name in claim.drivers.keys() {
                    let done = self.driver(name)?.unprepare(&claim).await;
                    done.map_err(|e| format!("unprepare ResourceClaim {}: {e}", key.1))?;
                }
                self.known.lock().remove(&key);
            } else if let Some(kept) = self.known.lock().get_mut(&key) {
                kept.pods.remove(uid);
            }
            self.keep()?;
        }
        Ok(())
    }

    /// Pods that have claims here.
    pub fn uids(&self) -> BTreeSet<String> {
        self.known.lock().values().flat_map(|c| c.pods.iter().cloned()).collect()
    }

    /// Adds a container's devices to its configuration, by their CDI names.
    ///
    /// # Errors
    /// A claim is not prepared.
    pub fn equip(&self, pod: &Pod, name: &str, config: &mut v1::ContainerConfig) -> Result<(), String> {
        let Some(container) = pod.container(name) else { return Ok(()) };
        let known = self.known.lock();
        for (_, devices) in plan::given(pod, container, &known)? {
            for id in devices.into_iter().flat_map(|(_, d)| &d.cdi_ids) {
                if !config.cdi_devices.iter().any(|d| d.name == *id) {
                    config.cdi_devices.push(v1::CdiDevice { name: id.clone() });
                }
            }
        }
        Ok(())
    }

    /// What a container has, as agents are told.
    pub fn described(&self, pod: &Pod, name: &str) -> Vec<cri_api::pod_resources::DynamicResource> {
        use cri_api::pod_resources as api;
        let Some(container) = pod.container(name) else { return Vec::new() };
        let known = self.known.lock();
        let one = |(claim, devices): plan::Given<'_>| api::DynamicResource {
            claim_name: claim.name.clone(),
            claim_namespace: claim.namespace.clone(),
            claim_resources: devices
                .into_iter()
                .map(|(driver, device)| api::ClaimResource {
                    cdi_devices: device.cdi_ids.iter().map(|id| api::CdiDevice { name: id.clone() }).collect(),
                    driver_name: driver.to_owned(),
                    pool_name: device.pool_name.clone(),
                    device_name: device.device_name.clone(),
                })
                .collect(),
            ..Default::default()
        };
        plan::given(pod, container, &known).unwrap_or_default().into_iter().map(one).collect()
    }

    fn register(&self, plugin: &Plugin) -> Result<(), String> {
        if !plugin.versions.iter().any(|v| v == VERSION) {
            return Err(format!(
                "unsupported version(s) of plugin {}: {:?}, only {VERSION:?} is supported",
                plugin.name, plugin.versions
            ));
        }
        let client = DraPluginClient::new(cri_api::connect_unix(&plugin.endpoint));
        self.drivers.lock().insert(plugin.name.clone(), Driver { endpoint: plugin.endpoint.clone(), client });
        for uid in std::mem::take(&mut *self.waiting.lock()) {
            let _ = self.wake.send(uid);
        }
        Ok(())
    }
}

impl Driver {
    async fn prepare(&self, claim: &Claim) -> Result<Vec<Device>, String> {
        let message = dra::NodePrepareResourcesRequest { claims: vec![message(claim)] };
        let answer = self.client.clone().node_prepare_resources(request(message)).await;
        let mut answer = answer.map_err(|e| format!("NodePrepareResources failed: {}", text(e)))?.into_inner();
        let result = answer.claims.remove(&claim.uid).ok_or("NodePrepareResources skipped it")?;
        if !result.error.is_empty() {
            return Err(format!("NodePrepareResources failed: {}", result.error));
        }
        let device = |d: dra::Device| Device {
            pool_name: d.pool_name,
            device_name: d.device_name,
            request_names: d.request_names,
            cdi_ids: d.cdi_device_ids,
        };
        Ok(result.devices.into_iter().map(device).collect())
    }

    async fn unprepare(&self, claim: &Claim) -> Result<(), String> {
        let message = dra::NodeUnprepareResourcesRequest { claims: vec![message(claim)] };
        let answer = self.client.clone().node_unprepare_resources(request(message)).await;
        let mut answer = answer.map_err(|e| format!("NodeUnprepareResources failed: {}", text(e)))?.into_inner();
        let result = answer.claims.remove(&claim.uid).ok_or("NodeUnprepareResources skipped it")?;
        if result.error.is_empty() { Ok(()) } else { Err(format!("NodeUnprepareResources failed: {}", result.error)) }
    }
}

/// The table's entry.
pub struct Registration(pub Arc<Claims>);

impl Handler for Registration {
    fn kind(&self) -> &'static str {
        "DRAPlugin"
    }

    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { self.0.register(plugin) })
    }

    fn deregister<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // Another socket may serve it by now.
            let mut drivers = self.0.drivers.lock();
            if drivers.get(&plugin.name).is_some_and(|d| d.endpoint == plugin.endpoint) {
                drivers.remove(&plugin.name);
            }
        })
    }
}
