//! A client's connection passed on to the runtime's streaming server, byte for byte.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Refusal;

/// Sends the client's handshake to `url`; if the runtime switches protocols, joins both connections until either ends.
pub async fn pass(mut request: Request, url: &str) -> Result<Response, Refusal> {
    if !request.headers().contains_key(header::UPGRADE) {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    let failed = |why: &dyn std::fmt::Display| Refusal::internal(format!("the runtime's streaming server: {why}"));
    let url: Uri = url.parse().map_err(|e| failed(&e))?;
    let authority = url.authority().ok_or_else(|| failed(&"its address is missing"))?.to_string();
    let client = hyper::upgrade::on(&mut request);
    let tcp = TcpStream::connect(&authority).await.map_err(|e| failed(&e))?;
    tcp.set_nodelay(true).map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(|e| failed(&e))?;
    tokio::spawn(connection.with_upgrades());

    let path = url.path_and_query().map_or("/", |p| p.as_str());
    let mut onward = http::Request::builder()
        .method(request.method())
        .uri(path)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| failed(&e))?;
    *onward.headers_mut() = request.headers().clone();
    // Who asked was settled here; credentials go no further.
    onward.headers_mut().remove(header::AUTHORIZATION);
    onward.headers_mut().insert(header::HOST, authority.parse().map_err(|e| failed(&e))?);
    let mut answer = sender.send_request(onward).await.map_err(|e| failed(&e))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let server = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            match tokio::try_join!(client, server) {
                Ok((client, server)) => {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                        tracing::debug!(%error, "a stream ended");
                    }
                }
                Err(error) => tracing::debug!(%error, "an upgrade did not complete"),
            }
        });
    }
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, Body::new(body)))
}
