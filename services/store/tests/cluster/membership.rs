//! The membership changes, and what must not become a member does not.

use store_api::etcdserverpb as pb;
use tonic::Code;

use crate::client::{get, put};
use crate::harness::{Cluster, LIMIT};

pub async fn add(
    cluster: &Cluster,
    through: usize,
    member: usize,
    is_learner: bool,
) -> Result<pb::Member, tonic::Status> {
    let peer_urls = vec![cluster.nodes[member].peer_url.clone()];
    let answer = cluster.clients(through).cluster.member_add(pb::MemberAddRequest { peer_urls, is_learner }).await?;
    Ok(answer.into_inner().member.unwrap())
}

/// Learners by name as a member sees them.
async fn list(cluster: &Cluster, through: usize) -> Vec<(String, bool)> {
    let list =
        cluster.clients(through).cluster.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
    let mut all: Vec<_> = list.into_inner().members.into_iter().map(|m| (m.name, m.is_learner)).collect();
    all.sort();
    all
}

/// Removes a member. A leader that has just taken over has not heard from everyone yet and refuses for a moment, as etcd does.
async fn remove(cluster: &Cluster, through: usize, id: u64) {
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        match cluster.clients(through).cluster.member_remove(pb::MemberRemoveRequest { id }).await {
            Ok(_) => return,
            Err(refused) if refused.message() == "etcdserver: unhealthy cluster" => {
                assert!(std::time::Instant::now() < deadline, "{refused:?}\n{}", cluster.log(through));
            }
            Err(refused) => panic!("{refused:?}\n{}", cluster.log(through)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Waits until a member is known to vote: then the others may go.
async fn votes(cluster: &Cluster, through: usize, member: usize) {
    let leader_id = cluster.id(member).await;
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let leader = cluster.leader().await;
        if cluster.id(leader).await == leader_id {
            return;
        }
        let moved =
            cluster.clients(leader).maintenance.move_leader(pb::MoveLeaderRequest { target_id: leader_id }).await;
        if moved.is_ok() {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{moved:?}\n{}", cluster.log(through));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_becomes_three_and_one_again() {
    let mut cluster = Cluster::start(1, 2, &[]).await;
    cluster.clients(0).kv.put(put("/k", "v")).await.unwrap();
    let first = cluster.id(0).await;

    // A learner follows, answers only for itself, and votes when it is told to.
    let learner = add(&cluster, 0, 1, true).await.unwrap();
    assert!(learner.is_learner && learner.name.is_empty());
    let refused = add(&cluster, 0, 2, true).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: too many learner members in cluster");
    let refused = add(&cluster, 0, 1, false).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"));
    let promote = pb::MemberPromoteRequest { id: learner.id };
    let refused = cluster.clients(0).cluster.member_promote(promote).await.unwrap_err();
    assert!(refused.message().contains("in sync with leader"), "{refused:?}");
    cluster.will_join(1, &[0]);
    cluster.start_member(1);
    let mut joined = cluster.clients(1);
    let local = pb::RangeRequest { serializable: true, ..get("/k") };
    let deadline = std::time::Instant::now() + LIMIT;
    while !joined.kv.range(local.clone()).await.is_ok_and(|found| found.get_ref().count == 1) {
        assert!(std::time::Instant::now() < deadline, "{}", cluster.log(1));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let refused = joined.kv.range(get("/k")).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: rpc not supported for learner");
    assert!(joined.maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().is_learner);
    cluster.clients(0).cluster.member_promote(promote).await.unwrap();
    assert_eq!(list(&cluster, 1).await, [("m0".into(), false), ("m1".into(), false)]);
    let refused = cluster.clients(1).cluster.member_promote(promote).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: can only promote a learner member");

    // A voter that was never started costs nothing: it votes when it has caught up.
    let third = add(&cluster, 1, 2, false).await.unwrap();
    assert!(!third.is_learner);
    cluster.clients(1).kv.put(put("/k", "w")).await.unwrap();
    cluster.will_join(2, &[0, 1]);
    cluster.start_member(2);
    cluster.wait_ready(2).await;
    votes(&cluster, 2, 2).await;
    cluster.agree().await;

    // Removed members end, and their data directory is of no use any more.
    for member in [0, 1] {
        let id = if member == 0 { first } else { learner.id };
        remove(&cluster, 2, id).await;
        assert!(!cluster.ended(member).await);
        assert!(cluster.log(member).contains("permanently removed"), "{}", cluster.log(member));
        cluster.start_member(member);
        assert!(!cluster.ended(member).await, "a removed member does not come back");
    }
    assert_eq!(list(&cluster, 2).await, [("m2".into(), false)]);
    cluster.clients(2).kv.put(put("/k", "x")).await.unwrap();
    let unknown = pb::MemberRemoveRequest { id: first };
    let refused = cluster.clients(2).cluster.member_remove(unknown).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::NotFound, "etcdserver: member not found"));
    let last = pb::MemberRemoveRequest { id: third.id };
    let refused = cluster.clients(2).cluster.member_remove(last).await.unwrap_err();
    assert!(refused.message().contains("not enough started members"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_its_data_comes_back_only_as_a_new_one() {
    let mut cluster = Cluster::start(3, 0, &[]).await;
    cluster.clients(0).kv.put(put("/k", "v")).await.unwrap();
    let victim = (cluster.leader().await + 1) % 3;
    let other = (victim + 1) % 3;
    let id = cluster.id(victim).await;
    cluster.kill(victim);
    std::fs::remove_dir_all(&cluster.nodes[victim].folder).unwrap();
    cluster.start_member(victim);
    assert!(!cluster.ended(victim).await);
    assert!(cluster.log(victim).contains("already been bootstrapped"), "{}", cluster.log(victim));

    // Also if nobody could be asked: the others do not take its word, nor it theirs.
    let others = [other, (victim + 2) % 3];
    cluster.network.cut(&[victim], &others);
    cluster.start_member(victim);
    let deadline = std::time::Instant::now() + LIMIT;
    while cluster.log(victim).matches("serving other members").count() < 2 {
        assert!(std::time::Instant::now() < deadline, "{}", cluster.log(victim));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cluster.network.all(crate::proxy::Rule::default());
    assert!(!cluster.ended(victim).await);
    assert!(cluster.log(victim).contains("lost its data"), "{}", cluster.log(victim));

    remove(&cluster, other, id).await;
    add(&cluster, other, victim, false).await.unwrap();
    std::fs::remove_dir_all(&cluster.nodes[victim].folder).unwrap();
    cluster.will_join(victim, &others);
    cluster.start_member(victim);
    cluster.wait_ready(victim).await;
    assert_ne!(cluster.id(victim).await, id);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_contents_raise_the_alarm() {
    let mut cluster = Cluster::start(3, 0, &["--corrupt-check-time=1s"]).await;
    cluster.clients(0).kv.put(put("/k", "good")).await.unwrap();
    let victim = (cluster.leader().await + 1) % 3;
    let id = cluster.id(victim).await;
    cluster.agree().await;
    // Until tables are written the record is in the log alone.
    cluster.clients(victim).maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    cluster.kill(victim);
    falsify(&cluster.nodes[victim].folder.join("member"));
    // The alarm may come before the member has answered anyone, and from then on it refuses reads.
    cluster.start_member(victim);
    let mut healthy = cluster.clients((victim + 1) % 3);
    let list = pb::AlarmRequest { action: pb::alarm_request::AlarmAction::Get.into(), ..Default::default() };
    let deadline = std::time::Instant::now() + LIMIT;
    let alarm = loop {
        let alarms = healthy.maintenance.alarm(list).await.unwrap().into_inner().alarms;
        if let Some(alarm) = alarms.first() {
            break *alarm;
        }
        assert!(std::time::Instant::now() < deadline, "no alarm");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!((alarm.member_id, alarm.alarm()), (id, pb::AlarmType::Corrupt));
    let refused = healthy.kv.put(put("/k", "more")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
    assert_eq!(healthy.kv.range(get("/k")).await.unwrap_err().code(), Code::DataLoss);
}

/// Changes a value on disk as a fault in memory would: with a checksum that fits.
fn falsify(folder: &std::path::Path) {
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), folder, store::schema::FAMILIES).unwrap();
    let family = db.cf_handle(store::schema::MVCC).unwrap();
    let (key, value) = db.iterator_cf(&family, rocksdb::IteratorMode::End).next().unwrap().unwrap();
    let revision = store::schema::Revision::from_key(&key).unwrap();
    let (tombstone, mut kv) = store::schema::decode_record(revision, value.into_vec()).unwrap();
    kv.value = "evil".into();
    db.put_cf(&family, &key, store::schema::encode_record(revision, tombstone, &kv)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_start_from_one_snapshot_and_a_fourth_gets_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.db");
    let revision = {
        let cluster = Cluster::start(1, 0, &[]).await;
        let mut clients = cluster.clients(0);
        for turn in 0..20 {
            clients.kv.put(put(&format!("/k{}", turn % 7), "v")).await.unwrap();
        }
        let mut stream = clients.maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.message().await.unwrap() {
            bytes.extend_from_slice(&chunk.blob);
        }
        std::fs::write(&file, bytes).unwrap();
        21
    };
    let mut cluster = Cluster::prepare(3, 1, &[]).await;
    for member in 0..3 {
        let restore = || {
            let founders = cluster.nodes[0].first_flag();
            cluster.nodes[member].restore(&file, &founders, &["--bump-revision=1000", "--mark-compacted"])
        };
        restore().await.unwrap();
        let again = restore().await.unwrap_err().to_string();
        assert!(again.contains("not empty"), "{again}");
        cluster.start_member(member);
    }
    for member in 0..3 {
        cluster.wait_ready(member).await;
        let found = cluster.clients(member).kv.range(crate::client::prefix("/k")).await.unwrap().into_inner();
        assert_eq!((found.count, found.header.unwrap().revision), (7, revision + 1000));
    }
    // Its log does not hold what the cluster started with.
    add(&cluster, 0, 3, false).await.unwrap();
    cluster.will_join(3, &[0, 1, 2]);
    cluster.start_member(3);
    cluster.wait_ready(3).await;
    assert_eq!(cluster.clients(3).kv.range(crate::client::prefix("/k")).await.unwrap().into_inner().count, 7);
    cluster.clients(3).kv.put(put("/k", "v")).await.unwrap();
    cluster.agree().await;

    // A changed snapshot is told apart.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (_trigger, shutdown) = daemon::Shutdown::pair();
    let arguments = ["store", "snapshot", "status", &file.display().to_string()].map(str::to_owned);
    let error = store::run(arguments.to_vec(), shutdown).await.unwrap_err().to_string();
    assert!(error.contains("sha256") || error.contains("not a snapshot"), "{error}");
}
