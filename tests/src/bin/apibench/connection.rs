//! One HTTP/1.1 connection over TLS that carries one request after the other.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How to reach a server.
pub struct Access {
    address: String,
    host: ServerName<'static>,
    tls: TlsConnector,
    token: String,
}

impl Access {
    /// A server by its URL.
    pub fn new(url: &str, ca: &Path, identity: Option<(&Path, &Path)>, token: &str) -> Result<Self> {
        let address =
            url.strip_prefix("https://").context("the server is to be https://HOST:PORT")?.trim_end_matches('/');
        let (host, _) = address.rsplit_once(':').context("the server's address lacks a port")?;
        let host = ServerName::try_from(host.trim_matches(['[', ']']).to_string())?;
        let tls = TlsConnector::from(daemon::tls::client_config(ca, identity)?);
        Ok(Self { address: address.into(), host, tls, token: token.into() })
    }
}

/// A connection.
pub struct Connection {
    requests: SendRequest<Full<Bytes>>,
    authority: String,
    bearer: String,
}

impl Connection {
    /// Connects.
    pub async fn open(access: &Access) -> Result<Self> {
        let tcp = TcpStream::connect(&access.address).await.with_context(|| access.address.clone())?;
        tcp.set_nodelay(true)?;
        let tls = access.tls.connect(access.host.clone(), tcp).await?;
        let (requests, connection) = handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        let bearer = if access.token.is_empty() { String::new() } else { format!("Bearer {}", access.token) };
        Ok(Self { requests, authority: access.address.clone(), bearer })
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send(&mut self, method: Method, path: &str, media: &str, body: String) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(USER_AGENT, "apibench")
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, media);
        if !self.bearer.is_empty() {
            request = request.header(AUTHORIZATION, &self.bearer);
        }
        self.requests.ready().await?;
        Ok(self.requests.send_request(request.body(Full::new(body.into()))?).await?)
    }

    /// Begins a watch. A server that has too much to do is asked again when it says so, as clients do.
    pub async fn watch(&mut self, path: &str) -> Result<Incoming> {
        loop {
            let response =
                self.send(Method::GET, &format!("{path}?watch=1"), "application/json", String::new()).await?;
            let (head, body) = response.into_parts();
            if head.status.is_success() {
                return Ok(body);
            }
            let text = body.collect().await?.to_bytes();
            let later = head.headers.get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
            match later {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => bail!("watch {path}: {}: {}", head.status, String::from_utf8_lossy(&text)),
            }
        }
    }

    /// Sends a request and reads the answer, which must be a success.
    pub async fn call(&mut self, method: Method, path: &str, media: &str, body: String) -> Result<Bytes> {
        let what = format!("{method} {path}");
        let response = self.send(method, path, media, body).await.with_context(|| what.clone())?;
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{what}: {status}: {}", String::from_utf8_lossy(&text));
        }
        Ok(text)
    }
}
