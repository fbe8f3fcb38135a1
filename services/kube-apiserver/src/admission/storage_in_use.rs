//! Volumes and claims are not removed under the pods that use them: a finalizer keeps them until a controller finds them unused.

use serde_json::Value;

use super::{AdmissionRequest, Operation, Plugin};
use crate::errors::ApiError;
use crate::registry::strategy::tree::{items, set};

/// The plugin.
pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn change(&self, request: &mut AdmissionRequest<'_>) -> Result<(), ApiError> {
        if request.operation != Operation::Create {
            return Ok(());
        }
        if request.is("", "persistentvolumes") {
            protect(request.object, "kubernetes.io/pv-protection");
        } else if request.is("", "persistentvolumeclaims") {
            protect(request.object, "kubernetes.io/pvc-protection");
        }
        Ok(())
    }
}

/// Adds the finalizer once.
pub fn protect(object: &mut Value, finalizer: &str) {
    let mut list = items(object, &["metadata", "finalizers"]).to_vec();
    if !list.iter().any(|f| f == finalizer) {
        list.push(finalizer.into());
        set(&mut object["metadata"], "finalizers", list);
    }
}
