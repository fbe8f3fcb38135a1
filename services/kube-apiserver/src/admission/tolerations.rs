//! Pods stay five minutes on a node that stops answering, unless they say otherwise.

use serde_json::{Value, json};

use super::{AdmissionRequest, Operation, Plugin};
use crate::errors::ApiError;
use crate::registry::strategy::tree::{items, object, set, str_at};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// The plugin.
pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn change(&self, request: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
        if request.is("", "pods") && matches!(request.operation, Operation::Create | Operation::Update) {
            apply(request.object);
        }
        Ok(())
    }
}

/// Adds what the pod does not already tolerate in some way.
pub fn apply(pod: &mut Value) {
    let mut list = items(pod, &["spec", "tolerations"]).to_vec();
    let before = list.len();
    for taint in TAINTS {
        let covered = list.iter().any(|t| {
            let (key, effect) = (str_at(t, &["key"]), str_at(t, &["effect"]));
            (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
        });
        if !covered {
            list.push(json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}));
        }
    }
    if list.len() > before {
        set(object(pod, "spec"), "tolerations", list);
    }
}
