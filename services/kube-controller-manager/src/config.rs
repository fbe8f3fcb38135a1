//! Flags, with upstream's names.

use std::path::PathBuf;

use clap::Parser;

use crate::node_ipam::plan::Cidr;

/// The process's flags. Those of upstream that only name files already in the kubeconfig are not needed.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-controller-manager", about = "Runs the controllers of a cluster")]
pub struct Config {
    /// Kubeconfig with the server and this process's identity
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// PEM bundle that is published to every namespace as kube-root-ca.crt
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// Accepted for upstream's sake: tokens are signed by the API server's TokenRequest
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
    /// Networks that nodes get their pod ranges from, separated by commas
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// Accepted for upstream's sake: the API server owns service addresses
    #[arg(long)]
    pub service_cluster_ip_range: Option<String>,
    /// Run controllers only while holding the kube-system/kube-controller-manager Lease
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Controllers to run: `*` for all, a name to add, `-name` to leave out
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
}

/// A flag whose value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("{flag} {path}: {source}")]
    File {
        /// The flag that named it.
        flag: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A network that cannot be parsed.
    #[error("--cluster-cidr: {0}")]
    Cidr(String),
}

impl Config {
    /// The CA bundle to publish; empty when none was named.
    pub fn read_root_ca(&self) -> Result<String, ConfigError> {
        let Some(path) = &self.root_ca_file else { return Ok(String::new()) };
        std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            flag: "--root-ca-file",
            path: path.display().to_string(),
            source,
        })
    }

    /// The pod networks; empty when nodes get no ranges here.
    pub fn parse_cluster_cidrs(&self) -> Result<Vec<Cidr>, ConfigError> {
        let parts = self.cluster_cidr.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| Cidr::parse(part).map_err(ConfigError::Cidr)).collect()
    }
}
