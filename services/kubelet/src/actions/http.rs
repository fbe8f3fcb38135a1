//! HTTP requests of probes and hooks: no certificate checks, redirects followed on the same host only.

use std::sync::Arc;

use http::header::{ACCEPT, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::{Finding, address, connect};
use crate::pod::HttpGet;

const MAX_REDIRECTS: u32 = 10;
/// Enough of a body to explain a failure.
const MAX_BODY: usize = 10 * 1024;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    body: String,
}

impl Reply {
    /// 2xx and 3xx are successes.
    pub fn into_finding(self) -> Finding {
        if (200..400).contains(&self.status.as_u16()) {
            Ok(())
        } else {
            tracing::debug!(status = %self.status, body = %self.body, "HTTP action failed");
            Err(format!("HTTP probe failed with statuscode: {}", self.status.as_u16()))
        }
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    /// The server answered a request to begin TLS, but not with TLS.
    #[error("Get {url:?}: http: server gave HTTP response to HTTPS client")]
    NotTls { url: String },
    #[error("{0}")]
    Other(String),
}

/// Tells a server of what happens to its container: any answer will do, as upstream has it. A server that does not speak TLS
/// although it should is told without it; gives its address then.
pub async fn notify(action: &HttpGet, ip: &str, port: u16, agent: &str) -> Result<Option<String>, String> {
    match ask(action, ip, port, agent).await {
        Ok(_) => Ok(None),
        Err(Unanswered::NotTls { .. }) => {
            // What names somebody is for encrypted connections only.
            let mut plain = HttpGet { scheme: "HTTP".into(), ..action.clone() };
            plain.http_headers.retain(|header| !header.name.eq_ignore_ascii_case("authorization"));
            ask(&plain, ip, port, agent).await.map_err(|e| e.to_string())?;
            let host = if action.host.is_empty() { ip } else { &action.host };
            Ok(Some(address(host, port)))
        }
        Err(other) => Err(other.to_string()),
    }
}

/// Sends the request and follows redirects.
pub async fn get(action: &HttpGet, ip: &str, port: u16, agent: &str) -> Result<Reply, String> {
    ask(action, ip, port, agent).await.map_err(|e| e.to_string())
}

async fn ask(action: &HttpGet, ip: &str, port: u16, agent: &str) -> Result<Reply, Unanswered> {
    let host = if action.host.is_empty() { ip } else { &action.host };
    let path = if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) };
    let mut place = Place { tls: action.scheme.eq_ignore_ascii_case("https"), host: host.to_owned(), port, path };
    for _ in 0..MAX_REDIRECTS {
        let answer = send(action, &place, agent).await?;
        let status = answer.status();
        let location = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
        match location.filter(|_| status.is_redirection()).and_then(|l| follow(&place, &l)) {
            // Another host is not this container's business: the redirect itself is the answer.
            Some(next) if next.host == place.host => place = next,
            _ => return Ok(Reply { status, body: body(answer).await }),
        }
    }
    Err(Unanswered::Other("stopped after 10 redirects".into()))
}

async fn body(answer: http::Response<Incoming>) -> String {
    let limited = http_body_util::Limited::new(answer.into_body(), MAX_BODY);
    limited.collect().await.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default()
}

/// The place a `Location` header leads to.
fn follow(from: &Place, location: &str) -> Option<Place> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(Place { path: location.to_owned(), ..from.clone() });
    }
    let uri: http::Uri = location.parse().ok()?;
    let tls = uri.scheme_str() == Some("https");
    Some(Place {
        tls,
        host: uri.host()?.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
    })
}

async fn send(action: &HttpGet, place: &Place, agent: &str) -> Result<http::Response<Incoming>, Unanswered> {
    let request = request(action, place, agent).map_err(Unanswered::Other)?;
    let scheme = if place.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", address(&place.host, place.port), place.path);
    let fail = |e: &dyn std::fmt::Display| Unanswered::Other(format!("Get {url:?}: {e}"));
    let stream = connect(&place.host, place.port).await.map_err(|e| fail(&e))?;
    let answer = if place.tls {
        let name = ServerName::try_from(place.host.clone()).map_err(|e| fail(&e))?;
        let stream = TlsConnector::from(unverified()).connect(name, stream).await;
        let stream =
            stream.map_err(|e| if is_not_tls(&e) { Unanswered::NotTls { url: url.clone() } } else { fail(&e) })?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    };
    answer.map_err(|e| fail(&e))
}

/// The first byte of the answer begins no record of TLS (RFC 8446, section 5.1).
fn is_not_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

fn request(action: &HttpGet, place: &Place, agent: &str) -> Result<Request<Empty<bytes::Bytes>>, String> {
    let mut builder = Request::builder().method("GET").uri(&place.path);
    let headers = builder.headers_mut().ok_or_else(|| format!("path {:?} is not valid", place.path))?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|e| e.to_string());
    headers.insert(HOST, value(&address(&place.host, place.port))?);
    headers.insert(USER_AGENT, value(agent)?);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    for header in &action.http_headers {
        let name: HeaderName = header.name.parse().map_err(|e| format!("header {:?}: {e}", header.name))?;
        // An empty value removes one of ours.
        if header.value.is_empty() && (name == ACCEPT || name == USER_AGENT) {
            headers.remove(&name);
        } else {
            headers.insert(name, value(&header.value)?);
        }
    }
    builder.body(Empty::new()).map_err(|e| e.to_string())
}

async fn exchange<S>(io: S, request: Request<Empty<bytes::Bytes>>) -> Result<http::Response<Incoming>, hyper::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    // The connection ends when the answer has been read or dropped.
    tokio::spawn(connection);
    sender.send_request(request).await
}

fn unverified() -> Arc<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AcceptAll));
    Arc::new(config.with_no_client_auth())
}

/// A probe asks whether a server answers, not who it is: certificates are not checked, as the API defines it.
#[derive(Debug)]
struct AcceptAll;

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// Answers every connection with what `answer` makes of the request's first line.
    async fn server(answer: fn(&str) -> String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let reply = answer(text.lines().next().unwrap_or_default());
                let _ = stream.write_all(reply.as_bytes()).await;
            }
        });
        port
    }

    fn action(path: &str) -> HttpGet {
        HttpGet { path: path.into(), ..HttpGet::default() }
    }

    #[tokio::test]
    async fn statuses_decide_and_local_redirects_are_followed() {
        let port = server(|line| match line.split(' ').nth(1) {
            Some("/ok?x=1") => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into(),
            Some("/local") => "HTTP/1.1 302 Found\r\nlocation: /bad\r\ncontent-length: 0\r\n\r\n".into(),
            Some("/far") => "HTTP/1.1 302 Found\r\nlocation: http://192.0.2.1/\r\ncontent-length: 0\r\n\r\n".into(),
            _ => "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".into(),
        })
        .await;
        let ask =
            async |path: &str| get(&action(path), "127.0.0.1", port, "kube-probe/1.35").await.unwrap().into_finding();
        assert!(ask("ok?x=1").await.is_ok());
        assert_eq!(ask("/local").await.unwrap_err(), "HTTP probe failed with statuscode: 500");
        assert!(ask("/far").await.is_ok(), "another host's redirect counts as an answer");
    }
    #[tokio::test]
    async fn hooks_take_any_answer_and_do_without_tls_where_there_is_none() {
        daemon::tls::install_provider();
        let port = server(|line| {
            let ours = line.starts_with("GET /told ");
            format!("HTTP/1.1 {} No\r\ncontent-length: 0\r\n\r\n", if ours { 500 } else { 400 })
        })
        .await;
        let plain = notify(&action("told"), "127.0.0.1", port, "kube-lifecycle/1.35").await;
        assert_eq!(plain, Ok(None), "a hook's answer says nothing");
        let header = |name: &str| crate::pod::HttpHeader { name: name.into(), value: "x".into() };
        let secret = HttpGet {
            scheme: "HTTPS".into(),
            http_headers: vec![header("Authorization"), header("X-A")],
            ..action("told")
        };
        let told = notify(&secret, "127.0.0.1", port, "kube-lifecycle/1.35").await;
        assert_eq!(told, Ok(Some(format!("127.0.0.1:{port}"))));
        let probe = get(&secret, "127.0.0.1", port, "kube-probe/1.35").await.unwrap_err();
        assert!(probe.ends_with("http: server gave HTTP response to HTTPS client"), "{probe}");
        let nobody = notify(&secret, "127.0.0.1", 1, "kube-lifecycle/1.35").await;
        assert!(nobody.is_err(), "{nobody:?}");
    }
}
