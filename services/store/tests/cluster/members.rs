//! Three and five members under ordinary failures: every member serves, one may die, a late one catches up.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use store_api::etcdserverpb as pb;
use tonic::Code;

use crate::client::{get, prefix, put};
use crate::harness::{Cluster, LIMIT};
use crate::proxy::Rule;

/// Writes through any of these members until one takes it.
async fn write_somewhere(cluster: &Cluster, members: &[usize], key: &str) -> Duration {
    let start = Instant::now();
    for turn in 0.. {
        let member = members[turn % members.len()];
        let mut kv = cluster.clients(member).kv;
        if kv.put(put(key, "v")).await.is_ok() {
            break;
        }
        assert!(start.elapsed() < LIMIT, "nobody takes a write");
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_serves_everything() {
    let cluster = Cluster::start(3, 0, &[]).await;
    for member in 0..3 {
        let mut clients = cluster.clients(member);
        let header = clients.kv.put(put(&format!("/k{member}"), "v")).await.unwrap().into_inner().header.unwrap();
        assert_eq!((header.revision, header.member_id), (member as i64 + 2, cluster.id(member).await));
        // The writer's own member shows it at once, and so does every other to a default read.
        let local = pb::RangeRequest { serializable: true, ..get(&format!("/k{member}")) };
        assert_eq!(clients.kv.range(local).await.unwrap().into_inner().count, 1);
        for other in 0..3 {
            let found = cluster.clients(other).kv.range(prefix("/k")).await.unwrap().into_inner();
            assert_eq!(found.count, member as i64 + 1);
        }
    }
    let list = cluster.clients(1).cluster.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap();
    let mut names: Vec<_> = list.into_inner().members.into_iter().map(|m| (m.name, m.client_urls.len())).collect();
    names.sort();
    assert_eq!(names, [("m0".into(), 1), ("m1".into(), 1), ("m2".into(), 1)]);

    // Leases are kept by the leader, from whichever member they are renewed.
    let follower = (cluster.leader().await + 1) % 3;
    let mut lease = cluster.clients(follower).lease;
    let id = lease.lease_grant(pb::LeaseGrantRequest { ttl: 3600, id: 0 }).await.unwrap().into_inner().id;
    let alive = lease.lease_keep_alive(tokio_stream::once(pb::LeaseKeepAliveRequest { id })).await.unwrap();
    assert_eq!(alive.into_inner().message().await.unwrap().unwrap().ttl, 3600);
    let left = lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id, keys: true }).await.unwrap().into_inner();
    assert!(left.ttl > 3500 && left.granted_ttl == 3600, "{left:?}");

    // The leadership moves to whom it is given, and only by the leader.
    let leader = cluster.leader().await;
    let (to, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let target_id = cluster.id(to).await;
    let refused =
        cluster.clients(other).maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: not leader"));
    let mut maintenance = cluster.clients(leader).maintenance;
    let refused = maintenance.move_leader(pb::MoveLeaderRequest { target_id: 5 }).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "etcdserver: bad leader transferee"));
    maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await.unwrap();
    assert_eq!(cluster.leader().await, to);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_dies_and_another_takes_over() {
    let mut cluster = Cluster::start(3, 0, &[]).await;
    let mut took = Vec::new();
    for turn in 0..3 {
        let leader = cluster.leader().await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        write_somewhere(&cluster, &[leader], "before").await;
        cluster.kill(leader);
        took.push(write_somewhere(&cluster, &others, &format!("/after{turn}")).await);
        cluster.start_member(leader);
        cluster.wait_ready(leader).await;
        let found = cluster.clients(leader).kv.range(prefix("/after")).await.unwrap().into_inner();
        assert_eq!(found.count, turn + 1, "what was written without it is there");
    }
    println!("leader killed to first write: {took:?}");
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_members_survive_two() {
    let mut cluster = Cluster::start(5, 0, &[]).await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.kill((leader + 1) % 5);
    let left = [(leader + 2) % 5, (leader + 3) % 5, (leader + 4) % 5];
    write_somewhere(&cluster, &left, "/k").await;
    cluster.start_member(leader);
    cluster.start_member((leader + 1) % 5);
    cluster.wait_ready(leader).await;
    cluster.wait_ready((leader + 1) % 5).await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_missed_the_log_gets_a_snapshot() {
    let mut cluster = Cluster::start(3, 0, &["--snapshot-count=200"]).await;
    let late = (cluster.leader().await + 1) % 3;
    let mut kv = cluster.clients((late + 1) % 3).kv;
    let lease = cluster.clients((late + 1) % 3).lease.lease_grant(pb::LeaseGrantRequest { ttl: 3600, id: 7 }).await;
    lease.unwrap();
    kv.put(put("/k0", "old")).await.unwrap();
    // A watch on the late member sees everything, whether it comes as entries or in the snapshot.
    let create = pb::WatchCreateRequest { key: "/k0".into(), start_revision: 1, ..Default::default() };
    cluster.kill(late);
    for turn in 0..2000 {
        let request = pb::PutRequest { lease: 7, ..put(&format!("/k{}", turn % 100), &turn.to_string()) };
        kv.put(request).await.unwrap();
    }
    cluster.start_member(late);
    cluster.wait_ready(late).await;
    assert!(cluster.log(late).contains("installed a snapshot"), "{}", cluster.log(late));
    let revision = cluster.agree().await;
    let mut clients = cluster.clients(late);
    let local = pb::RangeRequest { serializable: true, ..prefix("/k") };
    let found = clients.kv.range(local).await.unwrap().into_inner();
    assert_eq!((found.count, found.header.unwrap().revision), (100, revision));
    let (_open, mut responses) = clients.watch(create).await.unwrap();
    let mut events = 0;
    while events < 21 {
        events += responses.message().await.unwrap().unwrap().events.len();
    }
    // It goes on as a member like any other, also behind a restart.
    clients.kv.put(put("/last", "v")).await.unwrap();
    cluster.kill(late);
    cluster.start_member(late);
    cluster.wait_ready(late).await;
    let keys = clients.lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 7, keys: true }).await.unwrap();
    assert_eq!(keys.into_inner().keys.len(), 100);
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_majority_goes_on_without_a_cut_off_leader() {
    let cluster = Cluster::start(3, 0, &[]).await;
    let old = cluster.leader().await;
    let others = [(old + 1) % 3, (old + 2) % 3];
    let mut watched = cluster.clients(old);
    let create = pb::WatchCreateRequest { key: "/k".into(), range_end: "/l".into(), ..Default::default() };
    let (_open, mut responses) = watched.watch(create).await.unwrap();
    assert!(responses.message().await.unwrap().unwrap().created);
    cluster.network.cut(&[old], &others);
    // Its clients get no answer that could be wrong.
    let mut kv = cluster.clients(old).kv;
    let stale = tokio::spawn(async move { (kv.range(get("/k")).await, kv.put(put("/k", "lost")).await) });
    write_somewhere(&cluster, &others, "/k").await;
    let (read, write) = stale.await.unwrap();
    assert_eq!((read.unwrap_err().code(), write.unwrap_err().code()), (Code::Unavailable, Code::Unavailable));
    let local = pb::RangeRequest { serializable: true, ..get("/k") };
    assert_eq!(cluster.clients(old).kv.range(local).await.unwrap().into_inner().count, 0, "its own state is old");
    cluster.network.all(Rule::default());
    let event = tokio::time::timeout(LIMIT, responses.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.events[0].kv.as_ref().unwrap().value, "v", "its watchers see what they missed");
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_lossy_and_one_way_networks() {
    let cluster = Cluster::start(3, 0, &["--heartbeat-interval=100", "--election-timeout=1000"]).await;
    cluster.network.all(Rule { delay: Duration::from_millis(10), loss: 0.02, ..Rule::default() });
    for turn in 0..20 {
        write_somewhere(&cluster, &[turn % 3], &format!("/slow{turn}")).await;
    }
    cluster.network.all(Rule::default());
    // A follower that hears the leader but is not heard, and one that is heard but hears nothing.
    for heard in [false, true] {
        let leader = cluster.leader().await;
        let follower = (leader + 1) % 3;
        let (from, to) = if heard { (leader, follower) } else { (follower, leader) };
        cluster.network.rule(from, to, Rule { cut: true, ..Rule::default() });
        let term = |status: pb::StatusResponse| status.raft_term;
        for turn in 0..10 {
            write_somewhere(&cluster, &[leader], &format!("/oneway{heard}{turn}")).await;
        }
        let before = term(cluster.clients(leader).maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner());
        write_somewhere(&cluster, &[leader, (leader + 2) % 3], "/oneway").await;
        cluster.network.all(Rule::default());
        cluster.agree().await;
        let after = term(cluster.clients(leader).maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner());
        println!("terms before and after a one-way cut: {before} {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_outlive_their_leader_and_still_end() {
    let mut cluster = Cluster::start(3, 0, &[]).await;
    let leader = cluster.leader().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let mut clients = cluster.clients(others[0]);
    for (id, ttl) in [(1, 3), (2, 3600)] {
        clients.lease.lease_grant(pb::LeaseGrantRequest { ttl, id }).await.unwrap();
        clients.kv.put(pb::PutRequest { lease: id, ..put(&format!("/l{id}"), "v") }).await.unwrap();
    }
    // A paused leader must not end leases when it wakes up: another one keeps them by then.
    cluster.signal(leader, Signal::SIGSTOP);
    write_somewhere(&cluster, &others, "/during").await;
    let alive = clients.lease.lease_keep_alive(tokio_stream::once(pb::LeaseKeepAliveRequest { id: 1 })).await.unwrap();
    assert_eq!(alive.into_inner().message().await.unwrap().unwrap().ttl, 3);
    cluster.signal(leader, Signal::SIGCONT);
    let create = pb::WatchCreateRequest {
        key: "/l".into(),
        range_end: "/m".into(),
        start_revision: 4,
        filters: vec![pb::watch_create_request::FilterType::Noput.into()],
        ..Default::default()
    };
    let (_open, mut responses) = clients.watch(create).await.unwrap();
    let deleted = loop {
        let response = tokio::time::timeout(LIMIT, responses.message()).await.unwrap().unwrap().unwrap();
        if let Some(event) = response.events.first() {
            break event.kv.as_ref().unwrap().key.clone();
        }
    };
    assert_eq!(deleted, "/l1");
    assert_eq!(clients.kv.range(prefix("/l")).await.unwrap().into_inner().count, 1);
    cluster.kill(leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_know_each_other_by_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = pki::Ca::generate("etcd").unwrap();
    let member = pki::IssueRequest {
        common_name: "member".into(),
        ips: vec!["127.0.0.1".parse().unwrap()],
        usage: pki::Usage::Both,
        valid_for_days: 1,
        ..pki::IssueRequest::default()
    };
    let issued = ca.issue(member).unwrap();
    let flags = [
        format!("--peer-cert-file={}", write("crt", &issued.cert_pem)),
        format!("--peer-key-file={}", write("key", &issued.key_pem)),
        format!("--peer-trusted-ca-file={}", write("ca", ca.cert_pem())),
        "--peer-client-cert-auth".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let cluster = Cluster::start(3, 0, &flags).await;
    for member in 0..3 {
        write_somewhere(&cluster, &[member], &format!("/k{member}")).await;
    }
    cluster.agree().await;
    for member in 0..3 {
        let log = cluster.log(member);
        // One that gave up for want of time has judged no certificate.
        let judged = |line: &str| line.contains("handshake refused") && !line.contains("handshake eof");
        assert!(!log.lines().any(judged), "{log}");
    }
}
