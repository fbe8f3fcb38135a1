//! Flags and the KubeletConfiguration file. [`check`] has the rules for values, [`tuning`] the fields without effect.

mod check;
mod duration;
mod tuning;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::allocation::cpus::set::CpuSet;
use crate::pod::{Map, amount};
pub use duration::GoDuration;
pub use tuning::Tuning;

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
    /// kubeconfig with which the node asks for its identity, if --kubeconfig does not exist yet
    #[arg(long)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
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
    /// folder of the certificates that the cluster issues; `pki` below --root-dir by default
    #[arg(long)]
    pub cert_dir: Option<PathBuf>,
    /// hard eviction thresholds, `signal<quantity,...`; replaces evictionHard of the file
    #[arg(long)]
    pub eviction_hard: Option<String>,
    /// labels the node is registered with, `key=value,...`
    #[arg(long, value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// taints the node is registered with, `key=value:effect,...`
    #[arg(long, value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
}

/// The fields of kubelet.config.k8s.io/v1beta1 KubeletConfiguration that have an effect here, with [`Tuning`] for those
/// that only tune machinery which this kubelet does not have. Any other field is an error, so that no setting is silently
/// without effect.
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
    #[serde(rename = "failCgroupV1")]
    pub fail_cgroup_v1: bool,
    pub max_pods: u32,
    pub pods_per_core: u32,
    pub pod_pids_limit: i64,
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
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    pub fail_swap_on: bool,
    pub memory_swap: MemorySwap,
    pub register_node: bool,
    pub register_with_taints: Vec<Value>,
    #[serde(rename = "providerID")]
    pub provider_id: String,
    pub node_status_update_frequency: GoDuration,
    pub node_status_report_frequency: GoDuration,
    pub node_status_max_images: i64,
    pub node_lease_duration_seconds: i64,
    pub container_runtime_endpoint: String,
    pub container_log_max_size: String,
    pub container_log_max_files: u32,
    pub container_log_monitor_interval: GoDuration,
    pub serialize_image_pulls: bool,
    pub max_parallel_image_pulls: Option<u32>,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: i64,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: i64,
    pub eviction_hard: Option<Map>,
    pub eviction_soft: Map,
    pub eviction_soft_grace_period: Map,
    pub eviction_pressure_transition_period: GoDuration,
    pub eviction_max_pod_grace_period: i64,
    pub eviction_minimum_reclaim: Map,
    pub merge_default_eviction_settings: Option<bool>,
    pub system_reserved: Map,
    pub kube_reserved: Map,
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    pub cpu_manager_policy: String,
    pub memory_manager_policy: String,
    pub topology_manager_policy: String,
    pub topology_manager_scope: String,
    #[serde(rename = "singleProcessOOMKill")]
    pub single_process_oom_kill: Option<bool>,
    pub seccomp_default: bool,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub shutdown_grace_period: GoDuration,
    pub shutdown_grace_period_critical_pods: GoDuration,
    pub crash_loop_back_off: CrashLoopBackOff,
    #[serde(flatten)]
    pub options: PolicyOptions,
    #[serde(flatten)]
    pub tuning: Tuning,
}

/// Options of the managers' policies, and the node's end by priority.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PolicyOptions {
    pub cpu_manager_policy_options: Map,
    pub topology_manager_policy_options: Map,
    pub reserved_memory: Vec<MemoryReservation>,
    pub shutdown_grace_period_by_pod_priority: Vec<ShutdownPeriod>,
}

/// How long pods from a priority on have when the node ends (KEP-2712).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct ShutdownPeriod {
    pub priority: i64,
    pub shutdown_grace_period_seconds: u64,
}

/// Swap for pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct MemorySwap {
    pub swap_behavior: String,
}

/// Memory of a NUMA node that no container gets for itself.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct MemoryReservation {
    pub numa_node: usize,
    pub limits: Map,
}

/// The longest pause between restarts (KEP-4603).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Option<GoDuration>,
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
            pods_per_core: 0,
            pod_pids_limit: -1,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            tls_cert_file: PathBuf::new(),
            tls_private_key_file: PathBuf::new(),
            static_pod_path: String::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            address: IpAddr::from([0, 0, 0, 0]),
            port: 10250,
            healthz_bind_address: IpAddr::from([127, 0, 0, 1]),
            healthz_port: 10248,
            read_only_port: 0,
            rotate_certificates: false,
            server_tls_bootstrap: false,
            fail_swap_on: true,
            memory_swap: MemorySwap::default(),
            register_node: true,
            register_with_taints: Vec::new(),
            provider_id: String::new(),
            node_status_update_frequency: GoDuration::seconds(10),
            node_status_report_frequency: GoDuration::seconds(300),
            node_status_max_images: 50,
            node_lease_duration_seconds: 40,
            container_runtime_endpoint: String::new(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            container_log_monitor_interval: GoDuration::seconds(10),
            serialize_image_pulls: true,
            max_parallel_image_pulls: None,
            image_minimum_gc_age: GoDuration::seconds(120),
            image_maximum_gc_age: GoDuration::seconds(0),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            eviction_hard: None,
            eviction_soft: Map::new(),
            eviction_soft_grace_period: Map::new(),
            eviction_pressure_transition_period: GoDuration::seconds(300),
            eviction_max_pod_grace_period: 0,
            eviction_minimum_reclaim: Map::new(),
            merge_default_eviction_settings: None,
            system_reserved: Map::new(),
            kube_reserved: Map::new(),
            reserved_system_cpus: String::new(),
            cpu_cfs_quota: true,
            cpu_manager_policy: "none".into(),
            memory_manager_policy: "None".into(),
            topology_manager_policy: "none".into(),
            topology_manager_scope: "container".into(),
            single_process_oom_kill: None,
            seccomp_default: false,
            allowed_unsafe_sysctls: Vec::new(),
            shutdown_grace_period: GoDuration::seconds(0),
            shutdown_grace_period_critical_pods: GoDuration::seconds(0),
            crash_loop_back_off: CrashLoopBackOff::default(),
            options: PolicyOptions::default(),
            tuning: Tuning::default(),
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
        let (mut config, lines): (Self, _) = apimachinery::config_file::parse(text)?;
        if config.kind != "KubeletConfiguration" || config.api_version != "kubelet.config.k8s.io/v1beta1" {
            return Err("kind must be KubeletConfiguration of kubelet.config.k8s.io/v1beta1".into());
        }
        config.fill_zeroes();
        check::check(&config).map_err(|why| lines.place(&why))?;
        for name in config.tuning.set() {
            tracing::info!("{name} has no effect: this kubelet has nothing that it would tune");
        }
        Ok(config)
    }

    /// A zero duration in the file means the default.
    fn fill_zeroes(&mut self) {
        let default = KubeletConfiguration::default();
        let pairs = [
            (&mut self.node_status_update_frequency, default.node_status_update_frequency),
            (&mut self.node_status_report_frequency, default.node_status_report_frequency),
            (&mut self.image_minimum_gc_age, default.image_minimum_gc_age),
            (&mut self.eviction_pressure_transition_period, default.eviction_pressure_transition_period),
            (&mut self.container_log_monitor_interval, default.container_log_monitor_interval),
        ];
        for (value, fallback) in pairs {
            if value.is_zero() {
                *value = fallback;
            }
        }
    }

    /// Takes the flags that stand above the file.
    ///
    /// # Errors
    /// The flag and what is wrong with it.
    pub fn override_by(&mut self, flags: &Flags) -> Result<(), String> {
        let Some(text) = &flags.eviction_hard else { return Ok(()) };
        let pair = |part: &str| part.split_once('<').map(|(signal, value)| (signal.to_owned(), value.to_owned()));
        let wrong = || format!("--eviction-hard: {text:?} is not of the form signal<quantity,...");
        let pairs: Option<Map> = text.split(',').filter(|part| !part.is_empty()).map(pair).collect();
        self.eviction_hard = Some(pairs.ok_or_else(wrong)?);
        check::check(self).map_err(|e| format!("--eviction-hard: {e}"))
    }

    /// How many pulls may run at a time; without a limit a number that nobody reaches.
    pub fn parallel_pulls(&self) -> usize {
        if self.serialize_image_pulls {
            return 1;
        }
        self.max_parallel_image_pulls.and_then(|n| usize::try_from(n).ok()).unwrap_or(PULLS_MAX)
    }

    /// What the system and Kubernetes' own processes keep of a resource, in thousandths.
    pub fn reserved(&self, resource: &str) -> i128 {
        // CPUs that are named stand above amounts; `check` has read the list.
        let named = CpuSet::parse(&self.reserved_system_cpus).map_or(0, |set| set.len());
        if resource == "cpu" && named > 0 {
            return i128::try_from(named).unwrap_or(0) * 1000;
        }
        amount(&self.system_reserved, resource) + amount(&self.kube_reserved, resource)
    }
}

impl Flags {
    /// The folder of the certificates that the cluster issues.
    pub fn certificates(&self) -> PathBuf {
        self.cert_dir.clone().unwrap_or_else(|| self.root_dir.join("pki"))
    }
}

/// The semaphore's way to say "no limit".
const PULLS_MAX: usize = 1000;

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
        let line = HEAD.lines().count() + 1;
        assert!(error.starts_with(&format!("line {line}: maxPodz: unknown field")), "{error}");
        assert!(error.contains("maxPodz"), "{error}");
        for (line, field) in [
            ("cgroupDriver: systemd", "cgroupDriver"),
            ("evictionHard: {memory.free: 1Mi}", "evictionHard"),
            ("evictionSoft: {memory.available: 1Mi}", "evictionSoftGracePeriod"),
            ("imageGCLowThresholdPercent: 90", "imageGCLowThresholdPercent"),
            ("nodeStatusUpdateFrequency: fast", "fast"),
            ("kubeReserved: {gpu: '1'}", "kubeReserved"),
            ("cpuManagerPolicy: dynamic", "cpuManagerPolicy"),
            ("cpuManagerPolicy: static", "kubeReserved"),
            ("cpuManagerPolicyOptions: {full-pcpus-only: 'true'}", "cpuManagerPolicyOptions"),
            ("cpuManagerPolicy: static\nreservedSystemCPUs: 0-x", "reservedSystemCPUs"),
            ("memoryManagerPolicy: BestEffort", "memoryManagerPolicy"),
            ("memoryManagerPolicy: Static", "reservedMemory"),
            ("reservedMemory: [{numaNode: 0, limits: {cpu: '1'}}]", "reservedMemory[0].limits.cpu"),
            ("reservedMemory: [{numaNode: 0, limits: {memory: '0'}}]", "reservedMemory[0].limits.memory"),
            ("topologyManagerPolicy: strict", "topologyManagerPolicy"),
            ("topologyManagerPolicyOptions: {max-allowable-numa-nodes: '4'}", "max-allowable-numa-nodes"),
            ("memorySwap: {swapBehavior: Always}", "memorySwap.swapBehavior"),
            ("readOnlyPort: 10255", "readOnlyPort"),
            ("crashLoopBackOff: {maxContainerRestartPeriod: 301s}", "crashLoopBackOff.maxContainerRestartPeriod"),
            ("shutdownGracePeriodCriticalPods: 1m", "shutdownGracePeriodCriticalPods"),
            (
                "shutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 26}]",
                "shutdownGracePeriodByPodPriority",
            ),
            (
                "shutdownGracePeriod: 1s\nshutdownGracePeriodByPodPriority: [{priority: 1, shutdownGracePeriodSeconds: 1}]",
                "shutdownGracePeriodByPodPriority",
            ),
        ] {
            let error = KubeletConfiguration::parse(&format!("{HEAD}{line}\n")).unwrap_err();
            assert!(error.contains(field), "{line}: {error}");
        }
    }

    #[test]
    fn certificates_lie_where_the_flag_says() {
        let folder = |more: &[&str]| {
            let arguments = ["kubelet", "--kubeconfig=/k", "--root-dir=/r"].iter().chain(more);
            Flags::try_parse_from(arguments).unwrap().certificates()
        };
        assert_eq!((folder(&[]), folder(&["--cert-dir=/c"])), ("/r/pki".into(), "/c".into()));
    }

    #[test]
    fn the_eviction_flag_stands_above_the_file() {
        let flag = |value: &str| {
            let arguments = ["kubelet", "--kubeconfig=/k", &format!("--eviction-hard={value}")];
            let mut config = KubeletConfiguration::default();
            config.override_by(&Flags::try_parse_from(arguments).unwrap()).map(|()| config.eviction_hard.unwrap())
        };
        let map = flag("nodefs.available<1Gi,memory.available<5%").unwrap();
        assert_eq!((map["nodefs.available"].as_str(), map.len()), ("1Gi", 2));
        assert!(flag("nodefs.available=1Gi").unwrap_err().starts_with("--eviction-hard"));
        assert!(flag("disk<1Gi").unwrap_err().contains("disk"));
    }

    #[test]
    fn a_stock_file_is_accepted() {
        let text = format!(
            "{HEAD}syncFrequency: 0s\nfileCheckFrequency: 20s\nnodeStatusUpdateFrequency: 0s\nmemorySwap: {{}}\n\
             evictionHard: {{memory.available: 200Mi, nodefs.available: '5%'}}\nsystemReserved: {{memory: 100Mi, cpu: 50m}}\n\
             runtimeRequestTimeout: 2m0s\nshutdownGracePeriod: 0m25s\nshutdownGracePeriodCriticalPods: 20s\n"
        );
        let config = KubeletConfiguration::parse(&text).unwrap();
        assert_eq!(config.node_status_update_frequency, GoDuration::seconds(10));
        assert_eq!(config.shutdown_grace_period, GoDuration::seconds(25));
        assert_eq!(config.reserved("cpu"), 50);
        assert_eq!(config.tuning.set(), ["fileCheckFrequency", "runtimeRequestTimeout"]);
        assert_eq!(config.parallel_pulls(), 1);
    }
}
