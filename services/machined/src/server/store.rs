//! StoreMembers, StoreStatus, StoreSnapshot, StoreRestore, StoreDefragment, StoreAlarms, StoreMoveLeader: asked of this
//! machine's store as any client would, with the API server's certificate.

use std::path::Path;
use std::process::Stdio;

use hyper_util::rt::TokioIo;
use init_api::Request as InitRequest;
use machine_api::v1::*;
use machine_config::Role;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rustls_pki_types::ServerName;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::alarm_request::AlarmAction;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use super::{DataStream, Running, init_status, services};
use crate::machine::Machine;

const PKI: &str = "/etc/kubernetes/pki";
const ADDRESS: (&str, u16) = ("127.0.0.1", 2379);
const DATA: &str = "/var/lib/store";
const SERVICE: &str = "store";
/// Revisions of the restored store begin this far above: no client of the old one has seen any of them.
const BUMP: &str = "--bump-revision=1000000000";

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("the store: {error}"))
}

/// A connection to this machine's member.
async fn connect(machine: &Machine, running: &Running) -> Result<Channel, Status> {
    if !matches!(running.config.role, Role::ControlPlane(_)) {
        return Err(Status::failed_precondition("a worker has no store: ask a control-plane machine"));
    }
    let file = |name: &str| machine.paths.at(format!("{PKI}/{name}"));
    let (cert, key) = (file("apiserver-etcd-client.crt"), file("apiserver-etcd-client.key"));
    let tls = daemon::tls::client_config(&file("etcd/ca.crt"), Some((&cert, &key))).map_err(unavailable)?;
    let connector = TlsConnector::from(tls);
    let service = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(ADDRESS).await?;
            let name = ServerName::try_from(ADDRESS.0).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    // The connector decides where to go.
    Endpoint::from_static("http://store")
        .connect_with_connector(service)
        .await
        .map_err(|e| unavailable(daemon::chain(&e)))
}

pub(super) async fn members(machine: &Machine, running: &Running) -> Result<StoreMembersResponse, Status> {
    let mut client = ClusterClient::new(connect(machine, running).await?);
    let list = client.member_list(pb::MemberListRequest { linearizable: true }).await?.into_inner();
    let member = |m: pb::Member| StoreMember {
        id: m.id,
        name: m.name,
        peer_urls: m.peer_urls,
        client_urls: m.client_urls,
        learner: m.is_learner,
    };
    Ok(StoreMembersResponse { members: list.members.into_iter().map(member).collect() })
}

pub(super) async fn status(machine: &Machine, running: &Running) -> Result<StoreStatusResponse, Status> {
    let mut client = MaintenanceClient::new(connect(machine, running).await?);
    let status = client.status(pb::StatusRequest {}).await?.into_inner();
    let header = status.header.unwrap_or_default();
    Ok(StoreStatusResponse {
        id: header.member_id,
        cluster_id: header.cluster_id,
        leader: status.leader,
        term: status.raft_term,
        applied_index: status.raft_applied_index,
        revision: header.revision,
        size_bytes: status.db_size,
        learner: status.is_learner,
        version: status.version,
        errors: status.errors,
    })
}

pub(super) async fn snapshot(machine: &Machine, running: &Running) -> Result<DataStream, Status> {
    let mut client = MaintenanceClient::new(connect(machine, running).await?);
    let mut pieces = client.snapshot(pb::SnapshotRequest {}).await?.into_inner();
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        loop {
            let piece = match pieces.message().await {
                Ok(Some(piece)) => Ok(Data { bytes: piece.blob.to_vec() }),
                Ok(None) => return,
                Err(status) => Err(status),
            };
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

pub(super) async fn defragment(machine: &Machine, running: &Running) -> Result<StoreDefragmentResponse, Status> {
    let mut client = MaintenanceClient::new(connect(machine, running).await?);
    client.defragment(pb::DefragmentRequest {}).await?;
    Ok(StoreDefragmentResponse {})
}

pub(super) async fn alarms(machine: &Machine, running: &Running, clear: bool) -> Result<StoreAlarmsResponse, Status> {
    let mut client = MaintenanceClient::new(connect(machine, running).await?);
    // No member and no kind mean all.
    let action = if clear { AlarmAction::Deactivate } else { AlarmAction::Get };
    let answer = client.alarm(pb::AlarmRequest { action: action.into(), ..Default::default() }).await?.into_inner();
    let line = |a: &pb::AlarmMember| format!("{:x} {}", a.member_id, a.alarm().as_str_name());
    Ok(StoreAlarmsResponse { alarms: answer.alarms.iter().map(line).collect() })
}

pub(super) async fn move_leader(
    machine: &Machine,
    running: &Running,
    to: u64,
) -> Result<StoreMoveLeaderResponse, Status> {
    let mut client = MaintenanceClient::new(connect(machine, running).await?);
    client.move_leader(pb::MoveLeaderRequest { target_id: to }).await?;
    Ok(StoreMoveLeaderResponse {})
}

/// What of the store's own arguments a restoration needs: one member, this one.
fn restore_arguments(store: &str) -> Vec<String> {
    const NEEDED: [&str; 2] = ["--name=", "--initial-advertise-peer-urls="];
    let needed = |line: &&str| NEEDED.iter().any(|flag| line.starts_with(flag));
    store.lines().filter(needed).map(str::to_owned).collect()
}

pub(super) async fn restore(
    machine: &Machine,
    running: &Running,
    mut pieces: Streaming<Data>,
) -> Result<StoreRestoreResponse, Status> {
    if !matches!(running.config.role, Role::ControlPlane(_)) {
        return Err(Status::failed_precondition("a worker has no store: ask a control-plane machine"));
    }
    // Beside the data: renaming works only within one file system.
    let data = machine.paths.at(DATA);
    let (file, fresh) = (data.with_extension("snapshot"), data.with_extension("restored"));
    let failed = |path: &Path, e: std::io::Error| Status::internal(format!("{}: {e}", path.display()));
    let mut out = tokio::fs::File::create(&file).await.map_err(|e| failed(&file, e))?;
    while let Some(piece) = pieces.message().await? {
        out.write_all(&piece.bytes).await.map_err(|e| failed(&file, e))?;
    }
    out.sync_all().await.map_err(|e| failed(&file, e))?;
    drop(out);
    let restored = run_restore(machine, &file, &fresh).await;
    let _ = tokio::fs::remove_file(&file).await;
    restored?;

    // A store that still runs would work on the new folder by the old one's name.
    services::stop(machine, SERVICE).await?;
    let old = data.with_extension(format!("before-{}", jiff::Timestamp::now().as_second()));
    let exchanged = exchange(&fresh, &data).map_err(|e| failed(&data, e));
    // Started again in any case: with the new data, or with the old where the exchange failed.
    machine.init.call(InitRequest::ServiceStart(SERVICE.to_owned())).await.map_err(init_status)?;
    exchanged?;
    tokio::fs::rename(&fresh, &old).await.map_err(|e| failed(&old, e))?;
    Ok(StoreRestoreResponse { message: format!("restored; the data before is kept in {}", old.display()) })
}

/// Two neighbouring folders change their places at once, for good: a store that found none would begin an empty cluster, and
/// one that a power cut put back would deny what was said to be restored.
fn exchange(one: &Path, other: &Path) -> std::io::Result<()> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?;
    other.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}

/// Lets the store's own program verify the snapshot and make a data directory of it, while the store still runs.
async fn run_restore(machine: &Machine, file: &Path, fresh: &Path) -> Result<(), Status> {
    // Left by a restoration that did not end.
    let _ = tokio::fs::remove_dir_all(fresh).await;
    let arguments = machine.paths.at("/run/corten/args/store");
    let text = tokio::fs::read_to_string(&arguments)
        .await
        .map_err(|e| Status::internal(format!("{}: {e}", arguments.display())))?;
    let output = tokio::process::Command::new(machine.paths.at("/usr/bin/store"))
        .args(["snapshot", "restore"])
        .arg(file)
        .arg(format!("--data-dir={}", fresh.display()))
        .args(restore_arguments(&text))
        .args([BUMP, "--mark-compacted"])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(unavailable)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Status::invalid_argument(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_change_their_places_or_stay_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        for path in [&one, &other] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("name"), path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        exchange(&one, &other).unwrap();
        let name = |path: &Path| std::fs::read_to_string(path.join("name")).unwrap();
        assert_eq!((name(&one), name(&other)), ("other".to_owned(), "one".to_owned()));
        assert!(exchange(&folder.path().join("nothing"), &other).is_err());
        assert_eq!(name(&other), "one");
    }

    #[test]
    fn a_restored_member_keeps_its_name_and_address() {
        let store = "--name=n1\n--data-dir=/var/lib/store\n--initial-advertise-peer-urls=https://10.0.0.1:2380\n\
                     --initial-cluster=n1=https://10.0.0.1:2380\n";
        assert_eq!(restore_arguments(store), ["--name=n1", "--initial-advertise-peer-urls=https://10.0.0.1:2380"]);
    }
}
