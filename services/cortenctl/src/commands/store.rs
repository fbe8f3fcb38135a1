//! store: the cluster store's members, their state, and its snapshots.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use machine_api::v1::{Data, StoreAlarmsRequest, StoreMember, StoreMoveLeaderRequest, StoreRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::Global;
use crate::connect::{self, Client};
use crate::output::{self, Output};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Store {
    /// List the members
    Members {
        #[command(flatten)]
        output: Output,
    },
    /// Show each machine's member
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Write the whole store into a file
    Snapshot {
        /// The file; must not exist
        file: PathBuf,
    },
    /// Start the store anew from a snapshot, with this machine as its only member
    Restore {
        /// The snapshot
        file: PathBuf,
    },
    /// Give space of removed records back to the disk
    Defrag,
    /// List active alarms, or clear them
    Alarm {
        #[arg(value_enum, default_value = "list")]
        action: Alarm,
    },
    /// Hand the leadership to another member; ask the machine that leads
    MoveLeader {
        /// The member's id, as `members` shows it
        #[arg(value_parser = id)]
        to: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Alarm {
    List,
    Disarm,
}

fn id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16).map_err(|_| format!("{text:?} is not a member's id (hexadecimal)"))
}

pub(crate) async fn run(args: Store, global: &Global) -> anyhow::Result<()> {
    match args {
        Store::Members { output } => members(output, global).await,
        Store::Status { output } => status(output, global).await,
        Store::Snapshot { file } => snapshot(&file, global).await,
        Store::Restore { file } => restore(&file, global).await,
        Store::Defrag => {
            for (node, mut client) in connect::all(global).await? {
                client.store_defragment(StoreRequest {}).await?;
                println!("{node}: defragmented");
            }
            Ok(())
        }
        Store::Alarm { action } => {
            let mut client = connect::one(global).await?;
            let request = StoreAlarmsRequest { clear: action == Alarm::Disarm };
            let alarms = client.store_alarms(request).await?.into_inner().alarms;
            alarms.iter().for_each(|alarm| println!("{alarm}"));
            Ok(())
        }
        Store::MoveLeader { to } => {
            connect::one(global).await?.store_move_leader(StoreMoveLeaderRequest { to }).await?;
            println!("{to:x} leads");
            Ok(())
        }
    }
}

fn member_row(member: StoreMember) -> Vec<String> {
    let name = if member.name.is_empty() { "(not started)".to_owned() } else { member.name };
    let votes = if member.learner { "no" } else { "yes" };
    vec![format!("{:x}", member.id), name, votes.into(), member.peer_urls.join(","), member.client_urls.join(",")]
}

async fn members(output: Output, global: &Global) -> anyhow::Result<()> {
    let list = connect::one(global).await?.store_members(StoreRequest {}).await?.into_inner().members;
    let rows: Vec<_> = list.into_iter().map(member_row).collect();
    output::print(output, &["ID", "NAME", "VOTES", "PEER URLS", "CLIENT URLS"], &rows);
    Ok(())
}

async fn status(output: Output, global: &Global) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (node, mut client) in connect::all(global).await? {
        let s = client.store_status(StoreRequest {}).await?.into_inner();
        let role = if s.learner {
            "learner"
        } else if s.leader == s.id {
            "leader"
        } else {
            "follower"
        };
        let numbers = [s.term, s.applied_index].map(|number| number.to_string());
        let [term, index] = numbers;
        let (revision, size) = (s.revision.to_string(), s.size_bytes.to_string());
        rows.push(vec![node, format!("{:x}", s.id), role.into(), term, index, revision, size, s.errors.join("; ")]);
    }
    let heading = ["NODE", "ID", "ROLE", "TERM", "APPLIED INDEX", "REVISION", "SIZE BYTES", "ERRORS"];
    output::print(output, &heading, &rows);
    Ok(())
}

async fn snapshot(file: &Path, global: &Global) -> anyhow::Result<()> {
    let name = || file.display().to_string();
    let mut pieces = connect::one(global).await?.store_snapshot(StoreRequest {}).await?.into_inner();
    // Under another name until it is complete.
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    anyhow::ensure!(!file.exists(), "{} exists already", file.display());
    let mut out = tokio::fs::File::create(&part).await.with_context(name)?;
    while let Some(piece) = pieces.message().await? {
        out.write_all(&piece.bytes).await.with_context(name)?;
    }
    out.sync_all().await.with_context(name)?;
    tokio::fs::rename(&part, file).await.with_context(name)?;
    println!("{}", file.display());
    Ok(())
}

async fn restore(file: &Path, global: &Global) -> anyhow::Result<()> {
    let client = connect::one(global).await?;
    let source = tokio::fs::File::open(file).await.with_context(|| file.display().to_string())?;
    println!("{}", send(client, source).await?);
    Ok(())
}

async fn send(mut client: Client, mut source: tokio::fs::File) -> anyhow::Result<String> {
    let (sender, receiver) = mpsc::channel(4);
    let feeding = async move {
        loop {
            let mut bytes = vec![0; machine_api::CHUNK];
            let n = source.read(&mut bytes).await?;
            bytes.truncate(n);
            // Nobody receives when the call has failed, and its error says why.
            if n == 0 || sender.send(Data { bytes }).await.is_err() {
                return Ok::<(), std::io::Error>(());
            }
        }
    };
    let (fed, answer) = tokio::join!(feeding, client.store_restore(ReceiverStream::new(receiver)));
    let message = answer?.into_inner().message;
    fed?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_named_by_their_ids_in_hexadecimal() {
        let row = member_row(StoreMember { id: 0xbeef, learner: true, ..StoreMember::default() });
        assert_eq!(row[..3], ["beef", "(not started)", "no"]);
        assert_eq!(id(&row[0]), Ok(0xbeef));
        assert!(id("m0").is_err());
    }
}
