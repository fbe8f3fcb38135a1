//! Which finished pods are too many. Pure.

use std::sync::Arc;

use apimachinery::meta;
use serde_json::Value;

use crate::pods;

/// The oldest finished pods beyond `limit`.
pub fn surplus(all: impl IntoIterator<Item = Arc<Value>>, limit: usize) -> Vec<Arc<Value>> {
    let mut finished: Vec<Arc<Value>> =
        all.into_iter().filter(|pod| pods::is_finished(pod) && !pods::is_terminating(pod)).collect();
    let age = |pod: &Arc<Value>| (meta::creation_timestamp(pod).to_owned(), meta::name(pod).to_owned());
    finished.sort_by_cached_key(age);
    finished.truncate(finished.len().saturating_sub(limit));
    finished
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_oldest_go() {
        let pod = |name: &str, phase: &str| {
            Arc::new(json!({"metadata": {"name": name, "creationTimestamp": name}, "status": {"phase": phase}}))
        };
        let pods = vec![pod("3", "Failed"), pod("1", "Succeeded"), pod("0", "Running"), pod("2", "Failed")];
        let names: Vec<String> = surplus(pods, 1).iter().map(|p| meta::name(p).to_owned()).collect();
        assert_eq!(names, ["1", "2"]);
    }
}
