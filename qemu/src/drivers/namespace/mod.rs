//! Nodes as namespaces of this host: the image's root file system and init at native speed. Needs root.
//!
//! A cluster has one network namespace with a bridge, its network segment; each node has a network namespace of its own
//! whose `eth0` is a port of that bridge. Nothing leads from there to this host's network but forwarded loopback ports.
//! What only a kernel of its own can show (boot, modules, disks, power) is not shown here; that is QEMU's part.

mod cgroups;
mod network;
pub mod node;

use std::fs::{self, OpenOptions};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::artifacts::Artifacts;
use anyhow::{Context, Result, bail};

use super::Remembered;
use crate::cluster::{Cluster, Node};
use crate::driver::Driver;

/// The bridge's address: every node's default gateway, behind which there is nothing.
pub const BRIDGE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
const KUBERNETES_PORT: u16 = 6443;
const MACHINE_PORT: u16 = 50000;

/// The driver.
#[derive(Debug)]
pub struct Namespace;

fn segment(cluster: &Cluster) -> PathBuf {
    cluster.folder.join("segment.ns")
}

fn node_namespace(cluster: &Cluster, node: &Node) -> PathBuf {
    cluster.folder.join(format!("{}.ns", node.name))
}

/// The name of a node's control groups, unique on this host.
fn cgroup(cluster: &Cluster, node: &Node) -> String {
    format!("corten-{}-{}", cluster.name, node.name)
}

fn node_process(cluster: &Cluster, node: &Node) -> Remembered {
    let mark = node_namespace(cluster, node).display().to_string();
    Remembered::new(cluster.folder.join(format!("{}.pid", node.name)), mark)
}

fn forward_process(cluster: &Cluster) -> Remembered {
    Remembered::new(cluster.folder.join("forward.pid"), segment(cluster).display().to_string())
}

impl Driver for Namespace {
    fn prepare(&self, cluster: &Cluster, image: &Artifacts) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the namespace driver needs root; run it with sudo, or use --driver qemu");
        }
        if !segment(cluster).exists() {
            network::create_segment(&segment(cluster), BRIDGE_ADDRESS)?;
        }
        if forward_process(cluster).pid().is_none() {
            start_forwarder(cluster, image)?;
        }
        Ok(())
    }

    fn power_on(&self, cluster: &Cluster, node: &Node, image: &Artifacts) -> Result<()> {
        let namespace = node_namespace(cluster, node);
        network::attach_node(&segment(cluster), &namespace, node.address)?;
        let console = cluster.console_log(node);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&console)
            .with_context(|| console.display().to_string())?;
        let var = cluster.folder.join(format!("{}.var", node.name));
        fs::create_dir_all(&var).with_context(|| var.display().to_string())?;
        let mut command = Command::new(image.helper());
        command.arg("namespace-node").arg("--namespace").arg(&namespace);
        command.arg("--root-image").arg(&image.image.root_image).arg("--var").arg(&var);
        command.arg("--config").arg(cluster.machine_config(node)).arg("--cgroup").arg(cgroup(cluster, node));
        if let Some(argument) = &cluster.config_argument {
            command.arg("--config-argument").arg(argument);
        }
        command.arg("--root").arg(cluster.folder.join(format!("{}.root", node.name)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("namespace-node")?;
        node_process(cluster, node).store(child.id())
    }

    fn power_off(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        // The node's init dies with it (PR_SET_PDEATHSIG), and with init everything in its process namespace.
        node_process(cluster, node).kill()?;
        cgroups::remove(&cgroup(cluster, node))?;
        // A machine without power has no interfaces: the next boot starts with an empty namespace.
        network::remove(&node_namespace(cluster, node))
    }

    fn is_on(&self, cluster: &Cluster, node: &Node) -> bool {
        node_process(cluster, node).pid().is_some()
    }

    fn clean_up(&self, cluster: &Cluster) -> Result<()> {
        forward_process(cluster).kill()?;
        network::remove(&segment(cluster))
    }
}

fn start_forwarder(cluster: &Cluster, image: &Artifacts) -> Result<()> {
    let log = cluster.folder.join("forward.log");
    let log = fs::File::create(&log).with_context(|| log.display().to_string())?;
    let mut command = Command::new(image.helper());
    command.arg("forward").arg("--namespace").arg(segment(cluster));
    for node in &cluster.nodes {
        for (port, target) in [(node.kubernetes_port, KUBERNETES_PORT), (node.machine_port, MACHINE_PORT)] {
            command.arg("--map").arg(format!("{port}={}:{target}", node.address));
        }
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let child = command.spawn().context("forward")?;
    forward_process(cluster).store(child.id())
}
