//! What a valid configuration says.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// A checked machine configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This machine.
    pub machine: Machine,
    /// The cluster it belongs to.
    pub cluster: Cluster,
    /// What it does there, with the secrets that takes.
    pub role: Role,
}

/// What the machine does in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Runs the control plane (and pods, when the cluster allows it).
    ControlPlane(Box<ControlPlane>),
    /// Runs pods. Its certificates come from a control-plane machine.
    Worker,
}

/// The private halves that only control-plane machines hold, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPlane {
    /// Signs machine API certificates.
    pub machine_ca_key: String,
    /// Signs Kubernetes certificates.
    pub cluster_ca_key: String,
    /// Signs store certificates.
    pub etcd_ca: Authority,
    /// Signs service account tokens.
    pub service_account_key: String,
}

/// A certificate authority, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

/// This machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Proves a joining machine to the control plane.
    pub token: String,
    /// The machine API's authority, PEM.
    pub ca_cert: String,
    /// Further names and addresses the machine API and the API server are reached by.
    pub cert_sans: Vec<String>,
    /// Host name; without one DHCP's, else one made from the machine id.
    pub hostname: Option<String>,
    /// DNS servers; without any DHCP's.
    pub nameservers: Vec<IpAddr>,
    /// Network interfaces; without any, every Ethernet link uses DHCP.
    pub interfaces: Vec<Interface>,
    /// The kubelet's share.
    pub kubelet: Kubelet,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Link name.
    pub name: String,
    /// Ask DHCP for address, routes and DNS servers?
    pub dhcp: bool,
    /// Static addresses.
    pub addresses: Vec<IpNet>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Link MTU, if not the driver's.
    pub mtu: Option<u32>,
}

/// A static route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Destination.
    pub network: IpNet,
    /// Next hop; none means on the link.
    pub gateway: Option<IpAddr>,
}

/// What the kubelet is told beyond the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kubelet {
    /// Flags, without dashes.
    pub extra_args: BTreeMap<String, String>,
    /// Fields of its KubeletConfiguration (`kubelet.config.k8s.io/v1beta1`) beside those that the machine sets.
    pub extra_config: BTreeMap<String, serde_json::Value>,
    /// The node's address, when the first one found is wrong.
    pub node_ip: Option<IpAddr>,
}

/// The cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Name in kubeconfigs.
    pub name: String,
    /// Where clients reach the API server.
    pub endpoint: Endpoint,
    /// The cluster's authority, PEM.
    pub ca_cert: String,
    /// Pod addresses; each node gets a part.
    pub pod_subnet: IpNet,
    /// Service addresses.
    pub service_subnet: IpNet,
    /// DNS suffix of services.
    pub dns_domain: String,
    /// Do control-plane machines run ordinary pods?
    pub schedule_on_control_planes: bool,
    /// Addresses of the machines' network that Services of type LoadBalancer may have.
    pub load_balancer_pools: Vec<Pool>,
}

/// A named set of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name, by which Services ask for it.
    pub name: String,
    /// Each a network, a range `first-last` or one address.
    pub addresses: Vec<String>,
}

/// `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

impl Cluster {
    /// The address of the `kubernetes` service: the first of the service subnet.
    #[must_use]
    pub fn api_service_ip(&self) -> IpAddr {
        nth(self.service_subnet, 1)
    }

    /// The address of cluster DNS: the tenth of the service subnet.
    #[must_use]
    pub fn dns_service_ip(&self) -> IpAddr {
        nth(self.service_subnet, 10)
    }
}

fn nth(net: IpNet, n: u32) -> IpAddr {
    match net.network() {
        IpAddr::V4(base) => IpAddr::from((u32::from(base) + n).to_be_bytes()),
        IpAddr::V6(base) => IpAddr::from((u128::from(base) + u128::from(n)).to_be_bytes()),
    }
}
