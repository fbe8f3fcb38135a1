//! What a container runtime that was killed leaves behind and does not collect by itself: leases of the calls it was in, which hold their
//! snapshots for a day (and then until something else makes it look), shims that it had started and does not know, and files it had made to
//! mount network namespaces on.
//!
//! `plan.rs` decides (pure). Looked at whenever the runtime has begun to listen.

mod plan;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri_api::containerd::services::leases::v1::leases_client::LeasesClient;
use cri_api::containerd::services::leases::v1::{DeleteRequest, ListRequest};
use cri_api::in_namespace;
use daemon::backoff::Backoff;
use linux::process::PidFd;
use nix::sys::signal::Signal;
use tonic::Status;
use tonic::transport::Channel;

use crate::machine::Machine;
use crate::wake::{self, Wake};
use plan::{Lease, Process};

/// Where the runtime keeps a folder per task.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task";
/// Where the runtime mounts the network namespaces of pods, each on a file of its own.
const NAMESPACES: &str = "/run/netns";
/// A shim that was being started when the runtime was killed may come after the next runtime has looked.
const AGAIN: Duration = Duration::from_mins(1);

/// Clears up after each start of the runtime, for ever.
pub(crate) async fn run(machine: Arc<Machine>) {
    let socket = machine.paths.containerd();
    if let Err(error) = follow(&machine, &socket).await {
        tracing::warn!("what a killed runtime leaves stays: {}: {error}", socket.display());
    }
}

async fn follow(machine: &Machine, socket: &Path) -> std::io::Result<()> {
    let folder = socket.parent().unwrap_or(socket);
    let mut seen = None;
    loop {
        wake::appears(socket).await?;
        let news = Wake::on(folder)?;
        let started = listening_since(socket);
        if started.is_some() && started != seen {
            seen = started;
            clear(machine, socket, started.unwrap_or_default().0).await;
            // A start meanwhile is seen at the next turn, and looked at from the beginning.
            let _ = tokio::time::timeout(AGAIN, news.wait()).await;
            lost_shims(machine);
            continue;
        }
        news.wait().await?;
    }
}

/// When the runtime made its socket, in seconds since 1970 and the nanoseconds beyond.
fn listening_since(socket: &Path) -> Option<(i64, i64)> {
    let found = std::fs::metadata(socket).ok()?;
    Some((found.mtime(), found.mtime_nsec()))
}

async fn clear(machine: &Machine, socket: &Path, started: i64) {
    let namespaces = machine.paths.at(NAMESPACES);
    match empty_namespaces(&namespaces, started) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("{}: {error}", namespaces.display());
        }
        _ => {}
    }
    // It listens before it has loaded everything, and there is no event for that.
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    for _ in 0..60 {
        match dead_leases(&mut LeasesClient::new(cri_api::connect_unix(socket)), started).await {
            Ok(()) => break,
            Err(status) => tracing::debug!("leases: {status}"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
    lost_shims(machine);
}

/// Deletes what calls of earlier runtimes hold; the last deletion makes the runtime collect at once.
async fn dead_leases(runtime: &mut LeasesClient<Channel>, started: i64) -> Result<(), Status> {
    let listed = runtime.list(in_namespace(ListRequest::default())).await?.into_inner().leases;
    let leases: Vec<Lease> = listed
        .into_iter()
        .map(|lease| Lease {
            id: lease.id,
            created: lease.created_at.map_or(i64::MAX, |time| time.seconds),
            labels: lease.labels.into_keys().collect(),
        })
        .collect();
    let dead = plan::dead_leases(&leases, started);
    for (place, id) in dead.iter().enumerate() {
        tracing::info!("lease {id} was of a runtime that is gone");
        let sync = place + 1 == dead.len();
        runtime.delete(in_namespace(DeleteRequest { id: (*id).to_owned(), sync })).await?;
    }
    Ok(())
}

/// Removes files of earlier runtimes that nothing is mounted on.
fn empty_namespaces(folder: &Path, started: i64) -> std::io::Result<()> {
    let own = std::fs::metadata(folder)?.dev();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // The runtime may be faster.
        let Ok(file) = std::fs::metadata(&path) else { continue };
        // What is mounted on a file is of another device. Were it mounted this very moment, it could not be removed.
        if file.dev() == own && file.mtime() < started {
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!("{} was of a runtime that is gone", path.display()),
                Err(error) => tracing::warn!("{}: {error}", path.display()),
            }
        }
    }
    Ok(())
}

fn lost_shims(machine: &Machine) {
    let processes = processes();
    let folder = machine.paths.at(BUNDLES).join(cri_api::NAMESPACE);
    let bundles: BTreeSet<String> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => return tracing::warn!("{}: {error}", folder.display()),
    };
    for shim in plan::lost_shims(&processes, cri_api::NAMESPACE, &bundles) {
        // Opened first and then looked at again: it is this process that gets the signal, or none.
        let Ok(handle) = PidFd::open(shim.pid) else { continue };
        if process(shim.pid).is_none_or(|now| now.arguments != shim.arguments || now.has_children) {
            continue;
        }
        tracing::info!(
            "shim {} holds nothing and the runtime does not know it: {}",
            shim.pid,
            shim.arguments.join(" ")
        );
        if let Err(error) = handle.signal(Signal::SIGKILL) {
            tracing::warn!("shim {}: {error}", shim.pid);
        }
    }
}

fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// A process may end while we look: then there is none.
fn process(pid: i32) -> Option<Process> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let name = read("comm")?.trim().to_owned();
    let arguments = read("cmdline")?.split_terminator('\0').map(str::to_owned).collect();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let has_children = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .any(|children| !children.trim().is_empty());
    Some(Process { pid, name, arguments, has_children })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_files_of_earlier_runtimes_are_removed() {
        let folder = std::env::temp_dir().join(format!("namespaces-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (name, second) in [("cni-old", 90), ("cni-new", 110)] {
            let file = File::create(folder.join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
        }
        super::empty_namespaces(&folder, 100).unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(left, ["cni-new"]);
    }

    #[test]
    fn a_process_is_seen_with_its_arguments_and_children() {
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let own = super::process(std::process::id().cast_signed()).unwrap();
        // Its arguments are there a moment after spawn() has returned.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let other = loop {
            let other = super::process(child.id().cast_signed()).unwrap();
            if !other.arguments.is_empty() || std::time::Instant::now() > deadline {
                break other;
            }
            std::thread::yield_now();
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(own.has_children);
        assert!(!other.has_children);
        assert_eq!(other.arguments.last().unwrap(), "1000");
    }
}
