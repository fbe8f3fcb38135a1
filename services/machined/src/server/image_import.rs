//! ImageImport: the archive is first written to the disk, since its table of contents is only known at its end.

use std::path::PathBuf;

use machine_api::v1::{Data, ImageImportResponse};
use tokio::io::AsyncWriteExt as _;
use tonic::{Status, Streaming};

use crate::images;
use crate::machine::Machine;

/// Removes the file however the call ends.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) async fn call(machine: &Machine, mut pieces: Streaming<Data>) -> Result<ImageImportResponse, Status> {
    let folder = machine.paths.at("/var/lib/corten/tmp");
    let file = Temporary(folder.join(format!("import-{:016x}.tar", rand::random::<u64>())));
    let failed = |e: std::io::Error| Status::internal(format!("{}: {e}", file.0.display()));
    tokio::fs::create_dir_all(&folder).await.map_err(failed)?;
    let mut out = tokio::fs::File::create(&file.0).await.map_err(failed)?;
    while let Some(piece) = pieces.message().await? {
        out.write_all(&piece.bytes).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)?;
    drop(out);
    match images::import(&machine.paths.containerd(), file.0.clone(), false).await {
        Ok(names) => Ok(ImageImportResponse { names }),
        Err(error @ images::ImportError::Format(_)) => Err(Status::invalid_argument(error.to_string())),
        Err(error) => Err(Status::unavailable(error.to_string())),
    }
}
