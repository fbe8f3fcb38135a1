//! The cluster store: the etcd v3 gRPC API over openraft and RocksDB, compatible with etcd's clients.
//!
//! Owns the data directory and everything in it. Must never know of Kubernetes, answer before a change is durable on a
//! quorum, serve a damaged record, or go on after a failed write or sync.
//!
//! Start reading at [`run`], then [`member`] (what a member consists of), [`raft`] (the way of a write) and [`mvcc`] (what
//! a write does). Byte layouts are in [`schema`] and [`wal`] only. Other members are in [`raft::transport`] (who speaks to whom),
//! [`raft::membership`] (who is one) and [`raft::transfer`] (the way of one that is far behind); what an administrator does
//! with a snapshot file is in `offline`, the comparison of the members' contents in `corruption`.

pub mod auth;
pub mod command;
pub mod compactor;
pub mod config;
mod corruption;
pub mod engine;
pub mod error;
pub mod lease;
pub mod member;
pub mod metrics;
pub mod mvcc;
mod offline;
pub mod raft;
pub mod schema;
pub mod server;
pub mod snapshot;
pub mod space;
pub mod wal;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use config::Config;
use member::{Closing, Member};
use raft::writer::{Fatal, Faults};
use server::Server;

/// Runs one member until `shutdown`, or until something fails that it must not survive.
///
/// # Errors
/// Wrong flags, damaged data, a failed disk, or an address that cannot be listened on.
pub async fn run(args: Vec<String>, shutdown: daemon::Shutdown) -> daemon::Outcome {
    run_on(args, shutdown, Faults::default()).await
}

/// [`run`] on a disk that fails when it is told to.
///
/// # Errors
/// As for [`run`].
pub async fn run_on(args: Vec<String>, shutdown: daemon::Shutdown, faults: Faults) -> daemon::Outcome {
    if args.get(1).is_some_and(|first| first == "snapshot") {
        let command = offline::Offline::try_parse_from(args)?;
        return Ok(tokio::task::spawn_blocking(move || offline::run(command)).await??);
    }
    let config = Config::try_parse_from(args)?;
    config.validate()?;
    let fatal = Fatal::new();
    let (member, closing) = Member::open(config, fatal.clone(), faults).await?;
    let (stop, stopped) = daemon::Shutdown::pair();
    let mut serving = std::pin::pin!(serve(member, closing.core(), stopped));
    let failed = tokio::select! {
        reason = fatal.wait() => Some(reason),
        () = shutdown.wait() => None,
        outcome = serving.as_mut() => {
            close(closing).await;
            return outcome;
        }
    };
    // Connections end in either case: each of them holds the database.
    stop.trigger();
    let outcome = serving.await;
    close(closing).await;
    failed.map_or(outcome, |reason| Err(reason.into()))
}

/// How long a member may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);

async fn close(closing: Closing) {
    if tokio::time::timeout(CLOSE_LIMIT, closing.close()).await.is_err() {
        tracing::error!("the member does not close");
        // Ending the process orderly would wait for the same threads in RocksDB's exit handlers, without a limit.
        std::process::abort();
    }
}

/// Serves other members, then (as soon as this one is part of the cluster) clients, until `shutdown`.
async fn serve(member: Arc<Member>, core: Handle, shutdown: daemon::Shutdown) -> daemon::Outcome {
    let retention = member.config.retention()?;
    let mut tasks = JoinSet::new();
    let server = Server::for_members(member.clone(), shutdown.clone());
    for url in member.config.peer_listeners() {
        // What other members say mostly concerns consensus: a message that arrives on its thread wakes no other one.
        tasks.spawn_on(server.clone().serve(url), &core);
    }
    drop(server);
    tokio::select! {
        () = shutdown.wait() => return Ok(()),
        failed = failure(&mut tasks) => return failed,
        joined = member.join() => joined?,
    }
    tracing::info!(
        member = %format!("{:x}", member.identity.member),
        cluster = %format!("{:x}", member.identity.cluster),
        revision = member.state.mvcc.revision(),
        "member is ready"
    );
    let server = Server::for_clients(member.clone(), shutdown.clone());
    for url in &member.config.listen_client_urls {
        tasks.spawn(server.clone().serve(url.clone()));
    }
    drop(server);
    let compact = compactor::run(member.clone(), retention, shutdown.clone());
    let (lead, compare) = (member.clone().lead(shutdown.clone()), corruption::watch(member, shutdown));
    tasks.spawn(async move {
        futures_util::future::join3(lead, compare, compact).await;
        Ok(())
    });
    finish(&mut tasks).await
}

/// Resolves when a task fails; never if none does.
async fn failure(tasks: &mut JoinSet<daemon::Outcome>) -> daemon::Outcome {
    match tasks.join_next().await {
        Some(ended) => ended?,
        None => std::future::pending().await,
    }
}

/// Waits for all tasks; the first failure counts.
async fn finish(tasks: &mut JoinSet<daemon::Outcome>) -> daemon::Outcome {
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
