//! Connections that say nothing, slow ones and ones that do not listen cost others nothing; at the end everything is drained.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::session::{Session, connect};
use crate::bench::stack::Stack;

/// How many connections, if this process and the server may have as many files open.
const CONNECTIONS: usize = 10_000;
/// Files that the rest needs.
const RESERVE: usize = 500;
/// One in so many finishes TLS and then says nothing, or one byte; the others never begin it.
const SLOW_SHARE: usize = 5;
/// The longest that a request beside them may take.
const LONGEST: Duration = Duration::from_secs(2);

pub async fn run(mut stack: Stack) -> Result<()> {
    let address = stack.api_address();
    let tls = stack.tls_of("root", &["system:masters"])?;
    let mut admin = Session::open(address, &tls).await?;
    let before = resident(&stack);
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
    drained(&mut stack, &mut admin).await
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
