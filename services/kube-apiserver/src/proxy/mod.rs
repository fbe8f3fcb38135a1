//! Requests that somebody else answers: container logs and the streams of exec, attach and port-forward by the pod's kubelet,
//! the proxy subresources by a pod, a service's endpoint or a node.
//!
//! Pure: [`target`] (the kubelet's path for a pod's subresource), [`location`] (what a proxied name stands for), [`rewrite`] (links in
//! what comes back), [`spdy`]. Shells: [`Backends`] connects, [`upgrade`] joins two upgraded connections, [`websocket`] ends a client's
//! WebSocket here where kubelets do not understand it ([`translate`], [`tunnel`]), [`forward`] passes on plain HTTP.

pub mod backend;
pub mod forward;
pub mod location;
pub mod rewrite;
pub mod spdy;
pub mod target;
pub mod translate;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;

pub use backend::Backends;

use crate::admission::{self, AdmissionRequest, Operation};
use crate::endpoints::{Target, read};
use crate::errors::ApiError;
use crate::server::State;
use crate::server::body::{self, Request, Response, StreamError};
use crate::server::handler::Call;
use crate::server::respond;
use apimachinery::meta;
use backend::Place;
use futures_util::TryStreamExt;
use http_body_util::BodyExt;
use serde_json::Value;
use translate::Wanted;

/// GET pods/<name>/log.
pub async fn log(call: &Call, target: &Target, mut request: Request) -> Result<Response, ApiError> {
    let errors = target::check_log_options(&call.query)?;
    if !errors.is_empty() {
        return Err(ApiError::invalid("", "PodLogOptions", &target.name, &errors));
    }
    let pod = read::find(call, target).await?.object();
    let container = target::container(&pod, call.query.get("container"))?;
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) {
        // Nothing has been said yet, which is no error.
        let mut nothing = respond::bytes(204, bytes::Bytes::new());
        nothing.headers_mut().remove(http::header::CONTENT_TYPE);
        return Ok(nothing);
    }
    let path = target::log_path(&target.namespace, &target.name, container, &call.query);
    let place = kubelet_of(&call.state, &pod).await?;
    let mut kubelet = call.state.backends.kubelet(place.address, place.port).await?;
    let answer = kubelet.get(&path).await?;
    if !answer.status().is_success() {
        return Err(refused(answer).await);
    }
    let pieces = answer.into_body().into_data_stream();
    if websocket::is_requested(request.headers()) {
        return websocket::send(&mut request, pieces);
    }
    let pieces = pieces.map_err(|e| -> StreamError { Box::new(e) });
    Ok(respond::with_type(200, "text/plain", body::stream(pieces)))
}

/// GET or POST pods/<name>/{exec,attach,portforward}: a connection to the kubelet, in the protocol client and kubelet agree on, or
/// translated where kubelets lag behind clients.
pub async fn stream(call: &Call, target: &Target, sub: &str, request: Request) -> Result<Response, ApiError> {
    let pod = read::find(call, target).await?.object();
    admit_connection(call, target, sub, target::options(sub, &call.query)).await?;
    let path = match sub {
        "portforward" => target::port_forward_path(&target.namespace, &target.name, &call.query),
        _ => {
            let container = target::container(&pod, call.query.get("container"))?;
            target::stream_path(sub, &target.namespace, &target.name, container, &call.query)
        }
    };
    let kubelet = kubelet_of(&call.state, &pod).await?;
    let asked = websocket::is_requested(request.headers());
    let offers = |protocol| asked && websocket::offered(request.headers()).any(|p| p == protocol);
    match sub {
        "portforward" if offers(tunnel::PROTOCOL) => tunnelled(call, kubelet, &path, request).await,
        "exec" | "attach" if offers(translate::PROTOCOL) => translated(call, kubelet, path, request),
        _ => {
            let kubelet = call.state.backends.kubelet(kubelet.address, kubelet.port).await?;
            upgrade::pass(kubelet, &path, request).await
        }
    }
}

/// Admission of a connection: `options` is what upstream's plugins see as the object.
pub async fn admit_connection(call: &Call, target: &Target, sub: &str, mut options: Value) -> Result<(), ApiError> {
    let request = AdmissionRequest {
        operation: Operation::Connect,
        resource: target.res,
        subresource: Some(sub),
        namespace: &target.namespace,
        name: &target.name,
        object: &mut options,
        old: None,
    };
    admission::admit(&call.context(false), request).await
}

/// Kubelets know nothing of WebSocket's fifth version.
fn translated(call: &Call, kubelet: Place, path: String, mut request: Request) -> Result<Response, ApiError> {
    let flag = |name| call.query.flag(name);
    let wanted = Wanted { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr"), tty: flag("tty") };
    let (response, socket) = websocket::accept(&mut request, Some(translate::PROTOCOL))?;
    let state = call.state.clone();
    tokio::spawn(async move {
        let Ok(client) = socket.await else { return };
        match upgrade::spdy(&state.backends, kubelet, &path, translate::KUBELET_PROTOCOL).await {
            Ok(kubelet) => translate::run(client, kubelet, wanted).await,
            Err(error) => translate::refuse(client, &error).await,
        }
    });
    Ok(response)
}

/// Kubelets know nothing of SPDY within WebSocket.
async fn tunnelled(call: &Call, kubelet: Place, path: &str, mut request: Request) -> Result<Response, ApiError> {
    let (response, socket) = websocket::accept(&mut request, Some(tunnel::PROTOCOL))?;
    let kubelet = upgrade::spdy(&call.state.backends, kubelet, path, tunnel::INNER_PROTOCOL).await?;
    tokio::spawn(async move {
        if let Ok(client) = socket.await {
            tunnel::run(client, kubelet).await;
        }
    });
    Ok(response)
}

/// Where the kubelet of a pod listens.
async fn kubelet_of(state: &State, pod: &Value) -> Result<Place, ApiError> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", meta::name(pod))));
    }
    let node = object(state, "nodes", "", node).await?;
    location::kubelet(&node).ok_or_else(|| ApiError::internal(format!("node {} has no address", meta::name(&node))))
}

/// An object of the core group that a connection depends on.
async fn object(state: &State, plural: &str, namespace: &str, name: &str) -> Result<Value, ApiError> {
    let missing = || ApiError::internal(format!("the resource table has no {plural}"));
    let res = state.resource("", "v1", plural).ok_or_else(missing)?;
    match state.storage.get(res, namespace, name).await? {
        Some(stored) => Ok(stored.object()),
        None => Err(ApiError::not_found("", plural, name)),
    }
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
