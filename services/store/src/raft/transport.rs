//! Connections to the other members, and the check of who speaks to whom.
//!
//! A member is more than its address: it is an id that is never used again plus the incarnation of its data directory.
//! Every message names both ends. So a message that reaches a machine whose disk was replaced is refused instead of
//! answered by a member that forgot its votes, and a removed member is told so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;

use super::membership::{Identity, MemberNode};
use super::wire::pb;
use super::wire::pb::peer_client::PeerClient;
use super::writer::Fatal;
use crate::config::{Config, Url};
use crate::error::{Error, Refusal};

/// What a removed member is told; etcd's words.
pub const REMOVED: &str = "the member has been permanently removed from the cluster";
/// What a member is told whose data directory is not the one that joined.
pub const LOST: &str = "this member lost its data: remove it from the cluster and add it as a new one";

/// What a connection is for: a snapshot must not delay a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes and entries.
    Consensus,
    /// Forwarded requests.
    Requests,
    /// Snapshots.
    Snapshots,
}

/// Connections to the other members. Clones share them.
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

/// The way to a member.
#[cfg(not(test))]
pub type Link = tonic::transport::Channel;
#[cfg(test)]
pub type Link = super::sim::Link;

/// A way and the addresses it was made for.
type Dialled = (Vec<String>, Link);

struct Inner {
    /// This member's name, for a simulated network.
    #[cfg(test)]
    name: String,
    tls: Option<TlsConnector>,
    /// Without an answer for this long a connection is given up.
    patience: Duration,
    identity: OnceLock<Identity>,
    members: RwLock<BTreeMap<u64, MemberNode>>,
    removed: Arc<Mutex<BTreeSet<u64>>>,
    channels: Mutex<HashMap<(u64, Lane), Dialled>>,
    fatal: Fatal,
}

impl Transport {
    /// No connections yet; `removed` is shared with the state machine.
    ///
    /// # Errors
    /// The certificates cannot be used.
    pub fn new(config: &Config, removed: Arc<Mutex<BTreeSet<u64>>>, fatal: Fatal) -> Result<Self, Error> {
        let flags = &config.cluster;
        let identity = flags.peer_cert_file.as_deref().zip(flags.peer_key_file.as_deref());
        let tls = match &flags.peer_trusted_ca_file {
            None => None,
            Some(ca) => {
                let tls = daemon::tls::client_config(ca, identity).map_err(|e| Error::Layout(e.to_string()))?;
                Some(TlsConnector::from(tls))
            }
        };
        Ok(Transport(Arc::new(Inner {
            #[cfg(test)]
            name: config.name.clone(),
            tls,
            patience: Duration::from_millis(config.election_timeout),
            identity: OnceLock::new(),
            members: RwLock::new(BTreeMap::new()),
            removed,
            channels: Mutex::new(HashMap::new()),
            fatal,
        })))
    }

    /// Says who this member is; once, before any message.
    pub fn identify(&self, identity: Identity) {
        // A second call could only repeat the first.
        let _ = self.0.identity.set(identity);
    }

    /// The members and their addresses as of now.
    pub fn learn(&self, members: BTreeMap<u64, MemberNode>) {
        self.0.channels.lock().retain(|(id, _), _| members.contains_key(id));
        *self.0.members.write() = members;
    }

    /// Whether there is no other member.
    pub fn alone(&self) -> bool {
        self.0.members.read().len() <= 1
    }

    /// One member's address, for a member that the membership in force does not have yet.
    pub fn learn_one(&self, id: u64, node: &MemberNode) {
        self.0.members.write().entry(id).or_insert_with(|| node.clone());
    }

    /// A connection to a member, made when it is first used.
    ///
    /// # Errors
    /// The member is unknown.
    pub fn channel(&self, id: u64, lane: Lane) -> Result<Link, Error> {
        let members = self.0.members.read();
        let urls = members.get(&id).map(|node| &node.peer_urls).ok_or(Refusal::MemberNotFound)?;
        let mut channels = self.0.channels.lock();
        match channels.get(&(id, lane)) {
            Some((known, channel)) if known == urls => Ok(channel.clone()),
            _ => {
                let channel = self.connect(urls);
                channels.insert((id, lane), (urls.clone(), channel.clone()));
                Ok(channel)
            }
        }
    }

    /// A connection to the first of these URLs that answers.
    pub fn connect(&self, urls: &[String]) -> Link {
        #[cfg(test)]
        if let Some(link) = Link::simulated(&self.0.name, urls) {
            return link;
        }
        let urls = urls.iter().filter_map(|url| url.parse().ok()).collect();
        let patience = self.0.patience;
        let connector = Connector { urls, tls: self.0.tls.clone(), patience };
        // The connector decides where to go; the address only fills the :authority header.
        let channel = Endpoint::from_static("http://store")
            .http2_keep_alive_interval(patience / 2)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(Some(1 << 20))
            .initial_connection_window_size(Some(4 << 20))
            .connect_with_connector_lazy(connector);
        #[cfg(test)]
        let channel = Link::Wire(channel);
        channel
    }

    /// A client of a member.
    ///
    /// # Errors
    /// The member is unknown.
    pub fn peer(&self, id: u64, lane: Lane) -> Result<PeerClient<Link>, Error> {
        Ok(PeerClient::new(self.channel(id, lane)?)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX))
    }

    /// Both ends of a message to a member.
    pub fn route(&self, to: u64) -> pb::Route {
        let own = self.0.identity.get().copied().unwrap_or_default();
        let to_incarnation = self.0.members.read().get(&to).map_or(0, |node| node.incarnation);
        pb::Route { cluster: own.cluster, from: own.member, from_incarnation: own.incarnation, to, to_incarnation }
    }

    /// Refuses a message that is not for this member, or not from one.
    ///
    /// # Errors
    /// Why.
    pub fn check(&self, route: Option<pb::Route>) -> Result<pb::Route, Status> {
        let own = self.0.identity.get().copied().unwrap_or_default();
        let Some(route) = route else { return Err(Status::invalid_argument("a message without its route")) };
        if route.cluster != own.cluster {
            return Err(Status::failed_precondition("cluster ID mismatch"));
        }
        if route.to != own.member {
            return Err(Status::failed_precondition(format!("this is member {:x}, not {:x}", own.member, route.to)));
        }
        if route.to_incarnation != 0 && route.to_incarnation != own.incarnation {
            self.0.fatal.raise(LOST);
            return Err(Status::failed_precondition(LOST));
        }
        if self.0.removed.lock().contains(&route.from) {
            return Err(Status::permission_denied(REMOVED));
        }
        let known = self.0.members.read().get(&route.from).map_or(0, |node| node.incarnation);
        if known != 0 && known != route.from_incarnation {
            return Err(Status::permission_denied(LOST));
        }
        Ok(route)
    }

    /// Ends this member if another one says that it is none any more.
    pub fn judge(&self, status: Status) -> Status {
        if status.code() == tonic::Code::PermissionDenied && [REMOVED, LOST].contains(&status.message()) {
            self.0.fatal.raise(status.message());
        }
        status
    }
}

/// The connection was never made, so the request was never sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect: {0}")]
pub(super) struct NotConnected(#[source] pub(super) io::Error);

/// Whether a request certainly never left this member, so that repeating it cannot do anything twice.
pub fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<NotConnected>() {
            return true;
        }
        source = error.source();
    }
    false
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[derive(Clone)]
struct Connector {
    urls: Vec<Url>,
    tls: Option<TlsConnector>,
    patience: Duration,
}

impl Connector {
    async fn any(self) -> Result<TokioIo<Box<dyn Stream>>, NotConnected> {
        let mut failure = io::Error::other("no URL");
        for url in &self.urls {
            match tokio::time::timeout(self.patience, self.one(url)).await {
                Ok(Ok(stream)) => return Ok(TokioIo::new(stream)),
                Ok(Err(error)) => failure = error,
                Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("{url} accepts no connection")),
            }
        }
        Err(NotConnected(failure))
    }

    async fn one(&self, url: &Url) -> io::Result<Box<dyn Stream>> {
        let tcp = TcpStream::connect((url.host.as_str(), url.port)).await?;
        tcp.set_nodelay(true)?;
        if !url.tls {
            return Ok(Box::new(tcp));
        }
        let tls = self.tls.as_ref().ok_or_else(|| io::Error::other("https needs --peer-trusted-ca-file"))?;
        let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
        Ok(Box::new(tls.connect(name, tcp).await?))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().any())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn strangers_the_removed_and_the_forgetful_are_refused() {
        let config = Config::try_parse_from(["store", "--data-dir=/d"]).unwrap();
        let removed = Arc::new(Mutex::new(BTreeSet::from([9])));
        let fatal = Fatal::new();
        let transport = Transport::new(&config, removed, fatal.clone()).unwrap();
        transport.identify(Identity { cluster: 1, member: 2, incarnation: 20, founder: true });
        let node = MemberNode { incarnation: 30, ..MemberNode::default() };
        transport.learn(BTreeMap::from([(3, node)]));
        let good = pb::Route { cluster: 1, from: 3, from_incarnation: 30, to: 2, to_incarnation: 20 };
        assert!(transport.check(Some(good)).is_ok());
        assert!(transport.check(Some(pb::Route { to_incarnation: 0, ..good })).is_ok());
        let bad = [
            (pb::Route { cluster: 7, ..good }, "cluster ID mismatch"),
            (pb::Route { to: 8, ..good }, "this is member 2, not 8"),
            (pb::Route { from: 9, ..good }, REMOVED),
            (pb::Route { from_incarnation: 31, ..good }, LOST),
        ];
        for (route, expected) in bad {
            assert_eq!(transport.check(Some(route)).unwrap_err().message(), expected);
        }
        assert!(transport.check(None).is_err() && !fatal.raised());
        assert_eq!(transport.route(3), pb::Route { from: 2, from_incarnation: 20, to: 3, to_incarnation: 30, ..good });
        assert_eq!(transport.check(Some(pb::Route { to_incarnation: 21, ..good })).unwrap_err().message(), LOST);
        assert!(fatal.raised(), "a member that lost its data ends itself");
    }
}
