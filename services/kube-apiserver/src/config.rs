//! Command line: upstream's flag names for what is supported, each refusing what it does not know.

use clap::Parser;
use std::net::IpAddr;
use std::path::PathBuf;

/// The flags.
#[derive(Parser, Clone, Debug)]
#[command(name = "kube-apiserver", disable_version_flag = true)]
pub struct Config {
    /// Store endpoints, comma separated.
    #[arg(long, value_delimiter = ',', required = true)]
    pub etcd_servers: Vec<String>,
    /// Authorities the store's certificate is checked against.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for the store.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// First path element of every key in the store.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// How often the store's history is compacted; 0 never.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    pub etcd_compaction_interval: std::time::Duration,
    /// How long events are kept.
    #[arg(long, default_value = "1h0m0s", value_parser = duration)]
    pub event_ttl: std::time::Duration,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address published for the kubernetes Service.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Serving certificate.
    #[arg(long)]
    pub tls_cert_file: PathBuf,
    /// Its key.
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// Authorities client certificates are checked against.
    #[arg(long)]
    pub client_ca_file: PathBuf,
    /// Keys that verify service-account tokens.
    #[arg(long, required = true)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Key that signs service-account tokens.
    #[arg(long)]
    pub service_account_signing_key_file: PathBuf,
    /// Issuers of service-account tokens; the first one issues.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: Vec<String>,
    /// Audiences of service-account tokens; the issuers if unset.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Where Service addresses come from; at most one range of each family.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: Vec<ipnet::IpNet>,
    /// Where node ports come from.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
    /// Client certificate for kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Authorities kubelets' serving certificates are checked against.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Authorizers, in order; Node and RBAC.
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC", value_parser = ["Node", "RBAC"])]
    pub authorization_mode: Vec<String>,
    /// What admission plugins are told: an AdmissionConfiguration.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    /// Shortest life of a watch that sets no timeout, in seconds.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
}

/// Go's duration syntax as far as flags use it: hours, minutes, seconds, milliseconds in that order.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| format!("{text:?} is not a duration such as 5m0s"))?;
        rest = &rest[digits..];
        let (unit, scale) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .or(if number == 0.0 && rest.is_empty() { Some(("", 0.0)) } else { None })
            .ok_or_else(|| format!("{text:?}: a number lacks its unit (h, m, s or ms)"))?;
        total += number * scale;
        rest = &rest[unit.len()..];
    }
    std::time::Duration::try_from_secs_f64(total).map_err(|e| e.to_string())
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{text:?} is not a port range such as 30000-32767");
    let (low, high) = text.split_once('-').ok_or_else(bad)?;
    let range: (u16, u16) = (low.parse().map_err(|_| bad())?, high.parse().map_err(|_| bad())?);
    if range.0 == 0 || range.0 > range.1 { Err(bad()) } else { Ok(range) }
}

impl Config {
    /// Audiences this server accepts and issues by default.
    pub fn audiences(&self) -> &[String] {
        if self.api_audiences.is_empty() { &self.service_account_issuer } else { &self.api_audiences }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn durations_read_like_go() {
        for (text, want) in [("5m0s", 300_000), ("1h30m", 5_400_000), ("250ms", 250), ("0", 0), ("1.5s", 1500)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(want)), "{text}");
        }
        assert!(duration("5").is_err());
        assert!(duration("x").is_err());
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("30000-32767"), Ok((30000, 32767)));
        assert!(port_range("5-4").is_err());
    }
}
