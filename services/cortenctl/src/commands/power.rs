//! reboot and shutdown.

use machine_api::v1::{RebootRequest, ShutdownRequest};

use crate::Global;
use crate::connect;

#[derive(Debug, clap::Args)]
pub(crate) struct Reboot {}

#[derive(Debug, clap::Args)]
pub(crate) struct Shutdown {}

pub(crate) async fn reboot(global: &Global) -> anyhow::Result<()> {
    for (node, mut client) in connect::all(global).await? {
        client.reboot(RebootRequest {}).await?;
        println!("{node}: restarts");
    }
    Ok(())
}

pub(crate) async fn shutdown(global: &Global) -> anyhow::Result<()> {
    for (node, mut client) in connect::all(global).await? {
        client.shutdown(ShutdownRequest {}).await?;
        println!("{node}: shuts down");
    }
    Ok(())
}
