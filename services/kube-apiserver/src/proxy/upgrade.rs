//! Connections that stop being HTTP: the handshake passed on, then two byte streams joined.

use super::backend::{Backends, Connection, Place};
use crate::errors::ApiError;
use crate::server::body::{self, Request, Response, full};
use http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const SPDY: HeaderValue = HeaderValue::from_static("SPDY/3.1");
const BUFFER: usize = 64 * 1024;

/// Passes a client's handshake to a kubelet and its answer to the client. If both switch protocols, bytes are copied until either side
/// ends.
pub async fn pass(kubelet: Connection, path: &str, request: Request) -> Result<Response, ApiError> {
    if !request.headers().contains_key(UPGRADE) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let mut onward = http::Request::builder()
        .method(request.method())
        .uri(path)
        .body(full(bytes::Bytes::new()))
        .map_err(ApiError::internal)?;
    for (name, value) in request.headers() {
        let handshake =
            [CONNECTION, UPGRADE, STREAM_PROTOCOL].contains(name) || name.as_str().starts_with("sec-websocket-");
        if handshake {
            onward.headers_mut().append(name, value.clone());
        }
    }
    without_tokens(onward.headers_mut());
    let client = hyper::upgrade::on(request);
    exchange(kubelet, onward, client).await.map_err(|e| ApiError::internal(format!("error dialing backend: {e}")))
}

/// Sends a handshake and joins the connections if it succeeds; the answer is for the client either way.
pub async fn exchange(
    mut backend: Connection,
    onward: http::Request<body::Body>,
    client: OnUpgrade,
) -> Result<Response, String> {
    let mut answer = backend.send(onward).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            join(client, server).await;
            drop(backend);
        });
    }
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, body.map_err(|e| -> body::StreamError { Box::new(e) }).boxed_unsync()))
}

async fn join(client: OnUpgrade, server: OnUpgrade) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(pair) => pair,
        Err(error) => return tracing::debug!(%error, "an upgrade did not complete"),
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await {
        tracing::debug!(%error, "a stream ended");
    }
}

/// A SPDY connection of this server's own to a kubelet.
pub async fn spdy(
    backends: &Backends,
    kubelet: Place,
    path: &str,
    protocol: &'static str,
) -> Result<TokioIo<Upgraded>, ApiError> {
    let mut kubelet = backends.kubelet(kubelet.address, kubelet.port).await?;
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY)
        .header(STREAM_PROTOCOL, protocol)
        .body(full(bytes::Bytes::new()))
        .map_err(ApiError::internal)?;
    let failed = |why: &dyn std::fmt::Display| ApiError::internal(format!("unable to upgrade connection: {why}"));
    let mut answer = kubelet.send(request).await.map_err(|e| failed(&e))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let text = body::read(answer.into_body()).await.unwrap_or_default();
        return Err(failed(&String::from_utf8_lossy(&text).trim()));
    }
    hyper::upgrade::on(&mut answer).await.map(TokioIo::new).map_err(|e| failed(&e))
}

/// Takes the bearer token out of the subprotocols; it was for this server alone.
pub fn without_tokens(headers: &mut HeaderMap) {
    let kept: Vec<&str> = super::websocket::offered(headers).collect();
    let kept = kept.join(", ");
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = HeaderValue::from_str(&kept)
        && !kept.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
}
