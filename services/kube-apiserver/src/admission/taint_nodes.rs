//! A node that has just registered takes no pods until the node lifecycle controller has seen it ready.

use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, Plugin};
use crate::errors::ApiError;
use crate::registry::strategy::tree::{items, object, set, str_at};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// The plugin.
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn change(&self, request: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
        if request.is("", "nodes") && request.operation == Operation::Create {
            apply(request.object);
        }
        Ok(())
    }
}

/// Adds the taint once.
pub fn apply(node: &mut Value) {
    let mut taints = items(node, &["spec", "taints"]).to_vec();
    let there = |t: &Value| str_at(t, &["key"]) == NOT_READY && str_at(t, &["effect"]) == "NoSchedule";
    if !taints.iter().any(there) {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        set(object(node, "spec"), "taints", taints);
    }
}
