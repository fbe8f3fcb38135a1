//! A claim grows only if its class says that volumes of the class can.

use apimachinery::quantity::Quantity;
use serde_json::Value;

use super::{AdmissionRequest, Operation, Plugin, Verdict, find};
use crate::registry::Context;
use crate::registry::strategy::tree::{at, bool_at, str_at};

/// The plugin.
pub struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate<'a>(&'a self, cx: &'a Context<'_>, request: &'a AdmissionRequest<'_>) -> Verdict<'a> {
        Box::pin(async move {
            let Some(old) = request.old else { return Ok(()) };
            let update = request.is("", "persistentvolumeclaims") && request.operation == Operation::Update;
            if !update || !grows(request.object, old) {
                return Ok(());
            }
            if str_at(old, &["status", "phase"]) != "Bound" {
                return Err(request.forbidden("Only bound persistent volume claims can be expanded"));
            }
            let class = str_at(old, &["spec", "storageClassName"]);
            let found =
                if class.is_empty() { None } else { find(cx, "storage.k8s.io", "storageclasses", "", class).await? };
            if found.is_some_and(|c| bool_at(&c.object(), &["allowVolumeExpansion"])) {
                return Ok(());
            }
            Err(request.forbidden("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"))
        })
    }
}

fn grows(new: &Value, old: &Value) -> bool {
    let size = |v: &Value| {
        let text = at(v, &["spec", "resources", "requests", "storage"])?.as_str()?;
        Quantity::parse(text).ok().map(|q| q.milli())
    };
    matches!((size(new), size(old)), (Some(n), Some(o)) if n > o)
}
