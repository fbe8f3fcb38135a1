//! TCP and TLS connections to the store's members, tried in turn.

use daemon::backoff::Backoff;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one member may take to answer a connection.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a call waits for any member before it fails as unavailable.
const PATIENCE: Duration = Duration::from_secs(5);

/// One member's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    host: String,
    port: u16,
    tls: bool,
}

impl Member {
    /// Parses `http[s]://host[:port]`.
    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: http::Uri = url.trim().parse().map_err(|e| format!("{url:?}: {e}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{url:?} does not start with http:// or https://")),
        };
        let host = uri.host().ok_or_else(|| format!("{url:?} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        Ok(Self { host, port: uri.port_u16().unwrap_or(2379), tls })
    }
}

/// A byte stream to a member.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes connections, starting with the member that answered last.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    members: Vec<Member>,
    tls: Option<TlsConnector>,
    last: AtomicUsize,
}

impl Connector {
    /// A connector to these members; `tls` is needed by those with https.
    pub fn new(members: Vec<Member>, tls: Option<Arc<rustls::ClientConfig>>) -> Result<Self, String> {
        if tls.is_none() && members.iter().any(|m| m.tls) {
            return Err("an https store needs --etcd-cafile".into());
        }
        Ok(Self(Arc::new(Inner { members, tls: tls.map(TlsConnector::from), last: AtomicUsize::new(0) })))
    }

    async fn any(&self) -> io::Result<TokioIo<Box<dyn Stream>>> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        loop {
            let mut failure = io::Error::other("no store endpoints are configured");
            for step in 0..self.0.members.len() {
                let index = (self.0.last.load(Ordering::Relaxed) + step) % self.0.members.len();
                match tokio::time::timeout(ATTEMPT, self.one(&self.0.members[index])).await {
                    Ok(Ok(stream)) => {
                        self.0.last.store(index, Ordering::Relaxed);
                        return Ok(TokioIo::new(stream));
                    }
                    Ok(Err(error)) => failure = error,
                    Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, "the store accepts no connection"),
                }
            }
            let delay = backoff.next_delay();
            if tokio::time::Instant::now() + delay >= deadline {
                return Err(failure);
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn one(&self, member: &Member) -> io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((member.host.as_str(), member.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = self.0.tls.as_ref().filter(|_| member.tls) else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(member.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.any().await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let member = |host: &str, port, tls| Ok(Member { host: host.into(), port, tls });
        assert_eq!(Member::parse("https://127.0.0.1:2379"), member("127.0.0.1", 2379, true));
        assert_eq!(Member::parse("http://[::1]:1"), member("::1", 1, false));
        assert!(Member::parse("127.0.0.1:2379").is_err());
    }
}
