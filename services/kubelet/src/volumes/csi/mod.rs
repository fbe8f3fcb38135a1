//! Volumes of drivers that speak the Container Storage Interface.
//!
//! [`plan`] decides what a driver is asked, [`driver`] asks it, [`local`] keeps what is mounted where, [`node`] tells the
//! cluster which drivers the node has. This file puts them together: it fetches what orders need from the API server.

mod driver;
mod grow;
mod local;
mod node;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use client::resource::{self, Resource};
use client::{Client, Informer, InformerParams};
use cri_api::csi::node_service_capability::rpc::Type as Ability;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Source, ownership};
use crate::plugins::{Handler, Plugin};
use crate::pod::{Pod, Volume};
use crate::tokens::Tokens;
pub use driver::Stats;
use driver::{Driver, path};
use local::{Local, Order};
use plan::{Rules, Wanted};

const DRIVERS: Resource<'static> = Resource::new("storage.k8s.io", "v1", "csidrivers", "CSIDriver", false);
const ATTACHMENTS: Resource<'static> =
    Resource::new("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", false);

/// How long a volume waits for the first list of CSIDriver objects.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Volumes of drivers that want it are published again this often.
pub const REPUBLISH: Duration = Duration::from_secs(60);

/// A mounted volume of a pod.
#[derive(Clone, Debug)]
struct Mounted {
    wanted: Wanted,
    source: Source,
    republished: bool,
}

/// The CSI volumes of the node.
#[derive(Debug)]
pub struct Csi {
    client: Client,
    node: String,
    local: Local,
    objects: Informer,
    /// What is mounted, by pod uid and the pod's name of the volume.
    mounted: Mutex<HashMap<(String, String), Mounted>>,
    /// The claims behind volumes that can grow.
    claims: Mutex<HashMap<(String, String), Informer>>,
    /// Pods that wait for a driver.
    waiting: Mutex<BTreeSet<String>>,
    wake: mpsc::UnboundedSender<String>,
    /// The Node and its CSINode are changed by one registration at a time.
    registering: tokio::sync::Mutex<()>,
}

impl Csi {
    /// No driver yet; pods that can go on go to `wake`.
    pub fn new(client: Client, node: &str, root: &Path, wake: mpsc::UnboundedSender<String>) -> Csi {
        Csi {
            objects: Informer::start(client.clone(), DRIVERS, InformerParams::default()),
            client,
            node: node.to_owned(),
            local: Local::new(root.to_owned()),
            mounted: Mutex::default(),
            claims: Mutex::default(),
            waiting: Mutex::default(),
            wake,
            registering: tokio::sync::Mutex::default(),
        }
    }

    /// Mounts a volume if it is one of a CSI driver. May be repeated.
    ///
    /// # Errors
    /// Something that the volume needs is not there, or the driver refused.
    pub async fn mount(
        &self,
        pod: &Pod,
        volume: &Volume,
        pv: Option<&Value>,
        tokens: &Tokens,
    ) -> Result<Option<Source>, String> {
        let Some(wanted) = plan::wanted(pod, volume, pv) else { return Ok(None) };
        let wanted = wanted?;
        let rules = self.rules(&wanted.driver).await?;
        rules.check(&wanted)?;
        let key = (pod.metadata.uid.clone(), volume.name.clone());
        let before = self.mounted.lock().get(&key).cloned();
        if let Some(before) = before.as_ref().filter(|_| !rules.republish) {
            return Ok(Some(before.source.clone()));
        }
        let driver = self.local.driver(&wanted.driver).inspect_err(|_| {
            self.waiting.lock().insert(key.0.clone());
        })?;
        let group = pod.spec.security_context.fs_group.and_then(|g| u32::try_from(g).ok());
        let order = self.order(pod, &wanted, &rules, &driver, group, tokens).await?;
        let block = order.block;
        let places = match self.local.mount(&driver, &key.0, order).await {
            Ok(places) => places,
            // What runs keeps what it has.
            Err(error) => match before {
                Some(before) => {
                    tracing::warn!(pod = %pod.full_name(), volume = volume.name, error, "volume not published again");
                    return Ok(Some(before.source));
                }
                None => return Err(error),
            },
        };
        let given = driver.can(Ability::VolumeMountGroup) || !plan::takes_group(&wanted, &rules);
        if let (None, Some(group), false) = (&before, group, given) {
            give(pod, places.target.clone(), group).await?;
        }
        let source = if block { Source::Device(places.target) } else { Source::Path(places.target) };
        let republished = rules.republish;
        self.mounted.lock().insert(key, Mounted { wanted, source: source.clone(), republished });
        Ok(Some(source))
    }

    async fn rules(&self, driver: &str) -> Result<Rules, String> {
        if tokio::time::timeout(FIRST_ANSWER, self.objects.synced()).await.is_err() {
            return Err("CSIDriver objects have not yet been read from the API server".into());
        }
        Ok(Rules::of(self.objects.get("", driver).as_deref()))
    }

    async fn order(
        &self,
        pod: &Pod,
        wanted: &Wanted,
        rules: &Rules,
        driver: &Driver,
        group: Option<u32>,
        tokens: &Tokens,
    ) -> Result<Order, String> {
        let publish_context =
            if rules.attach && !wanted.inline { self.attached(wanted).await? } else { HashMap::new() };
        let mut context = plan::context(pod, wanted, rules);
        let mut publish_secrets = self.secret(wanted, plan::PUBLISH).await?;
        if !rules.tokens.is_empty() {
            let mut all = Vec::new();
            for (audience, seconds) in &rules.tokens {
                let (text, expires) = tokens.get_until(pod, audience, *seconds).await?;
                all.push((audience.clone(), text, expires));
            }
            let place = if rules.tokens_in_secrets { &mut publish_secrets } else { &mut context };
            place.insert(plan::TOKENS.to_owned(), plan::tokens(&all));
        }
        Ok(Order {
            record: plan::record(wanted, &self.node),
            block: wanted.block,
            read_only: wanted.read_only,
            capability: plan::capability(wanted, &driver.abilities, group),
            publish_context,
            attributes: wanted.attributes.clone().into_iter().collect(),
            context,
            stage_secrets: self.secret(wanted, plan::STAGE).await?,
            publish_secrets,
            inline: wanted.inline,
        })
    }

    /// What the attaching controller tells the driver, once the volume is attached.
    async fn attached(&self, wanted: &Wanted) -> Result<HashMap<String, String>, String> {
        let name = plan::attachment(wanted, &self.node);
        let found = self.client.get(ATTACHMENTS, None, &name).await;
        let found = found.map_err(|e| format!("volume {} has no VolumeAttachment: {e}", wanted.handle))?;
        let status = &found["status"];
        if status["attached"] != true {
            let why = status["attachError"]["message"].as_str().unwrap_or("it is not attached yet");
            return Err(format!("volume attachment {name}: {why}"));
        }
        let metadata = status["attachmentMetadata"].as_object().into_iter().flatten();
        Ok(metadata.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect())
    }

    async fn secret(&self, wanted: &Wanted, which: usize) -> Result<HashMap<String, String>, String> {
        let Some((namespace, name)) = &wanted.secrets[which] else { return Ok(HashMap::new()) };
        let wrong = |why: String| format!("failed to find the secret {name} in the namespace {namespace}: {why}");
        let secret = self.client.get(resource::SECRETS, Some(namespace), name).await;
        let secret = secret.map_err(|e| wrong(e.to_string()))?;
        let mut all = HashMap::new();
        for (key, value) in secret["data"].as_object().into_iter().flatten() {
            let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap_or_default());
            let text = bytes.map_err(|e| e.to_string()).and_then(|b| String::from_utf8(b).map_err(|e| e.to_string()));
            all.insert(key.clone(), text.map_err(|e| wrong(format!("{key}: {e}")))?);
        }
        Ok(all)
    }

    /// Gives back every CSI volume of a pod.
    ///
    /// # Errors
    /// A driver did not give one up, or is not there; it can be tried again.
    pub async fn release(&self, uid: &str) -> Result<(), String> {
        self.local.release(uid).await?;
        self.mounted.lock().retain(|(pod, _), _| pod != uid);
        self.claims.lock().retain(|(pod, _), _| pod != uid);
        self.waiting.lock().remove(uid);
        Ok(())
    }

    /// Whether a volume of the pod is to be published again now and then.
    pub fn republishes(&self, uid: &str) -> bool {
        self.mounted.lock().iter().any(|((pod, _), m)| pod == uid && m.republished)
    }

    /// The attachable volumes that pods here have, as the node's status names them.
    pub fn in_use(&self) -> BTreeSet<String> {
        let mounted = self.mounted.lock();
        let lasting = mounted.values().filter(|m| !m.wanted.inline);
        lasting.map(|m| format!("kubernetes.io/csi/{}^{}", m.wanted.driver, m.wanted.handle)).collect()
    }

    /// How full the CSI volumes of a pod are, by the pod's name of the volume. Those whose drivers do not tell are left out.
    pub async fn stats(&self, uid: &str) -> HashMap<String, Stats> {
        let mine: Vec<(String, Mounted)> = {
            let all = self.mounted.lock();
            all.iter().filter(|((pod, _), _)| pod == uid).map(|((_, v), m)| (v.clone(), m.clone())).collect()
        };
        let mut stats = HashMap::new();
        for (volume, mounted) in mine {
            let driver = self.local.driver(&mounted.wanted.driver).ok().filter(|d| d.can(Ability::GetVolumeStats));
            let Some(driver) = driver else { continue };
            let record = plan::record(&mounted.wanted, &self.node);
            let places = self.local.places(uid, &record, mounted.wanted.block);
            match driver.stats(&record.handle, &places.target, &places.staging).await {
                Ok(found) => drop(stats.insert(volume, found)),
                Err(error) => tracing::warn!(volume, error, "no statistics from the driver"),
            }
        }
        stats
    }

    /// Tells the cluster that the node knows of CSI, even without a driver.
    ///
    /// # Errors
    /// The API server's.
    pub async fn announce(&self) -> Result<(), client::Error> {
        node::ensure(&self.client, &self.node).await
    }

    async fn registered(&self, plugin: &Plugin) -> Result<(), String> {
        let (driver, info) = Driver::connect(plugin).await?;
        {
            let _alone = self.registering.lock().await;
            node::add(&self.client, &self.node, &driver.name, &info).await?;
        }
        self.local.add(driver.clone());
        for uid in std::mem::take(&mut *self.waiting.lock()) {
            let _ = self.wake.send(uid);
        }
        self.local.tidy(&driver).await;
        Ok(())
    }
}

/// Gives the volume's files to the pod's group.
async fn give(pod: &Pod, target: PathBuf, group: u32) -> Result<(), String> {
    let lazily = pod.spec.security_context.fs_group_change_policy.as_deref() == Some("OnRootMismatch");
    let shown = path(&target);
    let given = tokio::task::spawn_blocking(move || ownership::give(&target, group, lazily)).await;
    let given = given.map_err(|e| e.to_string())?;
    given.map_err(|e| format!("applyFSGroup failed for vol {shown}: {e}"))
}

/// The table's entry.
pub struct Registration(pub Arc<Csi>);

impl Handler for Registration {
    fn kind(&self) -> &'static str {
        "CSIPlugin"
    }

    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.0.registered(plugin))
    }

    fn deregister<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if !self.0.local.remove(&plugin.name, &plugin.endpoint) {
                return;
            }
            let _alone = self.0.registering.lock().await;
            if let Err(error) = node::remove(&self.0.client, &self.0.node, &plugin.name).await {
                tracing::warn!(driver = plugin.name, %error, "driver not removed from the node");
            }
        })
    }
}
