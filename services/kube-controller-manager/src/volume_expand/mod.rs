//! persistentvolume-expander-controller: claims that ask for more than their volume has. Nothing in this process can make a
//! volume larger; what provisioned it can, and this says that it is being waited for.

use apimachinery::meta;
use apimachinery::quantity::Quantity;
use client::WorkQueue;
use serde_json::Value;

use crate::context::Context;
use crate::error::Error;
use crate::object;
use crate::resource::{PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES};
use crate::worker::{self, Next};

/// Runs the controller.
pub async fn run(context: Context) {
    let (claims, volumes) = (context.informers.get(PERSISTENTVOLUMECLAIMS), context.informers.get(PERSISTENTVOLUMES));
    claims.synced().await;
    volumes.synced().await;
    let queue = WorkQueue::new();
    let to = queue.clone();
    worker::on_change(&claims, move |change| {
        if wants_more(change.object()) {
            to.add(meta::key(change.object()));
        }
    });
    let sync = async |key: String| -> Result<Next, Error> {
        let (namespace, name) = meta::split_key(&key);
        let Some(claim) = claims.get(namespace, name).filter(|claim| wants_more(claim)) else { return Ok(Next::Done) };
        let Some(volume) = volumes.get("", object::text(&claim, "/spec/volumeName")) else { return Ok(Next::Done) };
        let (kind, reason, message) = if volume["spec"]["csi"].is_object() {
            ("Normal", "ExternalExpanding", "waiting for an external controller to expand this PVC")
        } else {
            (
                "Warning",
                "ExternalExpanding",
                "Ignoring the PVC: didn't find a plugin capable of expanding the volume; waiting for an external controller to process this PVC.",
            )
        };
        context.events.note(&claim, kind, reason, message.to_owned());
        Ok(Next::Done)
    };
    worker::run("volume-expand", queue, 1, sync).await;
}

/// Bound, and asks for more than it has.
fn wants_more(claim: &Value) -> bool {
    let amount = |pointer: &str| Quantity::parse(object::text(claim, pointer)).ok();
    let (asked, has) = (amount("/spec/resources/requests/storage"), amount("/status/capacity/storage"));
    object::text(claim, "/status/phase") == "Bound" && has.is_some() && asked > has
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_bound_claims_that_have_grown() {
        let claim = |phase: &str, asked: &str, has: &str| {
            json!({"spec": {"resources": {"requests": {"storage": asked}}},
                   "status": {"phase": phase, "capacity": {"storage": has}}})
        };
        assert!(wants_more(&claim("Bound", "2Gi", "1Gi")));
        assert!(!wants_more(&claim("Bound", "1Gi", "1Gi")));
        assert!(!wants_more(&claim("Pending", "2Gi", "1Gi")));
    }
}
