//! Keeps container logs small: a full file is moved aside, the runtime opens a new one, the oldest are removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::observed::State;
use crate::shared::Shared;

/// Rotates every log of this node's pods that is full.
pub async fn all(shared: &Shared) {
    let limit =
        apimachinery::quantity::Quantity::parse(&shared.config.container_log_max_size).map_or(10 << 20, |q| q.value());
    let files = usize::try_from(shared.config.container_log_max_files).unwrap_or(5).max(2);
    for object in shared.pods.list() {
        let Ok(pod) = crate::pod::Pod::from_value(&object) else { continue };
        if !full_log_below(Path::new(&pod.log_directory()), limit) {
            continue;
        }
        let Ok(observed) = shared.cri.observe(&pod.metadata.uid).await else { continue };
        for container in observed.containers.iter().filter(|c| c.state == State::Running) {
            let path = Path::new(&container.log_path);
            if size(path) < limit {
                continue;
            }
            if let Err(error) = one(shared, &container.id, path, files).await {
                tracing::warn!(path = %path.display(), %error, "log not rotated");
            }
        }
    }
}

async fn one(shared: &Shared, id: &str, path: &Path, files: usize) -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    let stamp: String = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    fs::rename(path, &aside).map_err(text)?;
    if let Err(error) = shared.cri.reopen_log(id).await {
        // Without a new file the runtime goes on with the old one, so it must have its name back.
        fs::rename(&aside, path).map_err(text)?;
        return Err(error);
    }
    for old in surplus(rotated(path).map_err(text)?, files) {
        fs::remove_file(old).map_err(text)?;
    }
    Ok(())
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

/// The oldest parts beyond the number of files, the current one counted.
fn surplus(mut parts: Vec<PathBuf>, files: usize) -> Vec<PathBuf> {
    let keep = files - 1;
    parts.truncate(parts.len().saturating_sub(keep));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_parts_go_first() {
        let parts = ["a.1", "a.2", "a.3"].map(PathBuf::from).to_vec();
        assert_eq!(surplus(parts.clone(), 3), [PathBuf::from("a.1")]);
        assert!(surplus(parts, 4).is_empty());
    }
}
