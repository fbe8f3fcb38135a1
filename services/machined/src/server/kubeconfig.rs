//! Kubeconfig: a new administrator's kubeconfig, signed on request.

use machine_api::v1::KubeconfigResponse;
use machine_config::Role;
use tonic::Status;

use super::Running;
use crate::credentials;

pub(super) fn call(running: &Running) -> Result<KubeconfigResponse, Status> {
    let Role::ControlPlane(keys) = &running.config.role else {
        return Err(Status::failed_precondition("a worker cannot issue a kubeconfig: ask a control-plane machine"));
    };
    let text = credentials::admin_kubeconfig(&running.config, keys).map_err(|e| Status::internal(e.to_string()))?;
    Ok(KubeconfigResponse { kubeconfig: text.into_bytes() })
}
