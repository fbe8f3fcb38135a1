//! Static pods: the node runs them from files, without the API server, and shows them there as mirror pods.
//!
//! [`source`] reads the files, [`mirror`] keeps the mirrors, this file follows both. A file that changed is another pod: it
//! starts when the one before has ended, never beside it.

mod mirror;
pub mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::Change;
use daemon::Shutdown;
use daemon::backoff::Backoff;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::pod::{MIRROR, Pod};
use crate::pod_workers::PodWorkers;
use crate::shared::Shared;
use source::Manifests;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LIMIT: Duration = Duration::from_secs(30);

/// Follows the files and the mirrors until the end.
pub async fn run(shared: Arc<Shared>, workers: PodWorkers, shutdown: Shutdown) {
    if shared.config.static_pod_path.is_empty() {
        shared.static_pods_read.store(true, Ordering::Relaxed);
        return;
    }
    let path = PathBuf::from(&shared.config.static_pod_path);
    let mut files = watch(&path);
    let mut changes = shared.pods.subscribe();
    let exits = workers.exits();
    let mut statics = Statics { shared, workers, path, pods: Manifests::new(), problems: Vec::new() };
    statics.read();
    let mut retry = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
    loop {
        let again = match statics.reconcile().await {
            Ok(()) => {
                retry.reset();
                None
            }
            Err(error) => {
                tracing::debug!(%error, "mirror pods not brought up to date");
                Some(retry.next_delay())
            }
        };
        let pause = async {
            match again {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.wait() => return,
            Some(()) = files.recv() => statics.read(),
            change = changes.recv() => match change {
                Some(change) if is_mirror(change.object()) => {}
                Some(Change::Applied { .. } | Change::Deleted(_)) => continue,
                None => return,
            },
            () = exits.notified() => {}
            () = pause => {}
        }
    }
}

fn is_mirror(object: &Value) -> bool {
    object["metadata"]["annotations"][MIRROR].is_string()
}

struct Statics {
    shared: Arc<Shared>,
    workers: PodWorkers,
    path: PathBuf,
    pods: Manifests,
    problems: Vec<String>,
}

impl Statics {
    fn read(&mut self) {
        let (pods, problems) = source::read(&self.path, &self.shared.node_name);
        for problem in problems.iter().filter(|p| !self.problems.contains(p)) {
            tracing::error!(problem, "static pod not read");
        }
        (self.pods, self.problems) = (pods, problems);
    }

    /// Starts what is new, ends what is gone, and brings the mirrors up to date.
    async fn reconcile(&mut self) -> Result<(), client::Error> {
        self.settle_workers();
        self.shared.static_pods_read.store(true, Ordering::Relaxed);
        let Some(node) = self.shared.node.get("", &self.shared.node_name) else { return Ok(()) };
        if !self.shared.pods.is_synced() {
            return Ok(());
        }
        let listed = self.shared.pods.list();
        let mirrors: BTreeMap<String, Arc<Value>> = listed
            .into_iter()
            .filter(|object| is_mirror(object))
            .map(|object| {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                (format!("{}/{}", text("namespace"), text("name")), object.clone())
            })
            .collect();
        let plan = mirror::plan(&self.pods, &mirrors);
        for (uid, mirror_uid) in &plan.right {
            let found = mirrors.values().find(|m| m["metadata"]["uid"] == mirror_uid.as_str());
            let status = found.map(|m| m["status"].clone()).unwrap_or_default();
            self.shared.publisher.mirrored(uid, mirror_uid, status);
        }
        for (name, uid) in &plan.delete {
            mirror::delete(&self.shared.client, name, uid).await?;
        }
        for name in &plan.create {
            let object = mirror::object(&self.pods[name], &node);
            mirror::create(&self.shared.client, name, &object).await?;
        }
        Ok(())
    }

    fn settle_workers(&self) {
        let running = self.workers.static_pods();
        for (uid, name, grace) in &running {
            let wanted = self.pods.get(name).is_some_and(|p| p["metadata"]["uid"] == uid.as_str());
            if !wanted {
                self.workers.vanish(uid, *grace);
            }
        }
        for (name, object) in &self.pods {
            // The pod before it under this name is still ending; its exit brings us back.
            if running.iter().any(|(_, n, _)| n == name) {
                continue;
            }
            match Pod::from_value(object) {
                Ok(pod) => self.workers.run_static(pod),
                Err(error) => tracing::error!(name, %error, "static pod cannot be run"),
            }
        }
    }
}

/// Tells of changes below a path. A thread of its own waits for the kernel: it sleeps but for them.
fn watch(path: &Path) -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    let path = path.to_owned();
    let follow = move || -> nix::Result<()> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        std::fs::create_dir_all(&path).or_else(|e| if path.is_file() { Ok(()) } else { Err(e) }).ok();
        inotify.add_watch(&path, flags)?;
        loop {
            inotify.read_events()?;
            if sender.blocking_send(()).is_err() {
                return Ok(());
            }
        }
    };
    let spawned = std::thread::Builder::new().name("static-pods".into()).stack_size(64 << 10).spawn(move || {
        if let Err(error) = follow() {
            tracing::error!(%error, "changes of static pods are not seen");
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "changes of static pods are not seen");
    }
    receiver
}
