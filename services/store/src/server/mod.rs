//! The network side: listeners, TLS, and one file per gRPC service.

mod auth;
mod authority;
mod cluster;
mod health;
mod kv;
mod lease;
mod maintenance;
mod peer;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use daemon::Shutdown;
use daemon::tls::ClientAuth;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use store_api::etcdserverpb::auth_server::AuthServer;
use store_api::etcdserverpb::cluster_server::ClusterServer;
use store_api::etcdserverpb::kv_server::KvServer;
use store_api::etcdserverpb::lease_server::LeaseServer;
use store_api::etcdserverpb::maintenance_server::MaintenanceServer;
use store_api::etcdserverpb::watch_server::WatchServer;
use store_api::health::health_server::HealthServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::service::Routes;
use tower::ServiceExt;

use crate::config::Url;
use crate::member::Member;
use crate::metrics;
use crate::raft::wire::pb::peer_server::PeerServer;

/// The API level that clients are told: features are probed by it.
pub const VERSION: &str = "3.6.0";
const KV_PATH: &str = "/etcdserverpb.KV/";
/// Room for framing above the largest request.
const OVERHEAD: usize = 512 << 10;

/// Marks a request that another member hands on, so that it is never handed on again.
const FORWARDED: &str = "corten-forwarded";

/// A request as it is handed to the leader.
fn forwarded<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

/// Whether a request was handed on by another member.
fn is_forwarded<T>(request: &tonic::Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

/// Whom a listener is for.
#[derive(Clone, Copy)]
enum Audience {
    Clients,
    Members,
}

/// All services of one member.
#[derive(Clone)]
pub struct Server {
    member: Arc<Member>,
    /// Nearly all calls go to this service, so they do not go through the router.
    kv: Option<KvServer<kv::Kv>>,
    routes: Routes,
    audience: Audience,
    shutdown: Shutdown,
}

impl Server {
    /// Puts the services for other members together: Raft's, and those whose requests they hand to the leader.
    pub fn for_members(member: Arc<Member>, shutdown: Shutdown) -> Self {
        let peer = PeerServer::new(peer::Peer(member.clone()))
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let routes = Routes::new(peer)
            .add_service(LeaseServer::new(lease::Lease(member.clone())))
            .add_service(ClusterServer::new(cluster::Cluster(member.clone())))
            .add_service(MaintenanceServer::new(maintenance::Maintenance(member.clone())))
            .prepare();
        Server { member, kv: None, routes, audience: Audience::Members, shutdown }
    }

    /// Puts the services for clients together.
    pub fn for_clients(member: Arc<Member>, shutdown: Shutdown) -> Self {
        let limit = member.config.max_request_bytes + OVERHEAD;
        macro_rules! sized {
            ($server:ident, $service:expr) => {
                $server::new($service).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX)
            };
        }
        let kv = sized!(KvServer, kv::Kv(member.clone()));
        let routes = Routes::new(kv.clone())
            .add_service(sized!(WatchServer, watch::Watch { member: member.clone(), shutdown: shutdown.clone() }))
            .add_service(sized!(LeaseServer, lease::Lease(member.clone())))
            .add_service(sized!(ClusterServer, cluster::Cluster(member.clone())))
            .add_service(sized!(MaintenanceServer, maintenance::Maintenance(member.clone())))
            .add_service(sized!(AuthServer, auth::Auth::new(member.clone())))
            .add_service(HealthServer::new(health::Health(member.clone())))
            .prepare();
        Server { member, kv: Some(kv), routes, audience: Audience::Clients, shutdown }
    }

    /// Accepts clients on one URL until shutdown.
    ///
    /// # Errors
    /// The address cannot be listened on, or the certificates cannot be used.
    pub async fn serve(self, url: Url) -> daemon::Outcome {
        let listener = TcpListener::bind(url.address()?).await.map_err(|e| format!("cannot listen on {url}: {e}"))?;
        let config = &self.member.config;
        let (cert, key, ca, required) = match self.audience {
            Audience::Clients => {
                tracing::info!(%url, "ready to serve client requests");
                (&config.cert_file, &config.key_file, &config.trusted_ca_file, config.client_cert_auth)
            }
            Audience::Members => {
                tracing::info!(%url, "serving other members");
                let flags = &config.cluster;
                (&flags.peer_cert_file, &flags.peer_key_file, &flags.peer_trusted_ca_file, flags.peer_client_cert_auth)
            }
        };
        if url.tls {
            let (Some(cert), Some(key)) = (cert, key) else {
                return Err(format!("{url} needs a certificate and a key").into());
            };
            let (ca, auth) = match (ca, required) {
                (Some(ca), true) => (Some(ca.as_path()), ClientAuth::Required),
                (Some(ca), false) => (Some(ca.as_path()), ClientAuth::Optional),
                (None, _) => (None, ClientAuth::None),
            };
            let tls = daemon::tls::server_config(cert, key, ca, auth, &[b"h2", b"http/1.1"])?;
            let shutdown = self.shutdown.clone();
            let serve = move |stream: TlsStream<TcpStream>, _| {
                let name = if required { common_name(&stream) } else { None };
                self.clone().connection(stream, name)
            };
            daemon::accept::tls(listener, tls, shutdown, serve).await;
            return Ok(());
        }
        loop {
            let (stream, _) = tokio::select! {
                () = self.shutdown.wait() => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok(pair) => pair,
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            tokio::spawn(self.clone().connection(stream, None));
        }
    }

    async fn connection<S>(self, stream: S, name: Option<auth::CommonName>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let streams = match self.audience {
            Audience::Clients => self.member.config.max_concurrent_streams,
            Audience::Members => u32::MAX,
        };
        let shutdown = self.shutdown.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let server = self.clone();
            if matches!(server.audience, Audience::Members) {
                request.extensions_mut().insert(auth::FromMember);
            } else if let Some(name) = name.clone() {
                request.extensions_mut().insert(name);
            }
            async move { server.answer(request).await }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http2()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .timer(TokioTimer::new())
            .max_concurrent_streams(streams)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(TokioIo::new(authority::Corrected::new(stream)), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.wait() => {
                // Tells clients to go elsewhere, and lets running calls end.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// Answers a request as a connection of another member would.
    #[cfg(test)]
    pub(crate) async fn answer_member(self, mut request: Request<Body>) -> Response<Body> {
        request.extensions_mut().insert(auth::FromMember);
        let Ok(response) = self.routes.oneshot(request).await;
        response
    }

    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>, std::convert::Infallible> {
        let path = request.uri().path();
        if path.starts_with(KV_PATH)
            && let Some(kv) = &mut self.kv
        {
            return kv.call(request).await;
        }
        match path {
            "/metrics" => Ok(text("text/plain; version=0.0.4", metrics::render(&self.member).await)),
            // Alive is whoever answers.
            "/livez" => Ok(text("text/plain; charset=utf-8", "ok\n".to_owned())),
            "/health" | "/readyz" => Ok(health::http(&self.member).await),
            "/version" => {
                Ok(json(StatusCode::OK, format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"{VERSION}"}}"#)))
            }
            _ => self.routes.oneshot(request).await,
        }
    }
}

/// The user that a client's certificate names.
fn common_name(stream: &TlsStream<TcpStream>) -> Option<auth::CommonName> {
    let certificate = daemon::accept::peer_certificate(stream)?;
    let name = pki::peer_identity(&certificate).ok()?.common_name;
    if name.is_empty() { None } else { Some(auth::CommonName(name.into())) }
}

fn json(status: StatusCode, body: String) -> Response<Body> {
    let mut response = text("application/json", body);
    *response.status_mut() = status;
    response
}

fn text(kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(bytes::Bytes::from(body))));
    let kind = tonic::codegen::http::HeaderValue::from_static(kind);
    response.headers_mut().insert(tonic::codegen::http::header::CONTENT_TYPE, kind);
    response
}

/// A reply of another kind than the proposal's: a bug, told as one instead of a panic.
fn mismatch() -> tonic::Status {
    tonic::Status::internal("store: the reply does not belong to the request")
}
