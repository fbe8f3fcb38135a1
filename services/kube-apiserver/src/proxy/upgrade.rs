//! Two upgraded connections joined into one: what the client and the kubelet agreed on (WebSocket, SPDY) passes through unread.

use super::kubelet::{Connection, NoBody};
use crate::errors::ApiError;
use crate::server::body::{Request, Response, full};
use http::header::{
    CONNECTION, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What a client's handshake needs to reach the kubelet.
const ASKED: [HeaderName; 7] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_EXTENSIONS,
    STREAM_PROTOCOL,
];
/// What the kubelet's answer needs to reach the client.
const ANSWERED: [HeaderName; 6] =
    [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS, STREAM_PROTOCOL];

/// Passes the handshake on. If the kubelet switches protocols, the second part is what copies bytes until either side ends.
pub async fn start(
    mut kubelet: Connection,
    path: &str,
    mut request: Request,
) -> Result<(http::Response<Incoming>, Option<impl Future<Output = ()> + Send + use<>>), ApiError> {
    let client = hyper::upgrade::on(&mut request);
    let mut onward =
        http::Request::builder().method(request.method()).uri(path).body(NoBody::new()).map_err(ApiError::internal)?;
    copy(&ASKED, request.headers(), onward.headers_mut());
    let mut answer = kubelet.send(onward).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok((answer, None));
    }
    let server = hyper::upgrade::on(&mut answer);
    let joined = async move {
        let (client, server) = match tokio::try_join!(client, server) {
            Ok(pair) => pair,
            Err(error) => {
                tracing::debug!(%error, "an upgrade did not complete");
                return;
            }
        };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
            tracing::debug!(%error, "a stream ended");
        }
        drop(kubelet);
    };
    Ok((answer, Some(joined)))
}

/// The 101 for the client.
pub fn switching(answer: &http::Response<Incoming>) -> Response {
    let mut response = Response::new(full(bytes::Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy(&ANSWERED, answer.headers(), response.headers_mut());
    response
}

fn copy(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name, value.clone());
        }
    }
}
