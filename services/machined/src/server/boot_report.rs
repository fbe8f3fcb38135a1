//! BootReport: PID 1's stages and ours, in the order of time.

use init_api::{Reply, Request};
use machine_api::v1::{BootReportResponse, Stage};
use tonic::Status;

use super::init_status;
use crate::machine::Machine;

pub(super) async fn call(machine: &Machine) -> Result<BootReportResponse, Status> {
    let mut stages = match machine.init.call(Request::BootReport).await.map_err(init_status)? {
        Reply::Boot(stages) => stages
            .into_iter()
            .map(|s| Stage {
                component: "init".to_owned(),
                name: s.name,
                done_ms: s.done_ms,
                detail: s.detail,
                ok: s.ok,
            })
            .collect(),
        _ => Vec::new(),
    };
    stages.extend(machine.stages.list());
    stages.sort_by_key(|s| s.done_ms);
    Ok(BootReportResponse { stages })
}
