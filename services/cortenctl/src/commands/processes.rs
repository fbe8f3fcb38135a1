//! processes: what runs and how much memory it holds.

use machine_api::v1::ProcessesRequest;

use crate::connect;
use crate::{Global, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Processes {
    #[command(flatten)]
    output: output::Output,
}

pub(crate) async fn run(args: Processes, global: &Global) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (node, mut client) in connect::all(global).await? {
        for p in client.processes(ProcessesRequest {}).await?.into_inner().processes {
            rows.push(vec![
                node.clone(),
                p.pid.to_string(),
                p.name,
                p.service,
                p.rss_bytes.to_string(),
                mebibytes(p.rss_bytes),
                p.pss_bytes.to_string(),
                p.private_bytes.to_string(),
            ]);
        }
    }
    output::print(
        args.output,
        &["NODE", "PID", "NAME", "SERVICE", "RSS BYTES", "RSS MIB", "PSS BYTES", "PRIVATE BYTES"],
        &rows,
    );
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes * 10 / (1024 * 1024);
    format!("{}.{}", tenths / 10, tenths % 10)
}
