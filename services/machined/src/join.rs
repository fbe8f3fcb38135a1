//! How a worker gets its certificates: it sends signing requests with the machine token to a control-plane machine, whose
//! machine API it recognises by the machine authority. Keys never leave the worker.
//!
//! What it got is kept in /var/lib/corten/pki, so a worker restarts without the control plane while its certificates last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::backoff::Backoff;
use hyper_util::rt::TokioIo;
use machine_api::v1::machine_service_client::MachineServiceClient;
use machine_api::v1::{JoinRequest, JoinResponse};
use machine_config::Config;
use pki::{CertInfo, Issued, KeyPair};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::credentials::{MACHINE_CA, Node, PerIdentity, node_requests};
use crate::files::{self, Entry};
use crate::machine::{Machine, Paths};

const FOLDER: &str = "/var/lib/corten/pki";

/// How long a machine that still has certificates waits for newer ones before it goes on with the old.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(10);
const CALL_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error("{0}")]
    File(#[from] files::FileError),
    #[error("{0}")]
    Pki(#[from] pki::Error),
    #[error("{0}")]
    Tls(#[from] daemon::tls::TlsError),
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: String, reason: String },
    #[error("the control plane refused: {0}")]
    Refused(String),
}

/// Gets this worker's certificates: stored ones that are good, else new ones. Tries until it has some.
pub(crate) async fn certificates(machine: &Machine, config: &Config, node: &Node) -> PerIdentity<Issued> {
    let stored = load(&machine.paths, node);
    let now = pki::now();
    let valid = stored.filter(|all| every(all, |info| info.not_after > now));
    if let Some(all) = valid {
        if every(&all, |info| !info.needs_renewal(now)) {
            return all;
        }
        return match tokio::time::timeout(RENEWAL_PATIENCE, ask_until_granted(machine, config, node)).await {
            Ok(new) => new,
            Err(_) => all,
        };
    }
    ask_until_granted(machine, config, node).await
}

async fn ask_until_granted(machine: &Machine, config: &Config, node: &Node) -> PerIdentity<Issued> {
    let mut backoff = Backoff::default();
    let mut last = String::new();
    loop {
        match ask(&machine.paths, config, node).await {
            Ok(issued) => return issued,
            Err(error) => {
                let text = error.to_string();
                // Said once, not at every attempt.
                if text != last {
                    machine.announce(&format!("joining {}: {text}", config.cluster.endpoint));
                    last = text;
                }
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn ask(paths: &Paths, config: &Config, node: &Node) -> Result<PerIdentity<Issued>, JoinError> {
    files::write_all(paths, &[Entry::public(MACHINE_CA, &config.machine.ca_cert)])?;
    let mut client = connect(paths, config).await?;
    let keys = node_requests(&node.hostname, &node.addresses, &[])
        .try_map(|_, request| KeyPair::generate().map(|key| (request.common_name, key)))?;
    let csr = |(name, key): &(String, KeyPair)| pki::csr(key, name);
    let request = JoinRequest {
        token: config.machine.token.clone(),
        hostname: node.hostname.clone(),
        addresses: node.addresses.iter().map(ToString::to_string).collect(),
        machine_csr: csr(&keys.machine)?,
        kubelet_csr: csr(&keys.kubelet)?,
        kubelet_serving_csr: csr(&keys.kubelet_serving)?,
        kube_proxy_csr: csr(&keys.kube_proxy)?,
        pod_network_csr: csr(&keys.pod_network)?,
        cluster_dns_csr: csr(&keys.cluster_dns)?,
        announcer_csr: csr(&keys.announcer)?,
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(CALL_LIMIT);
    let granted = client.join(request).await.map_err(|s| JoinError::Refused(s.message().to_owned()))?.into_inner();
    let mut certs = by_name(granted);
    let issued = keys.try_map(|name, (_, key)| {
        let cert_pem = certs.remove(name).unwrap_or_default();
        // Also catches an answer that lacks one.
        CertInfo::from_pem(&cert_pem).map(|_| Issued { cert_pem, key_pem: key.private_pem().to_owned() })
    })?;
    save(paths, &issued)?;
    Ok(issued)
}

fn by_name(granted: JoinResponse) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("machine", granted.machine_crt),
        ("kubelet", granted.kubelet_crt),
        ("kubelet-serving", granted.kubelet_serving_crt),
        ("kube-proxy", granted.kube_proxy_crt),
        ("pod-network", granted.pod_network_crt),
        ("cluster-dns", granted.cluster_dns_crt),
        ("announcer", granted.announcer_crt),
    ])
}

async fn connect(paths: &Paths, config: &Config) -> Result<MachineServiceClient<Channel>, JoinError> {
    let host = config.cluster.endpoint.host.clone();
    let address = format!("{host}:{}", machine_api::PORT);
    let failed = |reason: String| JoinError::Connect { address: address.clone(), reason };
    let mut tls = (*daemon::tls::client_config(&paths.at(MACHINE_CA), None)?).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from(host.clone()).map_err(|e| failed(e.to_string()))?;
    let connect = tower::service_fn(move |_| {
        let (connector, name, host) = (connector.clone(), name.clone(), host.clone());
        async move {
            let stream = TcpStream::connect((host.as_str(), machine_api::PORT)).await?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    // The authority is never resolved: the connector above ignores it.
    let endpoint = Endpoint::from_static("http://machine").connect_timeout(CALL_LIMIT);
    let channel = endpoint.connect_with_connector(connect).await.map_err(|e| failed(daemon::chain(&e)))?;
    Ok(MachineServiceClient::new(channel))
}

fn every(all: &PerIdentity<Issued>, test: impl Fn(&CertInfo) -> bool) -> bool {
    all.clone()
        .try_map(|_, one| {
            CertInfo::from_pem(&one.cert_pem).map_err(drop).and_then(|info| if test(&info) { Ok(()) } else { Err(()) })
        })
        .is_ok()
}

fn save(paths: &Paths, issued: &PerIdentity<Issued>) -> Result<(), files::FileError> {
    issued.clone().try_map(|name, one| {
        files::replace(&file(paths, name, "key"), one.key_pem.as_bytes(), true, true)?;
        files::replace(&file(paths, name, "crt"), one.cert_pem.as_bytes(), false, true)
    })?;
    Ok(())
}

/// The stored certificates, if all are there and are for this name and these addresses.
fn load(paths: &Paths, node: &Node) -> Option<PerIdentity<Issued>> {
    node_requests(&node.hostname, &node.addresses, &[])
        .try_map(|name, wanted| {
            let cert_pem = std::fs::read_to_string(file(paths, name, "crt")).map_err(drop)?;
            let key_pem = std::fs::read_to_string(file(paths, name, "key")).map_err(drop)?;
            let info = CertInfo::from_pem(&cert_pem).map_err(drop)?;
            let fits = info.common_name == wanted.common_name && wanted.ips.iter().all(|ip| info.ips.contains(ip));
            if fits { Ok(Issued { cert_pem, key_pem }) } else { Err(()) }
        })
        .ok()
}

fn file(paths: &Paths, name: &str, kind: &str) -> PathBuf {
    paths.at(format!("{FOLDER}/{name}.{kind}"))
}
