//! One HTTP/1.1 connection of a user that carries one request after the other.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsConnector, rustls};

/// An answer that has been read.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// Where to connect as whom.
pub struct Server {
    pub address: SocketAddr,
    pub tls: Arc<rustls::ClientConfig>,
}

impl Server {
    /// A new connection.
    pub async fn open(&self) -> Result<Session> {
        Session::open(self.address, &self.tls).await
    }
}

/// A connection.
pub struct Session {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    requests: usize,
}

/// A TLS connection that has said nothing yet.
pub async fn connect(address: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await.with_context(|| address.to_string())?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(tls.clone()).connect(ServerName::from(address.ip()), tcp).await?)
}

impl Session {
    pub async fn open(address: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> Result<Self> {
        let (sender, connection) = handshake(TokioIo::new(connect(address, tls).await?)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, authority: address.to_string(), requests: 0 })
    }

    /// How many requests it has carried.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// Whether the server has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request; the answer's body is still to be read.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await?;
        self.requests += 1;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a request and reads the answer, whatever it is.
    pub async fn ask_with(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer> {
        let what = format!("{method} {path}");
        let response = self.send(method, path, headers, body).await.with_context(|| what.clone())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.context(what)?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// The same with a body of a media type.
    pub async fn ask(&mut self, method: Method, path: &str, media: &str, body: Bytes) -> Result<Answer> {
        self.ask_with(method, path, &[("content-type", media)], body).await
    }

    /// Reads.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.ask(Method::GET, path, "application/json", Bytes::new()).await
    }

    /// Makes an object, which must succeed.
    pub async fn create(&mut self, path: &str, object: &Value) -> Result<Value> {
        let answer = self.ask(Method::POST, path, "application/json", object.to_string().into()).await?;
        ensure!(answer.status == 201, "POST {path}: {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        Ok(answer.json())
    }
}
