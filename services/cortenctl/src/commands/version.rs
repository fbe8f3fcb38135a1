//! version: of this program and of machines.

use machine_api::v1::{Mode, VersionRequest, VersionResponse};

use crate::connect::{self, Client};
use crate::{Global, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Version {
    /// Only this program's version; asks no machine
    #[arg(long)]
    client: bool,
    /// Ask a machine in maintenance mode, whoever it is
    #[arg(short, long)]
    insecure: bool,
}

pub(crate) async fn run(args: Version, global: &Global) -> anyhow::Result<()> {
    println!("client: v{}", env!("CARGO_PKG_VERSION"));
    if args.client {
        return Ok(());
    }
    let clients = if args.insecure {
        vec![(global.nodes.join(","), connect::insecure(global).await?)]
    } else {
        connect::all(global).await?
    };
    let mut rows = Vec::new();
    for (node, client) in clients {
        let answer = ask(client).await?;
        let mode = mode(answer.mode());
        let note = if answer.reason.is_empty() { String::new() } else { answer.reason.replace('\n', "; ") };
        rows.push(vec![
            node,
            answer.hostname,
            answer.version,
            answer.kubernetes,
            answer.kernel,
            answer.arch,
            mode.to_owned(),
            note,
        ]);
    }
    output::table(&["NODE", "HOSTNAME", "CORTEN", "KUBERNETES", "KERNEL", "ARCH", "MODE", ""], &rows);
    Ok(())
}

async fn ask(mut client: Client) -> anyhow::Result<VersionResponse> {
    Ok(client.version(VersionRequest {}).await?.into_inner())
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Unspecified => "unknown",
        Mode::Maintenance => "maintenance",
        Mode::Worker => "worker",
        Mode::ControlPlane => "controlplane",
    }
}
