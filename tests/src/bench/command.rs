//! `bench`: the table of benchmarks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use client::Client;

use super::shapes::{SHAPES, Shape};
use super::sizes::Sizes;
use super::stack::Stack;
use super::{controllers, decisions, endurance, hollow, pods, scheduling};

/// What to measure.
#[derive(Subcommand)]
pub enum Bench {
    /// The scheduler's decisions alone.
    Core {
        #[command(flatten)]
        sizes: Sizes,
        /// Only these shapes; all when none is named.
        shape: Vec<String>,
    },
    /// Pods through API server, store and scheduler, in processes of their own or in a cluster.
    Scheduling {
        #[command(flatten)]
        sizes: Sizes,
        /// The cluster; processes of this host by default.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        /// Only these shapes; all when none is named.
        shape: Vec<String>,
    },
    /// Pods on the first node of a cluster, from their creation to Running, and what its kubelet costs at rest.
    Pods {
        /// The cluster; its node needs the scenarios' image.
        #[arg(long)]
        kubeconfig: PathBuf,
        /// How many one after the other.
        #[arg(long, default_value_t = 20)]
        sequential: usize,
        /// How many at once.
        #[arg(long, default_value_t = 30)]
        parallel: usize,
        /// At how many pods the kubelet is looked at.
        #[arg(long, value_delimiter = ',', default_value = "10,100")]
        counts: Vec<usize>,
    },
    /// Deployments up and down again on nodes without machines, in processes of this host.
    Controllers {
        /// Nodes.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Pods of all Deployments together.
        #[arg(long, default_value_t = 20_000)]
        pods: usize,
        /// Deployments.
        #[arg(long, default_value_t = 20)]
        deployments: usize,
    },
    /// Pods that come and go at a steady pace, in processes of this host: how late they run, and whether memory stays flat.
    Churn {
        /// Nodes.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Pods made in a second; as many go.
        #[arg(long, default_value_t = 50)]
        rate: u32,
        /// How long.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// How long each pod lives.
        #[arg(long, default_value_t = 30)]
        life_seconds: u64,
    },
    /// Nodes that die together: how long until their pods run elsewhere, in processes of this host.
    Loss {
        /// Nodes.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Pods of one Deployment.
        #[arg(long, default_value_t = 5000)]
        pods: usize,
        /// How many of the nodes die, percent.
        #[arg(long, default_value_t = 10)]
        percent: usize,
    },
    /// Nodes without machines, until interrupted.
    Hollow {
        /// The cluster.
        #[arg(long)]
        kubeconfig: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 1000)]
        nodes: usize,
        /// Milliseconds from binding to Running.
        #[arg(long, default_value_t = 500)]
        delay_ms: u64,
    },
}

/// Runs benchmarks.
pub fn run(bench: Bench) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match bench {
        Bench::Core { sizes, shape } => {
            println!(
                "{:<38} {:>6} {:>6} {:>7} {:>10} {:>8} {:>8} {:>8} {:>9} {:>6}",
                "shape", "nodes", "before", "pods", "pods/s", "p50 us", "p99 us", "refused", "floor", "MiB"
            );
            named(&shape)?.into_iter().try_for_each(|shape| decisions::run(shape, &sizes))
        }
        Bench::Scheduling { sizes, kubeconfig, shape } => {
            let corten = std::env::current_exe()?.with_file_name("corten");
            named(&shape)?
                .into_iter()
                .try_for_each(|shape| runtime.block_on(scheduling::run(shape, &sizes, kubeconfig.as_deref(), &corten)))
        }
        Bench::Pods { kubeconfig, sequential, parallel, counts } => {
            runtime.block_on(pods::run(&kubeconfig, sequential, parallel, &counts))
        }
        Bench::Controllers { nodes, pods, deployments } => {
            runtime.block_on(controllers::run(&Stack::corten()?, nodes, pods, deployments))
        }
        Bench::Churn { nodes, rate, seconds, life_seconds } => {
            let [seconds, life] = [seconds, life_seconds].map(Duration::from_secs);
            runtime.block_on(endurance::churn(&Stack::corten()?, nodes, rate, seconds, life))
        }
        Bench::Loss { nodes, pods, percent } => {
            runtime.block_on(endurance::loss(&Stack::corten()?, nodes, pods, percent))
        }
        Bench::Hollow { kubeconfig, nodes, delay_ms } => runtime.block_on(async {
            let client = Client::from_kubeconfig(&kubeconfig).with_context(|| kubeconfig.display().to_string())?;
            hollow::register(std::slice::from_ref(&client), nodes).await?;
            println!("{nodes} nodes are registered");
            hollow::live(client, nodes, Duration::from_millis(delay_ms)).await;
            Ok(())
        }),
    }
}

fn named(names: &[String]) -> Result<Vec<&'static Shape>> {
    if names.is_empty() {
        return Ok(SHAPES.iter().collect());
    }
    let known = || SHAPES.iter().map(|shape| shape.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| match SHAPES.iter().find(|shape| shape.name == *name) {
        Some(shape) => Ok(shape),
        None => bail!("no shape {name:?}; there are: {}", known()),
    };
    names.iter().map(find).collect()
}
