//! The node's way to the API server: 127.0.0.1:7445, forwarded to a control-plane member that works. TLS passes through.
//!
//! A member's health is what its last connection showed; a failed one is tried again only after the others, so a dead
//! member costs one refused connection and a silent one [`CONNECT_LIMIT`].

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daemon::Shutdown;
use machine_config::{Config, Role};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Where clients on this node connect.
pub(crate) const ADDRESS: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 7445);

const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A silent peer is given up after this; clients watch for ever and would not notice.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Which members there are, and in which order to try them. Pure.
#[derive(Debug)]
pub(crate) struct Members {
    list: Vec<Member>,
    clock: u64,
}

#[derive(Debug)]
struct Member {
    host: String,
    port: u16,
    /// When it last failed, on a clock that counts failures; 0 is healthy.
    failed: u64,
}

impl Members {
    /// A control-plane machine prefers its own API server; every node knows the cluster's endpoint.
    pub(crate) fn of(config: &Config) -> Self {
        let endpoint = (config.cluster.endpoint.host.clone(), config.cluster.endpoint.port);
        let mut hosts = vec![endpoint];
        if matches!(config.role, Role::ControlPlane(_)) {
            hosts.insert(0, ("127.0.0.1".to_owned(), 6443));
        }
        // An endpoint may be this very proxy, on a cluster that is only used from its machines.
        hosts.retain(|(host, port)| *port != ADDRESS.1 || (host != "localhost" && host != "127.0.0.1"));
        Self::new(hosts)
    }

    fn new(hosts: Vec<(String, u16)>) -> Self {
        Self { list: hosts.into_iter().map(|(host, port)| Member { host, port, failed: 0 }).collect(), clock: 0 }
    }

    /// Healthy members in their order, then failed ones, the longest failed first.
    fn order(&self) -> Vec<(usize, String, u16)> {
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|i| self.list[*i].failed);
        order.into_iter().map(|i| (i, self.list[i].host.clone(), self.list[i].port)).collect()
    }

    fn report(&mut self, member: usize, healthy: bool) {
        self.clock += 1;
        self.list[member].failed = if healthy { 0 } else { self.clock };
    }
}

/// Serves until `shutdown`.
pub(crate) async fn run(listener: TcpListener, members: Members, shutdown: Shutdown) {
    let members = Arc::new(Mutex::new(members));
    loop {
        let accepted = tokio::select! {
            () = shutdown.wait() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _)) => {
                tokio::spawn(forward(client, members.clone()));
            }
            Err(error) => {
                // Out of descriptors: wait for connections to end rather than spin.
                tracing::warn!("API proxy: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn forward(mut client: TcpStream, members: Arc<Mutex<Members>>) {
    let order = lock(&members).order();
    for (index, host, port) in order {
        let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((host.as_str(), port))).await;
        let Ok(Ok(mut server)) = connected else {
            tracing::debug!("API server at {host}:{port} does not answer");
            lock(&members).report(index, false);
            continue;
        };
        lock(&members).report(index, true);
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        watch_silence(&server);
        let _ = copy_bidirectional(&mut client, &mut server).await;
        return;
    }
}

fn watch_silence(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(SILENCE_LIMIT / 3).with_interval(SILENCE_LIMIT / 3);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(SILENCE_LIMIT));
}

fn lock(members: &Mutex<Members>) -> std::sync::MutexGuard<'_, Members> {
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn names(members: &Members) -> String {
        members.order().into_iter().map(|(_, host, _)| host).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn failed_members_are_tried_last() {
        let mut members = Members::new(["a", "b", "c"].map(|h| (h.to_owned(), 1)).to_vec());
        assert_eq!(names(&members), "a b c");
        members.report(0, false);
        assert_eq!(names(&members), "b c a");
        members.report(1, false);
        assert_eq!(names(&members), "c a b");
        members.report(0, true);
        assert_eq!(names(&members), "a c b");
    }

    #[tokio::test]
    async fn a_connection_reaches_the_member_that_answers() {
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = server.local_addr().unwrap().port();
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        let members = Members::new(vec![("127.0.0.1".into(), dead), ("127.0.0.1".into(), alive)]);
        let (_trigger, shutdown) = Shutdown::pair();
        tokio::spawn(run(proxy, members, shutdown));
        tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        });
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
    }
}
