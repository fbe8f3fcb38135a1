//! boot-report: when each stage of the boot was done.

use machine_api::v1::BootReportRequest;

use crate::connect;
use crate::{Global, output};

#[derive(Debug, clap::Args)]
pub(crate) struct BootReport {
    #[command(flatten)]
    output: output::Output,
}

pub(crate) async fn run(args: BootReport, global: &Global) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (node, mut client) in connect::all(global).await? {
        let mut before = 0;
        for s in client.boot_report(BootReportRequest {}).await?.into_inner().stages {
            let result = if s.ok { "ok" } else { "FAILED" };
            rows.push(vec![
                node.clone(),
                s.done_ms.to_string(),
                format!("+{}", s.done_ms.saturating_sub(before)),
                s.component,
                s.name,
                result.to_owned(),
                s.detail,
            ]);
            before = s.done_ms;
        }
    }
    output::print(args.output, &["NODE", "MS", "STEP", "BY", "STAGE", "RESULT", "DETAIL"], &rows);
    Ok(())
}
