//! A proxy in front of the API server that sees every request of one process, and ends the process right after a given number
//! of its writes: the server has carried the write out, the process never hears of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls_pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::bench::stack::Stack;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The proxy; it ends with it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    api: SocketAddr,
    /// As the process itself.
    certified: Upstream,
    /// For requests with a token of their own: the server looks at a certificate first.
    bare: Upstream,
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    /// Whom to end, and after how many more writes.
    victim: Option<(Pid, usize)>,
    /// The writes that it may still have under way: no write after its last one gets through.
    allowed: Option<Arc<Semaphore>>,
    /// The victim has been ended: whatever it still had on the way is lost.
    cut: bool,
    writes: usize,
    /// How often each thing was asked, as `VERB path`.
    asked: BTreeMap<String, usize>,
}

impl Proxy {
    /// Listens for a process that acts as `user`.
    pub async fn start(stack: &Stack, user: &str) -> Result<Proxy> {
        let api = stack.api_address();
        let certified = Upstream::new(api, stack.tls_of(user, &[])?);
        let bare = Upstream::new(api, stack.tls_of_nobody()?);
        let [certificate, key] = ["server.crt", "server.key"].map(|name| stack.path(name));
        let alpn: [&[u8]; 2] = [b"h2", b"http/1.1"];
        let own = daemon::tls::server_config(&certificate, &key, None, daemon::tls::ClientAuth::None, &alpn)?;
        let listener = TcpListener::bind((LOOPBACK, 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { api, certified, bare, state: Mutex::default(), ended: Notify::new() });
        let task = tokio::spawn(accept(listener, TlsAcceptor::from(own), Arc::clone(&shared)));
        Ok(Proxy { port, shared, task })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the process `pid` after so many writes; lets it live without a number.
    pub fn watch(&self, pid: u32, writes: Option<usize>) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        let mut state = self.shared.state();
        state.victim = writes.map(|writes| (pid, writes));
        state.allowed = writes.map(|writes| Arc::new(Semaphore::new(writes)));
        state.cut = false;
        Ok(())
    }

    /// Waits until the process has been ended.
    pub async fn ended(&self) {
        self.shared.ended.notified().await;
    }

    /// Whether the process has been ended and not been replaced yet.
    pub fn has_cut(&self) -> bool {
        self.shared.state().cut
    }

    /// How many writes there were.
    pub fn writes(&self) -> usize {
        self.shared.state().writes
    }

    /// What was asked since the last call, and how often.
    pub fn take_asked(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.shared.state().asked)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection to the API server, made again when it has ended: the server ends one on which many requests are given up at
/// once, which happens when a process is.
struct Upstream {
    api: SocketAddr,
    tls: TlsConnector,
    open: tokio::sync::Mutex<Option<SendRequest<Full<Bytes>>>>,
}

impl Upstream {
    fn new(api: SocketAddr, tls: Arc<ClientConfig>) -> Upstream {
        let mut tls = Arc::unwrap_or_clone(tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Upstream { api, tls: TlsConnector::from(Arc::new(tls)), open: tokio::sync::Mutex::default() }
    }

    async fn get(&self) -> Result<SendRequest<Full<Bytes>>> {
        let mut open = self.open.lock().await;
        if let Some(sender) = open.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let tcp = TcpStream::connect(self.api).await.context("the API server")?;
        tcp.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::from(self.api.ip()), tcp).await?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        *open = Some(sender.clone());
        Ok(sender)
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            // A process that was ended may leave a handshake behind.
            let Ok(stream) = tls.accept(tcp).await else { return };
            let service = service_fn(move |request| pass(Arc::clone(&shared), request));
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// One request and its answer; an error closes the connection.
async fn pass(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Incoming>> {
    let (mut head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let is_write = is_write(&head.method, head.uri.path());
    shared.asked(&head.method, &path)?;
    let allowed = shared.state().allowed.clone().filter(|_| is_write);
    let permit = match &allowed {
        Some(allowed) => Some(allowed.acquire().await?),
        None => None,
    };
    head.uri = Uri::builder().scheme("https").authority(shared.api.to_string()).path_and_query(path).build()?;
    head.headers.remove(HOST);
    head.version = http::Version::HTTP_2;
    let upstream = if head.headers.contains_key(AUTHORIZATION) { &shared.bare } else { &shared.certified };
    let answer = upstream.get().await?.send_request(Request::from_parts(head, Full::new(body))).await?;
    if is_write && answer.status().is_success() {
        // One that was refused gives its turn back.
        permit.into_iter().for_each(|permit| permit.forget());
        shared.wrote()?;
    }
    Ok(answer)
}

/// What changes the cluster. Events only tell of it, Leases and reviews keep the process itself going.
fn is_write(method: &Method, path: &str) -> bool {
    let aside = ["/events", "/leases", "/token", "reviews"];
    *method != Method::GET && !aside.iter().any(|part| path.contains(part))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self, method: &Method, path: &str) -> Result<()> {
        let mut state = self.state();
        if state.cut {
            bail!("the process has been ended");
        }
        let verb = if path.contains("watch=true") || path.contains("watch=1") { "WATCH" } else { method.as_str() };
        let path = path.split('?').next().unwrap_or_default();
        *state.asked.entry(format!("{verb} {path}")).or_default() += 1;
        Ok(())
    }

    fn wrote(&self) -> Result<()> {
        let mut state = self.state();
        state.writes += 1;
        let Some((pid, left)) = &mut state.victim else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Ok(());
        }
        kill(*pid, Signal::SIGKILL)?;
        state.victim = None;
        state.allowed.take().into_iter().for_each(|allowed| allowed.close());
        state.cut = true;
        self.ended.notify_one();
        bail!("the process has been ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_what_changes_the_cluster() {
        for (method, path, expected) in [
            (Method::POST, "/api/v1/namespaces/a/pods", true),
            (Method::PATCH, "/api/v1/namespaces/a/pods/p/status", true),
            (Method::GET, "/api/v1/pods", false),
            (Method::POST, "/api/v1/namespaces/a/events", false),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x", false),
            (Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", false),
        ] {
            assert_eq!(is_write(&method, path), expected, "{method} {path}");
        }
    }
}
