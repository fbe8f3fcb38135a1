//! What a node of the namespace driver has inside, seen from its host: for tests that compare before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{cgroup, cgroups, network, node_namespace, node_process};
use crate::cluster::{Cluster, Node};

/// One line per process, interface, mount, control group and nftables rule of a node. Numbers that differ from one look
/// to the next (process numbers, kernel handles) are left out.
///
/// # Errors
/// The node is off or its namespaces cannot be read.
pub fn content(cluster: &Cluster, node: &Node) -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut init = None;
    for (pid, name) in processes(cluster, node)? {
        all.insert(format!("process {name}"));
        if name == "init" {
            init = Some(pid);
        }
    }
    let init = init.context("the node has no init")?;
    let mounts = fs::read_to_string(format!("/proc/{init}/mountinfo")).context("mounts")?;
    all.extend(mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|target| format!("mount {target}")));
    all.extend(
        network::interfaces(&node_namespace(cluster, node))?.into_iter().map(|name| format!("interface {name}")),
    );
    all.extend(cgroups::below(&cgroup(cluster, node))?.into_iter().map(|path| format!("cgroup {path}")));
    all.extend(rules(&node_namespace(cluster, node), init)?.into_iter().map(|line| format!("nftables {line}")));
    Ok(all)
}

/// Kills every process of this name in the node, with SIGKILL.
///
/// # Errors
/// There is none, or it could not be killed.
pub fn kill_all(cluster: &Cluster, node: &Node, name: &str) -> Result<()> {
    let matching: Vec<i32> =
        processes(cluster, node)?.into_iter().filter(|(_, found)| found == name).map(|(pid, _)| pid).collect();
    ensure!(!matching.is_empty(), "no process {name} in {}", node.name);
    for pid in matching {
        kill(Pid::from_raw(pid), Signal::SIGKILL).with_context(|| format!("{name}, process {pid}"))?;
    }
    Ok(())
}

/// The processes of the node's process namespace: number on the host, and name (at most 15 bytes, proc(5)).
fn processes(cluster: &Cluster, node: &Node) -> Result<Vec<(i32, String)>> {
    let holder = node_process(cluster, node).pid().context("the node is off")?;
    // The holder stays in the host's process namespace; what its children are in is the node's.
    let wanted = fs::read_link(format!("/proc/{holder}/ns/pid_for_children")).context("process namespace")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between two looks.
        if fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link == wanted)
            && let Ok(name) = fs::read_to_string(entry.path().join("comm"))
        {
            found.push((pid, name.trim().to_owned()));
        }
    }
    Ok(found)
}

/// Listed by the node's own nft: the host's may be too old for the node's rules.
fn rules(namespace: &Path, init: i32) -> Result<Vec<String>> {
    let root = format!("/proc/{init}/root");
    let mut list = Command::new("chroot");
    list.args([&root, "/usr/sbin/nft", "list", "ruleset"]);
    let output = linux::netns::run_in(namespace, || list.output())?;
    let output = output.context("nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim().to_owned()).collect())
}
