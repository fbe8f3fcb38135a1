//! Connections to what answers in this server's place: kubelets (TLS with the server's client certificate), pods and services
//! (plain, or TLS with whatever certificate they have). HTTP/1.1, so that a connection can be upgraded; one for each request.

use crate::config::Config;
use crate::errors::ApiError;
use crate::server::body::{Body, full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a backend may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to speak to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// TLS that proves nothing: a pod's certificate is the pod's business.
    Https,
    /// TLS with certificates of the cluster on both sides.
    Kubelet,
}

/// Where a backend listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How to speak to it.
    pub scheme: Scheme,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// Makes connections.
pub struct Backends {
    kubelet: Option<TlsConnector>,
    unverified: TlsConnector,
}

/// One connection, for one request.
pub struct Connection {
    sender: SendRequest<Body>,
    host: String,
}

impl Backends {
    /// Reads the client certificate and the authority kubelets' certificates are checked against.
    pub fn new(config: &Config) -> Result<Self, daemon::tls::TlsError> {
        let identity = config.kubelet_client_certificate.as_deref().zip(config.kubelet_client_key.as_deref());
        let kubelet = match &config.kubelet_certificate_authority {
            Some(ca) => {
                let mut tls: Arc<rustls::ClientConfig> = daemon::tls::client_config(ca, identity)?;
                Arc::make_mut(&mut tls).alpn_protocols = vec![b"http/1.1".to_vec()];
                Some(TlsConnector::from(tls))
            }
            None => None,
        };
        daemon::tls::install_provider();
        let provider = CryptoProvider::get_default()
            .ok_or_else(|| daemon::tls::TlsError::Config("no cryptography provider is installed".into()))?;
        let anything = Arc::new(AnyCertificate(provider.signature_verification_algorithms));
        let mut tls = rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(anything)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { kubelet, unverified: TlsConnector::from(Arc::new(tls)) })
    }

    /// Connects. The error is the reason, without a judgement what that means for the client.
    pub async fn connect(&self, place: Place) -> Result<Connection, String> {
        let peer = SocketAddr::new(place.address, place.port);
        let connecting = async {
            let tcp = TcpStream::connect(peer).await.map_err(|e| format!("dial tcp {peer}: connect: {}", errno(&e)))?;
            tcp.set_nodelay(true).map_err(|e| format!("dial tcp {peer}: {e}"))?;
            let tls = match place.scheme {
                Scheme::Http => return speak(tcp, peer).await,
                Scheme::Https => &self.unverified,
                Scheme::Kubelet => {
                    self.kubelet.as_ref().ok_or("kubelets cannot be reached without --kubelet-certificate-authority")?
                }
            };
            let name = ServerName::IpAddress(place.address.into());
            let stream = tls.connect(name, tcp).await.map_err(|e| format!("tls to {peer}: {e}"))?;
            speak(stream, peer).await
        };
        match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(connection) => connection,
            Err(_) => Err(format!("dial tcp {peer}: i/o timeout")),
        }
    }

    /// Connects to a kubelet.
    pub async fn kubelet(&self, address: IpAddr, port: u16) -> Result<Connection, ApiError> {
        let place = Place { scheme: Scheme::Kubelet, address, port };
        self.connect(place).await.map_err(|why| ApiError::internal(format!("error dialing backend: {why}")))
    }
}

/// An error of the system as Go's programs write it, which people search for: `connection refused`.
fn errno(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

async fn speak<S>(stream: S, peer: SocketAddr) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| format!("http to {peer}: {e}"))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%peer, %error, "connection to a backend");
        }
    });
    Ok(Connection { sender, host: peer.to_string() })
}

impl Connection {
    /// GET of a path.
    pub async fn get(&mut self, path: &str) -> Result<http::Response<Incoming>, ApiError> {
        let request = http::Request::builder().uri(path).body(full(bytes::Bytes::new())).map_err(ApiError::internal)?;
        self.send(request).await.map_err(|e| ApiError::internal(format!("the kubelet did not answer: {e}")))
    }

    /// Sends a request; a Host header is filled in where there is none.
    pub async fn send(&mut self, mut request: http::Request<Body>) -> Result<http::Response<Incoming>, String> {
        if !request.headers().contains_key(http::header::HOST) {
            let host = http::HeaderValue::from_str(&self.host).map_err(|e| e.to_string())?;
            request.headers_mut().insert(http::header::HOST, host);
        }
        self.sender.send_request(request).await.map_err(|e| daemon::chain(&e))
    }
}

/// Takes every certificate, but only from who has its key.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_read_as_go_writes_them() {
        for (number, want) in [(111, "connection refused"), (113, "no route to host"), (101, "network is unreachable")]
        {
            assert_eq!(errno(&std::io::Error::from_raw_os_error(number)), want);
        }
    }
}
