//! Flags and the KubeletConfiguration file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is not a KubeletConfiguration that we understand.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        reason: String,
    },
}

/// The node agent: runs the pods that are bound to its node.
#[derive(Clone, Debug, Parser)]
#[command(name = "kubelet")]
pub struct Flags {
    /// KubeletConfiguration file
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// kubeconfig of the node's identity
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// name of the Node object; the host's name by default
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// address of the node; found from the routing table by default
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    /// the runtime's socket
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    pub container_runtime_endpoint: String,
    /// folder for pods' volumes and state
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// labels the node is registered with, `key=value,...`
    #[arg(long, value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// taints the node is registered with, `key=value:effect,...`
    #[arg(long, value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
}

/// The fields of kubelet.config.k8s.io/v1beta1 KubeletConfiguration that Corten knows. An unknown field is an error, so
/// that no setting is silently without effect.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct KubeletConfiguration {
    pub api_version: String,
    pub kind: String,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub cluster_domain: String,
    pub cgroup_driver: String,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    pub enforce_node_allocatable: Vec<String>,
    pub fail_cgroup_v1: bool,
    pub max_pods: u32,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub tls_cert_file: PathBuf,
    pub tls_private_key_file: PathBuf,
    pub static_pod_path: String,
    pub resolv_conf: PathBuf,
    pub address: IpAddr,
    pub port: u16,
    pub healthz_bind_address: IpAddr,
    pub healthz_port: u16,
    pub read_only_port: u16,
    pub rotate_certificates: bool,
    pub server_tls_bootstrap: bool,
    pub fail_swap_on: bool,
    pub register_node: bool,
    pub node_status_update_frequency: String,
    pub node_status_report_frequency: String,
    pub node_lease_duration_seconds: i64,
    pub container_runtime_endpoint: String,
    pub container_log_max_size: String,
    pub container_log_max_files: u32,
    pub serialize_image_pulls: bool,
    pub event_record_qps: i64,
    pub feature_gates: Value,
    pub logging: Value,
}

/// How clients of the kubelet's server prove who they are.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Authentication {
    pub x509: X509,
    pub webhook: Webhook,
    pub anonymous: Anonymous,
}

/// Client certificates.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct X509 {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: PathBuf,
}

/// Bearer tokens, checked by TokenReview.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Webhook {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: String,
}

impl Default for Webhook {
    fn default() -> Self {
        Webhook { enabled: true, cache_ttl: "2m0s".into() }
    }
}

/// Anonymous access; never granted whatever it says, but the field is common in configurations.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Anonymous {
    pub enabled: bool,
}

/// How requests are authorized: always by SubjectAccessReview.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Authorization {
    pub mode: String,
    pub webhook: Value,
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        let any = IpAddr::from([0, 0, 0, 0]);
        let local = IpAddr::from([127, 0, 0, 1]);
        KubeletConfiguration {
            api_version: String::new(),
            kind: String::new(),
            cluster_dns: Vec::new(),
            cluster_domain: String::new(),
            cgroup_driver: "cgroupfs".into(),
            cgroups_per_qos: true,
            enforce_node_allocatable: vec!["pods".into()],
            fail_cgroup_v1: true,
            max_pods: 110,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            tls_cert_file: PathBuf::new(),
            tls_private_key_file: PathBuf::new(),
            static_pod_path: String::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            address: any,
            port: 10250,
            healthz_bind_address: local,
            healthz_port: 10248,
            read_only_port: 0,
            rotate_certificates: false,
            server_tls_bootstrap: false,
            fail_swap_on: true,
            register_node: true,
            node_status_update_frequency: "10s".into(),
            node_status_report_frequency: "5m".into(),
            node_lease_duration_seconds: 40,
            container_runtime_endpoint: String::new(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            serialize_image_pulls: true,
            event_record_qps: 50,
            feature_gates: Value::Null,
            logging: Value::Null,
        }
    }
}

impl KubeletConfiguration {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file and, for wrong content, the field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|reason| ConfigError::Content { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        if config.kind != "KubeletConfiguration" || config.api_version != "kubelet.config.k8s.io/v1beta1" {
            return Err("kind must be KubeletConfiguration of kubelet.config.k8s.io/v1beta1".into());
        }
        if config.cgroup_driver != "cgroupfs" {
            return Err(format!("cgroupDriver: {:?} is not supported, only \"cgroupfs\"", config.cgroup_driver));
        }
        if !matches!(config.authorization.mode.as_str(), "" | "Webhook") {
            return Err(format!(
                "authorization.mode: {:?} is not supported, only \"Webhook\"",
                config.authorization.mode
            ));
        }
        Ok(config)
    }
}

/// The node's name: the flag, or the host's name in lower case.
pub fn node_name(flags: &Flags) -> String {
    flags.hostname_override.clone().unwrap_or_else(|| {
        nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default()
    })
}

/// The node's address: the flag, or the source address that the routing table picks. Nothing is sent.
pub fn node_ip(flags: &Flags) -> Option<IpAddr> {
    flags.node_ip.filter(|ip| !ip.is_unspecified()).or_else(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn known_fields_are_read_and_the_rest_defaulted() {
        let text = format!(
            "{HEAD}clusterDNS: [10.96.0.10]\ncgroupsPerQOS: false\nauthentication:\n  x509:\n    clientCAFile: /ca.crt\n"
        );
        let config = KubeletConfiguration::parse(&text).unwrap();
        assert_eq!(config.cluster_dns, ["10.96.0.10"]);
        assert!(!config.cgroups_per_qos);
        assert_eq!(config.authentication.x509.client_ca_file, Path::new("/ca.crt"));
        assert_eq!((config.port, config.max_pods), (10250, 110));
    }

    #[test]
    fn unknown_fields_and_unsupported_values_are_refused_by_name() {
        let error = KubeletConfiguration::parse(&format!("{HEAD}maxPodz: 3\n")).unwrap_err();
        assert!(error.contains("maxPodz"), "{error}");
        let error = KubeletConfiguration::parse(&format!("{HEAD}cgroupDriver: systemd\n")).unwrap_err();
        assert!(error.contains("cgroupDriver"), "{error}");
    }
}
