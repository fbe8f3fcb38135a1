//! WebSocket connections that this server ends itself: the handshake and the socket after it. RFC 6455.

use crate::errors::ApiError;
use crate::server::body::{Request, Response, full};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig, frame::coding::CloseCode};

/// A client's message may have this many bytes.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;
/// Subprotocols that carry a token are never spoken.
pub const BEARER_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// A client's end of a WebSocket.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket.
pub fn is_requested(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .any(|v| v.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

/// The subprotocols a client offers, in its order.
pub fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|p| !p.is_empty() && !p.starts_with(BEARER_PREFIX))
}

/// Answers a handshake. The second part is the socket, as soon as the answer has been sent.
pub fn accept(
    request: &mut Request,
    protocol: Option<&str>,
) -> Result<(Response, impl Future<Output = Result<Socket, hyper::Error>> + Send + use<>), ApiError> {
    let headers = request.headers();
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        return Err(ApiError::bad_request("unsupported websocket version"));
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(ApiError::bad_request("challenge not found in websocket request"));
    };
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let key = derive_accept_key(key.as_bytes());
    answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&key).map_err(ApiError::internal)?);
    if let Some(protocol) = protocol {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).map_err(ApiError::internal)?);
    }
    let upgraded = hyper::upgrade::on(request);
    let socket = async move {
        let config =
            WebSocketConfig::default().max_message_size(Some(MESSAGE_LIMIT)).max_frame_size(Some(MESSAGE_LIMIT));
        Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded.await?), Role::Server, Some(config)).await)
    };
    Ok((response, socket))
}

/// The frame that ends a conversation in good order; clients take an end without it for a broken connection.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Answers with a stream of bytes as messages: binary ones, or base64 text for those who ask for that.
pub fn send<S, E>(request: &mut Request, mut pieces: S) -> Result<Response, ApiError>
where
    S: futures_util::Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    E: std::fmt::Display + Send,
{
    const BASE64: &str = "base64.binary.k8s.io";
    let protocol = match offered(request.headers()).collect::<Vec<_>>().as_slice() {
        [] => None,
        list => match list.iter().find(|p| ["binary.k8s.io", BASE64].contains(p)) {
            Some(known) => Some((*known).to_owned()),
            None => {
                return Err(ApiError::bad_request(format!(
                    "requested protocol(s) are not supported: {list:?}; supports [ binary.k8s.io {BASE64}]"
                )));
            }
        },
    };
    let (response, socket) = accept(request, protocol.as_deref())?;
    tokio::spawn(async move {
        let Ok(mut socket) = socket.await else { return };
        while let Some(piece) = pieces.next().await {
            let message = match piece {
                Ok(data) if protocol.as_deref() == Some(BASE64) => Message::Text(STANDARD.encode(data).into()),
                Ok(data) => Message::Binary(data),
                Err(error) => return tracing::debug!(%error, "a stream broke"),
            };
            if socket.send(message).await.is_err() {
                return;
            }
        }
        let _ = socket.send(goodbye()).await;
    });
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_told_apart() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("WebSocket"));
        assert!(is_requested(&headers));
        headers.insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
        assert!(!is_requested(&headers));
    }

    #[test]
    fn a_token_is_no_protocol() {
        let mut headers = HeaderMap::new();
        let value = "base64url.bearer.authorization.k8s.io.eA, v5.channel.k8s.io,v4.channel.k8s.io";
        headers.insert("sec-websocket-protocol", HeaderValue::from_static(value));
        assert_eq!(offered(&headers).collect::<Vec<_>>(), ["v5.channel.k8s.io", "v4.channel.k8s.io"]);
    }
}
