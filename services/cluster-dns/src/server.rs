//! The sockets: UDP and TCP on the cluster's DNS address.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use daemon::{Outcome, Shutdown};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::answer::{Answer, answer};
use crate::forward;
use crate::zone::Zone;

/// Questions that may be in work at once; more are dropped, and their resolvers ask again.
const QUESTIONS_MAX: usize = 1024;
/// What a UDP answer may have without EDNS (RFC 1035) and what we accept with it.
const PLAIN_UDP_BYTES: u16 = 512;
const EDNS_UDP_BYTES: u16 = 1232;
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Answers whole messages.
pub struct Resolver {
    zone: Arc<RwLock<Zone>>,
    resolv_conf: PathBuf,
    synced: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Resolver {
    /// `synced` says whether the zone is complete; before that, cluster names are answered by SERVFAIL, because
    /// NXDOMAIN would be believed.
    pub fn new(
        zone: Arc<RwLock<Zone>>,
        resolv_conf: PathBuf,
        synced: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Resolver { zone, resolv_conf, synced: Box::new(synced) }
    }

    /// The answer to a message in wire format, or `None` where none must be sent.
    async fn respond(&self, question: &[u8], ours: IpAddr, over_udp: bool) -> Option<Vec<u8>> {
        let request = Message::from_vec(question).ok()?;
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_queries(request.queries.clone());
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(EDNS_UDP_BYTES);
            response.set_edns(edns);
        }
        let ([query], OpCode::Query) = (request.queries.as_slice(), request.metadata.op_code) else {
            response.metadata.response_code = ResponseCode::NotImp;
            return response.to_vec().ok();
        };
        let found = answer(&self.zone.read(), query);
        match found {
            Answer::Forward => {
                if let Some(answer) = forward::ask(&self.resolv_conf, question, ours).await {
                    return Some(answer);
                }
                response.metadata.response_code = ResponseCode::ServFail;
            }
            Answer::Authoritative { .. } if !(self.synced)() => {
                response.metadata.response_code = ResponseCode::ServFail;
            }
            Answer::Authoritative { code, answers, authorities, additionals } => {
                response.metadata.authoritative = true;
                response.metadata.response_code = code;
                response.insert_answers(answers);
                response.insert_authorities(authorities);
                response.insert_additionals(additionals);
            }
        }
        let bytes = response.to_vec().ok()?;
        let room =
            request.edns.as_ref().map_or(PLAIN_UDP_BYTES, |e| e.max_payload().clamp(PLAIN_UDP_BYTES, EDNS_UDP_BYTES));
        if over_udp && bytes.len() > usize::from(room) {
            return response.truncate().to_vec().ok();
        }
        Some(bytes)
    }
}

/// Serves until `shutdown`.
pub async fn serve(address: SocketAddr, resolver: Arc<Resolver>, shutdown: Shutdown) -> Outcome {
    let udp = Arc::new(UdpSocket::bind(address).await.map_err(|e| format!("UDP {address}: {e}"))?);
    let tcp = TcpListener::bind(address).await.map_err(|e| format!("TCP {address}: {e}"))?;
    let room = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            received = udp.recv_from(&mut buffer) => {
                // ICMP errors about earlier answers arrive here; they are no reason to stop.
                let Ok((length, peer)) = received else { continue };
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let (question, udp, resolver) = (buffer[..length].to_vec(), Arc::clone(&udp), Arc::clone(&resolver));
                tokio::spawn(async move {
                    if let Some(answer) = resolver.respond(&question, address.ip(), true).await {
                        let _ = udp.send_to(&answer, peer).await;
                    }
                    drop(permit);
                });
            }
            accepted = tcp.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                let resolver = Arc::clone(&resolver);
                tokio::spawn(async move {
                    if let Err(error) = serve_stream(stream, &resolver, address.ip()).await {
                        debug!(%error, "DNS over TCP");
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_stream(mut stream: TcpStream, resolver: &Resolver, ours: IpAddr) -> std::io::Result<()> {
    loop {
        let Ok(length) = tokio::time::timeout(IDLE_LIMIT, stream.read_u16()).await else { return Ok(()) };
        let mut question = vec![0; usize::from(length?)];
        stream.read_exact(&mut question).await?;
        let Some(answer) = resolver.respond(&question, ours, false).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&answer).await?;
    }
}
