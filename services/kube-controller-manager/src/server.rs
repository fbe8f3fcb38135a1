//! The process's own HTTPS server: health for everyone who can reach it, metrics for whoever the API server permits.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use client::Client;
use client::resource::{SUBJECTACCESSREVIEWS, TOKENREVIEWS};
use daemon::Shutdown;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pki::{IssueRequest, Usage};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::metrics;

/// The self-signed certificate is made anew at every start, so it need not last.
const CERTIFICATE_DAYS: u32 = 365;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not ours.
    #[error("--bind-address {address}: {source}")]
    Bind {
        /// Where it should have listened.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A named certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] daemon::tls::TlsError),
    /// No certificate could be made.
    #[error("self-signed certificate: {0}")]
    Certificate(String),
}

/// Listens, and serves until the end of the process. Port 0 switches the server off, as upstream.
pub async fn start(config: &Config, client: Client, shutdown: Shutdown) -> Result<(), ServerError> {
    if config.secure_port == 0 {
        return Ok(());
    }
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Bind { address, source })?;
    let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
    let tls = match (&config.tls_cert_file, &config.tls_private_key_file) {
        (Some(cert), Some(key)) => daemon::tls::server_config(cert, key, None, daemon::tls::ClientAuth::None, &alpn)?,
        _ => self_signed(config.bind_address, &alpn)?,
    };
    tokio::spawn(daemon::accept::tls(listener, tls, shutdown, move |stream, _| {
        let client = client.clone();
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let client = client.clone();
                let (head, _) = request.into_parts();
                async move { Ok::<_, Infallible>(answer(&client, &head).await) }
            });
            // A peer that goes away in the middle is its own business.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        }
    }));
    Ok(())
}

fn self_signed(address: IpAddr, alpn: &[&[u8]]) -> Result<Arc<rustls::ServerConfig>, ServerError> {
    let bad = |e: String| ServerError::Certificate(e);
    let request = IssueRequest {
        common_name: crate::NAME.to_owned(),
        ips: vec![address],
        dns_names: vec!["localhost".to_owned()],
        usage: Usage::Server,
        valid_for_days: CERTIFICATE_DAYS,
        ..IssueRequest::default()
    };
    let issued = pki::self_signed(&request).map_err(|e| bad(e.to_string()))?;
    let certificate = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    daemon::tls::install_provider();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let mut config = config.map_err(|e| bad(e.to_string()))?;
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

async fn answer(client: &Client, request: &Parts) -> Response<Full<Bytes>> {
    match request.uri.path() {
        "/healthz" | "/livez" | "/readyz" => text(StatusCode::OK, "ok".to_owned()),
        path @ "/metrics" => match permitted(client, request, path).await {
            Ok(()) => text(StatusCode::OK, metrics::render()),
            Err(refusal) => refusal,
        },
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Asks the API server who the bearer of the token is, and whether they may read the path.
async fn permitted(client: &Client, request: &Parts, path: &str) -> Result<(), Response<Full<Bytes>>> {
    let unauthorized = || text(StatusCode::UNAUTHORIZED, "Unauthorized\n".to_owned());
    let header = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(unauthorized)?;
    let failed = |error: client::Error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = client.create(TOKENREVIEWS, None, &review).await.map_err(failed)?;
    if answer["status"]["authenticated"] != true {
        return Err(unauthorized());
    }
    let review = access_review(&answer["status"]["user"], path);
    let answer = client.create(SUBJECTACCESSREVIEWS, None, &review).await.map_err(failed)?;
    if answer["status"]["allowed"] == true {
        return Ok(());
    }
    Err(text(StatusCode::FORBIDDEN, format!("forbidden: not permitted to get path {path:?}\n")))
}

fn access_review(user: &Value, path: &str) -> Value {
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": user["username"], "uid": user["uid"], "groups": user["groups"], "extra": user["extra"],
                 "nonResourceAttributes": {"path": path, "verb": "get"}},
    })
}
