//! What of a StorageVersion still has somebody who says it. Pure.

use apimachinery::meta;
use serde_json::{Value, json};

use crate::object;

/// Marks the Leases of API servers.
const IDENTITY_LABEL: &str = "apiserver.kubernetes.io/identity";

/// What to do with a StorageVersion.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Nobody says anything about it any more.
    Delete,
    /// The others' words, and what follows from them.
    Status(Value),
}

/// Whether a Lease says that an API server lives.
pub(super) fn is_identity(lease: &Value) -> bool {
    lease["metadata"]["labels"][IDENTITY_LABEL] == "kube-apiserver"
}

/// `lives` tells which API servers are there.
pub(super) fn plan(version: &Value, lives: impl Fn(&str) -> bool, now: &str) -> Option<Step> {
    let said = object::list(version, "/status/storageVersions");
    let left: Vec<&Value> = said.iter().filter(|entry| lives(object::text(entry, "/apiServerID"))).collect();
    if left.len() == said.len() || meta::deletion_timestamp(version).is_some() {
        return None;
    }
    let Some(first) = left.first() else { return Some(Step::Delete) };
    let common = left.iter().all(|entry| entry["encodingVersion"] == first["encodingVersion"]);
    let mut conditions = object::list(version, "/status/conditions").to_vec();
    let condition = if common {
        json!({"type": "AllEncodingVersionsEqual", "status": "True", "reason": "CommonEncodingVersionSet",
               "message": "Common encoding version set"})
    } else {
        json!({"type": "AllEncodingVersionsEqual", "status": "False", "reason": "CommonEncodingVersionUnset",
               "message": "Common encoding version unset"})
    };
    object::set_condition(&mut conditions, condition, now);
    let mut status = json!({"storageVersions": left, "conditions": conditions});
    if common {
        status["commonEncodingVersion"] = first["encodingVersion"].clone();
    }
    Some(Step::Status(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    #[test]
    fn the_words_of_the_dead_go() {
        let entry = |server: &str, version: &str| json!({"apiServerID": server, "encodingVersion": version});
        let version =
            |said: &[Value]| json!({"metadata": {"name": "apps.deployments"}, "status": {"storageVersions": said}});
        let (a, b, c) = (entry("a", "v1"), entry("b", "v2"), entry("c", "v1"));
        let lives = |server: &str| server != "b";
        assert_eq!(plan(&version(std::slice::from_ref(&a)), lives, NOW), None);
        assert_eq!(plan(&version(std::slice::from_ref(&b)), lives, NOW), Some(Step::Delete));
        let Some(Step::Status(status)) = plan(&version(&[a.clone(), b.clone(), c.clone()]), lives, NOW) else {
            panic!()
        };
        assert_eq!((&status["storageVersions"], &status["commonEncodingVersion"]), (&json!([a, c]), &json!("v1")));
        assert_eq!(status["conditions"][0]["status"], "True");
        let Some(Step::Status(status)) = plan(&version(&[a, b, entry("d", "v3")]), lives, NOW) else { panic!() };
        assert!(status["commonEncodingVersion"].is_null());
        assert_eq!(status["conditions"][0]["status"], "False");
        assert!(is_identity(&json!({"metadata": {"labels": {IDENTITY_LABEL: "kube-apiserver"}}})));
    }
}
