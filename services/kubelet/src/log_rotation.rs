//! Keeps container logs small: a full file is moved aside, the runtime opens a new one, older ones are compressed, the
//! oldest removed. The newest of those moved aside stays as it is: whoever follows the log still reads it.
//!
//! ```text
//! c/0.log                     written
//! c/0.log.20260101-000000     read to its end by followers
//! c/0.log.20251231-230000.gz
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemon::Shutdown;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::{MissedTickBehavior, interval};

use crate::observed::State;
use crate::shared::Shared;

/// Looks at the logs of this node's pods until the end.
pub async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut ticks = interval(shared.config.container_log_monitor_interval.0);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            _ = ticks.tick() => all(&shared).await,
        }
    }
}

async fn all(shared: &Shared) {
    let limit =
        apimachinery::quantity::Quantity::parse(&shared.config.container_log_max_size).map_or(10 << 20, |q| q.value());
    let files = usize::try_from(shared.config.container_log_max_files).unwrap_or(5).max(2);
    for pod in shared.admitted.pods() {
        if !full_log_below(Path::new(&pod.log_directory()), limit) {
            continue;
        }
        let Ok(observed) = shared.cri.observe(&pod.metadata.uid).await else { continue };
        for container in observed.containers.iter().filter(|c| c.state == State::Running) {
            let path = PathBuf::from(&container.log_path);
            if size(&path) < limit {
                continue;
            }
            if let Err(error) = one(shared, &container.id, path.clone(), files).await {
                tracing::warn!(path = %path.display(), %error, "log not rotated");
            }
        }
    }
}

async fn one(shared: &Shared, id: &str, path: PathBuf, files: usize) -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    // What lies aside already has been read; making room comes before making more.
    let settle = path.clone();
    let settled = tokio::task::spawn_blocking(move || tidy(&settle, files)).await;
    settled.map_err(|e| e.to_string())?.map_err(text)?;
    let stamp: String = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    fs::rename(&path, &aside).map_err(text)?;
    if let Err(error) = shared.cri.reopen_log(id).await {
        // Without a new file the runtime goes on with the old one, so it must have its name back.
        fs::rename(&aside, &path).map_err(text)?;
        return Err(error);
    }
    Ok(())
}

/// Compresses what was moved aside and removes the oldest, so that with the current and the next there are `files`.
fn tidy(path: &Path, files: usize) -> io::Result<()> {
    for part in rotated(path)? {
        match part.extension().and_then(|e| e.to_str()) {
            Some("gz") => {}
            // A crash left it half-written; its source is still there.
            Some("tmp") => fs::remove_file(part)?,
            _ => compress(&part)?,
        }
    }
    for old in surplus(rotated(path)?, files) {
        fs::remove_file(old)?;
    }
    Ok(())
}

/// The compressed file appears whole or not at all.
fn compress(path: &Path) -> io::Result<()> {
    let tmp = PathBuf::from(format!("{}.tmp", path.display()));
    let mut encoder = GzEncoder::new(File::create(&tmp)?, Compression::fast());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&tmp, format!("{}.gz", path.display()))?;
    fs::remove_file(path)
}

fn size(path: &Path) -> i64 {
    fs::metadata(path).map_or(0, |m| i64::try_from(m.len()).unwrap_or(i64::MAX))
}

fn full_log_below(folder: &Path, limit: i64) -> bool {
    let containers = fs::read_dir(folder).into_iter().flatten().flatten();
    containers.flat_map(|c| fs::read_dir(c.path()).into_iter().flatten().flatten()).any(|f| size(&f.path()) >= limit)
}

/// The parts that were moved aside, in order of age.
fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{}.", path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default());
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut found: Vec<PathBuf> = fs::read_dir(folder)?
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
        .map(|e| e.path())
        .collect();
    found.sort();
    Ok(found)
}

/// The oldest parts beyond the number of files, the current one and the one about to be moved aside counted.
fn surplus(mut parts: Vec<PathBuf>, files: usize) -> Vec<PathBuf> {
    let keep = files.saturating_sub(2);
    parts.truncate(parts.len().saturating_sub(keep));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn the_oldest_parts_go_first() {
        let parts = ["a.1", "a.2", "a.3"].map(PathBuf::from).to_vec();
        assert_eq!(surplus(parts.clone(), 4), [PathBuf::from("a.1")]);
        assert!(surplus(parts, 5).is_empty());
    }

    #[test]
    fn what_lies_aside_is_compressed_and_limited() {
        let folder = std::env::temp_dir().join(format!("kubelet-rotate-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join("0.log");
        fs::write(&log, "current").unwrap();
        for (stamp, text) in
            [("20260101-000000.gz", "x"), ("20260102-000000.gz", "x"), ("20260103-000000", "last words")]
        {
            fs::write(folder.join(format!("0.log.{stamp}")), text).unwrap();
        }
        fs::write(folder.join("0.log.20260104-000000.tmp"), "half").unwrap();
        tidy(&log, 4).unwrap();
        let names: Vec<String> =
            rotated(&log).unwrap().iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["0.log.20260102-000000.gz", "0.log.20260103-000000.gz"]);
        let mut text = String::new();
        let packed = File::open(folder.join("0.log.20260103-000000.gz")).unwrap();
        flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
        fs::remove_dir_all(folder).unwrap();
    }
}
