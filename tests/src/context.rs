//! What scenarios work with: a running cluster and the clients pointed at it.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use qemu::driver::{Driver, driver};
use qemu::kubectl::output;
use qemu::wait::Deadline;
use qemu::{Artifacts, Cluster, Node};
use serde_json::Value;

/// Longer than anything on an emulated machine should take.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A running cluster with its clients.
#[derive(Debug)]
pub struct Context {
    /// The cluster.
    pub cluster: Cluster,
    /// What it runs.
    pub artifacts: Artifacts,
}

impl Context {
    /// The only control-plane node.
    pub fn node(&self) -> &Node {
        self.cluster.control_plane()
    }

    /// The power button.
    pub fn driver(&self) -> &'static dyn Driver {
        driver(self.cluster.driver)
    }

    /// Runs kubectl; the words are separated by single spaces.
    pub fn kubectl(&self, words: &str) -> Result<String> {
        self.kubectl_args(&words.split(' ').collect::<Vec<_>>())
    }

    /// Runs kubectl.
    pub fn kubectl_args(&self, args: &[&str]) -> Result<String> {
        output(qemu::kubectl::kubectl(&self.cluster).args(args))
    }

    /// Runs kubectl and wants it to fail; returns what it says.
    pub fn kubectl_fails(&self, words: &str) -> Result<String> {
        match self.kubectl(words) {
            Ok(answer) => bail!("kubectl {words} should have failed but said: {answer}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// Applies a manifest, validated by kubectl and the server.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.feed(&["apply", "--validate=strict", "-f", "-"], manifest).context("kubectl apply")
    }

    /// Posts a body to a path of the API.
    pub fn create_raw(&self, path: &str, body: &str) -> Result<String> {
        self.feed(&["create", "--raw", path, "-f", "-"], body).with_context(|| format!("POST {path}"))
    }

    /// Runs kubectl with an input.
    fn feed(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = qemu::kubectl::kubectl(&self.cluster);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("kubectl")?;
        child.stdin.take().context("kubectl's input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Reads an object or a list as JSON.
    pub fn get(&self, words: &str) -> Result<Value> {
        let text = self.kubectl(&format!("get {words} -o json"))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {words}"))
    }

    /// Runs cortenctl.
    pub fn cortenctl(&self, args: &[&str]) -> Result<String> {
        output(qemu::kubectl::cortenctl(&self.cluster, &self.artifacts.cortenctl()).args(args))
    }

    /// Waits until `look` is content; its last complaint is part of the error.
    pub fn eventually(&self, what: &str, mut look: impl FnMut() -> Result<()>) -> Result<Duration> {
        let start = Instant::now();
        let mut complaint = None;
        let waited = Deadline::after(PATIENCE).until(what, || match look() {
            Ok(()) => Ok(Some(())),
            Err(error) => {
                complaint = Some(error);
                Ok(None)
            }
        });
        match (waited, complaint) {
            (Ok(()), _) => Ok(start.elapsed()),
            (Err(timeout), Some(complaint)) => Err(complaint.context(timeout)),
            (Err(timeout), None) => Err(timeout),
        }
    }
}
