//! services: list, start, stop, restart.

use machine_api::v1::{ServiceListRequest, ServiceRequest};

use crate::connect;
use crate::{Global, output};

#[derive(Debug, clap::Args)]
pub(crate) struct Services {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all services (the default)
    List,
    /// Start a service
    Start { name: String },
    /// Stop a service until it is started again
    Stop { name: String },
    /// Stop a service and start it again
    Restart { name: String },
}

pub(crate) async fn run(args: Services, global: &Global) -> anyhow::Result<()> {
    let Some((action, name)) = chosen(args.action) else { return list(global).await };
    for (node, mut client) in connect::all(global).await? {
        let request = ServiceRequest { name: name.clone() };
        match action {
            "started" => client.service_start(request).await?,
            "stopped" => client.service_stop(request).await?,
            _ => client.service_restart(request).await?,
        };
        println!("{node}: {name} {action}");
    }
    Ok(())
}

fn chosen(action: Option<Action>) -> Option<(&'static str, String)> {
    match action {
        None | Some(Action::List) => None,
        Some(Action::Start { name }) => Some(("started", name)),
        Some(Action::Stop { name }) => Some(("stopped", name)),
        Some(Action::Restart { name }) => Some(("restarted", name)),
    }
}

async fn list(global: &Global) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (node, mut client) in connect::all(global).await? {
        for s in client.service_list(ServiceListRequest {}).await?.into_inner().services {
            let pid = if s.pid == 0 { String::new() } else { s.pid.to_string() };
            rows.push(vec![node.clone(), s.name, s.state, pid, s.restarts.to_string(), s.detail]);
        }
    }
    output::table(&["NODE", "SERVICE", "STATE", "PID", "RESTARTS", "LAST EXIT"], &rows);
    Ok(())
}
