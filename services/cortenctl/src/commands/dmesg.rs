//! dmesg: the kernel's log.

use machine_api::v1::DmesgRequest;

use crate::connect;
use crate::{Global, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Dmesg {
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
}

pub(crate) async fn run(args: Dmesg, global: &Global) -> anyhow::Result<()> {
    let mut client = connect::one(global).await?;
    output::copy(client.dmesg(DmesgRequest { follow: args.follow }).await?.into_inner()).await
}
