//! The TLS listener: HTTP/1.1 with upgrades and HTTP/2 on one port, drained on shutdown.

use super::Shared;
use super::body::{Request, Response};
use super::handler;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;

/// Informers hold one stream each; Go clients open a second connection beyond this.
const STREAMS: u32 = 1000;
/// How long connections may finish what they do after shutdown began.
const DRAIN: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Their address.
    pub address: SocketAddr,
    /// Their verified certificate, DER.
    pub certificate: Option<Arc<[u8]>>,
}

/// Serves until shutdown, then waits for connections to drain.
pub async fn serve(state: Shared, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let shutdown = state.shutdown.clone();
    let tracker = tokio_util::task::TaskTracker::new();
    let connections = tracker.clone();
    daemon::accept::tls(listener, tls, shutdown, move |stream, address| {
        let (state, connections) = (state.clone(), connections.clone());
        connections.track_future(connection(state, stream, address))
    })
    .await;
    tracker.close();
    let _ = tokio::time::timeout(DRAIN, tracker.wait()).await;
}

async fn connection(state: Shared, stream: TlsStream<TcpStream>, address: SocketAddr) {
    let certificate = daemon::accept::peer_certificate(&stream).map(Into::into);
    let peer = Peer { address, certificate };
    let shutdown = state.shutdown.clone();
    let service = service_fn(move |request: Request| {
        let (state, peer) = (state.clone(), peer.clone());
        async move { Ok::<Response, Infallible>(handler::handle(state, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(32));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.wait() => {
            // HTTP/2 GOAWAY, or close after the current response.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(peer = %address, %error, "connection ended");
    }
}
