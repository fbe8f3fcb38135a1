//! The kubelet: runs the pods that are bound to its node, over CRI, and tells the API server about them and the node.
//!
//! Owns pods' containers, volumes, probes, logs and the Node object. It must never schedule, never talk to the store and
//! never touch containers that belong to no pod.
//!
//! Start reading at [`run`], then [`pod_workers`] (one task for each pod), [`sync`] (what a task does) and
//! [`sync::plan`] (how it decides). [`pleg`] wakes workers when the runtime has news; [`status`] publishes.

mod actions;
mod admission;
mod admitted;
mod allocation;
mod backoff;
mod certificates;
mod cgroups;
mod config;
mod eviction;
mod images;
mod log_rotation;
mod node_shutdown;
mod node_status;
mod objects;
mod observed;
mod pleg;
mod plugins;
mod pod;
mod pod_workers;
mod probes;
mod runtime;
mod runtime_tally;
mod server;
mod shared;
mod signal;
mod static_pods;
mod status;
mod sync;
mod tokens;
mod volumes;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use client::{Client, EventRecorder, Informer, InformerParams, resource};
use daemon::{Outcome, Shutdown};
use tokio::sync::{broadcast, mpsc, watch};

use cgroups::Cgroups;
use config::{Flags, KubeletConfiguration};
use node_status::machine::{Machine, Pressure};
use pod_workers::PodWorkers;
use shared::Shared;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Runs the kubelet until `shutdown`. Containers go on running.
///
/// # Errors
/// Wrong flags or configuration, or an address that is taken.
pub async fn run(args: Vec<String>, shutdown: Shutdown) -> Outcome {
    let flags = Flags::try_parse_from(args)?;
    let mut config = match &flags.config {
        Some(path) => KubeletConfiguration::load(path)?,
        None => KubeletConfiguration::default(),
    };
    config.override_by(&flags)?;
    certificates::bootstrap(&flags, &config::node_name(&flags), &shutdown).await?;
    if shutdown.triggered() {
        return Ok(());
    }
    let (network, network_ready) = watch::channel(false);
    let (pressure, low) = watch::channel(Pressure::default());
    let (wake, mut woken) = mpsc::unbounded_channel();
    let shared = Arc::new(build(&flags, config, network_ready, low, wake)?);
    let workers = PodWorkers::new(Arc::clone(&shared));
    let pki = flags.certificates();
    let mut tasks = tokio::task::JoinSet::<Outcome>::new();
    tasks.spawn(server::healthz(Arc::clone(&shared), shutdown.clone()));
    tasks.spawn(server::run(Arc::clone(&shared), shutdown.clone()));
    tasks.spawn(allocation::devices::registration::serve(Arc::clone(&shared.allocation.devices), shutdown.clone()));
    spawn(&mut tasks, allocation::cpus::shared::run(Arc::clone(&shared), shutdown.clone()));
    tasks.spawn(allocation::pod_resources::serve(Arc::clone(&shared), shutdown.clone()));
    spawn(&mut tasks, node_status::run(Arc::clone(&shared), flags, network, shutdown.clone()));
    spawn(&mut tasks, node_status::renew(Arc::clone(&shared), shutdown.clone()));
    spawn(&mut tasks, pleg::Pleg::new(Arc::clone(&shared), workers.clone()).run(shutdown.clone()));
    spawn(&mut tasks, eviction::run(Arc::clone(&shared), workers.clone(), pressure, shutdown.clone()));
    for role in certificates::roles(&shared.config) {
        spawn(&mut tasks, certificates::run(Arc::clone(&shared), role, pki.clone(), shutdown.clone()));
    }
    spawn(&mut tasks, log_rotation::run(Arc::clone(&shared), shutdown.clone()));
    let registry = shared.root.join("plugins_registry");
    tasks.spawn(plugins::registry::run(registry, plugin_table(&shared), shutdown.clone()));
    spawn(&mut tasks, static_pods::run(Arc::clone(&shared), workers.clone(), shutdown.clone()));
    let (ends_with, ended) = (Arc::clone(&shared), workers.clone());
    let followed = workers.clone();
    let ends = shutdown.clone();
    spawn(&mut tasks, async move { followed.follow(ends).await });
    let objects = workers.clone();
    spawn(&mut tasks, async move {
        while let Some(uid) = woken.recv().await {
            objects.wake(&uid);
        }
    });
    let mut network_news = shared.network_ready.clone();
    spawn(&mut tasks, async move {
        while network_news.changed().await.is_ok() {
            workers.wake_all();
        }
    });
    // The first task that fails ends the process; init starts it again.
    loop {
        tokio::select! {
            () = shutdown.wait() => {
                node_shutdown::run(&ends_with, &ended).await;
                return Ok(());
            }
            over = tasks.join_next() => match over {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(failure))) => return Err(failure),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
    }
}

fn spawn(tasks: &mut tokio::task::JoinSet<Outcome>, work: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        work.await;
        Ok(())
    });
}

/// Who takes plugins in.
fn plugin_table(shared: &Arc<Shared>) -> plugins::Table {
    Arc::new(vec![
        Arc::new(volumes::csi::Registration(Arc::clone(&shared.csi))),
        Arc::new(allocation::claims::Registration(Arc::clone(&shared.claims))),
    ])
}

fn cgroups(config: &KubeletConfiguration, machine: &Machine) -> Result<Cgroups, daemon::Failure> {
    let tasks = node_status::machine::process_ids().map(|(_, all)| all);
    let made = Cgroups::new(Path::new(CGROUP_ROOT), config, &machine.capacity(config), tasks);
    Ok(made.map_err(|e| format!("{CGROUP_ROOT}: {e}"))?)
}

fn build(
    flags: &Flags,
    config: KubeletConfiguration,
    network_ready: watch::Receiver<bool>,
    pressure: watch::Receiver<Pressure>,
    wake: mpsc::UnboundedSender<String>,
) -> Result<Shared, daemon::Failure> {
    let node_name = config::node_name(flags);
    std::fs::create_dir_all(&flags.root_dir).map_err(|e| format!("{}: {e}", flags.root_dir.display()))?;
    let machine = Machine::detect(&flags.root_dir);
    if !machine.cgroup2 && config.fail_cgroup_v1 {
        return Err("the host has no cgroup v2 and failCgroupV1 is true".into());
    }
    if config.fail_swap_on && machine.swap > 0 {
        return Err("running with swap on is not supported, please disable swap or set failSwapOn to false".into());
    }
    let cgroups = if config.cgroups_per_qos { Some(cgroups(&config, &machine)?) } else { None };
    let client = Client::from_kubeconfig(&flags.kubeconfig)?;
    let endpoint = if config.container_runtime_endpoint.is_empty() {
        &flags.container_runtime_endpoint
    } else {
        &config.container_runtime_endpoint
    };
    let cri = runtime::Cri { api: cri_api::Runtime::connect(cri_api::socket_path(endpoint)), calls: Arc::default() };
    let mine = InformerParams { field_selector: format!("spec.nodeName={node_name}"), ..InformerParams::default() };
    let own = InformerParams { field_selector: format!("metadata.name={node_name}"), ..InformerParams::default() };
    let host_ips: Vec<String> = config::node_ip(flags).iter().map(ToString::to_string).collect();
    Ok(Shared {
        objects: objects::Objects::new(client.clone(), wake.clone()),
        csi: Arc::new(volumes::csi::Csi::new(client.clone(), &node_name, &flags.root_dir, wake.clone())),
        claims: Arc::new(allocation::claims::Claims::restore(&flags.root_dir, client.clone(), wake.clone())?),
        trust_bundles: volumes::trust_bundle::TrustBundles::new(client.clone(), wake.clone()),
        admitted: admitted::Admitted::new(wake),
        allocation: allocation::Allocation::restore(
            &flags.root_dir,
            &config,
            Path::new(allocation::SYSTEM),
            machine.kept_memory(&config),
        )?,
        tokens: tokens::Tokens::new(client.clone()),
        images: images::Images::new(config.parallel_pulls()),
        services: Informer::start(client.clone(), resource::SERVICES, InformerParams::default()),
        pods: Informer::start(client.clone(), resource::PODS, mine),
        node: Informer::start(client.clone(), resource::NODES, own),
        node_labels: flags.node_labels.clone(),
        handlers: parking_lot::Mutex::default(),
        static_pods_read: AtomicBool::new(false),
        shutting_down: AtomicBool::new(false),
        pressure,
        recorder: EventRecorder::new(client.clone(), "kubelet", Some(&node_name)),
        publisher: status::Publisher::start(client.clone()),
        container_events: broadcast::channel(64).0,
        root: flags.root_dir.clone(),
        config,
        node_name,
        host_ips,
        client,
        cri,
        network_ready,
        machine,
        cgroups,
        serving: Arc::default(),
        probe_tally: probes::tally::Tally::default(),
    })
}
