//! A watch over a WebSocket: each event is a message. Browsers cannot read a stream of HTTP otherwise.

use crate::errors::ApiError;
use crate::server::body::{Request, Response, full};
use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use std::pin::pin;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// The prefix of the protocol in which browsers send a token; it is no protocol.
const TOKEN: &str = "base64url.bearer.authorization.k8s.io.";

/// Whether the client wants to switch to a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).and_then(|v| v.to_str().ok()).is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

/// Switches protocols and sends what `pieces` yields: texts of one event a line, or binary frames.
pub fn answer<S>(mut request: Request, pieces: S, binary: bool) -> Result<Response, ApiError>
where
    S: Stream<Item = Bytes> + Send + 'static,
{
    let key =
        request.headers().get(SEC_WEBSOCKET_KEY).ok_or_else(|| ApiError::bad_request("missing Sec-WebSocket-Key"))?;
    let accept = derive_accept_key(key.as_bytes());
    let protocol = protocol(request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(io) => {
                send(WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, None).await, pieces, binary).await
            }
            Err(error) => tracing::debug!(%error, "an upgrade did not complete"),
        }
    });
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&accept).map_err(ApiError::internal)?);
    if let Some(protocol) = protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// The first protocol that the client offers: a watch speaks any.
fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').map(str::trim).find(|p| !p.is_empty() && !p.starts_with(TOKEN))?;
    HeaderValue::from_str(first).ok()
}

async fn send<S>(socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>, pieces: S, binary: bool)
where
    S: Stream<Item = Bytes> + Send,
{
    let (mut outgoing, mut incoming) = socket.split();
    let mut pieces = pin!(pieces);
    loop {
        tokio::select! {
            // Reading answers pings and notices that the client has gone.
            message = incoming.next() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            piece = pieces.next() => {
                let Some(piece) = piece else { break };
                for message in messages(&piece, binary) {
                    if outgoing.send(message).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    let _ = outgoing.close().await;
}

/// A piece may hold several events.
fn messages(piece: &Bytes, binary: bool) -> Vec<Message> {
    if binary {
        return frames(piece).map(Message::Binary).collect();
    }
    let lines = piece.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Message::Text(String::from_utf8_lossy(line).into_owned().into())).collect()
}

/// Frames of a protobuf stream without their lengths, which a message has by itself.
fn frames(piece: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = piece.clone();
    std::iter::from_fn(move || {
        let length = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let frame = rest.get(4..4 + length).map(|frame| rest.slice_ref(frame))?;
        rest = rest.slice(4 + length..);
        Some(frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_messages() {
        let texts = messages(&Bytes::from_static(b"{\"a\":1}\n{\"b\":2}\n"), false);
        assert_eq!(texts, [Message::Text("{\"a\":1}".into()), Message::Text("{\"b\":2}".into())]);
        let binary = messages(&Bytes::from_static(b"\0\0\0\x02ab\0\0\0\x01c"), true);
        assert_eq!(binary, [Message::Binary(Bytes::from_static(b"ab")), Message::Binary(Bytes::from_static(b"c"))]);
    }

    #[test]
    fn a_token_is_no_protocol() {
        let mut headers = HeaderMap::new();
        headers
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("base64url.bearer.authorization.k8s.io.eA, json"));
        assert_eq!(protocol(&headers), Some(HeaderValue::from_static("json")));
    }
}
