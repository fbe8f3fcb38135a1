//! validatingadmissionpolicy-status-controller: says which generation of a policy it has seen. Upstream's also checks the types
//! of the policy's CEL expressions; nothing here reads CEL, so `typeChecking`, whose presence says that it was done, stays
//! absent, and a condition says why.

use apimachinery::{meta, time};
use client::{Change, Resource, WorkQueue};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Error, ignore_not_found};
use crate::object;
use crate::worker::{self, Next};

const POLICIES: Resource<'static> = Resource::new(
    "admissionregistration.k8s.io",
    "v1",
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    false,
);

/// Runs the controller.
pub async fn run(context: Context) {
    let policies = context.informers.get(POLICIES);
    policies.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&policies, move |change| {
        if matches!(change, Change::Applied { .. }) {
            to.add(meta::name(change.object()).to_owned());
        }
    });
    let sync = async |name: String| -> Result<Next, Error> {
        let Some(policy) = policies.get("", &name) else { return Ok(Next::Done) };
        if let Some(status) = status(&policy, &time::now_rfc3339()) {
            let mut new = Value::clone(&policy);
            new["status"] = status;
            ignore_not_found(context.client.update_sub(POLICIES, None, &name, "status", &new).await)?;
        }
        Ok(Next::Done)
    };
    worker::run("validatingadmissionpolicy-status", queue, 5, sync).await;
}

/// The status to write, if it differs.
fn status(policy: &Value, now: &str) -> Option<Value> {
    let generation = &policy["metadata"]["generation"];
    if policy["status"]["observedGeneration"] == *generation || meta::deletion_timestamp(policy).is_some() {
        return None;
    }
    let mut conditions = object::list(policy, "/status/conditions").to_vec();
    let condition = json!({
        "type": "TypeChecked", "status": "Unknown", "reason": "NotSupported",
        "message": "this controller does not check the types of CEL expressions",
    });
    object::set_condition(&mut conditions, condition, now);
    Some(json!({"observedGeneration": generation, "conditions": conditions}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_noted_once_and_nothing_is_claimed() {
        let mut policy = json!({"metadata": {"name": "p", "generation": 2}});
        let first = status(&policy, "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(first["observedGeneration"], 2);
        assert_eq!(first["conditions"][0]["status"], "Unknown");
        assert!(first["typeChecking"].is_null());
        policy["status"] = first;
        assert!(status(&policy, "2026-01-01T00:00:01Z").is_none());
        policy["metadata"]["generation"] = 3.into();
        assert_eq!(status(&policy, "2026-01-01T00:00:02Z").unwrap()["observedGeneration"], 3);
    }
}
