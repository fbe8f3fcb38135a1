//! The pooled HTTPS connection behind a client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;
use crate::kubeconfig::Access;

/// How long a dead connection may go unnoticed while requests or watches are open on it.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Requests that this process has sent to API servers.
pub fn requests_sent() -> u64 {
    REQUESTS.load(Ordering::Relaxed)
}

/// A server and the credentials for it.
#[derive(Debug)]
pub(crate) struct Connection {
    access: Access,
    server: String,
    authorization: RwLock<Option<HeaderValue>>,
    agent: HeaderValue,
    http: RwLock<Http>,
    /// The connections of everyone who acts here by token: what tells them apart is a header of each request.
    by_token: OnceLock<Http>,
}

type Http = HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>;

impl Connection {
    pub fn new(access: &Access) -> Result<Self, Error> {
        let http = RwLock::new(http(access)?);
        let authorization = RwLock::new(access.token.as_deref().map(bearer).transpose()?);
        let server = access.server.trim_end_matches('/').to_owned();
        let by_token = OnceLock::new();
        Ok(Connection { access: access.clone(), server, authorization, agent: agent(), http, by_token })
    }

    /// Goes on with another certificate and key, in one PEM text: on new connections; those that are open stay as they are.
    pub fn set_certificate(&self, pem: &[u8]) -> Result<(), Error> {
        let certificate = Some((pem.to_vec(), pem.to_vec()));
        let fresh = http(&Access { certificate, ..self.access.clone() })?;
        *self.http.write() = fresh;
        Ok(())
    }

    /// The same server with a token instead of every other credential.
    pub fn with_token(&self, token: &str) -> Result<Self, Error> {
        let access = Access { certificate: None, token: Some(token.to_owned()), ..self.access.clone() };
        let shared = match self.by_token.get() {
            Some(shared) => shared.clone(),
            None => {
                let fresh = http(&access)?;
                self.by_token.get_or_init(|| fresh).clone()
            }
        };
        Ok(Connection {
            authorization: RwLock::new(Some(bearer(token)?)),
            server: self.server.clone(),
            agent: self.agent.clone(),
            http: RwLock::new(shared),
            by_token: OnceLock::new(),
            access,
        })
    }

    /// Replaces the token; requests that are under way keep the old one.
    pub fn set_token(&self, token: &str) -> Result<(), Error> {
        *self.authorization.write() = Some(bearer(token)?);
        Ok(())
    }

    /// Sends one request and waits for the head of the answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Response<Incoming>, Error> {
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, self.agent.clone());
        if let Some(value) = self.authorization.read().clone() {
            builder = builder.header(AUTHORIZATION, value);
        }
        if let Some((content_type, _)) = &body {
            builder = builder.header(CONTENT_TYPE, *content_type);
        }
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        let bytes = body.map(|(_, bytes)| bytes).unwrap_or_default();
        let request = builder.body(Full::new(bytes)).map_err(|e| Error::Request(e.to_string()))?;
        let http = self.http.read().clone();
        http.request(request)
            .await
            .map_err(|error| Error::Connection { server: self.server.clone(), reason: with_causes(&error) })
    }
}

/// The pool of connections with an identity.
fn http(access: &Access) -> Result<Http, Error> {
    // Another part of the process may have chosen the provider already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(tls_config(access)?)
        .https_only()
        .enable_all_versions()
        .wrap_connector(connector);
    Ok(HttpClient::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE)
        .http2_adaptive_window(true)
        .build(https))
}

/// `kubelet/0.1.0`: the server records writes for the program that made them.
fn agent() -> HeaderValue {
    let program = std::env::args_os().next().map(std::path::PathBuf::from);
    let name = program.as_deref().and_then(|p| p.file_name()).map_or_else(|| "corten".into(), |n| n.to_string_lossy());
    HeaderValue::from_str(&format!("{name}/{}", env!("CARGO_PKG_VERSION")))
        .unwrap_or(HeaderValue::from_static(concat!("corten/", env!("CARGO_PKG_VERSION"))))
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| Error::Request(format!("token: {e}")))
}

fn tls_config(access: &Access) -> Result<rustls::ClientConfig, Error> {
    let bad = |what: &str, reason: String| Error::Request(format!("{what} for {}: {reason}", access.server));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.ca) {
        let certificate = certificate.map_err(|e| bad("certificate authority", e.to_string()))?;
        roots.add(certificate).map_err(|e| bad("certificate authority", e.to_string()))?;
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(Arc::new(roots));
    let Some((certificate, key)) = &access.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| bad("client certificate", e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("client key", e.to_string()))?;
    builder.with_client_auth_cert(chain, key).map_err(|e| bad("client certificate", e.to_string()))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
