//! The cluster store: the etcd v3 gRPC API over openraft and RocksDB, compatible with etcd's clients.
//!
//! Owns the data directory and everything in it. Must never know of Kubernetes, answer before a change is durable on a
//! quorum, serve a damaged record, or go on after a failed write or sync.
//!
//! Start reading at [`run`], then [`member`] (what a member consists of), [`raft`] (the way of a write) and [`mvcc`] (what
//! a write does). Byte layouts are in [`schema`] only.

pub mod command;
pub mod config;
mod corruption;
pub mod engine;
pub mod error;
pub mod lease;
pub mod member;
pub mod mvcc;
pub mod raft;
pub mod schema;
pub mod server;
pub mod snapshot;
pub mod watch;

use clap::Parser;
use tokio::task::JoinSet;

use config::Config;
use member::Member;
use raft::writer::Fatal;
use server::Server;

/// Runs one member until `shutdown`, or until something fails that it must not survive.
///
/// # Errors
/// Wrong flags, damaged data, a failed disk, or an address that cannot be listened on.
pub async fn run(args: Vec<String>, shutdown: daemon::Shutdown) -> daemon::Outcome {
    let config = Config::try_parse_from(args)?;
    config.validate()?;
    let (urls, peers) = (config.listen_client_urls.clone(), config.peer_listeners());
    let fatal = Fatal::new();
    let (member, closing) = Member::open(config, fatal.clone()).await?;
    let mut tasks = JoinSet::new();
    let server = Server::for_members(member.clone(), shutdown.clone());
    for url in peers {
        tasks.spawn(server.clone().serve(url));
    }
    drop(server);
    tokio::select! {
        reason = fatal.wait() => return Err(reason.into()),
        () = shutdown.wait() => {
            drop(member);
            closing.close().await;
            return Ok(());
        }
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
    for url in urls {
        tasks.spawn(server.clone().serve(url));
    }
    drop(server);
    let (lead, compare) = (member.clone().lead(shutdown.clone()), corruption::watch(member, shutdown));
    tasks.spawn(async move {
        futures_util::future::join(lead, compare).await;
        Ok(())
    });
    let outcome = tokio::select! {
        reason = fatal.wait() => return Err(reason.into()),
        outcome = finish(&mut tasks) => outcome,
    };
    closing.close().await;
    outcome
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
