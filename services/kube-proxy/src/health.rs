//! What a load balancer asks a node before it sends it traffic of a Service with externalTrafficPolicy Local: whether the
//! node has ready endpoints of it. One small HTTP server for each spec.healthCheckNodePort.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{info, warn};

/// A client that says nothing for so long is not a load balancer.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What one port says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    namespace: String,
    name: String,
    /// Ready ones on this node.
    endpoints: usize,
}

/// The ports to serve and what they say. Pure.
pub fn wanted(services: &[Arc<Value>], slices: &[Arc<Value>], node: &str) -> BTreeMap<u16, Health> {
    let one = |service: &Arc<Value>| {
        let (metadata, spec) = (&service["metadata"], &service["spec"]);
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        let port = u16::try_from(spec["healthCheckNodePort"].as_u64()?).ok().filter(|port| *port > 0)?;
        let local = spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local";
        let health =
            Health { namespace: text("namespace"), name: text("name"), endpoints: ready(service, slices, node) };
        local.then_some((port, health))
    };
    services.iter().filter_map(one).collect()
}

/// Ready endpoints of a Service on a node: those that are ending may still serve, but nothing new should come to them.
fn ready(service: &Value, slices: &[Arc<Value>], node: &str) -> usize {
    let metadata = &service["metadata"];
    let of_service = slices.iter().filter(|slice| {
        slice["metadata"]["namespace"] == metadata["namespace"]
            && slice["metadata"]["labels"]["kubernetes.io/service-name"] == metadata["name"]
    });
    let endpoints = of_service.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let here = endpoints.filter(|e| e["nodeName"] == node && e["conditions"]["ready"].as_bool().unwrap_or(true));
    here.filter_map(|endpoint| endpoint["addresses"][0].as_str()).collect::<BTreeSet<_>>().len()
}

impl Health {
    fn answer(&self) -> Response<Full<Bytes>> {
        let body = json!({"service": {"namespace": self.namespace, "name": self.name},
                          "localEndpoints": self.endpoints, "serviceProxyHealthy": true});
        let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
        if self.endpoints == 0 {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        headers.insert("x-content-type-options", header::HeaderValue::from_static("nosniff"));
        headers.insert("x-load-balancing-endpoint-weight", self.endpoints.into());
        answer
    }
}

/// The servers that run; they end with it.
#[derive(Default)]
pub struct Servers(BTreeMap<u16, (watch::Sender<Health>, AbortHandle)>);

impl Servers {
    /// Serves exactly these.
    pub fn set(&mut self, wanted: BTreeMap<u16, Health>) {
        self.0.retain(|port, (_, task)| {
            let stays = wanted.contains_key(port);
            if !stays {
                task.abort();
            }
            stays
        });
        for (port, health) in wanted {
            match self.0.get(&port) {
                Some((said, _)) => drop(said.send_replace(health)),
                None => {
                    let (said, says) = watch::channel(health);
                    self.0.insert(port, (said, tokio::spawn(serve(port, says)).abort_handle()));
                }
            }
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.0.values().for_each(|(_, task)| task.abort());
    }
}

async fn serve(port: u16, says: watch::Receiver<Health>) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let mut backoff = daemon::backoff::Backoff::default();
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => warn!("health check on {address}: {error}; trying again"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    };
    info!("health check on {address}");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, says.clone()))),
            Err(error) => {
                warn!("health check on {address}: {error}");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, says: watch::Receiver<Health>) {
    let service = service_fn(move |_: Request<Incoming>| {
        let answer = says.borrow().answer();
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let server = server.timer(TokioTimer::new()).header_read_timeout(SILENCE_MAX);
    // A client that leaves early has its answer or does not want it.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_whether_it_has_ready_endpoints() {
        let service = |policy: &str| {
            Arc::new(json!({"metadata": {"namespace": "n", "name": "web"},
                "spec": {"type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": 32000}}))
        };
        let slice = Arc::new(json!({
            "metadata": {"namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": ["10.244.0.2"], "nodeName": "here"},
                          {"addresses": ["10.244.0.3"], "nodeName": "here", "conditions": {"ready": false, "serving": true, "terminating": true}},
                          {"addresses": ["10.244.1.2"], "nodeName": "there", "conditions": {"ready": true}}],
        }));
        for (policy, node, expected) in
            [("Local", "here", Some((1, 200))), ("Local", "nowhere", Some((0, 503))), ("Cluster", "here", None)]
        {
            let said = wanted(&[service(policy)], &[Arc::clone(&slice)], node);
            let got = said.get(&32000).map(|health| (health.endpoints, health.answer().status().as_u16()));
            assert_eq!(got, expected, "{policy} {node}");
        }
    }
}
