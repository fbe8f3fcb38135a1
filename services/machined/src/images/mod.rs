//! Container images without a registry: archives in, the runtime's content and image stores out.
//!
//! `archive.rs` reads a tar file's table of contents, `plan.rs` decides what to store (pure), `store.rs` stores it.

mod archive;
mod plan;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::backoff::Backoff;

use crate::machine::Machine;

/// Archives in the OS image.
const SHIPPED: &str = "/usr/share/corten/images";

/// Why an archive was not imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    #[error("{path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("not an image archive: {0}")]
    Format(String),
    #[error("the container runtime {what}: {status}")]
    Runtime { what: String, status: Box<tonic::Status> },
}

impl ImportError {
    /// Would it go well if the runtime were up?
    fn is_transient(&self) -> bool {
        matches!(self, Self::Runtime { status, .. } if matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unimplemented | tonic::Code::Unknown))
    }
}

/// Imports an archive and says which names it has. What is there already is not written again.
pub(crate) async fn import(containerd: &Path, archive: PathBuf, pinned: bool) -> Result<Vec<String>, ImportError> {
    let (archive, plan) = match tokio::task::spawn_blocking(move || read(&archive)).await {
        Ok(result) => result?,
        Err(error) => return Err(ImportError::Format(error.to_string())),
    };
    let names = plan.images.iter().map(|i| i.name.clone()).collect();
    store::Store::connect(containerd).import(&archive, plan, pinned).await?;
    Ok(names)
}

fn read(path: &Path) -> Result<(archive::Archive, plan::Plan), ImportError> {
    let archive = archive::Archive::open(path)?;
    let plan = plan::plan(&archive)?;
    Ok((archive, plan))
}

/// Imports the archives of the OS image once the runtime is up.
pub(crate) async fn import_shipped(machine: Arc<Machine>) {
    let folder = machine.paths.at(SHIPPED);
    let mut archives: Vec<PathBuf> =
        std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    archives.retain(|p| p.extension().is_some_and(|e| e == "tar"));
    archives.sort();
    if archives.is_empty() {
        return;
    }
    let socket = machine.paths.containerd();
    if let Err(error) = crate::wake::appears(&socket).await {
        machine.stages.failed("images", error.to_string());
        return;
    }
    let mut names = Vec::new();
    for archive in archives {
        match import_patiently(&socket, &archive).await {
            Ok(new) => names.extend(new),
            Err(error) => machine.stages.failed("images", format!("{}: {error}", archive.display())),
        }
    }
    machine.stages.done("images", names.join(" "));
}

/// The socket is there before the runtime has loaded its plugins, and there is no event for that.
async fn import_patiently(socket: &Path, archive: &Path) -> Result<Vec<String>, ImportError> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    for _ in 0..60 {
        match import(socket, archive.to_owned(), true).await {
            Err(error) if error.is_transient() => {
                tracing::debug!("{}: {error}", archive.display());
                tokio::time::sleep(backoff.next_delay()).await;
            }
            other => return other,
        }
    }
    import(socket, archive.to_owned(), true).await
}
