//! A plugin of the kubelet beside a node in namespaces: `bin/node-plugin` in the node's mount namespace.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::context::Context;

/// The plugin's process; it ends with the scenario however that ends.
pub struct Plugin {
    process: Child,
    /// The node's root folder as this host sees it.
    pub root: PathBuf,
}

impl Plugin {
    /// Starts the plugin of that name.
    ///
    /// # Errors
    /// The node has no processes, or the program is not built.
    pub fn start(context: &Context, name: &str) -> Result<Plugin> {
        let file = context.cluster.folder.join(format!("{}.pid", context.node().name));
        let outer = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let outer = outer.trim();
        let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))?;
        let init = children.split_whitespace().next().context("the node has no first process")?.to_owned();
        let program = std::env::current_exe()?.with_file_name("node-plugin");
        let mut command = Command::new(&program);
        let process = command.args(["--enter", &init, name]).stdout(Stdio::null()).spawn();
        let process = process.with_context(|| program.display().to_string())?;
        Ok(Plugin { process, root: PathBuf::from(format!("/proc/{init}/root")) })
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
