//! Requests that a node answers: container logs, and the streams of exec, attach and port-forward, passed on to the pod's kubelet.
//!
//! [`target`] decides the kubelet's path (pure), [`Kubelets`] connects, [`upgrade`] joins two upgraded connections.

pub mod kubelet;
pub mod target;
pub mod upgrade;

pub use kubelet::Kubelets;

use crate::admission::{self, AdmissionRequest, Operation};
use crate::endpoints::{Target, read};
use crate::errors::ApiError;
use crate::server::body::{self, Request, Response, StreamError};
use crate::server::handler::Call;
use crate::server::respond;
use apimachinery::meta;
use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};

/// GET pods/<name>/log.
pub async fn log(call: &Call, target: &Target) -> Result<Response, ApiError> {
    let pod = read::find(call, target).await?.object();
    let container = target::container(&pod, call.query.get("container"))?;
    let errors = target::check_log_options(&call.query);
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "PodLogOptions", &target.name, &errors));
    }
    let path = target::log_path(&target.namespace, &target.name, container, &call.query);
    let mut kubelet = connect(call, &pod).await?;
    let answer = kubelet.get(&path).await?;
    if !answer.status().is_success() {
        return Err(refused(answer).await);
    }
    let pieces = answer.into_body().into_data_stream().map_err(|e| -> StreamError { Box::new(e) });
    Ok(respond::with_type(200, "text/plain", body::stream(pieces)))
}

/// GET or POST pods/<name>/{exec,attach,portforward}: an upgrade, passed on byte for byte.
pub async fn stream(call: &Call, target: &Target, sub: &str, request: Request) -> Result<Response, ApiError> {
    let pod = read::find(call, target).await?.object();
    let mut options = json!({});
    let admission = AdmissionRequest {
        operation: Operation::Connect,
        resource: target.res,
        subresource: Some(sub),
        namespace: &target.namespace,
        name: &target.name,
        object: &mut options,
        old: None,
    };
    admission::admit(&call.context(false), admission).await?;
    if !request.headers().contains_key(http::header::UPGRADE) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let path = match sub {
        "portforward" => target::port_forward_path(&target.namespace, &target.name, &call.query),
        _ => target::stream_path(
            sub,
            &target.namespace,
            &target.name,
            target::container(&pod, call.query.get("container"))?,
            &call.query,
        ),
    };
    let kubelet = connect(call, &pod).await?;
    let (answer, joined) = upgrade::start(kubelet, &path, request).await?;
    let Some(joined) = joined else { return Err(refused(answer).await) };
    tokio::spawn(joined);
    Ok(upgrade::switching(&answer))
}

async fn connect(call: &Call, pod: &Value) -> Result<kubelet::Connection, ApiError> {
    let name = meta::name(pod);
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let nodes =
        call.state.resource("", "v1", "nodes").ok_or_else(|| ApiError::internal("the resource table has no nodes"))?;
    let Some(stored) = call.state.storage.get(nodes, "", node).await? else {
        return Err(ApiError::not_found("", "nodes", node));
    };
    let (address, port) = target::kubelet_address(&stored.object())
        .ok_or_else(|| ApiError::internal(format!("node {node} has no address")))?;
    call.state.kubelets.connect(address, port).await
}

/// The kubelet's own words as an API error.
async fn refused(answer: http::Response<hyper::body::Incoming>) -> ApiError {
    let status = answer.status();
    let text = body::read(answer.into_body()).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_string();
    match status.as_u16() {
        404 => ApiError::new(404, "NotFound", text),
        400 => ApiError::bad_request(text),
        _ => ApiError::internal(format!("the kubelet answered {status}: {text}")),
    }
}
