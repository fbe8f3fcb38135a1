//! The Service `default/kubernetes`: the first address of the service range, leading to this server.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::Writer;
use crate::errors::ApiError;
use crate::registry::strategy::service::family_of;
use crate::registry::strategy::tree::set;

const NAME: &str = "kubernetes";
const PORT_NAME: &str = "https";

/// Service, Endpoints and EndpointSlice.
pub async fn reconcile(writer: &Writer<'_>) -> Result<(), ApiError> {
    let Some(ip) = writer.state.alloc.kubernetes_address() else { return Ok(()) };
    let port = writer.state.config.secure_port;
    writer.ensure("", "services", service(ip, port)).await?;
    let Some(address) = writer.state.config.address().map(|a| a.ip()) else {
        tracing::warn!(
            "neither --advertise-address nor --bind-address names an address: the kubernetes Service leads nowhere"
        );
        return Ok(());
    };
    writer
        .reconcile("", "endpoints", endpoints(address, port), |object, wanted| take(object, wanted, &["subsets"]))
        .await?;
    let slice = slice(address, port);
    writer
        .reconcile("discovery.k8s.io", "endpointslices", slice, |object, wanted| {
            take(object, wanted, &["endpoints", "ports"])
        })
        .await
}

fn take(object: &mut Value, wanted: &Value, fields: &[&str]) {
    for field in fields {
        set(object, field, wanted[*field].clone());
    }
}

fn service(ip: IpAddr, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip.to_string(),
            "ports": [{"name": PORT_NAME, "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    })
}

fn endpoints(address: IpAddr, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": NAME, "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}]}],
    })
}

fn slice(address: IpAddr, port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": NAME, "namespace": "default", "labels": {"kubernetes.io/service-name": NAME}},
        "addressType": family_of(address),
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}],
    })
}
