//! The simulated network: each call between members is one message there and one back.
//!
//! A message is late by a random time, so calls overtake each other; it may be lost, as when its connection breaks, and
//! then the caller learns so later, without knowing how far it came. Raft's own messages, which must bear it, may arrive
//! twice. Who gives a call up may thereby cancel it at the other end, in the middle of whatever that does. The pieces of a
//! stream keep their order, and when one is lost the stream breaks for both ends, though not at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use prost::Message;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, request};
use tonic::codegen::{Service, StdError};
use tonic::transport::Channel;
use tonic::{ConnectError, Status};

use super::{World, world};
use crate::raft::transport::NotConnected;
use crate::raft::wire::pb;
use crate::server::Server;

/// Without an answer for so long a dead connection is noticed.
const PATIENCE: u64 = 1500;
/// What may arrive twice.
const DOUBLED: [&str; 6] = ["Append", "Vote", "PreVote", "TransferLeader", "ReadIndex", "Describe"];

/// Calls that are streams of pieces.
const STREAMS: [&str; 2] = ["AppendStream", "Install"];
/// Pieces of a stream that are on their way in one direction.
const WINDOW: usize = 16;

/// Who is there, and what the network does to messages.
#[derive(Default)]
pub struct Network {
    listening: BTreeMap<String, (String, Server)>,
    running: BTreeMap<String, u64>,
    started: u64,
    /// Pairs of sender and receiver between which nothing passes.
    pub cuts: BTreeSet<(String, String)>,
    /// Messages are much later than usual, and some are lost or come twice.
    pub rough: bool,
}

impl Network {
    /// A member's process starts; the number tells it from those before it.
    pub fn start(&mut self, name: &str) -> u64 {
        self.started += 1;
        self.running.insert(name.to_owned(), self.started);
        self.started
    }

    /// A member listens.
    pub fn listen(&mut self, name: &str, url: &str, server: Server) {
        self.listening.insert(url.to_owned(), (name.to_owned(), server));
    }

    /// A member's process is gone.
    pub fn stop(&mut self, name: &str) {
        self.running.remove(name);
        self.listening.retain(|_, (other, _)| other != name);
    }

    /// Whether this very process still runs.
    pub fn runs(&self, name: &str, process: u64) -> bool {
        self.running.get(name) == Some(&process)
    }

    fn find(&self, urls: &[String]) -> Option<(End, Server)> {
        let (name, server) = urls.iter().find_map(|url| self.listening.get(url))?;
        let process = *self.running.get(name)?;
        Some((End { name: name.clone(), process }, server.clone()))
    }

    fn passes(&self, from: &End, to: &End) -> bool {
        self.runs(&to.name, to.process) && !self.cuts.contains(&(from.name.clone(), to.name.clone()))
    }
}

/// A member's process.
#[derive(Clone, Debug)]
pub struct End {
    name: String,
    process: u64,
}

/// The way to a member.
#[derive(Clone)]
pub enum Link {
    /// A real one, outside of simulations.
    Wire(Channel),
    /// To whoever listens there.
    Simulated(End, Vec<String>),
    /// From a client that stands beside the member.
    Local(Server),
}

impl Link {
    /// The way from a member to these URLs, if this is a simulation.
    pub fn simulated(from: &str, urls: &[String]) -> Option<Self> {
        let process = world()?.network.lock().running.get(from).copied().unwrap_or_default();
        Some(Link::Simulated(End { name: from.to_owned(), process }, urls.to_vec()))
    }
}

impl Service<Request<Body>> for Link {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, StdError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Link::Wire(channel) => channel.poll_ready(context).map_err(Into::into),
            Link::Simulated(..) | Link::Local(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self {
            Link::Wire(channel) => {
                let answer = channel.call(request);
                Box::pin(async { Ok(answer.await?) })
            }
            Link::Simulated(from, urls) => Box::pin(call(from.clone(), urls.clone(), request)),
            Link::Local(server) => {
                let server = server.clone();
                Box::pin(async { Ok(server.answer_member(request).await) })
            }
        }
    }
}

/// What happens to one message.
struct Fate {
    late: Duration,
    lost: bool,
}

impl World {
    fn fate(&self) -> Fate {
        let rough = self.network.lock().rough;
        let late = match (rough, self.below(20)) {
            (false, 0..17) => self.below(3),
            (false, _) => self.below(30),
            (true, 0..10) => self.below(20),
            (true, 10..18) => self.below(150),
            (true, _) => self.below(900),
        };
        let lost = self.below(1000) < if rough { 60 } else { 1 };
        Fate { late: Duration::from_millis(late), lost }
    }

    fn twice(&self, kind: &str) -> bool {
        DOUBLED.contains(&kind) && self.chance(if self.network.lock().rough { 15 } else { 1 })
    }
}

fn not_connected(reason: &str) -> StdError {
    Box::new(ConnectError(Box::new(NotConnected(io::Error::other(reason.to_owned())))))
}

async fn call(from: End, urls: Vec<String>, request: Request<Body>) -> Result<Response<Body>, StdError> {
    let world = world().ok_or_else(|| not_connected("the simulation is over"))?;
    if !world.network.lock().runs(&from.name, from.process) {
        return Err(not_connected("this process is gone"));
    }
    let found = world.network.lock().find(&urls);
    let reachable = found.as_ref().is_some_and(|(to, _)| world.network.lock().passes(&from, to));
    let Some((to, server)) = found.filter(|_| reachable || world.chance(50)) else {
        // Refused at once where nothing listens; without a trace where the network is cut.
        let wait = if world.chance(60) { world.below(3) } else { PATIENCE };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        return Err(not_connected("nobody listens there"));
    };
    let (head, body) = request.into_parts();
    let kind = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let delivery = Delivery { world: world.clone(), from, to, server, kind, head, turned: false };
    let (mut answer, answered) = oneshot::channel();
    let cancelled = world.chance(50);
    let work: Pin<Box<dyn Future<Output = Option<Response<Body>>> + Send>> =
        if STREAMS.contains(&delivery.kind.as_str()) {
            Box::pin(delivery.stream(body))
        } else {
            let body = body.collect().await?.to_bytes();
            if world.twice(&delivery.kind) {
                tokio::spawn(delivery.clone().message(body.clone()));
            }
            Box::pin(delivery.message(body))
        };
    tokio::spawn(async move {
        let response = tokio::select! {
            biased;
            () = answer.closed(), if cancelled => None,
            response = work => response,
        };
        if let Some(response) = response {
            // Who asked may have given up.
            let _ = answer.send(response);
        }
    });
    match answered.await {
        Ok(response) => Ok(response),
        Err(_) => {
            tokio::time::sleep(Duration::from_millis(world.below(PATIENCE))).await;
            Err(Box::new(Status::unavailable("the connection broke")))
        }
    }
}

/// One message on its way.
#[derive(Clone)]
struct Delivery {
    world: Arc<World>,
    from: End,
    to: End,
    server: Server,
    kind: String,
    head: request::Parts,
    /// The pieces of a stream go from the one who was called to the one who called.
    turned: bool,
}

impl Delivery {
    /// A message in one piece, and its answer.
    async fn message(self, body: Bytes) -> Option<Response<Body>> {
        self.note("->", &body);
        self.travel(&self.from, &self.to).await?;
        let request = Request::from_parts(self.head.clone(), Body::new(Full::new(body.clone())));
        self.look(&body);
        let response = self.server.clone().answer_member(request).await;
        self.back(response, &body).await
    }

    /// Messages in both directions; each may be lost, and then nothing more passes in either.
    async fn stream(self, body: Body) -> Option<Response<Body>> {
        let broken = Arc::new(Notify::new());
        let (there, back) = (self.clone(), self.clone().turned());
        let (forward, pieces) = mpsc::channel(1);
        tokio::spawn(there.pump(body, forward, broken.clone()));
        let request = Request::from_parts(self.head.clone(), Body::new(StreamBody::new(ReceiverStream::new(pieces))));
        let (head, body) = self.server.clone().answer_member(request).await.into_parts();
        back.travel(&back.from, &back.to).await?;
        let (forward, pieces) = mpsc::channel(1);
        tokio::spawn(back.pump(body, forward, broken));
        Some(Response::from_parts(head, Body::new(StreamBody::new(ReceiverStream::new(pieces)))))
    }

    /// The same call, seen from the other end.
    fn turned(self) -> Self {
        Delivery { from: self.to, to: self.from, turned: true, ..self }
    }

    /// Carries the pieces of one direction until they end, or one is lost, or nobody wants them.
    async fn pump(self, mut body: Body, forward: mpsc::Sender<Result<Frame<Bytes>, Status>>, broken: Arc<Notify>) {
        let (send, mut under_way) = mpsc::channel::<(Instant, bool, Frame<Bytes>)>(WINDOW);
        let sending = async {
            let mut last = Instant::now();
            while let Some(Ok(piece)) = body.frame().await {
                // What is left of a process that crashed may go on, but nobody hears it.
                let runs = self.world.network.lock().runs(&self.from.name, self.from.process);
                let fate = self.world.fate();
                last = last.max(Instant::now() + fate.late);
                if send.send((last, fate.lost || !runs, piece)).await.is_err() {
                    break;
                }
            }
            drop(send);
        };
        let delivering = async {
            while let Some((arrives, lost, piece)) = under_way.recv().await {
                tokio::time::sleep_until(arrives).await;
                let bytes = piece.data_ref().cloned().unwrap_or_default();
                if lost || !self.world.network.lock().passes(&self.from, &self.to) {
                    self.note("-|", &bytes);
                    return true;
                }
                self.note("->", &bytes);
                self.look(&bytes);
                if forward.send(Ok(piece)).await.is_err() {
                    return false;
                }
            }
            false
        };
        let lost = tokio::select! {
            biased;
            () = forward.closed() => false,
            () = broken.notified() => true,
            ((), lost) = join(sending, delivering) => lost,
        };
        if lost {
            broken.notify_one();
            tokio::time::sleep(Duration::from_millis(self.world.below(PATIENCE))).await;
            // Who waits for it may be gone.
            let _ = forward.send(Err(Status::unavailable("the connection broke"))).await;
        }
    }

    async fn back(&self, response: Response<Body>, request: &Bytes) -> Option<Response<Body>> {
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?;
        let trailers = body.trailers().cloned();
        let bytes = body.to_bytes();
        self.note("<-", &bytes);
        // What is left of a process that crashed may go on, but nobody hears it.
        if !self.world.network.lock().runs(&self.to.name, self.to.process) {
            return None;
        }
        self.granted(request, &bytes);
        self.travel(&self.to, &self.from).await?;
        let body = Full::new(bytes).with_trailers(async { trailers.map(Ok) });
        Some(Response::from_parts(head, Body::new(body)))
    }

    async fn travel(&self, from: &End, to: &End) -> Option<()> {
        let fate = self.world.fate();
        if !fate.late.is_zero() {
            tokio::time::sleep(fate.late).await;
        }
        (!fate.lost && self.world.network.lock().passes(from, to)).then_some(())
    }

    fn note(&self, way: &str, body: &Bytes) {
        let (from, to, kind, sum) = (&self.from.name, &self.to.name, &self.kind, crc32fast::hash(body));
        self.world.note(|| format!("{from} {way} {to} {kind} {} {sum:08x}", body.len()));
    }

    /// Who sends entries leads.
    fn look(&self, body: &Bytes) {
        if !["Append", "AppendStream"].contains(&self.kind.as_str()) || self.turned {
            return;
        }
        for vote in messages::<pb::AppendRequest>(body).filter_map(|request| request.vote) {
            self.world.check(|checks| checks.leads(vote.term, vote.voted_for));
        }
    }

    /// Nobody gives his vote twice.
    fn granted(&self, request: &Bytes, response: &Bytes) {
        if self.kind != "Vote" {
            return;
        }
        let request = messages::<pb::VoteRequest>(request).next();
        let response = messages::<pb::VoteResponse>(response).next();
        if let (Some(vote), true) = (request.and_then(|r| r.vote), response.is_some_and(|r| r.granted)) {
            self.world.check(|checks| checks.votes(&self.to.name, vote.term, vote.voted_for));
        }
    }
}

/// The messages of a body, each behind five bytes that end with its length.
fn messages<M: Message + Default>(mut body: &[u8]) -> impl Iterator<Item = M> {
    std::iter::from_fn(move || {
        let (head, rest) = body.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        body = rest.get(length..)?;
        M::decode(rest.get(..length)?).ok()
    })
}
