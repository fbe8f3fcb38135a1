//! kubeconfig: the cluster administrator's, freshly signed.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use machine_api::v1::KubeconfigRequest;

use super::write_secret;
use crate::Global;
use crate::connect;

#[derive(Debug, clap::Args)]
pub(crate) struct Kubeconfig {
    /// Where to write it; `-` is standard output
    #[arg(default_value = "kubeconfig")]
    file: PathBuf,
    /// Overwrite an existing file
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(args: Kubeconfig, global: &Global) -> anyhow::Result<()> {
    let mut client = connect::one(global).await?;
    let text = client.kubeconfig(KubeconfigRequest {}).await?.into_inner().kubeconfig;
    if args.file == Path::new("-") {
        std::io::stdout().write_all(&text)?;
        return Ok(());
    }
    write_secret(&args.file, &text, args.force)?;
    println!("{}", args.file.display());
    Ok(())
}
