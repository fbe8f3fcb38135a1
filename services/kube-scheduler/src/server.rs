//! /healthz, /livez, /readyz for everybody and /metrics for those whom the API server lets.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use client::{Client, resource};
use daemon::Shutdown;
use daemon::tls::{self, ClientAuth};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Where to listen and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Certificate and key; a fresh self-signed pair if none.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

#[derive(Clone)]
struct Shared {
    client: Client,
    metrics: Arc<Metrics>,
}

/// The DER of the client's certificate, which TLS has verified.
#[derive(Clone)]
struct Certificate(Option<Vec<u8>>);

/// Serves until `shutdown`.
///
/// # Errors
/// The address is taken or a certificate is unusable.
pub async fn run(settings: Settings, client: Client, metrics: Arc<Metrics>, shutdown: Shutdown) -> daemon::Outcome {
    let auth = if settings.client_ca.is_some() { ClientAuth::Optional } else { ClientAuth::None };
    let alpn: &[&[u8]] = &[b"h2", b"http/1.1"];
    let ca = settings.client_ca.as_deref();
    let config = match &settings.identity {
        Some((certificate, key)) => tls::server_config(certificate, key, ca, auth, alpn)?,
        None => {
            // A folder that only this user can enter, for as long as it takes to read them.
            let folder = tempfile::tempdir()?;
            let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
            let own = self_signed()?;
            std::fs::write(&certificate, own.cert_pem)?;
            std::fs::write(&key, own.key_pem)?;
            tls::server_config(&certificate, &key, ca, auth, alpn)?
        }
    };
    let address = SocketAddr::new(settings.address, settings.port);
    let listener = TcpListener::bind(address).await.map_err(|e| format!("{address}: {e}"))?;
    let app = routes(Shared { client, metrics });
    daemon::accept::tls(listener, config, shutdown, move |stream, _peer| {
        let certificate = daemon::accept::peer_certificate(&stream);
        let app = app.clone().layer(Extension(Certificate(certificate)));
        async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let service = TowerToHyperService::new(app);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
        }
    })
    .await;
    Ok(())
}

fn self_signed() -> Result<pki::Issued, pki::Error> {
    pki::self_signed(&pki::IssueRequest {
        common_name: "kube-scheduler".to_owned(),
        dns_names: vec!["localhost".to_owned()],
        ips: vec![IpAddr::from([127, 0, 0, 1])],
        usage: pki::Usage::Server,
        valid_for_days: 365,
        ..pki::IssueRequest::default()
    })
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

async fn ready(State(shared): State<Shared>) -> Response {
    if shared.metrics.is_synced() {
        return "ok".into_response();
    }
    let text = "[-]sched-handler-sync failed: reason withheld\nreadyz check failed\n";
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

async fn metrics(
    State(shared): State<Shared>,
    Extension(certificate): Extension<Certificate>,
    headers: HeaderMap,
) -> Response {
    match user(&shared.client, &certificate, &headers).await {
        None => (StatusCode::UNAUTHORIZED, "Unauthorized\n").into_response(),
        Some(user) => match may_read(&shared.client, &user).await {
            Ok(true) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.text()).into_response(),
            Ok(false) => {
                let name = user["user"].as_str().unwrap_or_default();
                let text = format!("forbidden: User {name:?} cannot get path \"/metrics\"\n");
                (StatusCode::FORBIDDEN, text).into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        },
    }
}

/// The user as a SubjectAccessReview names it.
async fn user(client: &Client, certificate: &Certificate, headers: &HeaderMap) -> Option<Value> {
    if let Some(der) = &certificate.0 {
        let identity = pki::peer_identity(der).ok()?;
        return Some(json!({"user": identity.common_name, "groups": identity.organizations}));
    }
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = client.create(resource::TOKENREVIEWS, None, &review).await;
    let status = answer.map_err(|error| tracing::warn!(%error, "token not reviewed")).ok()?["status"].take();
    let user = &status["user"];
    (status["authenticated"] == true)
        .then(|| json!({"user": user["username"], "uid": user["uid"], "groups": user["groups"]}))
}

async fn may_read(client: &Client, user: &Value) -> Result<bool, client::Error> {
    let mut spec = user.clone();
    spec["nonResourceAttributes"] = json!({"path": "/metrics", "verb": "get"});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let answer = client.create(resource::SUBJECTACCESSREVIEWS, None, &review).await?;
    Ok(answer["status"]["allowed"] == true)
}
