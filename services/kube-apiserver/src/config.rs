//! Command line: upstream's flag names for what is supported, each refusing what it does not know.

use clap::Parser;
use std::net::{IpAddr, SocketAddr};
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
    /// How objects are encrypted in the store: an EncryptionConfiguration.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Whether that file is followed.
    #[arg(long, requires = "encryption_provider_config", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub encryption_provider_config_automatic_reload: bool,
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
    /// Which requests are recorded in the audit log.
    #[arg(long, requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,
    /// The audit log.
    #[arg(long, requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept; 0 for ever.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxage: u32,
    /// How many old audit logs are kept; 0 all.
    #[arg(long, default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// Megabytes after which an audit log is set aside; 0 means 100.
    #[arg(long, default_value_t = 100)]
    pub audit_log_maxsize: u64,
    /// How a line of the audit log looks.
    #[arg(long, value_enum, default_value = "json")]
    pub audit_log_format: AuditFormat,
    /// What admission plugins are told: an AdmissionConfiguration.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    /// Who issues tokens, and what may be asked without credentials: an AuthenticationConfiguration, which is followed.
    #[arg(long)]
    pub authentication_config: Option<PathBuf>,
    /// Whether requests without credentials are answered at all (yes, if unset); if so, only those about health and the version.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub anonymous_auth: Option<bool>,
    /// Whether secrets of type bootstrap.kubernetes.io/token in kube-system authenticate.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_bootstrap_token_auth: bool,
    #[command(flatten)]
    pub front_proxy: FrontProxy,
    #[command(flatten)]
    pub oidc: OidcFlags,
    /// Whether requests are held back by priority and fairness rather than by two counts.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_priority_and_fairness: bool,
    /// Reads at a time; 0: no limit. With priority and fairness only the sum of both limits counts: the server's seats.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: u32,
    /// Writes at a time; 0: no limit.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: u32,
    /// How long requests are still taken after the order to end, while /readyz already fails.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub shutdown_delay_duration: std::time::Duration,
    /// Shortest life of a watch that sets no timeout, in seconds.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
}

/// How a line of the audit log looks.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFormat {
    /// An audit.k8s.io/v1 Event.
    Json,
    /// Words in quotes.
    Legacy,
}

/// A proxy in front of this server that says who its clients are.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct FrontProxy {
    /// Authorities the proxy's client certificate is checked against; without it no proxy is believed.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of proxies; any that the authority has signed if empty.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is there counts.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-User")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with the user's uid.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Uid")]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers with the user's groups; all count.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Group")]
    pub requestheader_group_headers: Vec<String>,
    /// What headers with more about the user begin with.
    #[arg(long, value_delimiter = ',', default_value = "X-Remote-Extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
}

/// Tokens of an OpenID Connect provider.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct OidcFlags {
    /// The provider; an https URL. Without it there is none.
    #[arg(long, requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    /// The audience tokens must have.
    #[arg(long)]
    pub oidc_client_id: Option<String>,
    /// Authorities the provider's certificate is checked against; the machine's own if unset.
    #[arg(long)]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim that names the user.
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// What user names are prefixed with; the issuer and # if unset (unless the claim is email), nothing for `-`.
    #[arg(long)]
    pub oidc_username_prefix: Option<String>,
    /// The claim that names groups, a string or a list.
    #[arg(long, default_value = "")]
    pub oidc_groups_claim: String,
    /// What group names are prefixed with.
    #[arg(long, default_value = "")]
    pub oidc_groups_prefix: String,
    /// key=value pairs that tokens must have; may repeat.
    #[arg(long, value_delimiter = ',', value_parser = pair)]
    pub oidc_required_claim: Vec<(String, String)>,
    /// Signature algorithms that are accepted.
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<jsonwebtoken::Algorithm>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// A duration as Go writes it.
///
/// # Errors
/// It is not one.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    apimachinery::duration::parse(text).map_err(|e| e.to_string())
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{text:?} is not a port range such as 30000-32767");
    let (low, high) = text.split_once('-').ok_or_else(bad)?;
    let range: (u16, u16) = (low.parse().map_err(|_| bad())?, high.parse().map_err(|_| bad())?);
    if range.0 == 0 || range.0 > range.1 { Err(bad()) } else { Ok(range) }
}

impl Config {
    /// Where clients from everywhere find the server, if the flags say so.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip = self.advertise_address.unwrap_or(self.bind_address);
        (!ip.is_unspecified()).then(|| SocketAddr::new(ip, self.secure_port))
    }

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
    fn identity_flags() {
        let base = "kube-apiserver --etcd-servers=e --tls-cert-file=c --tls-private-key-file=k --client-ca-file=a --service-account-key-file=p --service-account-signing-key-file=s";
        let parse =
            |more: &str| Config::try_parse_from(base.split(' ').chain(more.split(' ').filter(|a| !a.is_empty())));
        let config = parse("").expect("defaults");
        assert!(config.anonymous_auth.is_none() && !config.enable_bootstrap_token_auth);
        assert_eq!(config.front_proxy.requestheader_username_headers, ["X-Remote-User"]);
        let config = parse("--anonymous-auth=false --enable-bootstrap-token-auth --oidc-issuer-url=https://i --oidc-client-id=c --oidc-required-claim=a=b --oidc-signing-algs=ES256").expect("flags");
        assert!(config.anonymous_auth == Some(false) && config.enable_bootstrap_token_auth);
        assert_eq!(config.oidc.oidc_required_claim, [("a".to_owned(), "b".to_owned())]);
        assert!(parse("--oidc-issuer-url=https://i").is_err(), "without a client id");
        assert!(parse("--oidc-signing-algs=XX").is_err());
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("30000-32767"), Ok((30000, 32767)));
        assert!(port_range("5-4").is_err());
    }
}
