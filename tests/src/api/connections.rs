//! Connections that say nothing, slow ones and ones that do not listen cost others nothing; those at rest stay for a while; at the end everything is
//! drained.

use std::any::Any;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::session::{Session, connect};
use crate::bench::stack::Stack;

/// How many connections, if this process and the server may have as many files open.
const CONNECTIONS: usize = 10_000;
/// Files that the rest needs.
const RESERVE: usize = 500;
/// One in so many finishes TLS and then says nothing, or one byte; the others never begin it.
const SLOW_SHARE: usize = 5;
/// Watchers that never read.
const DEAF: usize = 5;
/// What they are told: more than the buffers of a socket on both ends, in bytes each and times.
const LOUD: usize = 900 * 1024;
const ROUNDS: usize = 24;
/// The longest that a request beside them may take.
const LONGEST: Duration = Duration::from_secs(2);
/// How long a connection may rest, as with upstream's server.
const REST: Duration = Duration::from_secs(90);

pub async fn run(mut stack: Stack) -> Result<()> {
    let address = stack.api_address();
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut admin = Session::open(address, &tls).await?;
    let before = resident(&stack);
    let resting = resting(&stack).await?;
    let deaf = deaf(&stack, &mut admin).await?;
    let all = CONNECTIONS.min(open_files()?.saturating_sub(RESERVE));
    let (mut mute, mut slow) = (Vec::new(), Vec::new());
    for _ in 0..all - all / SLOW_SHARE {
        mute.push(TcpStream::connect(address).await?);
    }
    for i in 0..all / SLOW_SHARE {
        let mut stream = connect(address, &tls).await?;
        if i % 2 == 0 {
            stream.write_all(b"G").await?;
            stream.flush().await?;
        }
        slow.push(stream);
    }
    let begun = Instant::now();
    ensure!(Session::open(address, &tls).await?.get("/api/v1/namespaces").await?.status == 200, "a new client");
    ensure!(admin.get("/api/v1/namespaces").await?.status == 200, "an old client");
    let took = begun.elapsed();
    println!(
        "  beside {all} idle and slow connections: {took:.1?}; resident {before} MiB, then {} MiB",
        resident(&stack)
    );
    ensure!(took < LONGEST, "two requests took {took:?}");
    // Those without TLS are closed after ten seconds, the others after half a minute.
    for stream in mute.iter_mut().step_by(all / 2) {
        closed(stream, Duration::from_secs(20)).await.context("a connection without TLS")?;
    }
    for stream in &mut slow[..2] {
        closed(stream, Duration::from_secs(50)).await.context("a connection without a request")?;
    }
    drop((mute, slow));
    dropped(&mut admin, deaf).await?;
    for rest in resting {
        let stayed = rest.ended.await?;
        ensure!(stayed >= REST - LONGEST && stayed < REST + 5 * LONGEST, "{} rested for {stayed:.1?}", rest.protocol);
    }
    drained(&mut stack, &mut admin).await
}

/// A connection that has asked once.
struct Resting {
    protocol: &'static str,
    /// How long the server left it open.
    ended: JoinHandle<Duration>,
    /// Whoever could ask again.
    _asker: Box<dyn Any + Send>,
}

/// One of each protocol.
async fn resting(stack: &Stack) -> Result<[Resting; 2]> {
    let (address, tls) = (stack.api_address(), stack.tls_of("root", &["system:masters"])?);
    let request = |uri: String| Request::get(uri).header("host", address.to_string()).body(Empty::<Bytes>::new());
    let (mut one, connection) = http1::handshake(TokioIo::new(connect(address, &tls).await?)).await?;
    let first = tokio::spawn(timed(connection));
    ensure!(one.send_request(request("/livez".into())?).await?.collect().await.is_ok(), "HTTP/1.1");
    let (mut two, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(connect(address, &tls).await?)).await?;
    let second = tokio::spawn(timed(connection));
    let uri = format!("https://{address}/livez");
    ensure!(two.send_request(request(uri)?).await?.collect().await.is_ok(), "HTTP/2");
    Ok([
        Resting { protocol: "HTTP/1.1", ended: first, _asker: Box::new(one) },
        Resting { protocol: "HTTP/2", ended: second, _asker: Box::new(two) },
    ])
}

/// How long something takes, however it ends.
async fn timed(what: impl Future) -> Duration {
    let begun = Instant::now();
    what.await;
    begun.elapsed()
}

/// Watchers that ask and then never read, with more to be told than their sockets hold.
async fn deaf(stack: &Stack, admin: &mut Session) -> Result<Vec<TlsStream<TcpStream>>> {
    let tls = stack.tls_of("root", &["system:masters"])?;
    let before = watches(admin).await?;
    let mut deaf = Vec::new();
    for _ in 0..DEAF {
        let mut stream = connect(stack.api_address(), &tls).await?;
        stream.write_all(b"GET /api/v1/namespaces/default/configmaps?watch=true HTTP/1.1\r\nhost: api\r\n\r\n").await?;
        stream.flush().await?;
        deaf.push(stream);
    }
    until(admin, before + DEAF, Duration::from_secs(10)).await.context("watches begin")?;
    let resident_before = resident(stack);
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut object = json!({"metadata": {"name": "loud"}, "data": {"text": "x".repeat(LOUD)}});
    admin.create(maps, &object).await?;
    for round in 0..ROUNDS {
        object["data"]["round"] = json!(round.to_string());
        let body = Bytes::from(object.to_string());
        let answer = admin.ask(Method::PUT, &format!("{maps}/loud"), "application/json", body).await?;
        ensure!(answer.status == 200, "a write beside deaf watchers: {}", answer.status);
    }
    let grown = resident(stack).saturating_sub(resident_before);
    println!("  {DEAF} deaf watchers and {ROUNDS} events of {} KiB: {grown} MiB more", LOUD / 1024);
    // The cache keeps every event once as an object and once as a frame; it must not keep them for every watcher.
    let once = ROUNDS * LOUD * 2 / (1 << 20);
    ensure!(grown < 2 * once as u64 + 50, "the server grew by {grown} MiB");
    Ok(deaf)
}

/// They are cut off, and what they have not read is not kept for them.
async fn dropped(admin: &mut Session, mut deaf: Vec<TlsStream<TcpStream>>) -> Result<()> {
    let begun = Instant::now();
    until(admin, 0, Duration::from_secs(90)).await.context("deaf watchers are still served")?;
    println!("  deaf watchers were dropped after another {:.1?}", begun.elapsed());
    for stream in &mut deaf {
        closed(stream, Duration::from_secs(10)).await.context("a deaf watcher")?;
    }
    Ok(())
}

/// Waits until no more and no fewer watches run than these. Only the server's metrics tell.
async fn until(admin: &mut Session, wanted: usize, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + patience;
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    loop {
        tick.tick().await;
        let found = watches(admin).await?;
        if found == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{found} watches run, not {wanted}");
    }
}

async fn watches(admin: &mut Session) -> Result<usize> {
    let metrics = admin.get("/metrics").await?;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("apiserver_longrunning_requests{"));
    let numbers = lines.filter(|line| line.contains("verb=\"WATCH\"")).map(|line| line.rsplit(' ').next());
    numbers.map(|number| Ok(number.context("a number")?.parse::<usize>()?)).sum()
}

/// How many files a process of this user may have open (`getrlimit(2)`, the soft limit).
fn open_files() -> Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limit of open files")?;
    Ok(line.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(usize::MAX))
}

async fn closed(stream: &mut (impl AsyncReadExt + Unpin), patience: Duration) -> Result<()> {
    let mut rest = [0; 1024];
    let end = async { while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {} };
    tokio::time::timeout(patience, end).await.context("is still open")
}

/// The order to end: /readyz fails while requests are still served, watches end with their last chunk, the process ends well.
async fn drained(stack: &mut Stack, admin: &mut Session) -> Result<()> {
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut watcher = Session::open(stack.api_address(), &tls).await?;
    let watch = watcher.send(Method::GET, "/api/v1/configmaps?watch=true", &[], Bytes::new()).await?;
    let mut events = watch.into_body();
    admin.create("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "last"}})).await?;
    let first = events.frame().await.context("no event")??;
    ensure!(first.data_ref().is_some_and(|d| d.starts_with(b"{\"type\":")), "an event");
    let begun = Instant::now();
    let ended = tokio::task::block_in_place(|| stack.stop_api());
    ensure!(ended?.success(), "the API server did not end well");
    // A body that is cut off ends in an error instead.
    while let Some(frame) = events.frame().await {
        frame.context("the watch was cut off")?;
    }
    println!("  drained and ended after {:.1?}", begun.elapsed());
    Ok(())
}

fn resident(stack: &Stack) -> u64 {
    stack.memory().iter().find(|(name, _)| *name == "kube-apiserver").map_or(0, |(_, mib)| *mib)
}
