//! Command-line flags, by etcd's names and with etcd's defaults.

mod cluster;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Parser;

use crate::compactor::{Mode, Retention};
pub use cluster::{ClusterFlags, ClusterState};

/// The cluster store: the etcd v3 API over Raft.
#[derive(Clone, Debug, Parser)]
#[command(name = "store")]
pub struct Config {
    /// Human-readable name of this member.
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Where everything is kept.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// URLs to listen on for clients.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub listen_client_urls: Vec<Url>,
    /// This member's client URLs, as the rest of the cluster should know them.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    pub advertise_client_urls: Vec<Url>,
    /// URLs to listen on for other members; without, and without other members, there is no such listener.
    #[arg(long, value_delimiter = ',')]
    pub listen_peer_urls: Vec<Url>,
    /// This member's peer URLs, as the rest of the cluster should know them.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2380")]
    pub initial_advertise_peer_urls: Vec<Url>,
    /// The other members.
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// Certificate of the client server.
    #[arg(long)]
    pub cert_file: Option<PathBuf>,
    /// Key of the client server.
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// Certificate authority of client certificates.
    #[arg(long)]
    pub trusted_ca_file: Option<PathBuf>,
    /// Refuse clients without a certificate.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub client_cert_auth: bool,
    /// Raise the space alarm beyond this size; 0 means the default of 2 GiB.
    #[arg(long, default_value_t = 0)]
    pub quota_backend_bytes: u64,
    /// What --auto-compaction-retention means: periodic (a time) or revision (a number of revisions).
    #[arg(long, default_value = "periodic")]
    pub auto_compaction_mode: Mode,
    /// How much history is kept; 0 keeps all of it. A number without a unit is hours in periodic mode.
    #[arg(long, default_value = "0")]
    pub auto_compaction_retention: String,
    /// Entries between two snapshots, which let the log be purged.
    #[arg(long, default_value_t = 10_000)]
    pub snapshot_count: u64,
    /// Milliseconds between heartbeats.
    #[arg(long, default_value_t = 100)]
    pub heartbeat_interval: u64,
    /// Milliseconds without a heartbeat before an election.
    #[arg(long, default_value_t = 1000)]
    pub election_timeout: u64,
    /// Operations in one transaction.
    #[arg(long, default_value_t = 128)]
    pub max_txn_ops: usize,
    /// Bytes in one request.
    #[arg(long, default_value_t = store_api::MAX_REQUEST_BYTES)]
    pub max_request_bytes: usize,
    /// Streams of one connection: calls that have no answer yet, and watches.
    #[arg(long, default_value_t = 1 << 16)]
    pub max_concurrent_streams: u32,
    /// Watchers of one stream.
    #[arg(long, default_value_t = 100_000)]
    pub max_watchers_per_stream: usize,
    /// Seconds between progress notifications of quiet watches (also with a unit: 5s, 10m).
    #[arg(long, alias = "experimental-watch-progress-notify-interval", default_value = "10m", value_parser = duration)]
    pub watch_progress_notify_interval: Duration,
}

/// A listen or advertise URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// https.
    pub tls: bool,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not of the form http://host:port or https://host:port");
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().map_err(|_| bad())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() { Err(bad()) } else { Ok(Url { tls, host, port }) }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60_000,
        "h" => 3_600_000,
        unit => return Err(format!("unknown unit {unit:?}")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a duration"))?;
    if number == 0 {
        return Err("must not be zero".into());
    }
    Ok(Duration::from_millis(number * unit))
}

/// Flags that do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    fn new(reason: String) -> Self {
        Invalid(reason)
    }
}

impl Config {
    /// Checks what single flags cannot.
    ///
    /// # Errors
    /// The first contradiction.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.cluster.validate(&self.name, &self.initial_advertise_peer_urls, &self.listen_peer_urls)?;
        if self.election_timeout < 5 * self.heartbeat_interval {
            return Err(Invalid("--election-timeout must be at least 5 times --heartbeat-interval".into()));
        }
        for url in &self.listen_client_urls {
            let address = url.address()?;
            if url.tls && (self.cert_file.is_none() || self.key_file.is_none()) {
                return Err(Invalid(format!("{url} needs --cert-file and --key-file")));
            }
            if !url.tls && !address.ip().is_loopback() {
                return Err(Invalid(format!("{url}: clear text is for loopback addresses only")));
            }
        }
        self.retention()?;
        if self.client_cert_auth && self.trusted_ca_file.is_none() {
            return Err(Invalid("--client-cert-auth needs --trusted-ca-file".into()));
        }
        Ok(())
    }

    /// What --auto-compaction-mode and --auto-compaction-retention say.
    ///
    /// # Errors
    /// They do not fit together.
    pub fn retention(&self) -> Result<Retention, Invalid> {
        Retention::new(self.auto_compaction_mode, &self.auto_compaction_retention)
            .map_err(|reason| Invalid(format!("--auto-compaction-retention: {reason}")))
    }

    /// Where to listen for other members; empty if this member cannot have any.
    pub fn peer_listeners(&self) -> Vec<Url> {
        let clear = !self.listen_peer_urls.is_empty() && self.listen_peer_urls.iter().all(|url| !url.tls);
        match (self.cluster.several() || clear, self.listen_peer_urls.is_empty()) {
            (false, _) => Vec::new(),
            (true, false) => self.listen_peer_urls.clone(),
            (true, true) => vec![Url { tls: false, host: "127.0.0.1".into(), port: 2380 }],
        }
    }

    /// The size at which writes are refused.
    pub fn quota(&self) -> u64 {
        if self.quota_backend_bytes == 0 { 2 << 30 } else { self.quota_backend_bytes }
    }
}

impl Url {
    /// The address to listen on.
    ///
    /// # Errors
    /// The host is a name.
    pub fn address(&self) -> Result<SocketAddr, Invalid> {
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        let ip: IpAddr = host.parse().map_err(|_| Invalid(format!("{self}: listen on an IP address, not a name")))?;
        Ok(SocketAddr::new(ip, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Config, String> {
        let args = ["store", "--data-dir=/d"].iter().chain(flags);
        let config = Config::try_parse_from(args).map_err(|e| e.to_string())?;
        config.validate().map_err(|e| e.to_string())?;
        Ok(config)
    }

    #[test]
    fn flags_are_etcds() {
        let config = parse(&[
            "--listen-client-urls=https://127.0.0.1:2379,https://[::1]:2379",
            "--cert-file=c",
            "--key-file=k",
            "--trusted-ca-file=ca",
            "--client-cert-auth",
            "--watch-progress-notify-interval=5s",
        ])
        .unwrap();
        assert_eq!(config.listen_client_urls[1].address().unwrap(), "[::1]:2379".parse().unwrap());
        assert!(config.client_cert_auth && config.quota() == 2 << 30);
        assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
        assert!(!parse(&["--client-cert-auth=false"]).unwrap().client_cert_auth);
    }

    #[test]
    fn contradictions_are_named() {
        let cases = [
            ("--no-such-flag", "unexpected argument"),
            ("--listen-client-urls=https://127.0.0.1:1", "needs --cert-file"),
            ("--listen-client-urls=http://10.0.0.1:1", "loopback"),
            ("--listen-client-urls=ftp://10.0.0.1:1", "is not of the form"),
            ("--listen-client-urls=http://store.local:1", "not a name"),
            ("--client-cert-auth", "--trusted-ca-file"),
            ("--auto-compaction-mode=sometimes", "neither periodic nor revision"),
            ("--auto-compaction-retention=soon", "--auto-compaction-retention"),
            ("--initial-cluster=a=http://1.1.1.1:2380,b=http://1.1.1.2:2380", "does not name this member"),
            ("--initial-cluster=other=http://1.1.1.1:2380", "does not name this member"),
            ("--initial-cluster=default=http://1.1.1.1:2380", "are others"),
            ("--initial-cluster=default", "name=url"),
            ("--initial-cluster=default=http://127.0.0.1:2380,x=http://127.0.0.1:2380", "twice"),
            ("--initial-cluster-state=existing", "needs --initial-cluster"),
            ("--initial-cluster-state=old", "invalid value"),
            ("--listen-peer-urls=http://10.0.0.1:2380", "loopback"),
            ("--peer-client-cert-auth", "--peer-trusted-ca-file"),
            ("--election-timeout=400", "at least 5 times"),
        ];
        for (flag, expected) in cases {
            let error = parse(&[flag]).unwrap_err();
            assert!(error.contains(expected), "{flag}: {error}");
        }
    }
}
