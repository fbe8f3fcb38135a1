//! The kubelet's HTTPS server: logs, exec, pods and statistics for the API server and for administrators.
//!
//! Every request passes [`auth`]. The health endpoint on the loopback address is plain and tells nothing else.

mod auth;
pub mod logs;
mod metrics;
mod node_logs;
mod pods;
mod query;
mod stats;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use daemon::Shutdown;
use daemon::tls::{self, ClientAuth};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::pod::Pod;
use crate::shared::Shared;

/// An answer that is an error, as plain text, the way upstream's kubelet answers.
#[derive(Debug)]
pub struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

impl Refusal {
    fn not_found(message: impl Into<String>) -> Self {
        Refusal(StatusCode::NOT_FOUND, message.into())
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Refusal(StatusCode::BAD_REQUEST, message.into())
    }

    fn internal(message: impl Into<String>) -> Self {
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, message.into())
    }
}

/// Serves until the end.
///
/// # Errors
/// Certificates that cannot be used, or an address that is taken.
pub async fn run(shared: Arc<Shared>, shutdown: Shutdown) -> daemon::Outcome {
    let config = &shared.config;
    let ca = &config.authentication.x509.client_ca_file;
    let (ca, auth) =
        if ca.as_os_str().is_empty() { (None, ClientAuth::None) } else { (Some(ca.as_path()), ClientAuth::Optional) };
    let alpn: &[&[u8]] = &[b"h2", b"http/1.1"];
    let tls = if config.server_tls_bootstrap {
        tls::server_config_with(Arc::clone(&shared.serving) as _, ca, auth, alpn)?
    } else {
        tls::server_config(&config.tls_cert_file, &config.tls_private_key_file, ca, auth, alpn)?
    };
    let address = SocketAddr::new(config.address, config.port);
    let listener = TcpListener::bind(address).await.map_err(|e| format!("{address}: {e}"))?;
    let gate = auth::Gate::new(Arc::clone(&shared));
    let app = routes(shared, gate);
    daemon::accept::tls(listener, tls, shutdown, move |stream, _peer| {
        let certificate = daemon::accept::peer_certificate(&stream);
        let app = app.clone().layer(axum::Extension(auth::Certificate(certificate)));
        async move {
            let service = TowerToHyperService::new(app);
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
        }
    })
    .await;
    Ok(())
}

fn routes(shared: Arc<Shared>, gate: auth::Gate) -> Router {
    let exec = get(streams::exec).post(streams::exec);
    let run = post(streams::run);
    let attach = get(streams::attach).post(streams::attach);
    let forward = get(streams::port_forward).post(streams::port_forward);
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/healthz/{check}", get(check))
        .route("/pods", get(pods::bound))
        .route("/pods/", get(pods::bound))
        .route("/runningpods", get(pods::running))
        .route("/runningpods/", get(pods::running))
        .route("/configz", get(pods::configuration))
        .route("/stats/summary", get(stats::summary::serve))
        .route("/metrics", get(metrics::own::serve))
        .route("/metrics/cadvisor", get(metrics::cadvisor::serve))
        .route("/metrics/resource", get(metrics::resource::serve))
        .route("/metrics/probes", get(metrics::probes::serve))
        .route("/logs", get(node_logs::serve))
        .route("/logs/", get(node_logs::serve))
        .route("/logs/{*path}", get(node_logs::serve))
        .route("/checkpoint/{namespace}/{pod}/{container}", post(pods::checkpoint))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/run/{namespace}/{pod}/{container}", run.clone())
        .route("/run/{namespace}/{pod}/{uid}/{container}", run)
        .route("/exec/{namespace}/{pod}/{container}", exec.clone())
        .route("/exec/{namespace}/{pod}/{uid}/{container}", exec)
        .route("/attach/{namespace}/{pod}/{container}", attach.clone())
        .route("/attach/{namespace}/{pod}/{uid}/{container}", attach)
        .route("/portForward/{namespace}/{pod}", forward.clone())
        .route("/portForward/{namespace}/{pod}/{uid}", forward)
        .layer(axum::middleware::from_fn_with_state(gate, auth::check))
        .with_state(shared)
}

/// The pod that a request names.
fn find_pod(shared: &Shared, namespace: &str, name: &str) -> Result<Pod, Refusal> {
    let object =
        shared.pods.get(namespace, name).ok_or_else(|| Refusal::not_found(format!("pod {name:?} does not exist")))?;
    Pod::from_value(&object).map_err(|e| Refusal::internal(e.to_string()))
}

/// The plain health endpoint on the loopback address.
///
/// # Errors
/// The address is taken.
pub async fn healthz(shared: Arc<Shared>, shutdown: Shutdown) -> daemon::Outcome {
    let address = SocketAddr::new(shared.config.healthz_bind_address, shared.config.healthz_port);
    let listener = TcpListener::bind(address).await.map_err(|e| format!("{address}: {e}"))?;
    let app: Router = Router::new().route("/healthz", get(async || "ok")).route("/healthz/{check}", get(check));
    axum::serve(listener, app).with_graceful_shutdown(async move { shutdown.wait().await }).await?;
    Ok(())
}

/// One of the checks that health is made of.
async fn check(Path(check): Path<String>) -> (StatusCode, &'static str) {
    match check.as_str() {
        "ping" | "syncloop" | "log" => (StatusCode::OK, "ok"),
        _ => (StatusCode::NOT_FOUND, "404 page not found"),
    }
}
