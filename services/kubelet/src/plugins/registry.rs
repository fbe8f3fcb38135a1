//! The registry folder: inotify(7) tells when it changes, then it is read anew, and each socket in it has a task.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri_api::registration::registration_client::RegistrationClient;
use cri_api::registration::{InfoRequest, RegistrationStatus};
use daemon::Shutdown;
use daemon::backoff::Backoff;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Handler, Plugin, Table};
use crate::runtime::text;

/// A plugin that does not answer by then is asked again later.
const ANSWER: Duration = Duration::from_secs(10);
/// The pauses between attempts to register.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Folders in folders are looked into this deep.
const DEPTH: usize = 4;

/// A socket and which one of those that were there under its name: inode and time of its making.
type Sockets = BTreeMap<PathBuf, (u64, i64, i64)>;

/// A socket's task, which ends after `gone`.
struct Attended {
    identity: (u64, i64, i64),
    gone: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Keeps the plugins of the folder registered until the end.
///
/// # Errors
/// The folder cannot be made or watched.
pub async fn run(folder: PathBuf, table: Table, shutdown: Shutdown) -> daemon::Outcome {
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let watch = Watch::new().map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut attended: BTreeMap<PathBuf, Attended> = BTreeMap::new();
    loop {
        let mut found = Sockets::new();
        watch.scan(&folder, DEPTH, &mut found);
        let mut before: BTreeMap<PathBuf, JoinHandle<()>> = BTreeMap::new();
        attended = attended
            .into_iter()
            .filter_map(|(path, one)| {
                if found.get(&path) == Some(&one.identity) {
                    return Some((path, one));
                }
                let _ = one.gone.send(());
                before.insert(path, one.task);
                None
            })
            .collect();
        for (path, identity) in found {
            attended.entry(path).or_insert_with_key(|path| {
                let (gone, ended) = oneshot::channel();
                let task = tokio::spawn(attend(path.clone(), Arc::clone(&table), before.remove(path), ended));
                Attended { identity, gone, task }
            });
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = watch.changed() => {}
        }
    }
}

/// Registers the plugin behind a socket, and deregisters it when the socket is gone. `before` is the task of the socket
/// that was there under this name.
async fn attend(socket: PathBuf, table: Table, before: Option<JoinHandle<()>>, mut gone: oneshot::Receiver<()>) {
    if let Some(before) = before {
        let _ = before.await;
    }
    let mut known: Option<(Arc<dyn Handler>, Plugin)> = None;
    let registered = async {
        let mut pauses = Backoff::new(RETRY.0, RETRY.1);
        while let Err(error) = register(&socket, &table, &mut known).await {
            tracing::warn!(socket = %socket.display(), error, "plugin not registered");
            tokio::time::sleep(pauses.next_delay()).await;
        }
    };
    let over = tokio::select! {
        over = &mut gone => over,
        () = registered => {
            tracing::info!(socket = %socket.display(), "plugin registered");
            gone.await
        }
    };
    // An error means that the registry itself has ended: plugins outlive the kubelet.
    if over.is_err() {
        return;
    }
    if let Some((handler, plugin)) = known {
        tracing::info!(plugin = plugin.name, "plugin gone");
        handler.deregister(&plugin).await;
    }
}

async fn register(socket: &Path, table: &Table, known: &mut Option<(Arc<dyn Handler>, Plugin)>) -> Result<(), String> {
    let mut client = RegistrationClient::new(cri_api::connect_unix(socket));
    let info = tokio::time::timeout(ANSWER, client.get_info(InfoRequest {})).await;
    let info = info.map_err(|_| "failed to get plugin info: no answer".to_owned())?;
    let info = info.map_err(|e| format!("failed to get plugin info: {}", text(e)))?.into_inner();
    // Without an endpoint of its own a plugin serves everything on one socket.
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(info.endpoint) };
    let plugin = Plugin { kind: info.r#type, name: info.name, endpoint, versions: info.supported_versions };
    let outcome = match table.iter().find(|handler| handler.kind() == plugin.kind) {
        Some(handler) => {
            *known = Some((Arc::clone(handler), plugin.clone()));
            handler.register(&plugin).await
        }
        None => Err(format!("no handler registered for plugin type: {} at socket {}", plugin.kind, socket.display())),
    };
    let error = outcome.as_ref().err().cloned().unwrap_or_default();
    let status = RegistrationStatus { plugin_registered: outcome.is_ok(), error };
    let told = tokio::time::timeout(ANSWER, client.notify_registration_status(status)).await;
    if !matches!(told, Ok(Ok(_))) {
        tracing::warn!(plugin = plugin.name, "plugin not told of its registration");
    }
    outcome
}

/// The kernel's word that something in a watched folder changed.
struct Watch(Inotify, AsyncFd<OwnedFd>);

impl Watch {
    fn new() -> std::io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let descriptor = std::os::fd::AsFd::as_fd(&inotify).try_clone_to_owned()?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe to call; an OwnedFd keeps the promise that one asks for"
        )]
        let descriptor = AsyncFd::new(descriptor)?;
        Ok(Watch(inotify, descriptor))
    }

    /// Finds the sockets in a folder and below, which it watches from then on: first the watch, so that nothing is missed.
    fn scan(&self, folder: &Path, depth: usize, found: &mut Sockets) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_ONLYDIR;
        if let Err(error) = self.0.add_watch(folder, flags) {
            tracing::warn!(folder = %folder.display(), %error, "folder of plugins not watched");
        }
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let Ok(meta) = entry.metadata() else { continue };
            if hidden {
                continue;
            }
            if meta.is_dir() && depth > 1 {
                self.scan(&entry.path(), depth - 1, found);
            } else if meta.file_type().is_socket() {
                found.insert(entry.path(), (meta.ino(), meta.ctime(), meta.ctime_nsec()));
            }
        }
    }

    async fn changed(&self) {
        let Ok(mut guard) = self.1.readable().await else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 4096];
        // What happened does not matter, only that something did.
        while nix::unistd::read(&self.1, &mut buffer).is_ok_and(|n| n > 0) {}
        guard.clear_ready();
    }
}
