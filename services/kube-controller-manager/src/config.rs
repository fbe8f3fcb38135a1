//! Flags, with upstream's names.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use client::leader::Times;
use pki::Ca;

use crate::csr_signing::{Signing, plan};
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
    /// Address of the server for health and metrics
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: IpAddr,
    /// Its port; 0 switches it off
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,
    /// Its certificate; without one it makes its own
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Run controllers only while holding the kube-system/kube-controller-manager Lease
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Let each controller act as a service account of its own
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub use_service_account_credentials: bool,
    /// How long the Lease of a leader that fell silent is respected
    #[arg(long, default_value = "15s")]
    pub leader_elect_lease_duration: String,
    /// A leader that could not renew for this long stops
    #[arg(long, default_value = "10s")]
    pub leader_elect_renew_deadline: String,
    /// Between two attempts to take or renew the Lease
    #[arg(long, default_value = "2s")]
    pub leader_elect_retry_period: String,
    /// What kind of object leaders hold
    #[arg(long, default_value = "leases", value_parser = ["leases"])]
    pub leader_elect_resource_lock: String,
    /// The Lease's name
    #[arg(long, default_value = "kube-controller-manager")]
    pub leader_elect_resource_name: String,
    /// The Lease's namespace
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
    /// How many objects of a kind are worked on at a time
    #[command(flatten)]
    pub concurrent: Concurrent,
    /// PEM certificate of the authority that signs approved certificate signing requests
    #[arg(long, requires = "cluster_signing_key_file")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// PEM key of that authority
    #[arg(long, requires = "cluster_signing_cert_file")]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// The same for each signer alone
    #[command(flatten)]
    pub signers: Signers,
    /// How long a signed certificate lives at most, such as 8760h0m0s
    #[arg(long, default_value = "8760h0m0s")]
    pub cluster_signing_duration: String,
    /// How long a legacy service account token must be unused to be marked invalid, and then marked to be deleted
    #[arg(long, default_value = "8760h0m0s")]
    pub legacy_service_account_token_clean_up_period: String,
    /// Controllers to run: `*` for all, a name to add, `-name` to leave out
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
}

macro_rules! concurrent {
    ($($field:ident: $queue:literal, $default:literal;)*) => {
        /// Workers by kind of object; upstream's flags and defaults.
        #[derive(Clone, Copy, Debug, clap::Args)]
        pub struct Concurrent {
            $(
                #[doc = concat!("Workers of the ", $queue, " controller")]
                #[arg(long, default_value_t = $default, value_parser = clap::value_parser!(u16).range(1..))]
                pub $field: u16,
            )*
        }

        impl Concurrent {
            /// By the names of the controllers' queues.
            pub fn by_queue(self) -> HashMap<&'static str, usize> {
                HashMap::from([$(($queue, usize::from(self.$field)),)*])
            }
        }
    };
}

concurrent! {
    concurrent_cron_job_syncs: "cronjob", 5;
    concurrent_daemonset_syncs: "daemonset", 2;
    concurrent_deployment_syncs: "deployment", 5;
    concurrent_endpoint_syncs: "endpoints", 5;
    concurrent_ephemeralvolume_syncs: "ephemeral-volume", 5;
    concurrent_gc_syncs: "garbage-collector", 20;
    concurrent_horizontal_pod_autoscaler_syncs: "horizontal-pod-autoscaler", 5;
    concurrent_job_syncs: "job", 5;
    concurrent_namespace_syncs: "namespace", 10;
    concurrent_rc_syncs: "replicationcontrollers", 5;
    concurrent_replicaset_syncs: "replicasets", 5;
    concurrent_resource_quota_syncs: "resourcequota", 5;
    concurrent_service_endpoint_syncs: "endpointslice", 5;
    concurrent_serviceaccount_token_syncs: "serviceaccount-token", 5;
    concurrent_statefulset_syncs: "statefulset", 5;
    concurrent_ttl_after_finished_syncs: "ttl-after-finished", 5;
    concurrent_validating_admission_policy_status_syncs: "validatingadmissionpolicy-status", 5;
    mirroring_concurrent_service_endpoint_syncs: "endpointslice-mirroring", 5;
}

macro_rules! signers {
    ($($cert:ident, $key:ident: $signer:literal;)*) => {
        /// Authorities of single signers; upstream's flags. Whoever names one names all that are to sign.
        #[derive(Clone, Debug, clap::Args)]
        pub struct Signers {
            $(
                #[doc = concat!("PEM certificate of the authority of ", $signer)]
                #[arg(long, requires = stringify!($key), conflicts_with = "cluster_signing_cert_file")]
                pub $cert: Option<PathBuf>,
                #[doc = concat!("PEM key of the authority of ", $signer)]
                #[arg(long, requires = stringify!($cert))]
                pub $key: Option<PathBuf>,
            )*
        }

        impl Signers {
            /// The signers that are named, with their certificates and keys.
            fn named(&self) -> impl Iterator<Item = (&'static str, &Path, &Path)> {
                let all = [$(($signer, &self.$cert, &self.$key),)*];
                all.into_iter().filter_map(|(signer, cert, key)| Some((signer, cert.as_deref()?, key.as_deref()?)))
            }
        }
    };
}

signers! {
    cluster_signing_kubelet_serving_cert_file, cluster_signing_kubelet_serving_key_file: "kubernetes.io/kubelet-serving";
    cluster_signing_kubelet_client_cert_file, cluster_signing_kubelet_client_key_file: "kubernetes.io/kube-apiserver-client-kubelet";
    cluster_signing_kube_apiserver_client_cert_file, cluster_signing_kube_apiserver_client_key_file: "kubernetes.io/kube-apiserver-client";
    cluster_signing_legacy_unknown_cert_file, cluster_signing_legacy_unknown_key_file: "kubernetes.io/legacy-unknown";
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
    /// An authority that cannot sign.
    #[error("--cluster-signing-*-file {path}: {source}")]
    Authority {
        /// The certificate's file.
        path: String,
        /// Why.
        source: pki::Error,
    },
    /// Not a duration.
    #[error("{flag}: {value:?} is not a duration such as 8760h0m0s")]
    Duration {
        /// The flag.
        flag: &'static str,
        /// What it was given.
        value: String,
    },
    /// A leader would give up only after others may have taken over.
    #[error(
        "--leader-elect-lease-duration must be greater than --leader-elect-renew-deadline, and that greater than --leader-elect-retry-period"
    )]
    Election,
    /// A network that cannot be parsed.
    #[error("--cluster-cidr: {0}")]
    Cidr(String),
}

impl Config {
    /// The CA bundle to publish; empty when none was named.
    pub fn read_root_ca(&self) -> Result<String, ConfigError> {
        self.root_ca_file.as_ref().map_or(Ok(String::new()), |path| read("--root-ca-file", path))
    }

    /// The authorities for certificate signing requests, if any was named.
    pub fn read_signing(&self) -> Result<Option<Signing>, ConfigError> {
        let longest = seconds("--cluster-signing-duration", &self.cluster_signing_duration)?;
        let mut authorities = HashMap::new();
        if let (Some(cert), Some(key)) = (&self.cluster_signing_cert_file, &self.cluster_signing_key_file) {
            let all = read_authority(cert, key)?;
            authorities.extend(plan::SIGNERS.map(|signer| (signer, Arc::clone(&all))));
        }
        for (signer, cert, key) in self.signers.named() {
            authorities.insert(signer, read_authority(cert, key)?);
        }
        Ok((!authorities.is_empty()).then_some(Signing { authorities, longest }))
    }

    /// When legacy tokens go, in seconds.
    pub fn legacy_token_period(&self) -> Result<i64, ConfigError> {
        let value = &self.legacy_service_account_token_clean_up_period;
        seconds("--legacy-service-account-token-clean-up-period", value)
    }

    /// The times of the election.
    pub fn election(&self) -> Result<Times, ConfigError> {
        let time = |flag, value: &str| seconds(flag, value).map(|s| Duration::from_secs(s.unsigned_abs()));
        let times = Times {
            lease: time("--leader-elect-lease-duration", &self.leader_elect_lease_duration)?,
            renew_limit: time("--leader-elect-renew-deadline", &self.leader_elect_renew_deadline)?,
            retry: time("--leader-elect-retry-period", &self.leader_elect_retry_period)?,
        };
        let ordered = times.lease > times.renew_limit && times.renew_limit > times.retry;
        ordered.then_some(times).ok_or(ConfigError::Election)
    }

    /// The pod networks; empty when nodes get no ranges here.
    pub fn parse_cluster_cidrs(&self) -> Result<Vec<Cidr>, ConfigError> {
        let parts = self.cluster_cidr.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| Cidr::parse(part).map_err(ConfigError::Cidr)).collect()
    }
}

fn read_authority(cert: &Path, key: &Path) -> Result<Arc<Ca>, ConfigError> {
    let read = |path| read("--cluster-signing-*-file", path);
    let ca = Ca::from_pem(&read(cert)?, &read(key)?);
    Ok(Arc::new(ca.map_err(|source| ConfigError::Authority { path: cert.display().to_string(), source })?))
}

fn read(flag: &'static str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::File { flag, path: path.display().to_string(), source })
}

/// Reads `1h30m0s` as seconds; a duration here is whole seconds and above zero.
fn seconds(flag: &'static str, value: &str) -> Result<i64, ConfigError> {
    let mut total = 0_i64;
    let mut digits = String::new();
    for character in value.chars() {
        let unit = match character {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            digit if digit.is_ascii_digit() => {
                digits.push(digit);
                continue;
            }
            _ => 0,
        };
        let number = digits.parse::<i64>().ok().filter(|_| unit > 0).and_then(|number| number.checked_mul(unit));
        digits.clear();
        match number.and_then(|number| total.checked_add(number)) {
            Some(sum) => total = sum,
            None => return Err(ConfigError::Duration { flag, value: value.to_owned() }),
        }
    }
    if digits.is_empty() && total > 0 {
        return Ok(total);
    }
    Err(ConfigError::Duration { flag, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_end_before_others_begin() {
        let parse = |args: &[&str]| {
            let all = ["kube-controller-manager", "--kubeconfig=x"].iter().chain(args);
            Config::try_parse_from(all).unwrap()
        };
        assert_eq!(parse(&[]).election().unwrap(), Times::default());
        assert!(parse(&["--leader-elect-renew-deadline=20s"]).election().is_err());
        assert_eq!(parse(&["--concurrent-job-syncs=7"]).concurrent.by_queue()["job"], 7);
        let zero = ["kube-controller-manager", "--kubeconfig=x", "--concurrent-job-syncs=0"];
        assert!(Config::try_parse_from(zero).unwrap_err().to_string().contains("--concurrent-job-syncs"));
    }

    #[test]
    fn signers_have_authorities_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let ca = Ca::generate("a").unwrap();
        let (cert, key) = (file("a.crt", ca.cert_pem()), file("a.key", ca.key_pem()));
        let parse = |args: &[String]| {
            let first = ["kube-controller-manager", "--kubeconfig=x"].map(str::to_owned);
            Config::try_parse_from(first.iter().chain(args))
        };
        let pair = |of: &str| {
            [format!("--cluster-signing{of}-cert-file={cert}"), format!("--cluster-signing{of}-key-file={key}")]
        };
        let signers = |args: &[String]| {
            let signing = parse(args).unwrap().read_signing().unwrap();
            let mut names: Vec<&str> = signing.iter().flat_map(|s| s.authorities.keys().copied()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(signers(&[]), Vec::<&str>::new());
        assert_eq!(signers(&pair("")).len(), plan::SIGNERS.len());
        assert_eq!(signers(&pair("-kubelet-serving")), [plan::KUBELET_SERVING]);
        let two = [pair("-kubelet-client"), pair("-kube-apiserver-client")].concat();
        assert_eq!(signers(&two), [plan::CLIENT, plan::KUBELET_CLIENT]);
        assert!(parse(&[pair(""), pair("-legacy-unknown")].concat()).is_err(), "one for all, or one for each");
        assert!(parse(&pair("-legacy-unknown")[..1]).is_err(), "a certificate without its key");
        let wrong = file("wrong", "x");
        let args = [format!("--cluster-signing-cert-file={wrong}"), format!("--cluster-signing-key-file={key}")];
        let error = parse(&args).unwrap().read_signing().err().unwrap().to_string();
        assert!(error.starts_with("--cluster-signing-*-file") && error.contains("wrong"), "{error}");
    }

    #[test]
    fn durations() {
        for (text, expected) in [("8760h0m0s", Some(31_536_000)), ("90s", Some(90)), ("1h30m", Some(5400)), ("5", None)]
        {
            assert_eq!(seconds("--x", text).ok(), expected, "{text}");
        }
        for wrong in ["", "h", "1d", "0s", "-5s"] {
            assert!(seconds("--x", wrong).unwrap_err().to_string().starts_with("--x"), "{wrong}");
        }
    }
}
