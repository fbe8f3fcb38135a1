//! Connections to kubelets: TLS with the server's client certificate, HTTP/1.1 so that they can be upgraded.

use crate::config::Config;
use crate::errors::ApiError;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A request without a body.
pub type NoBody = Empty<bytes::Bytes>;

/// How long a kubelet may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes connections to kubelets.
pub struct Kubelets {
    tls: Option<TlsConnector>,
}

/// One connection, for one request.
pub struct Connection {
    sender: SendRequest<NoBody>,
    host: String,
}

impl Kubelets {
    /// Reads the client certificate and the authority kubelets' certificates are checked against.
    pub fn new(config: &Config) -> Result<Self, daemon::tls::TlsError> {
        let identity = config.kubelet_client_certificate.as_deref().zip(config.kubelet_client_key.as_deref());
        let tls = match &config.kubelet_certificate_authority {
            Some(ca) => {
                let mut tls: Arc<rustls::ClientConfig> = daemon::tls::client_config(ca, identity)?;
                Arc::make_mut(&mut tls).alpn_protocols = vec![b"http/1.1".to_vec()];
                Some(TlsConnector::from(tls))
            }
            None => None,
        };
        Ok(Self { tls })
    }

    /// Connects to a kubelet.
    pub async fn connect(&self, address: IpAddr, port: u16) -> Result<Connection, ApiError> {
        let Some(tls) = &self.tls else {
            return Err(ApiError::internal("kubelets cannot be reached without --kubelet-certificate-authority"));
        };
        let peer = SocketAddr::new(address, port);
        let failed =
            |why: &dyn std::fmt::Display| ApiError::internal(format!("error dialing the kubelet at {peer}: {why}"));
        let connecting = async {
            let tcp = TcpStream::connect(peer).await?;
            tcp.set_nodelay(true)?;
            tls.connect(ServerName::IpAddress(address.into()), tcp).await
        };
        let stream = match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(stream) => stream.map_err(|e| failed(&e))?,
            Err(_) => return Err(failed(&"timed out")),
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%peer, %error, "connection to a kubelet");
            }
        });
        Ok(Connection { sender, host: peer.to_string() })
    }
}

impl Connection {
    /// GET of a path.
    pub async fn get(&mut self, path: &str) -> Result<http::Response<Incoming>, ApiError> {
        let request = http::Request::builder().uri(path).body(NoBody::new()).map_err(ApiError::internal)?;
        self.send(request).await
    }

    /// Sends a request; the Host header is filled in.
    pub async fn send(&mut self, mut request: http::Request<NoBody>) -> Result<http::Response<Incoming>, ApiError> {
        let host = http::HeaderValue::from_str(&self.host).map_err(ApiError::internal)?;
        request.headers_mut().insert(http::header::HOST, host);
        self.sender
            .send_request(request)
            .await
            .map_err(|e| ApiError::internal(format!("the kubelet did not answer: {e}")))
    }
}
