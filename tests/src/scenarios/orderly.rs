//! The machine restarts and switches itself off when it is told to, and loses nothing by it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::workload;
use crate::context::Context;
use crate::e2e;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let kernel = context.cortenctl(&["dmesg"])?;
    ensure!(kernel.contains("Linux version"), "dmesg: {kernel}");
    followed_log(context)?;
    workload::bring_up(context)?;
    let before = boot_id(context)?;
    context.cortenctl(&["reboot"])?;
    context.eventually("another boot", || {
        let now = boot_id(context)?;
        ensure!(now != before, "still boot {now}");
        Ok(())
    })?;
    comes_back(context)?;
    context.cortenctl(&["shutdown"])?;
    context.eventually("a machine that is off", || {
        ensure!(!context.driver().is_on(&context.cluster, context.node()), "it is on");
        Ok(())
    })?;
    e2e::boot_again(context)?;
    comes_back(context)?;
    workload::take_down(context)
}

/// Lines appear while `logs -f` runs: a restarted service says so.
fn followed_log(context: &Context) -> Result<()> {
    let mut command = qemu::kubectl::cortenctl(&context.cluster, &context.artifacts.cortenctl());
    command.args(["logs", "kube-scheduler", "-f", "--tail", "0"]);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cortenctl logs")?;
    let output = child.stdout.take().context("cortenctl's output")?;
    context.cortenctl(&["services", "restart", "kube-scheduler"])?;
    let mut line = String::new();
    let read = BufReader::new(output).read_line(&mut line);
    child.kill()?;
    child.wait()?;
    read?;
    ensure!(!line.trim().is_empty(), "the log ended without a line");
    Ok(())
}

/// The kernel's identity of its boot, as the kubelet reports it.
fn boot_id(context: &Context) -> Result<String> {
    context.kubectl(&format!(
        "get node {} --request-timeout=10s -o jsonpath={{.status.nodeInfo.bootID}}",
        context.node().name
    ))
}

/// The node is Ready, the pods are back, and the data disk was left clean: nothing had to be repaired.
fn comes_back(context: &Context) -> Result<()> {
    context.kubectl(&format!("wait --for=condition=Ready node/{} --timeout=300s", context.node().name))?;
    context.eventually("pods that are back", || {
        context.kubectl("wait --for=condition=Ready pod -l app=web --timeout=10s")?;
        context.kubectl("wait --for=condition=Ready pod/client --timeout=10s").map(drop)
    })?;
    workload::reachable(context)?;
    let report: Value = serde_json::from_str(&context.cortenctl(&["boot-report", "-o", "json"])?)?;
    let disk = report.as_array().into_iter().flatten().find(|stage| stage["stage"] == "data disk");
    let detail = disk.and_then(|stage| stage["detail"].as_str()).unwrap_or_default();
    ensure!(detail.starts_with("/dev/") && !detail.contains("checked"), "the data disk: {detail:?}");
    Ok(())
}
