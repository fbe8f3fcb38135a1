//! Flags about the other members.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Invalid, Url, duration};

/// What a member with an empty data directory does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// Founds the cluster together with the others.
    New,
    /// Joins a cluster to which it was added.
    Existing,
}

/// Flags about the other members.
#[derive(Clone, Debug, Args)]
pub struct ClusterFlags {
    /// The first members, as name=url pairs.
    #[arg(long, value_delimiter = ',')]
    pub initial_cluster: Vec<String>,
    /// Whether the first members found a cluster or this member joins one.
    #[arg(long, value_enum, default_value = "new")]
    pub initial_cluster_state: ClusterState,
    /// Tells clusters with the same addresses apart.
    #[arg(long, default_value = "etcd-cluster")]
    pub initial_cluster_token: String,
    /// Certificate for other members, as server and as client.
    #[arg(long)]
    pub peer_cert_file: Option<PathBuf>,
    /// Key for other members.
    #[arg(long)]
    pub peer_key_file: Option<PathBuf>,
    /// Certificate authority of the other members.
    #[arg(long)]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Refuse members without a certificate.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub peer_client_cert_auth: bool,
    /// Refuse changes of the membership after which too few members would be up.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub strict_reconfig_check: bool,
    /// Learners at a time.
    #[arg(long, alias = "experimental-max-learners", default_value_t = 1)]
    pub max_learners: usize,
    /// Time between two comparisons of the members' contents (1h, 10m).
    #[arg(long, alias = "experimental-corrupt-check-time", default_value = "1h", value_parser = duration)]
    pub corrupt_check_time: Duration,
}

impl ClusterFlags {
    /// The first members: name and peer URLs, sorted.
    ///
    /// # Errors
    /// A pair that is none, or a URL that two members share.
    pub fn first_members(&self) -> Result<BTreeMap<String, BTreeSet<String>>, Invalid> {
        let mut members: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for pair in &self.initial_cluster {
            let (name, url) = pair
                .split_once('=')
                .ok_or_else(|| Invalid::new(format!("--initial-cluster: {pair:?} is not of the form name=url")))?;
            let url: Url = url.parse().map_err(|e| Invalid::new(format!("--initial-cluster: {e}")))?;
            if !seen.insert(url.to_string()) {
                return Err(Invalid::new(format!("--initial-cluster: {url} is there twice")));
            }
            members.entry(name.to_owned()).or_default().insert(url.to_string());
        }
        Ok(members)
    }

    /// Checks what single flags cannot; `own` are this member's advertised peer URLs.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self, name: &str, own: &[Url], listen: &[Url]) -> Result<(), Invalid> {
        let members = self.first_members()?;
        let own: BTreeSet<String> = own.iter().map(Url::to_string).collect();
        match members.get(name) {
            None if members.is_empty() && self.initial_cluster_state == ClusterState::Existing => {
                return Err(Invalid::new("--initial-cluster-state=existing needs --initial-cluster".into()));
            }
            None if members.is_empty() => {}
            None => {
                return Err(Invalid::new(format!("--initial-cluster does not name this member, {name:?}")));
            }
            Some(listed) if *listed != own => {
                let listed = listed.iter().map(String::as_str).collect::<Vec<_>>().join(",");
                return Err(Invalid::new(format!(
                    "--initial-cluster has {name}={listed}, but --initial-advertise-peer-urls are others"
                )));
            }
            Some(_) => {}
        }
        for url in listen {
            let address = url.address()?;
            if url.tls && (self.peer_cert_file.is_none() || self.peer_key_file.is_none()) && self.several() {
                return Err(Invalid::new(format!("{url} needs --peer-cert-file and --peer-key-file")));
            }
            if !url.tls && !address.ip().is_loopback() {
                return Err(Invalid::new(format!("{url}: clear text is for loopback addresses only")));
            }
        }
        if self.peer_client_cert_auth && self.peer_trusted_ca_file.is_none() {
            return Err(Invalid::new("--peer-client-cert-auth needs --peer-trusted-ca-file".into()));
        }
        Ok(())
    }

    /// Whether this member can have others: it was told of some, or it has what it takes to talk to them.
    pub fn several(&self) -> bool {
        self.initial_cluster.len() > 1
            || self.initial_cluster_state == ClusterState::Existing
            || self.peer_cert_file.is_some()
    }
}
