//! What is measured: the report on a booted cluster, printed beside what is aimed at and kept as JSON; and the benchmarks.

pub mod command;
mod controllers;
mod decisions;
mod endurance;
pub mod hollow;
mod pods;
mod scheduling;
mod shapes;
mod sizes;
pub mod stack;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::context::Context;

const TARGET_READY_SECONDS: f64 = 25.0;
const TARGET_MEMORY_MB: f64 = 120.0;
const TARGET_IMAGE_MB: f64 = 90.0;

/// Prints the figures of the running cluster and writes them to `report.json` beside the image.
pub fn report(context: &Context, ready: Duration) -> Result<()> {
    let boot: Value =
        serde_json::from_str(&context.cortenctl(&["boot-report", "-o", "json"])?).context("boot-report")?;
    let processes: Value =
        serde_json::from_str(&context.cortenctl(&["processes", "-o", "json"])?).context("processes")?;
    let sum = |figure: &str| {
        let all = processes.as_array().into_iter().flatten().filter(|process| is_ours(process));
        all.map(|process| process[figure].as_f64().unwrap_or(0.0)).sum::<f64>() / 1e6
    };
    let (proportional, private, resident) = (sum("pssBytes"), sum("privateBytes"), sum("rssBytes"));
    let kernel = fs::metadata(&context.artifacts.image.kernel)?.len();
    let initramfs = fs::metadata(&context.artifacts.image.initramfs)?.len();
    #[expect(clippy::cast_precision_loss, reason = "megabytes for people")]
    let image = (kernel + initramfs) as f64 / 1e6;
    println!("report");
    line("power-on to Ready, seconds", ready.as_secs_f64(), TARGET_READY_SECONDS);
    line("resident memory of Rust processes, MB", proportional, TARGET_MEMORY_MB);
    println!(
        "  {:<42} {private:8.1}   (and {resident:.1} when shared pages count once per process)",
        "  of which not shared"
    );
    for process in processes.as_array().into_iter().flatten().filter(|process| is_ours(process)) {
        let figure = |name: &str| process[name].as_f64().unwrap_or(0.0) / 1e6;
        let name = process["name"].as_str().unwrap_or_default();
        println!("    {name:<40} {:8.1}   private {:.1}", figure("pssBytes"), figure("privateBytes"));
    }
    line("kernel and initramfs, MB", image, TARGET_IMAGE_MB);
    let report = json!({
        "secondsToReady": ready.as_secs_f64(), "rustProcessesMB": proportional, "rustProcessesPrivateMB": private, "rustProcessesRssMB": resident, "imageMB": image,
        "boot": boot, "processes": processes,
    });
    let file = context.artifacts.image.kernel.with_file_name("report.json");
    fs::write(&file, serde_json::to_vec_pretty(&report)?).with_context(|| file.display().to_string())?;
    println!("  all figures: {}", file.display());
    Ok(())
}

/// Containers, their shims and the runtime are not ours; inside a machine every other process is.
fn is_ours(process: &Value) -> bool {
    let name = process["name"].as_str().unwrap_or_default();
    !name.starts_with("containerd") && !["pause", "test-web", "runc"].contains(&name)
}

fn line(what: &str, measured: f64, target: f64) {
    println!("  {what:<42} {measured:8.1}   target {target}");
}
