//! The TLS listener: HTTP/1.1 with upgrades and HTTP/2 on one port, drained on shutdown.

use super::Shared;
use super::activity::{Activity, Answer};
use super::body::Request;
use super::guard::Guarded;
use super::handler;
use crate::authn::{UserInfo, front_proxy, x509};
use crate::config::{Config, FrontProxy};
use daemon::tls::{self, TlsError};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

/// Informers hold one stream each; Go clients open a second connection beyond this.
const STREAMS: u32 = 1000;
/// Go's limit for all headers of a request; impersonation can need many.
const HEADERS: u32 = 1 << 20;
/// How long connections may finish what they do after shutdown began.
const DRAIN: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Their address.
    pub address: SocketAddr,
    /// Who their certificate says they are, verified by the authority of clients.
    pub user: Option<Arc<UserInfo>>,
    /// Whether they may say who their own clients are.
    pub is_front_proxy: bool,
}

/// Tells clients from proxies in front of this server, which come over the same listener.
pub struct Peers {
    /// The authorities of clients and of proxies; without proxies TLS has judged already.
    split: Option<[Arc<dyn ClientCertVerifier>; 2]>,
    config: FrontProxy,
}

impl Peers {
    /// Reads the authorities.
    pub fn new(config: &Config) -> Result<Self, TlsError> {
        let proxies = config.front_proxy.requestheader_client_ca_file.as_deref();
        let split = match proxies {
            Some(ca) => Some([tls::client_verifier(&config.client_ca_file)?, tls::client_verifier(ca)?]),
            None => None,
        };
        Ok(Self { split, config: config.front_proxy.clone() })
    }

    fn judge(&self, address: SocketAddr, chain: &[CertificateDer<'_>]) -> Peer {
        let own = chain.first().map(AsRef::<[u8]>::as_ref);
        let user = || own.and_then(x509::user).map(Arc::new);
        let Some([clients, proxies]) = &self.split else {
            return Peer { address, user: user(), is_front_proxy: false };
        };
        let name = own.and_then(|der| pki::peer_identity(der).ok()).map(|i| i.common_name);
        let allowed = name.is_some_and(|n| front_proxy::is_allowed(&self.config, &n));
        Peer {
            address,
            user: user().filter(|_| tls::is_good(clients.as_ref(), chain)),
            is_front_proxy: allowed && tls::is_good(proxies.as_ref(), chain),
        }
    }
}

/// Serves until shutdown, then waits for connections to drain.
pub async fn serve(state: Shared, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let closing = state.closing.clone();
    let tracker = tokio_util::task::TaskTracker::new();
    let connections = tracker.clone();
    daemon::accept::tls(listener, tls, closing, move |stream, address| {
        let (state, connections) = (state.clone(), connections.clone());
        connections.track_future(connection(state, stream, address))
    })
    .await;
    tracker.close();
    let _ = tokio::time::timeout(DRAIN, tracker.wait()).await;
}

async fn connection(state: Shared, stream: TlsStream<TcpStream>, address: SocketAddr) {
    let peer = state.peers.judge(address, &daemon::accept::peer_chain(&stream));
    let closing = state.closing.clone();
    let activity = Activity::opened();
    let stream = Guarded::new(stream, activity.clone());
    let requests = activity.clone();
    let service = service_fn(move |request: Request| {
        let (state, peer, activity) = (state.clone(), peer.clone(), requests.clone());
        let running = activity.begin(request.version());
        async move {
            let response = handler::handle(state, peer, request).await;
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                activity.upgrade();
            }
            Ok::<_, Infallible>(response.map(|body| Answer::new(body, running)))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(HEADERS as usize)
        // The guard's business: hyper counts the rest between two requests as well.
        .header_read_timeout(None);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = async { tokio::select! { () = closing.wait() => {}, () = activity.idle() => {} } } => {
            // HTTP/2 GOAWAY, or close after the current response.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %address, %error, "connection ended");
    }
}
