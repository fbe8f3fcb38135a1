//! What happens, in order: find the configuration (or wait for one), network, certificates, arguments, the machine API and
//! the API proxy, the target for PID 1, the images.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use daemon::Shutdown;
use daemon::backoff::Backoff;
use init_api::{Request, Target};
use machine_config::{Config, Role};
use tokio::net::TcpListener;

use crate::credentials::{self, Node};
use crate::files::Entry;
use crate::machine::Machine;
use crate::network::{Network, Wanted};
use crate::server::{self, Api, Running};
use crate::{api_proxy, args, config, files, images, join, remains};

/// Exists where cgroup version 2 is all there is (cgroups(7)).
const CGROUP_V2: &str = "/sys/fs/cgroup/cgroup.controllers";

/// Runs the machine until `shutdown`.
pub(crate) async fn run(machine: Arc<Machine>, shutdown: Shutdown) -> daemon::Outcome {
    let id = machine_id(&machine)?;
    let config = match config::load(&machine.paths, &config::command_line()) {
        Ok(config) => config,
        Err(error) => {
            let reason = error.to_string();
            machine.stages.failed("config", &*reason);
            machine.announce(&format!("maintenance mode: {reason}"));
            match maintenance(&machine, &id, reason, &shutdown).await? {
                Some(config) => config,
                None => return Ok(()),
            }
        }
    };
    let kind = if matches!(config.role, Role::Worker) { "worker" } else { "control plane" };
    machine.stages.done("config", format!("{kind} of {}", config.cluster.name));
    tokio::select! {
        () = shutdown.wait() => Ok(()),
        outcome = configured(machine, config, &id, shutdown.clone()) => outcome,
    }
}

/// Offers the machine API, without any certificate that could be checked, until somebody applies a configuration.
async fn maintenance(
    machine: &Arc<Machine>,
    id: &str,
    reason: String,
    shutdown: &Shutdown,
) -> Result<Option<Config>, daemon::Failure> {
    let mut network = match Network::bring_up(&machine.paths, Wanted::default(), id).await {
        Ok(network) => Some(network),
        Err(error) => {
            machine.announce(&format!("network: {error}"));
            None
        }
    };
    target(machine, Target::Maintenance).await;
    let tls = server::tls::maintenance(&machine.paths)?;
    let (api, mut applied) = Api::maintenance(machine.clone(), reason);
    let listener = listen(machine_api::PORT).await?;
    let (trigger, stop) = Shutdown::pair();
    let serving = tokio::spawn(server::serve(listener, tls, api, stop));
    let config = tokio::select! {
        () = shutdown.wait() => None,
        config = applied.recv() => config,
        never = invite(machine, network.as_mut()) => match never {},
    };
    trigger.trigger();
    // The answer to the caller is still on its way; the port must be free before the next server takes it.
    let _ = tokio::time::timeout(Duration::from_secs(5), serving).await;
    if let Some(network) = network {
        network.take_down().await;
    }
    Ok(config)
}

/// Says on the console where a configuration can be sent to, once that is known.
async fn invite(machine: &Machine, network: Option<&mut Network>) -> std::convert::Infallible {
    if let Some(network) = network {
        let node = network.settled().await;
        machine.tell(&format!("waiting for: cortenctl apply-config --insecure -n {} -f FILE", node.ip));
    }
    std::future::pending().await
}

async fn configured(machine: Arc<Machine>, config: Config, id: &str, shutdown: Shutdown) -> daemon::Outcome {
    let mut network = bring_up(&machine, Wanted::from_config(&config.machine), id).await;
    let node = network.settled().await;
    machine.stages.done("network", format!("{} {}", node.hostname, node.ip));
    let mut entries = match &config.role {
        Role::ControlPlane(keys) => {
            let mut entries = credentials::node_files(&config, &credentials::issue_own(&config, keys, &node)?);
            entries.extend(credentials::control_plane_files(&config, keys, &node)?);
            entries
        }
        Role::Worker => credentials::node_files(&config, &join::certificates(&machine, &config, &node).await),
    };
    machine.stages.done("pki", format!("{} files", entries.len()));
    entries.extend(args::files(&config, &node, machine.paths.at(CGROUP_V2).exists()));
    files::write_all(&machine.paths, &entries)?;
    machine.stages.done("services", format!("{} files", entries.len()));
    serve(machine, config, node, shutdown).await
}

/// With everything in place: both servers, the target, the images.
async fn serve(machine: Arc<Machine>, config: Config, node: Node, shutdown: Shutdown) -> daemon::Outcome {
    let wanted = if matches!(config.role, Role::Worker) { Target::Worker } else { Target::ControlPlane };
    let proxy = TcpListener::bind(api_proxy::ADDRESS).await?;
    let proxy = tokio::spawn(api_proxy::run(proxy, api_proxy::Members::of(&config), shutdown.clone()));
    let tls = server::tls::configured(&machine.paths)?;
    let listener = listen(machine_api::PORT).await?;
    let ready = format!("{} ({}) is a machine of cluster {}", node.hostname, node.ip, config.cluster.name);
    let api = Api::running(machine.clone(), Running { config, node });
    let serving = tokio::spawn(server::serve(listener, tls, api, shutdown.clone()));
    machine.stages.done("machine-api", format!("port {}", machine_api::PORT));
    target(&machine, wanted).await;
    machine.stages.done("target", format!("{wanted:?}"));
    machine.tell(&ready);
    let import = tokio::spawn(images::import_shipped(machine.clone()));
    let clearing = tokio::spawn(remains::run(machine.clone()));
    shutdown.wait().await;
    import.abort();
    clearing.abort();
    let _ = tokio::join!(serving, proxy);
    Ok(())
}

async fn bring_up(machine: &Machine, wanted: Wanted, id: &str) -> Network {
    let mut backoff = Backoff::default();
    loop {
        match Network::bring_up(&machine.paths, wanted.clone(), id).await {
            Ok(network) => return network,
            Err(error) => machine.announce(&format!("network: {error}")),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Asks PID 1 for a target until it agrees: it may still be busy with its own start.
async fn target(machine: &Machine, target: Target) {
    let mut backoff = Backoff::default();
    while let Err(error) = machine.init.call(Request::SetTarget(target)).await {
        tracing::error!("{error}");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Both families on one socket; the kernel takes IPv4 as mapped addresses.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)).await {
        Ok(listener) => Ok(listener),
        // A kernel without IPv6.
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await,
    }
}

/// The machine's id (machine-id(5)), made once and kept with the machine's state.
fn machine_id(machine: &Machine) -> Result<String, files::FileError> {
    let (stored, current) = ("/var/lib/corten/machine-id", "/run/machine-id");
    let read = |path: &str| {
        std::fs::read_to_string(machine.paths.at(path)).ok().map(|t| t.trim().to_owned()).filter(|t| t.len() == 32)
    };
    let id = read(current).or_else(|| read(stored)).unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    let line = format!("{id}\n");
    if read(stored).as_ref() != Some(&id)
        && let Err(error) = files::replace(&machine.paths.at(stored), line.as_bytes(), false, true)
    {
        // No disk: the machine gets another id at its next boot.
        tracing::warn!("machine id not kept: {error}");
    }
    files::write_all(&machine.paths, &[Entry::public(current, line)])?;
    Ok(id)
}
