//! The node's side of CSI volumes: stage once for the node, publish for each pod, give back in reverse. Who uses what
//! stands in the records on disk ([`plan::Record`]), so that a kubelet that starts anew knows as much as its predecessor.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cri_api::csi::node_service_capability::rpc::Type as Ability;
use cri_api::csi::{NodePublishVolumeRequest, NodeStageVolumeRequest, VolumeCapability};
use parking_lot::Mutex;

use super::driver::{Driver, path};
use super::plan::{self, Places, RECORD, Record};

type Strings = HashMap<String, String>;

/// Everything a driver is told when it mounts.
#[derive(Clone, Debug)]
pub struct Order {
    /// What is written down.
    pub record: Record,
    /// A block device.
    pub block: bool,
    /// Read-only for this pod.
    pub read_only: bool,
    /// How to mount.
    pub capability: VolumeCapability,
    /// What the attaching controller told.
    pub publish_context: Strings,
    /// Attributes of the volume, for staging.
    pub attributes: Strings,
    /// The same with what concerns the pod, for publishing.
    pub context: Strings,
    /// For staging.
    pub stage_secrets: Strings,
    /// For publishing.
    pub publish_secrets: Strings,
    /// The driver only mounts it for this pod.
    pub inline: bool,
}

/// A volume of a driver: the driver's name and the volume's handle.
type VolumeKey = (String, String);

/// The registered drivers and what they do on this node.
#[derive(Debug)]
pub struct Local {
    root: PathBuf,
    drivers: Mutex<BTreeMap<String, Driver>>,
    /// Volumes that this process has staged.
    staged: Mutex<HashSet<VolumeKey>>,
    /// One thing at a time for each volume.
    locks: Mutex<HashMap<VolumeKey, Arc<tokio::sync::Mutex<()>>>>,
}

impl Local {
    /// No driver yet.
    pub fn new(root: PathBuf) -> Local {
        Local { root, drivers: Mutex::default(), staged: Mutex::default(), locks: Mutex::default() }
    }

    /// A driver is there, or there again.
    pub fn add(&self, driver: Driver) {
        // It may have lost what it knew.
        self.staged.lock().retain(|(name, _)| *name != driver.name);
        self.drivers.lock().insert(driver.name.clone(), driver);
    }

    /// A driver is gone, unless another socket serves it by now.
    pub fn remove(&self, name: &str, endpoint: &Path) -> bool {
        let mut drivers = self.drivers.lock();
        let same = drivers.get(name).is_some_and(|d| d.endpoint == endpoint);
        if same {
            drivers.remove(name);
        }
        same
    }

    /// A registered driver.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn driver(&self, name: &str) -> Result<Driver, String> {
        let found = self.drivers.lock().get(name).cloned();
        found.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }

    async fn lock(&self, record: &Record) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(locks.entry((record.driver.clone(), record.handle.clone())).or_default())
        };
        lock.lock_owned().await
    }

    /// Where a volume of a pod lies.
    pub fn places(&self, uid: &str, record: &Record, block: bool) -> Places {
        plan::places(&self.root, uid, record, block)
    }

    /// Has the driver mount a volume for a pod. May be repeated.
    ///
    /// # Errors
    /// The driver's, or the file system's.
    pub async fn mount(&self, driver: &Driver, uid: &str, order: Order) -> Result<Places, String> {
        let _guard = self.lock(&order.record).await;
        let places = self.places(uid, &order.record, order.block);
        let io = |e: io::Error| format!("{}: {e}", places.record.display());
        // Before the driver does anything: what is not written down would stay behind.
        write(&places.record, &order.record).map_err(io)?;
        make_parent(&places.target).map_err(io)?;
        if let Some(link) = &places.link {
            make_parent(link).map_err(io)?;
            let _ = fs::remove_file(link);
            std::os::unix::fs::symlink(&places.target, link).map_err(io)?;
        }
        let staging = if order.inline { String::new() } else { driver.staging(&places.staging) };
        if !staging.is_empty() {
            self.stage(driver, &places, &order, &staging).await?;
        }
        let request = NodePublishVolumeRequest {
            volume_id: order.record.handle,
            publish_context: order.publish_context,
            staging_target_path: staging,
            target_path: path(&places.target),
            volume_capability: Some(order.capability),
            readonly: order.read_only,
            secrets: order.publish_secrets,
            volume_context: order.context,
        };
        driver.publish(request).await?;
        Ok(places)
    }

    async fn stage(&self, driver: &Driver, places: &Places, order: &Order, staging: &str) -> Result<(), String> {
        let key = (driver.name.clone(), order.record.handle.clone());
        if self.staged.lock().contains(&key) {
            return Ok(());
        }
        let io = |e: io::Error| format!("{}: {e}", places.staging.display());
        if !order.block {
            write(&staging_record(&places.staging), &order.record).map_err(io)?;
        }
        make(&places.staging).map_err(io)?;
        let request = NodeStageVolumeRequest {
            volume_id: order.record.handle.clone(),
            publish_context: order.publish_context.clone(),
            staging_target_path: staging.to_owned(),
            volume_capability: Some(order.capability.clone()),
            secrets: order.stage_secrets.clone(),
            volume_context: order.attributes.clone(),
        };
        driver.stage(request).await?;
        self.staged.lock().insert(key);
        Ok(())
    }

    /// Gives back every CSI volume of a pod.
    ///
    /// # Errors
    /// The first that its driver did not give up; it can be tried again.
    pub async fn release(&self, uid: &str) -> Result<(), String> {
        let links = plan::pod_devices(&self.root, uid);
        for name in names(&links) {
            let file = plan::base(&self.root).join("volumeDevices").join(&name).join("data").join(RECORD);
            if file.exists() {
                self.unmount(uid, &read(&file)?, true).await?;
            } else {
                gone(fs::remove_file(links.join(&name))).map_err(|e| format!("{}: {e}", links.display()))?;
            }
        }
        let folder = plan::pod_volumes(&self.root, uid);
        for name in names(&folder) {
            let file = folder.join(&name).join(RECORD);
            if !file.exists() {
                // A process ended while it made or removed it.
                gone(fs::remove_file(file.with_extension("new"))).map_err(|e| format!("{}: {e}", folder.display()))?;
                fs::remove_dir(folder.join(&name)).map_err(|e| format!("{}: {e}", folder.display()))?;
                continue;
            }
            self.unmount(uid, &read(&file)?, false).await?;
        }
        Ok(())
    }

    async fn unmount(&self, uid: &str, record: &Record, block: bool) -> Result<(), String> {
        let driver = self.driver(&record.driver)?;
        let _guard = self.lock(record).await;
        let places = self.places(uid, record, block);
        let io = |e: io::Error| format!("{}: {e}", places.target.display());
        driver.unpublish(&record.handle, &places.target).await?;
        // The driver should have removed it; one that is still mounted must not be emptied.
        gone(if block { fs::remove_file(&places.target) } else { fs::remove_dir(&places.target) }).map_err(io)?;
        match &places.link {
            Some(link) => {
                if places.target.parent().is_some_and(|p| names(p).is_empty()) {
                    self.unstage(&driver, record, &places, true).await?;
                }
                gone(fs::remove_file(link)).map_err(io)?;
            }
            None => {
                if !self.used(record, Some(uid)) {
                    self.unstage(&driver, record, &places, false).await?;
                }
                // Last: whoever tries again after a failure must know that there is something to give back.
                gone(fs::remove_file(&places.record)).map_err(io)?;
                places.record.parent().map_or(Ok(()), fs::remove_dir).map_err(io)?;
            }
        }
        Ok(())
    }

    /// Whether any other pod has the volume.
    fn used(&self, record: &Record, but: Option<&str>) -> bool {
        let pods = super::super::present(&self.root);
        pods.iter().filter(|uid| Some(uid.as_str()) != but).any(|uid| {
            let folder = plan::pod_volumes(&self.root, uid);
            let same = |r: Record| r.driver == record.driver && r.handle == record.handle;
            names(&folder).iter().any(|name| read(&folder.join(name).join(RECORD)).is_ok_and(same))
        })
    }

    async fn unstage(&self, driver: &Driver, record: &Record, places: &Places, block: bool) -> Result<(), String> {
        let io = |e: io::Error| format!("{}: {e}", places.staging.display());
        if places.staging.exists() && driver.can(Ability::StageUnstageVolume) {
            driver.unstage(&record.handle, &places.staging).await?;
        }
        self.staged.lock().remove(&(driver.name.clone(), record.handle.clone()));
        gone(fs::remove_dir(&places.staging)).map_err(io)?;
        if block {
            let own = places.record.parent().and_then(Path::parent);
            gone(fs::remove_file(&places.record)).map_err(io)?;
            for folder in [places.record.parent(), own, places.target.parent()].into_iter().flatten() {
                gone(fs::remove_dir(folder)).map_err(io)?;
            }
            return Ok(());
        }
        gone(fs::remove_file(staging_record(&places.staging))).map_err(io)?;
        places.staging.parent().map_or(Ok(()), |folder| gone(fs::remove_dir(folder))).map_err(io)
    }

    /// Gives back what an earlier process staged and nobody uses.
    pub async fn tidy(&self, driver: &Driver) {
        let folder = plan::base(&self.root).join(&driver.name);
        for name in names(&folder) {
            let Ok(record) = read(&folder.join(name).join(RECORD)) else { continue };
            let _guard = self.lock(&record).await;
            if self.used(&record, None) {
                continue;
            }
            let places = self.places("", &record, false);
            if let Err(error) = self.unstage(driver, &record, &places, false).await {
                tracing::warn!(driver = driver.name, volume = record.handle, error, "volume not unstaged");
            }
        }
    }
}

/// The record of a staged volume lies beside its mount point.
fn staging_record(staging: &Path) -> PathBuf {
    staging.with_file_name(RECORD)
}

fn names(folder: &Path) -> Vec<std::ffi::OsString> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.file_name()).collect()
}

fn gone(outcome: io::Result<()>) -> io::Result<()> {
    outcome.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), make)
}

fn read(path: &Path) -> Result<Record, String> {
    let text = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Whole or not at all: a process may end at any moment.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    make_parent(path)?;
    let fresh = path.with_extension("new");
    let mut file = fs::File::create(&fresh)?;
    file.write_all(&text)?;
    // After a power cut a record without content could not be acted on.
    file.sync_data()?;
    fs::rename(fresh, path)
}
