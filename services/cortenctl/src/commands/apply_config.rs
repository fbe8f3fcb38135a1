//! apply-config: checked here first, so that mistakes show with their lines even when no machine answers.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use machine_api::v1::ApplyConfigRequest;

use crate::Global;
use crate::connect;

#[derive(Debug, clap::Args)]
pub(crate) struct ApplyConfig {
    /// The machine configuration
    #[arg(short, long)]
    file: PathBuf,
    /// Send it to a machine in maintenance mode, whoever it is
    #[arg(short, long)]
    insecure: bool,
}

pub(crate) async fn run(args: ApplyConfig, global: &Global) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    machine_config::parse(&args.file.display().to_string(), &text).map_err(|problems| anyhow!("{problems}"))?;
    let mut client = if args.insecure { connect::insecure(global).await? } else { connect::one(global).await? };
    let answer = client.apply_config(ApplyConfigRequest { config: text.into_bytes() }).await?.into_inner();
    println!("{}", answer.message);
    Ok(())
}
