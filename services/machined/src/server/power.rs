//! Reboot and Shutdown: PID 1 accepts and does it in order, which ends this daemon too.

use init_api::Request;
use tonic::Status;

use super::init_status;
use crate::machine::Machine;

pub(super) async fn call(machine: &Machine, request: Request) -> Result<(), Status> {
    machine.init.call(request).await.map(drop).map_err(init_status)
}
