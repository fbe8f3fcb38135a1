//! Join: a worker proves that it knows the token and gets its certificates signed.
//!
//! What a certificate says comes from the name and addresses alone, by the same table a control-plane machine uses for
//! itself. The caller must speak from one of the addresses it claims, and may not take this machine's name.

use std::net::IpAddr;

use machine_api::v1::{JoinRequest, JoinResponse};
use machine_config::Role;
use pki::{Ca, IssueRequest};
use tonic::Status;

use super::Running;
use crate::credentials::node_requests;

pub(crate) fn call(running: &Running, peer: Option<IpAddr>, request: &JoinRequest) -> Result<JoinResponse, Status> {
    let Role::ControlPlane(keys) = &running.config.role else {
        return Err(Status::failed_precondition(
            "a worker cannot sign certificates: join by way of a control-plane machine",
        ));
    };
    if !same(request.token.as_bytes(), running.config.machine.token.as_bytes()) {
        tracing::warn!("join of {:?} from {peer:?} refused: wrong token", request.hostname);
        return Err(Status::permission_denied("wrong token"));
    }
    let addresses = checked(running, peer, request)?;
    let internal = |e: pki::Error| Status::internal(e.to_string());
    let machine = Ca::from_pem(&running.config.machine.ca_cert, &keys.machine_ca_key).map_err(internal)?;
    let cluster = Ca::from_pem(&running.config.cluster.ca_cert, &keys.cluster_ca_key).map_err(internal)?;
    let wanted = node_requests(&request.hostname, &addresses, &[]);
    let sign = |ca: &Ca, csr: &str, wanted: &IssueRequest| {
        ca.sign_csr(csr, wanted).map_err(|e| Status::invalid_argument(e.to_string()))
    };
    let response = JoinResponse {
        machine_crt: sign(&machine, &request.machine_csr, &wanted.machine)?,
        kubelet_crt: sign(&cluster, &request.kubelet_csr, &wanted.kubelet)?,
        kubelet_serving_crt: sign(&cluster, &request.kubelet_serving_csr, &wanted.kubelet_serving)?,
        kube_proxy_crt: sign(&cluster, &request.kube_proxy_csr, &wanted.kube_proxy)?,
        pod_network_crt: sign(&cluster, &request.pod_network_csr, &wanted.pod_network)?,
        cluster_dns_crt: sign(&cluster, &request.cluster_dns_csr, &wanted.cluster_dns)?,
        announcer_crt: sign(&cluster, &request.announcer_csr, &wanted.announcer)?,
    };
    tracing::info!("{:?} joined from {peer:?}", request.hostname);
    Ok(response)
}

fn checked(running: &Running, peer: Option<IpAddr>, request: &JoinRequest) -> Result<Vec<IpAddr>, Status> {
    let name = &request.hostname;
    let fine = !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fine {
        return Err(Status::invalid_argument(format!("{name:?} is not a host name")));
    }
    if *name == running.node.hostname {
        return Err(Status::permission_denied(format!("{name:?} is a control-plane machine's name")));
    }
    let addresses: Result<Vec<IpAddr>, _> = request.addresses.iter().map(|a| a.parse::<IpAddr>()).collect();
    let addresses = addresses.map_err(|_| Status::invalid_argument("an address is not an IP address"))?;
    if let Some(other) =
        addresses.iter().find(|a| a.is_loopback() || a.is_unspecified() || running.node.addresses.contains(a))
    {
        return Err(Status::permission_denied(format!("{other} is not the joining machine's address")));
    }
    match peer {
        Some(peer) if addresses.contains(&peer) => Ok(addresses),
        _ => Err(Status::permission_denied("the call does not come from one of the addresses it names")),
    }
}

/// Takes the same time wherever the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |d, (x, y)| d | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    #[test]
    fn tokens_are_compared_whole() {
        assert!(super::same(b"abc", b"abc"));
        assert!(!super::same(b"abc", b"abd") && !super::same(b"abc", b"ab") && !super::same(b"", b"a"));
    }
}
