//! The machine daemon: reads the machine configuration and makes the machine what it says: network, certificates, the
//! other services' arguments, joining, and the machine API on port 50000.
//!
//! Owns /var/lib/corten, /etc/kubernetes and /run/corten. Must never supervise processes (PID 1 does, asked through its
//! socket), never talk to the Kubernetes API on its own behalf, and never lose a configuration that works: a bad new one
//! leads to maintenance mode and leaves the stored one alone.
//!
//! Start at `boot.rs`, the order in which things happen; `credentials.rs` and `args.rs` say which files the other
//! services find; `server/` has one file per call of the machine API.

mod api_proxy;
mod args;
mod boot;
mod config;
mod credentials;
mod files;
mod images;
mod init;
mod join;
mod kubeconfig;
mod logs;
mod machine;
mod network;
mod remains;
mod server;
mod stages;
#[cfg(test)]
mod tests;
mod wake;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;

/// The daemon's flags; on a machine there are none.
#[derive(Debug, Parser)]
#[command(name = "machined", disable_version_flag = true)]
struct Options {
    /// Folder that is taken for the root of the file system
    #[arg(long, default_value = "/")]
    root: PathBuf,
}

/// Runs until `shutdown`.
pub async fn run(args: Vec<String>, shutdown: daemon::Shutdown) -> daemon::Outcome {
    let options = Options::try_parse_from(args)?;
    boot::run(Arc::new(machine::Machine::new(options.root)), shutdown).await
}
