//! Devices of plugins (device plugin API v1beta1): [`registration`] lets plugins in, [`pool`] decides (pure), this file
//! asks the plugins and keeps the [`checkpoint`].

mod answer;
mod checkpoint;
pub mod pool;
pub mod registration;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cri_api::device_plugin as api;
use cri_api::device_plugin::device_plugin_client::DevicePluginClient;
use cri_api::v1;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::watch;
use tonic::transport::Channel;

use super::topology::{Hints, Nodes};
use crate::pod::{Container, Map, Pod, amount};
use pool::{Ask, Ids, Pool, Resource};

type Plugin = DevicePluginClient<Channel>;

/// How long a plugin may take to prepare a container's devices.
const PREPARE_LIMIT: Duration = Duration::from_secs(30);

/// Devices that init containers of a pod have done with, by resource.
pub type Reusable = BTreeMap<String, Ids>;

/// All plugins and their devices.
#[derive(Debug)]
pub struct Devices {
    folder: PathBuf,
    pool: Mutex<Pool>,
    plugins: Mutex<HashMap<String, Plugin>>,
    changed: watch::Sender<()>,
}

fn seconds() -> i64 {
    crate::backoff::now() / 1_000_000_000
}

fn text(status: &tonic::Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PREPARE_LIMIT);
    request
}

/// The plugins' resources that a container asks for. They cannot be overcommitted, so limits say all.
fn asked(container: &Container) -> impl Iterator<Item = (&str, usize)> {
    let limits = &container.resources.limits;
    let count = |name: &str| usize::try_from(amount(limits, name) / 1000).unwrap_or(0);
    limits.keys().map(move |name| (name.as_str(), count(name))).filter(|(_, count)| *count > 0)
}

impl Devices {
    /// Takes up what the checkpoint in `folder` says. A file that cannot be used is reported and left behind, as upstream
    /// does: containers that run keep their devices, but nobody knows of it any more.
    pub fn restore(folder: &Path) -> Self {
        let read = super::checkpoint::read(&folder.join(checkpoint::FILE));
        let pool = match read.and_then(|t| t.map_or(Ok(Pool::default()), |t| checkpoint::decode(&t, seconds()))) {
            Ok(pool) => pool,
            Err(error) => {
                tracing::error!(%error, "devices that containers hold are not known: no usable checkpoint");
                Pool::default()
            }
        };
        Devices {
            folder: folder.to_owned(),
            pool: Mutex::new(pool),
            plugins: Mutex::default(),
            changed: watch::channel(()).0,
        }
    }

    /// Tells when the amounts may have changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Capacity and allocatable.
    pub fn amounts(&self) -> (Map, Map) {
        self.pool.lock().amounts(seconds())
    }

    /// Whether this resource's devices are given out here.
    pub fn manages(&self, resource: &str) -> bool {
        self.pool.lock().manages(resource)
    }

    /// A copy of everything, for those who only look.
    pub fn snapshot(&self) -> Pool {
        self.pool.lock().clone()
    }

    fn keep(&self) -> Result<(), String> {
        let text = checkpoint::encode(&self.pool.lock())?;
        super::checkpoint::write(&self.folder.join(checkpoint::FILE), &text)
    }

    /// Takes back what pods hold that are not among the live ones.
    pub fn keep_only(&self, live: &dyn Fn(&str) -> bool) {
        if !self.pool.lock().keep_only(live) {
            return;
        }
        if let Err(error) = self.keep() {
            tracing::error!(%error, "device checkpoint not written");
        }
    }

    /// The nodes that could serve a container, by resource.
    pub fn hints(&self, uid: &str, container: &Container, reusable: &Reusable, all: Nodes) -> Hints {
        let needs: Vec<(&str, usize)> = asked(container).collect();
        self.hints_for(uid, &container.name, &needs, reusable, all)
    }

    /// As above, of all containers of a pod together.
    pub fn pod_hints(&self, pod: &Pod, all: Nodes) -> Hints {
        let names: std::collections::BTreeSet<&str> =
            pod.all_containers().flat_map(|c| asked(c).map(|(name, _)| name)).collect();
        let count = |name: &str| usize::try_from(crate::admission::limit(pod, name) / 1000).unwrap_or(0);
        let needs: Vec<(&str, usize)> = names.into_iter().map(|name| (name, count(name))).collect();
        self.hints_for(&pod.metadata.uid, "", &needs, &Reusable::new(), all)
    }

    fn hints_for(&self, uid: &str, container: &str, needs: &[(&str, usize)], kept: &Reusable, all: Nodes) -> Hints {
        let pool = self.pool.lock();
        let none = Ids::new();
        let managed = needs.iter().filter(|(name, _)| pool.manages(name));
        managed
            .map(|(name, count)| {
                let ask = Ask { uid, container, resource: name, count: *count };
                ((*name).to_owned(), pool.hints(&ask, kept.get(*name).unwrap_or(&none), all))
            })
            .collect()
    }

    /// Gives a container its devices. `reusable` is what its pod's earlier init containers had, and is kept up.
    ///
    /// # Errors
    /// What is missing, or what a plugin answered.
    pub async fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        nodes: Option<Nodes>,
        reusable: &mut Reusable,
    ) -> Result<(), String> {
        let uid = pod.metadata.uid.as_str();
        for (resource, count) in asked(container) {
            if !self.manages(resource) {
                continue;
            }
            let ask = Ask { uid, container: &container.name, resource, count };
            let kept = reusable.get(resource).cloned().unwrap_or_default();
            let choice = self.pool.lock().choose(&ask, &kept, nodes)?;
            if let Some(choice) = choice {
                let preferred = self.preferred(&ask, &choice).await?;
                let ids = choice.pick(&preferred);
                let answer = self.prepare(resource, &ids).await?;
                self.pool.lock().give(&ask, &ids, answer);
                self.keep()?;
            }
        }
        let runs_once = pod.spec.init_containers.iter().any(|c| c.name == container.name && !c.is_sidecar());
        for held in self.pool.lock().held_by(uid, &container.name) {
            let known = reusable.entry(held.resource.clone()).or_default();
            match runs_once {
                true => known.extend(held.ids()),
                false => known.retain(|id| !held.ids().contains(id)),
            }
        }
        Ok(())
    }

    fn plugin(&self, resource: &str) -> Result<Plugin, String> {
        let found = self.plugins.lock().get(resource).cloned();
        found.ok_or_else(|| format!("unknown Device Plugin {resource}"))
    }

    async fn preferred(&self, ask: &Ask<'_>, choice: &pool::Choice) -> Result<Ids, String> {
        let can = self.pool.lock().resources.get(ask.resource).is_some_and(|r| {
            let options: &api::DevicePluginOptions = &r.options;
            options.get_preferred_allocation_available
        });
        if !can {
            return Ok(Ids::new());
        }
        let (available, must) = choice.question();
        let one = api::ContainerPreferredAllocationRequest {
            available_device_i_ds: available.into_iter().collect(),
            must_include_device_i_ds: must.into_iter().collect(),
            allocation_size: i32::try_from(ask.count).unwrap_or(i32::MAX),
        };
        let call = request(api::PreferredAllocationRequest { container_requests: vec![one] });
        let answer = self.plugin(ask.resource)?.get_preferred_allocation(call).await;
        let answer = answer
            .map_err(|e| format!("device plugin GetPreferredAllocation rpc failed with err: {}", text(&e)))?
            .into_inner();
        Ok(answer
            .container_responses
            .into_iter()
            .next()
            .map(|r| r.device_i_ds.into_iter().collect())
            .unwrap_or_default())
    }

    /// Has the plugin make devices ready; gives its encoded answer.
    async fn prepare(&self, resource: &str, ids: &Ids) -> Result<Vec<u8>, String> {
        let one = api::ContainerAllocateRequest { devices_ids: ids.iter().cloned().collect() };
        let call = request(api::AllocateRequest { container_requests: vec![one] });
        let answer = self.plugin(resource)?.allocate(call).await.map_err(|e| text(&e))?.into_inner();
        let first = answer.container_responses.first();
        Ok(first.ok_or("no containers return in allocation response")?.encode_to_vec())
    }

    /// Tells the plugins that want to know that a container is about to start, and adds what they answered when it was
    /// given its devices.
    ///
    /// # Errors
    /// A plugin refused.
    pub async fn equip(&self, uid: &str, container: &str, config: &mut v1::ContainerConfig) -> Result<(), String> {
        let held: Vec<pool::Held> = self.pool.lock().held_by(uid, container).cloned().collect();
        let mut answers = Vec::new();
        for h in &held {
            let wants =
                self.pool.lock().resources.get(&h.resource).is_some_and(|r: &Resource| r.options.pre_start_required);
            if wants {
                let call = request(api::PreStartContainerRequest { devices_ids: h.ids().into_iter().collect() });
                let told = self.plugin(&h.resource)?.pre_start_container(call).await;
                told.map_err(|e| format!("device plugin PreStartContainer rpc failed with err: {}", text(&e)))?;
            }
            answers.push(
                api::ContainerAllocateResponse::decode(h.answer.as_slice())
                    .map_err(|e| format!("the answer of the plugin of {} cannot be read: {e}", h.resource))?,
            );
        }
        answer::apply(config, &answers);
        Ok(())
    }
}
