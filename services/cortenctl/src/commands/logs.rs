//! logs: a service's output.

use machine_api::v1::LogsRequest;

use crate::connect;
use crate::{Global, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The service
    service: String,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "LINES")]
    tail: u32,
}

pub(crate) async fn run(args: Logs, global: &Global) -> anyhow::Result<()> {
    let mut client = connect::one(global).await?;
    let request = LogsRequest { service: args.service, follow: args.follow, tail_lines: args.tail };
    output::copy(client.logs(request).await?.into_inner()).await
}
