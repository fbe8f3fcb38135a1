//! A new cluster's documents, from its secrets and names. Pure: the secrets are made by the caller.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::config::Authority;
use crate::problem::{Problem, Problems};
use crate::read::{self, DOMAIN, PODS, SERVICES};
use crate::values;

/// Everything secret in a new cluster, PEM.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The machine API's authority.
    pub machine_ca: Authority,
    /// The Kubernetes authority.
    pub cluster_ca: Authority,
    /// The store's authority.
    pub etcd_ca: Authority,
    /// The key that signs service account tokens.
    pub service_account_key: String,
    /// Proves joining machines.
    pub token: String,
}

/// What the administrator says about a new cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// `https://host:port`.
    pub endpoint: String,
    /// Further names and addresses for certificates.
    pub cert_sans: Vec<String>,
}

/// The generated documents.
#[derive(Debug, Clone)]
pub struct Documents {
    /// For control-plane machines.
    pub controlplane: String,
    /// For the others.
    pub worker: String,
}

/// Writes the documents of a new cluster. They are read back before they are returned, so what this gives out is valid.
pub fn generate(cluster: &Cluster, secrets: &Secrets) -> Result<Documents, Problems> {
    // The arguments are checked by their own names first: they are the administrator's, the documents are ours.
    argument("name", &cluster.name, |v| values::dns_name(v).map(drop))?;
    argument("endpoint", &cluster.endpoint, |v| values::endpoint(v).map(drop))?;
    for san in &cluster.cert_sans {
        argument("certificate name", san, |v| values::name_or_address(v).map(drop))?;
    }
    let documents =
        Documents { controlplane: document(cluster, secrets, true), worker: document(cluster, secrets, false) };
    read::parse("controlplane.yaml", &documents.controlplane)?;
    read::parse("worker.yaml", &documents.worker)?;
    Ok(documents)
}

fn argument(what: &str, value: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<(), Problems> {
    check(value).map_err(|phrase| Problems {
        file: what.to_owned(),
        list: vec![Problem { line: 0, path: String::new(), message: format!("{value:?} {phrase}") }],
    })
}

fn document(cluster: &Cluster, secrets: &Secrets, control_plane: bool) -> String {
    let mut out = String::new();
    let kind = if control_plane { "controlplane" } else { "worker" };
    // Writing to a String cannot fail, hence the dropped results below.
    let _ = writeln!(
        out,
        "version: v1\nmachine:\n  type: {kind}\n  # Proves a joining machine to the control plane.\n  token: {}",
        secrets.token
    );
    out.push_str("  # Authority of the machine API.\n  ca:\n");
    authority(&mut out, 4, &secrets.machine_ca, control_plane);
    if cluster.cert_sans.is_empty() {
        out.push_str("  certSANs: []\n");
    } else {
        out.push_str("  certSANs:\n");
        for san in &cluster.cert_sans {
            let _ = writeln!(out, "    - {san:?}");
        }
    }
    out.push_str(
        "  network:\n    # hostname: node-1\n    # nameservers: [192.0.2.1]\n    # Without interfaces, every Ethernet link uses DHCP.\n    interfaces: []\n    #  - interface: eth0\n    #    addresses: [192.0.2.10/24]\n    #    routes:\n    #      - network: 0.0.0.0/0\n    #        gateway: 192.0.2.1\n",
    );
    let _ = writeln!(
        out,
        "cluster:\n  name: {:?}\n  # Where clients and nodes reach the API server.\n  endpoint: {}",
        cluster.name, cluster.endpoint
    );
    out.push_str("  # Authority of the Kubernetes API.\n  ca:\n");
    authority(&mut out, 4, &secrets.cluster_ca, control_plane);
    if control_plane {
        out.push_str("  etcd:\n    ca:\n");
        authority(&mut out, 6, &secrets.etcd_ca, true);
        let _ = writeln!(
            out,
            "  # Signs service account tokens.\n  serviceAccount:\n    key: {}",
            STANDARD.encode(&secrets.service_account_key)
        );
    }
    let _ = writeln!(
        out,
        "  network:\n    podSubnets: [{PODS}]\n    serviceSubnets: [{SERVICES}]\n    dnsDomain: {DOMAIN}"
    );
    out.push_str("  # A cluster of one machine runs its pods there. Set it to false once there are workers.\n  allowSchedulingOnControlPlanes: true\n");
    out.push_str("  # Addresses of the machines' network for Services of type LoadBalancer.\n  # loadBalancerPools:\n  #  - name: lan\n  #    addresses: [192.0.2.240-192.0.2.250]\n");
    out
}

fn authority(out: &mut String, indent: usize, authority: &Authority, with_key: bool) {
    let _ = writeln!(out, "{:indent$}crt: {}", "", STANDARD.encode(&authority.cert));
    if with_key {
        let _ = writeln!(out, "{:indent$}key: {}", "", STANDARD.encode(&authority.key));
    }
}
