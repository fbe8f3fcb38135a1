//! Certificates, keys and kubeconfigs: who gets which identity, and in which file the services find it.
//!
//! Everything here is made anew at each boot from the authorities in the configuration, so nothing of it can expire on a
//! machine that is restarted once a year, and nothing needs to be stored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use machine_config::{Cluster, Config, ControlPlane};
use pki::{Ca, Error, IssueRequest, Issued, Usage};

use crate::files::Entry;
use crate::kubeconfig;

const DAYS: u32 = 365;
const PKI: &str = "/etc/kubernetes/pki";

/// Where the machine API's own files are.
pub(crate) const MACHINE_CA: &str = "/run/corten/pki/ca.crt";
pub(crate) const MACHINE_CRT: &str = "/run/corten/pki/machine.crt";
pub(crate) const MACHINE_KEY: &str = "/run/corten/pki/machine.key";

/// Where a node's clients reach the API server: the proxy in this daemon.
pub(crate) const LOCAL_API: &str = "https://127.0.0.1:7445";

/// This machine's name and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) hostname: String,
    /// The address it is known by.
    pub(crate) ip: IpAddr,
    /// All of them.
    pub(crate) addresses: Vec<IpAddr>,
}

/// One thing per identity that every node has: a request, a certificate, a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PerIdentity<T> {
    /// The machine API's server. Signed by the machine authority, all others by the cluster's.
    pub(crate) machine: T,
    pub(crate) kubelet: T,
    pub(crate) kubelet_serving: T,
    pub(crate) kube_proxy: T,
    pub(crate) pod_network: T,
    pub(crate) cluster_dns: T,
    /// metal-controller-manager where it only announces.
    pub(crate) announcer: T,
}

impl<T> PerIdentity<T> {
    /// Makes one of another kind of each.
    pub(crate) fn try_map<U, E>(self, mut f: impl FnMut(&'static str, T) -> Result<U, E>) -> Result<PerIdentity<U>, E> {
        Ok(PerIdentity {
            machine: f("machine", self.machine)?,
            kubelet: f("kubelet", self.kubelet)?,
            kubelet_serving: f("kubelet-serving", self.kubelet_serving)?,
            kube_proxy: f("kube-proxy", self.kube_proxy)?,
            pod_network: f("pod-network", self.pod_network)?,
            cluster_dns: f("cluster-dns", self.cluster_dns)?,
            announcer: f("announcer", self.announcer)?,
        })
    }
}

/// What the certificates of a node of this name and these addresses say. The signer of a joining node uses this as well, so
/// a node cannot ask for more.
pub(crate) fn node_requests(hostname: &str, addresses: &[IpAddr], extra_names: &[String]) -> PerIdentity<IssueRequest> {
    let (mut names, mut ips) = split(extra_names);
    names.insert(0, hostname.to_owned());
    ips.extend_from_slice(addresses);
    let client =
        |name: &str| IssueRequest { common_name: name.to_owned(), valid_for_days: DAYS, ..IssueRequest::default() };
    let node_name = format!("system:node:{hostname}");
    PerIdentity {
        machine: server(hostname, names, with_loopback(ips)),
        kubelet: IssueRequest { organizations: vec!["system:nodes".to_owned()], ..client(&node_name) },
        kubelet_serving: server(&node_name, vec![hostname.to_owned()], with_loopback(addresses.to_vec())),
        kube_proxy: client("system:kube-proxy"),
        pod_network: client("system:pod-network"),
        cluster_dns: client("system:cluster-dns"),
        announcer: client("system:announcer"),
    }
}

/// The files every node has.
pub(crate) fn node_files(config: &Config, issued: &PerIdentity<Issued>) -> Vec<Entry> {
    let mut files = vec![
        Entry::public(MACHINE_CA, &config.machine.ca_cert),
        Entry::public(MACHINE_CRT, &issued.machine.cert_pem),
        Entry::secret(MACHINE_KEY, &issued.machine.key_pem),
        Entry::public(format!("{PKI}/ca.crt"), &config.cluster.ca_cert),
    ];
    files.extend(pair("kubelet", &issued.kubelet_serving));
    files.push(client_file(&config.cluster, "kubelet", &issued.kubelet));
    files.push(client_file(&config.cluster, "kube-proxy", &issued.kube_proxy));
    files.push(client_file(&config.cluster, "pod-network", &issued.pod_network));
    files.push(client_file(&config.cluster, "cluster-dns", &issued.cluster_dns));
    files.push(client_file(&config.cluster, "announcer", &issued.announcer));
    files
}

/// The certificates a control-plane machine issues to itself as a node.
pub(crate) fn issue_own(config: &Config, keys: &ControlPlane, node: &Node) -> Result<PerIdentity<Issued>, Error> {
    let machine_ca = Ca::from_pem(&config.machine.ca_cert, &keys.machine_ca_key)?;
    let cluster_ca = Ca::from_pem(&config.cluster.ca_cert, &keys.cluster_ca_key)?;
    let mut names = config.machine.cert_sans.clone();
    names.push(config.cluster.endpoint.host.clone());
    node_requests(&node.hostname, &node.addresses, &names)
        .try_map(|name, request| if name == "machine" { machine_ca.issue(request) } else { cluster_ca.issue(request) })
}

/// The files only control-plane machines have.
pub(crate) fn control_plane_files(config: &Config, keys: &ControlPlane, node: &Node) -> Result<Vec<Entry>, Error> {
    let cluster = &config.cluster;
    let ca = Ca::from_pem(&cluster.ca_cert, &keys.cluster_ca_key)?;
    let etcd = Ca::from_pem(&keys.etcd_ca.cert, &keys.etcd_ca.key)?;
    let client = |name: &str, group: Option<&str>| IssueRequest {
        common_name: name.to_owned(),
        organizations: group.map(str::to_owned).into_iter().collect(),
        valid_for_days: DAYS,
        ..IssueRequest::default()
    };
    let account = pki::KeyPair::from_pem(&keys.service_account_key)?;
    let mut files = vec![
        Entry::secret(format!("{PKI}/ca.key"), &keys.cluster_ca_key),
        Entry::secret(format!("{PKI}/sa.key"), account.private_pem()),
        Entry::public(format!("{PKI}/sa.pub"), account.public_pem()),
        Entry::public(format!("{PKI}/etcd/ca.crt"), &keys.etcd_ca.cert),
    ];
    files.extend(pair("apiserver", &ca.issue(api_server(config, node))?));
    files.extend(pair(
        "apiserver-kubelet-client",
        &ca.issue(client("kube-apiserver-kubelet-client", Some("system:masters")))?,
    ));
    files.extend(pair("apiserver-etcd-client", &etcd.issue(client("kube-apiserver-etcd-client", None))?));
    let member = IssueRequest {
        usage: Usage::Both,
        ..server(
            &node.hostname,
            vec![node.hostname.clone(), "localhost".to_owned()],
            with_loopback(node.addresses.clone()),
        )
    };
    files.extend(pair("etcd/server", &etcd.issue(member.clone())?));
    files.extend(pair("etcd/peer", &etcd.issue(member)?));
    for name in ["kube-controller-manager", "kube-scheduler", "metal-controller-manager"] {
        files.push(client_file(cluster, name, &ca.issue(client(&format!("system:{name}"), None))?));
    }
    Ok(files)
}

/// A kubeconfig that may do everything, for people.
pub(crate) fn admin_kubeconfig(config: &Config, keys: &ControlPlane) -> Result<String, Error> {
    let ca = Ca::from_pem(&config.cluster.ca_cert, &keys.cluster_ca_key)?;
    let identity = ca.issue(IssueRequest {
        common_name: "admin".to_owned(),
        organizations: vec!["system:masters".to_owned()],
        valid_for_days: DAYS,
        ..IssueRequest::default()
    })?;
    Ok(kubeconfig::render(
        &config.cluster.name,
        "admin",
        &config.cluster.endpoint.to_string(),
        &config.cluster.ca_cert,
        &identity,
    ))
}

fn api_server(config: &Config, node: &Node) -> IssueRequest {
    let domain = &config.cluster.dns_domain;
    let mut wanted = config.machine.cert_sans.clone();
    wanted.push(config.cluster.endpoint.host.clone());
    let (mut names, mut ips) = split(&wanted);
    names.extend([
        node.hostname.clone(),
        "localhost".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        format!("kubernetes.default.svc.{domain}"),
    ]);
    ips.push(config.cluster.api_service_ip());
    ips.extend_from_slice(&node.addresses);
    server("kube-apiserver", names, with_loopback(ips))
}

fn server(common_name: &str, mut dns_names: Vec<String>, ips: Vec<IpAddr>) -> IssueRequest {
    dns_names.sort();
    dns_names.dedup();
    IssueRequest {
        common_name: common_name.to_owned(),
        organizations: Vec::new(),
        dns_names,
        ips,
        usage: Usage::Server,
        valid_for_days: DAYS,
    }
}

fn with_loopback(mut ips: Vec<IpAddr>) -> Vec<IpAddr> {
    ips.extend([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    ips.sort();
    ips.dedup();
    ips
}

fn split(names: &[String]) -> (Vec<String>, Vec<IpAddr>) {
    let ips = names.iter().filter_map(|n| n.parse().ok()).collect();
    (names.iter().filter(|n| n.parse::<IpAddr>().is_err()).cloned().collect(), ips)
}

fn pair(name: &str, issued: &Issued) -> [Entry; 2] {
    [
        Entry::public(format!("{PKI}/{name}.crt"), &issued.cert_pem),
        Entry::secret(format!("{PKI}/{name}.key"), &issued.key_pem),
    ]
}

fn client_file(cluster: &Cluster, name: &str, identity: &Issued) -> Entry {
    let text = kubeconfig::render(&cluster.name, name, LOCAL_API, &cluster.ca_cert, identity);
    Entry::secret(format!("/etc/kubernetes/{name}.conf"), text)
}
