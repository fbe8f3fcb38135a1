//! Tells the runtime where running containers may run whenever that changes. [`due`] decides (pure).

use std::collections::HashMap;
use std::sync::Arc;

use cri_api::v1;
use daemon::Shutdown;
use daemon::backoff::Backoff;

use super::set::CpuSet;
use crate::shared::Shared;

/// Follows the changes until the end.
pub async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut changes = shared.allocation.cpus.changes();
    let mut told: HashMap<String, CpuSet> = HashMap::new();
    let mut retry = Backoff::default();
    // What runs already may have missed a change while no kubelet ran.
    let mut missed = true;
    loop {
        let pause =
            async { if missed { tokio::time::sleep(retry.next_delay()).await } else { std::future::pending().await } };
        tokio::select! {
            () = shutdown.wait() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = pause => {}
        }
        missed = match tell(&shared, &mut told).await {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(%error, "containers not told which CPUs they share");
                true
            }
        };
        if !missed {
            retry.reset();
        }
    }
}

async fn tell(shared: &Shared, told: &mut HashMap<String, CpuSet>) -> Result<(), String> {
    let running = shared.cri.running().await?;
    told.retain(|id, _| running.iter().any(|c| c.0 == *id));
    let allowed = |uid: &str, name: &str| shared.allocation.cpus.allowed(uid, name);
    for (id, set) in due(&running, told, &allowed) {
        let resources = v1::LinuxContainerResources { cpuset_cpus: set.to_string(), ..Default::default() };
        shared.cri.update(&id, resources).await?;
        told.insert(id, set);
    }
    Ok(())
}

/// Containers, as id, pod and name, that run elsewhere than they may.
fn due(
    running: &[(String, String, String)],
    told: &HashMap<String, CpuSet>,
    allowed: &dyn Fn(&str, &str) -> CpuSet,
) -> Vec<(String, CpuSet)> {
    let set = |(id, uid, name): &(String, String, String)| (id.clone(), allowed(uid, name));
    running.iter().map(set).filter(|(id, set)| !set.is_empty() && told.get(id) != Some(set)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let running = ["a", "b", "c"].map(|id| (id.to_owned(), "u".to_owned(), id.to_owned()));
        let set = |text: &str| CpuSet::parse(text).unwrap();
        let told = HashMap::from([("a".to_owned(), set("0-3")), ("b".to_owned(), set("0-1"))]);
        let allowed = |_: &str, name: &str| if name == "c" { CpuSet::default() } else { set("0-1") };
        assert_eq!(due(&running, &told, &allowed), [("a".to_owned(), set("0-1"))]);
    }
}
