//! The TLS accept loop that every server shares: one task per connection, handshakes off the accepting task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Shutdown;

/// A peer that has not finished its handshake by then is dropped, so that idle sockets cannot pile up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Accepts until `shutdown`, hands each handshaken stream to `serve` in a task of its own.
pub async fn tls<S, F>(listener: TcpListener, config: Arc<rustls::ServerConfig>, shutdown: Shutdown, serve: S)
where
    S: Fn(TlsStream<TcpStream>, SocketAddr) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(config);
    loop {
        let (stream, peer) = tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => match accepted {
                Ok(pair) => pair,
                Err(error) => {
                    // Out of descriptors: closing connections will free some; spinning would not.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => serve(stream, peer).await,
                Ok(Err(error)) => tracing::warn!(%peer, %error, "TLS handshake refused"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

/// The client's end-entity certificate in DER, if it sent one.
pub fn peer_certificate(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|c| c.as_ref().to_vec())
}

/// All certificates the client sent, its own first; empty if it sent none.
pub fn peer_chain(stream: &TlsStream<TcpStream>) -> Vec<CertificateDer<'static>> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.iter().map(|c| c.clone().into_owned()).collect()
}
