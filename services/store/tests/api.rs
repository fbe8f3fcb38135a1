//! The store through its API: in this process, and in a child process that is killed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod ports;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use daemon::{Shutdown, ShutdownTrigger};
use ports::free_port;
use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::compare::{CompareTarget, TargetUnion};
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::lease_client::LeaseClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use store_api::etcdserverpb::request_op::Request;
use store_api::etcdserverpb::watch_client::WatchClient;
use store_api::etcdserverpb::watch_request::RequestUnion;
use store_api::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

const LIMIT: Duration = Duration::from_secs(30);

/// A store in this process.
struct Store {
    url: String,
    trigger: ShutdownTrigger,
    task: JoinHandle<daemon::Outcome>,
}

fn arguments(folder: &Path, port: u16) -> Vec<String> {
    vec![
        "store".into(),
        format!("--data-dir={}", folder.display()),
        format!("--listen-client-urls=http://127.0.0.1:{port}"),
        "--snapshot-count=100".into(),
    ]
}

impl Store {
    fn start(folder: &Path) -> Self {
        let port = free_port();
        let (trigger, shutdown) = Shutdown::pair();
        let task = tokio::spawn(store::run(arguments(folder, port), shutdown));
        Store { url: format!("http://127.0.0.1:{port}"), trigger, task }
    }

    async fn stop(self) {
        self.trigger.trigger();
        tokio::time::timeout(LIMIT, self.task).await.expect("the store ends").unwrap().unwrap();
    }
}

async fn connect(url: &str) -> Channel {
    let endpoint = Channel::from_shared(url.to_owned()).unwrap();
    tokio::time::timeout(LIMIT, async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                // There is no event for "a process listens now".
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await
    .expect("the store listens")
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

fn prefix(key: &str) -> pb::RangeRequest {
    let mut end = key.as_bytes().to_vec();
    *end.last_mut().unwrap() += 1;
    pb::RangeRequest { range_end: end.into(), ..get(key) }
}

/// A watch stream with its requests.
struct Watch {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Watch {
    async fn open(channel: &Channel) -> Self {
        let (requests, receiver) = mpsc::channel(4);
        let responses =
            WatchClient::new(channel.clone()).watch(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Watch { requests, responses }
    }

    async fn send(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn create(&mut self, range: pb::RangeRequest, start_revision: i64) -> pb::WatchResponse {
        let (key, range_end) = (range.key, range.range_end);
        let create = pb::WatchCreateRequest { key, range_end, start_revision, prev_kv: true, ..Default::default() };
        self.send(RequestUnion::CreateRequest(create)).await;
        self.next().await
    }

    async fn next(&mut self) -> pb::WatchResponse {
        tokio::time::timeout(LIMIT, self.responses.message())
            .await
            .expect("a response")
            .unwrap()
            .expect("an open stream")
    }

    /// Collects `count` events as "PUT key@revision<previous value".
    async fn events(&mut self, count: usize) -> Vec<String> {
        let mut found = Vec::new();
        while found.len() < count {
            for event in self.next().await.events {
                let kind = if event.r#type() == EventType::Put { "PUT" } else { "DELETE" };
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let previous = event.prev_kv.map(|kv| text(&kv.value)).unwrap_or_default();
                let kv = event.kv.unwrap();
                found.push(format!("{kind} {}@{}<{previous}", text(&kv.key), kv.mod_revision));
            }
        }
        found
    }
}

#[tokio::test]
async fn keys_transactions_and_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(folder.path());
    let mut kv = KvClient::new(connect(&store.url).await);

    let header = kv.put(put("/a", "1")).await.unwrap().into_inner().header.unwrap();
    assert_eq!(header.revision, 2, "an empty store is at revision 1");
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term > 0);
    let old = kv.put(pb::PutRequest { prev_kv: true, ..put("/a", "2") }).await.unwrap().into_inner().prev_kv.unwrap();
    assert_eq!((old.value.as_ref(), old.version), (b"1".as_ref(), 1));

    // Create-if-absent, as the API server does it.
    let absent = pb::Compare {
        key: "/b".into(),
        target: CompareTarget::Mod.into(),
        target_union: Some(TargetUnion::ModRevision(0)),
        ..Default::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let create = pb::TxnRequest {
        compare: vec![absent],
        success: vec![op(Request::RequestPut(put("/b", "new")))],
        failure: vec![op(Request::RequestRange(get("/b")))],
    };
    assert!(kv.txn(create.clone()).await.unwrap().into_inner().succeeded);
    assert!(!kv.txn(create).await.unwrap().into_inner().succeeded);

    let cases = [
        (
            kv.range(pb::RangeRequest { revision: 99, ..get("/a") }).await.unwrap_err(),
            Code::OutOfRange,
            "future revision",
        ),
        (kv.range(get("")).await.unwrap_err(), Code::InvalidArgument, "key is not provided"),
        (kv.put(pb::PutRequest { lease: 5, ..put("/a", "") }).await.unwrap_err(), Code::NotFound, "lease not found"),
        (kv.put(put("/big", &"x".repeat(1_600_000))).await.unwrap_err(), Code::InvalidArgument, "request is too large"),
        (
            kv.compact(pb::CompactionRequest { revision: 99, physical: false }).await.unwrap_err(),
            Code::OutOfRange,
            "future",
        ),
    ];
    for (status, code, text) in cases {
        assert!(status.code() == code && status.message().contains(text), "{status:?}");
    }
    for turn in 0..250 {
        kv.put(put("/many", &turn.to_string())).await.unwrap();
    }
    store.stop().await;

    // The log was purged behind snapshots meanwhile; nothing may depend on it.
    let store = Store::start(folder.path());
    let mut kv = KvClient::new(connect(&store.url).await);
    let response = kv.range(prefix("/")).await.unwrap().into_inner();
    let rows: Vec<_> = response.kvs.iter().map(|kv| (kv.key.as_ref(), kv.value.as_ref(), kv.version)).collect();
    assert_eq!(rows, [(b"/a".as_ref(), b"2".as_ref(), 2), (b"/b", b"new", 1), (b"/many", b"249", 250)]);
    let after = response.header.unwrap();
    assert_eq!((after.revision, after.member_id), (254, header.member_id));
    store.stop().await;
}

#[tokio::test]
async fn watches_resume_filter_and_end_at_compaction() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(folder.path());
    let channel = connect(&store.url).await;
    let mut kv = KvClient::new(channel.clone());
    kv.put(put("/w/a", "1")).await.unwrap();
    kv.put(put("/other", "x")).await.unwrap();
    kv.put(put("/w/a", "2")).await.unwrap();
    let op = |request| pb::RequestOp { request: Some(request) };
    let both = vec![op(Request::RequestPut(put("/w/b", "3"))), op(Request::RequestPut(put("/w/c", "3")))];
    kv.txn(pb::TxnRequest { success: both, ..Default::default() }).await.unwrap();

    let mut watch = Watch::open(&channel).await;
    let created = watch.create(prefix("/w/"), 2).await;
    assert!(created.created && !created.canceled);
    assert_eq!(watch.events(4).await, ["PUT /w/a@2<", "PUT /w/a@4<1", "PUT /w/b@5<", "PUT /w/c@5<"]);

    // Live, with the replaced values.
    kv.delete_range(pb::DeleteRangeRequest { key: "/w/a".into(), ..Default::default() }).await.unwrap();
    assert_eq!(watch.events(1).await, ["DELETE /w/a@6<2"]);
    kv.put(put("/elsewhere", "x")).await.unwrap();
    watch.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = watch.next().await;
    assert_eq!((progress.watch_id, progress.header.unwrap().revision, progress.events.len()), (-1, 7, 0));

    watch.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: created.watch_id })).await;
    assert!(watch.next().await.canceled);

    // History before the compacted revision is gone, and the watcher is told where it begins.
    kv.compact(pb::CompactionRequest { revision: 5, physical: true }).await.unwrap();
    let again = kv.compact(pb::CompactionRequest { revision: 5, physical: true }).await.unwrap_err();
    assert!(again.message().contains("has been compacted"), "{again:?}");
    assert!(watch.create(prefix("/w/"), 4).await.created);
    let canceled = watch.next().await;
    assert_eq!((canceled.canceled, canceled.compact_revision), (true, 5));
    assert!(watch.create(prefix("/w/"), 5).await.created);
    assert_eq!(watch.events(3).await, ["PUT /w/b@5<", "PUT /w/c@5<", "DELETE /w/a@6<2"]);
    let read = kv.range(pb::RangeRequest { revision: 4, ..get("/w/a") }).await.unwrap_err();
    assert_eq!(
        (read.code(), read.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
    );
    assert_eq!(kv.range(prefix("/w/")).await.unwrap().into_inner().count, 2);
    store.stop().await;
}

#[tokio::test]
async fn compaction_ends_only_watchers_that_ask_for_what_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(folder.path());
    let channel = connect(&store.url).await;
    let mut kv = KvClient::new(channel.clone());
    let mut live = Watch::open(&channel).await;
    live.create(prefix("/c/"), 0).await;
    for turn in 0..8 {
        kv.put(put("/c/k", &turn.to_string())).await.unwrap();
    }
    kv.compact(pb::CompactionRequest { revision: 7, physical: true }).await.unwrap();

    // All of it is still in memory; without replaced values nothing but the compaction stands in the way.
    let mut late = Watch::open(&channel).await;
    let create = |start_revision| {
        let range = prefix("/c/");
        let (key, range_end) = (range.key, range.range_end);
        RequestUnion::CreateRequest(pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() })
    };
    late.send(create(6)).await;
    assert!(late.next().await.created);
    let canceled = late.next().await;
    assert_eq!((canceled.canceled, canceled.compact_revision, canceled.events.len()), (true, 7, 0));
    late.send(create(7)).await;
    assert!(late.next().await.created);
    assert_eq!(late.events(3).await, ["PUT /c/k@7<", "PUT /c/k@8<", "PUT /c/k@9<"]);
    // Whoever was there all the time misses nothing.
    assert_eq!(live.events(8).await[7], "PUT /c/k@9<6");
    store.stop().await;
}

#[tokio::test]
async fn a_watcher_that_lags_reads_history_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(folder.path());
    let channel = connect(&store.url).await;
    let mut kv = KvClient::new(channel.clone());
    let mut watch = Watch::open(&channel).await;
    watch.create(prefix("/k"), 0).await;
    // Far more than the ring holds, while the watcher does not read.
    let value = "v".repeat(20_000);
    for turn in 0..300 {
        kv.put(put(&format!("/k{turn:03}"), &value)).await.unwrap();
    }
    let expected: Vec<_> = (0..300).map(|turn| format!("PUT /k{turn:03}@{}<", turn + 2)).collect();
    assert_eq!(watch.events(300).await, expected);
    store.stop().await;
}

#[tokio::test]
async fn leases_expire_and_take_their_keys_along() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(folder.path());
    let channel = connect(&store.url).await;
    let (mut kv, mut leases) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
    let long = leases.lease_grant(pb::LeaseGrantRequest { ttl: 3600, id: 0 }).await.unwrap().into_inner();
    assert!(long.id > 0 && long.ttl == 3600);
    let short = leases.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 77 }).await.unwrap().into_inner();
    assert_eq!((short.id, short.ttl), (77, 2));
    let taken = leases.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 77 }).await.unwrap_err();
    assert_eq!((taken.code(), taken.message()), (Code::FailedPrecondition, "etcdserver: lease already exists"));
    kv.put(pb::PutRequest { lease: 77, ..put("/l/short", "") }).await.unwrap();
    kv.put(pb::PutRequest { lease: long.id, ..put("/l/long", "") }).await.unwrap();

    let mut watch = Watch::open(&channel).await;
    watch.create(prefix("/l/"), 0).await;
    assert_eq!(watch.events(1).await, ["DELETE /l/short@4<"]);

    let left =
        leases.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: long.id, keys: true }).await.unwrap().into_inner();
    assert!(left.ttl > 3500 && left.granted_ttl == 3600 && left.keys == ["/l/long"], "{left:?}");
    let gone = leases.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 77, keys: true }).await.unwrap().into_inner();
    assert_eq!(gone.ttl, -1);
    let mut alive = leases
        .lease_keep_alive(tokio_stream::iter([long.id, 77].map(|id| pb::LeaseKeepAliveRequest { id })))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 3600);
    assert_eq!(alive.message().await.unwrap().unwrap().ttl, 0);
    store.stop().await;

    let store = Store::start(folder.path());
    let channel = connect(&store.url).await;
    let mut leases = LeaseClient::new(channel.clone());
    let ids = leases.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner().leases;
    assert_eq!(ids.iter().map(|l| l.id).collect::<Vec<_>>(), [long.id]);
    leases.lease_revoke(pb::LeaseRevokeRequest { id: long.id }).await.unwrap();
    assert_eq!(KvClient::new(channel).range(prefix("/l/")).await.unwrap().into_inner().count, 0);
    store.stop().await;
}

#[tokio::test]
async fn snapshots_carry_their_digest() {
    use sha2::Digest;

    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(folder.path());
    let channel = connect(&store.url).await;
    KvClient::new(channel.clone()).put(put("/s", "1")).await.unwrap();
    let mut stream = MaintenanceClient::new(channel).snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
    let (mut bytes, mut remaining) = (Vec::new(), u64::MAX);
    while let Some(chunk) = stream.message().await.unwrap() {
        bytes.extend_from_slice(&chunk.blob);
        remaining = chunk.remaining_bytes;
    }
    assert_eq!((remaining, bytes.len() % 512), (0, 32));
    let (archive, digest) = bytes.split_at(bytes.len() - 32);
    assert_eq!(sha2::Sha256::digest(archive).as_slice(), digest);
    store.stop().await;

    // Unpacked as a data directory, it is a store with the same content.
    let restored = tempfile::tempdir().unwrap();
    tar::Archive::new(archive).unpack(restored.path().join("member")).unwrap();
    let store = Store::start(restored.path());
    let mut kv = KvClient::new(connect(&store.url).await);
    assert_eq!(kv.range(get("/s")).await.unwrap().into_inner().kvs[0].value, "1");
    store.stop().await;
}

#[tokio::test]
async fn the_quota_stops_puts_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (port, (trigger, shutdown)) = (free_port(), Shutdown::pair());
    let mut args = arguments(folder.path(), port);
    // Above what empty memory tables take, or an empty store would be full.
    args.push("--quota-backend-bytes=24000000".into());
    let task = tokio::spawn(store::run(args, shutdown));
    let channel = connect(&format!("http://127.0.0.1:{port}")).await;
    let mut kv = KvClient::new(channel.clone());
    let mut refused = None;
    for turn in 0..2000 {
        if let Err(status) = kv.put(put(&format!("/q/{turn}"), &noise(turn))).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("a full store");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    let op = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest { success: vec![op(Request::RequestPut(put("/q/t", "")))], ..Default::default() };
    assert_eq!(kv.txn(txn).await.unwrap_err().code(), Code::ResourceExhausted);
    let grant = pb::LeaseGrantRequest { ttl: 10, id: 0 };
    assert_eq!(LeaseClient::new(channel.clone()).lease_grant(grant).await.unwrap_err().code(), Code::ResourceExhausted);

    assert!(kv.range(get("/q/1")).await.unwrap().into_inner().count == 1);
    let all = prefix("/q/");
    let delete = pb::DeleteRangeRequest { key: all.key, range_end: all.range_end, ..Default::default() };
    let revision = kv.delete_range(delete).await.unwrap().into_inner().header.unwrap().revision;
    kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
    let mut maintenance = MaintenanceClient::new(channel.clone());
    maintenance.defragment(pb::DefragmentRequest {}).await.unwrap();
    let alarm =
        |action: pb::alarm_request::AlarmAction| pb::AlarmRequest { action: action.into(), ..Default::default() };
    let alarms = maintenance.alarm(alarm(pb::alarm_request::AlarmAction::Get)).await.unwrap().into_inner().alarms;
    assert_eq!(alarms.len(), 1);
    assert_eq!(alarms[0].alarm(), pb::AlarmType::Nospace);
    let mut disarm = alarm(pb::alarm_request::AlarmAction::Deactivate);
    disarm.set_alarm(pb::AlarmType::Nospace);
    maintenance.alarm(disarm).await.unwrap();
    tokio::time::timeout(LIMIT, async { while kv.put(put("/q/again", "1")).await.is_err() {} }).await.unwrap();
    trigger.trigger();
    task.await.unwrap().unwrap();
}

/// 64 KiB that no compression makes smaller than half.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from((state >> 58) & 63).unwrap())
    };
    (0..64 << 10).map(|_| next()).collect()
}

/// What a plain HTTP client sees.
async fn http(url: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn old_history_goes_by_itself_and_the_figures_tell() {
    let folder = tempfile::tempdir().unwrap();
    let (port, (trigger, shutdown)) = (free_port(), Shutdown::pair());
    let mut args = arguments(folder.path(), port);
    args.push("--auto-compaction-retention=1s".into());
    let task = tokio::spawn(store::run(args, shutdown));
    let url = format!("http://127.0.0.1:{port}");
    let mut kv = KvClient::new(connect(&url).await);
    for turn in 0..10 {
        kv.put(put("/h", &turn.to_string())).await.unwrap();
    }
    let old = pb::RangeRequest { revision: 5, ..get("/h") };
    tokio::time::timeout(LIMIT, async { while kv.range(old.clone()).await.is_ok() {} }).await.expect("a compaction");
    assert_eq!(kv.range(get("/h")).await.unwrap().into_inner().kvs[0].value, "9");

    let figures = http(&url, "/metrics").await;
    for line in ["etcd_server_has_leader 1", "etcd_mvcc_put_total 10", "etcd_debugging_mvcc_keys_total 1"] {
        assert!(figures.lines().any(|l| l == line), "{line} is not in {figures}");
    }
    assert!(figures.contains("etcd_disk_wal_fsync_duration_seconds_count "));
    assert!(http(&url, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(http(&url, "/health").await.contains(r#"{"health":"true""#));
    trigger.trigger();
    task.await.unwrap().unwrap();
}

/// Why a store does not start.
async fn refusal(folder: &Path) -> String {
    let (_trigger, shutdown) = Shutdown::pair();
    store::run(arguments(folder, free_port()), shutdown).await.unwrap_err().to_string()
}

/// A small file system of its own; only root can have one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).status();
        if mount.is_ok_and(|status| status.success()) {
            return Some(Tmpfs(folder));
        }
        println!("left out: mounting a small file system needs root");
        None
    }

    /// Leaves about so many bytes for others.
    fn fill(&self, leave: u64) {
        let stat = nix::sys::statvfs::statvfs(self.0.path()).unwrap();
        let free = stat.blocks_available() * stat.fragment_size();
        let bytes = usize::try_from(free.saturating_sub(leave)).unwrap();
        std::fs::write(self.filler(), vec![1; bytes]).unwrap();
    }

    fn filler(&self) -> std::path::PathBuf {
        self.0.path().join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_nearly_full_disk_refuses_puts_and_a_full_one_ends_the_member() {
    let Some(disk) = Tmpfs::new("160m") else { return };
    let folder = disk.0.path().join("data");
    let store = Store::start(&folder);
    let channel = connect(&store.url).await;
    let (mut kv, mut leases) = (KvClient::new(channel.clone()), LeaseClient::new(channel.clone()));
    for turn in 0..300 {
        kv.put(put(&format!("/s/{turn:03}"), "kept")).await.unwrap();
    }
    let lease = leases.lease_grant(pb::LeaseGrantRequest { ttl: 3600, id: 5 }).await.unwrap().into_inner();

    disk.fill(40 << 20);
    let refused = tokio::time::timeout(LIMIT, async {
        loop {
            // A look at the file system is used for some milliseconds.
            if let Err(status) = kv.put(put("/s/more", "x")).await {
                return status;
            }
        }
    });
    let refused = refused.await.unwrap();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    let delete = |key: &str| pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    kv.delete_range(delete("/s/000")).await.unwrap();
    leases.lease_revoke(pb::LeaseRevokeRequest { id: lease.id }).await.unwrap();
    assert_eq!(kv.range(get("/s/001")).await.unwrap().into_inner().count, 1);
    std::fs::remove_file(disk.filler()).unwrap();
    tokio::time::timeout(LIMIT, async { while kv.put(put("/s/more", "x")).await.is_err() {} }).await.unwrap();

    // No room at all: the next flush of the database fails, and the member ends instead of going on.
    disk.fill(0);
    let mut gone = Vec::new();
    for turn in 1..300 {
        let key = format!("/s/{turn:03}");
        match kv.delete_range(delete(&key)).await {
            Ok(_) => gone.push(key),
            Err(_) => break,
        }
    }
    let Store { task, trigger, .. } = store;
    let reason = tokio::time::timeout(LIMIT, task).await.expect("the member ends").unwrap().unwrap_err().to_string();
    assert!(reason.contains("No space left on device"), "{reason}");
    drop(trigger);
    std::fs::remove_file(disk.filler()).unwrap();
    let store = Store::start(&folder);
    let mut kv = KvClient::new(connect(&store.url).await);
    let left = kv.range(prefix("/s/")).await.unwrap().into_inner().kvs;
    assert!(left.iter().all(|kv| !gone.iter().any(|key| kv.key == key.as_bytes())), "an acknowledged delete is undone");
    assert!(left.len() >= 300 - gone.len() - 1);
    store.stop().await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_member_and_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let (_trigger, shutdown) = Shutdown::pair();
    let faults = store::raft::writer::Faults::default();
    let running = tokio::spawn(store::run_on(arguments(folder.path(), port), shutdown, faults.clone()));
    let mut kv = KvClient::new(connect(&format!("http://127.0.0.1:{port}")).await);
    kv.put(put("/f", "1")).await.unwrap();
    faults.fail_syncs();
    assert!(kv.put(put("/f", "2")).await.is_err());
    let reason = tokio::time::timeout(LIMIT, running).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(reason.contains("cannot sync the log"), "{reason}");
}

#[tokio::test]
async fn a_damaged_record_is_named_and_never_served() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::start(folder.path());
    KvClient::new(connect(&store.url).await).put(put("/d", "precious")).await.unwrap();
    store.stop().await;

    let member = folder.path().join("member");
    let open = || rocksdb::DB::open_cf(&rocksdb::Options::default(), &member, store::schema::FAMILIES).unwrap();
    let db = open();
    let handle = db.cf_handle("mvcc").unwrap();
    let (key, good) = db.iterator_cf(&handle, rocksdb::IteratorMode::End).next().unwrap().unwrap();
    let mut bad = good.to_vec();
    *bad.last_mut().unwrap() ^= 0x10;
    db.put_cf(&handle, &key, &bad).unwrap();
    drop(handle);
    drop(db);
    let error = refusal(folder.path()).await;
    assert!(error.contains("corrupt record in column family mvcc, key 0x"), "{error}");
    let db = open();
    let handle = db.cf_handle("mvcc").unwrap();
    db.put_cf(&handle, &key, &good).unwrap();
    drop(handle);
    drop(db);

    let log = std::fs::read_dir(folder.path().join("wal")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&log).unwrap();
    let place = whole.windows(8).position(|bytes| bytes == b"precious").unwrap();
    let mut bad = whole.clone();
    bad[place] ^= 0x10;
    std::fs::write(&log, bad).unwrap();
    let error = refusal(folder.path()).await;
    assert!(error.contains(&format!("corrupt log file {} at offset ", log.display())), "{error}");
    std::fs::write(&log, whole).unwrap();
    Store::start(folder.path()).stop().await;
}

const CHILD_FOLDER: &str = "STORE_TEST_FOLDER";
const CHILD_PORT: &str = "STORE_TEST_PORT";

/// Not a test by itself: the process that [`nothing_acknowledged_is_lost`] kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process() {
    let (Ok(folder), Ok(port)) = (std::env::var(CHILD_FOLDER), std::env::var(CHILD_PORT)) else { return };
    let (_trigger, shutdown) = Shutdown::pair();
    println!("started");
    store::run(arguments(Path::new(&folder), port.parse().unwrap()), shutdown).await.unwrap();
}

fn spawn_child(folder: &Path, port: u16) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .env(CHILD_PORT, port.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("started")));
    child
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = std::collections::BTreeMap::new();
    let mut newest = 0;
    for round in 0..3 {
        let port = free_port();
        let mut child = spawn_child(folder.path(), port);
        let channel = connect(&format!("http://127.0.0.1:{port}")).await;
        check_all(&channel, &acknowledged, newest).await;
        let (sender, mut receiver) = mpsc::unbounded_channel();
        for writer in 0..8 {
            let (mut kv, sender) = (KvClient::new(channel.clone()), sender.clone());
            tokio::spawn(async move {
                for turn in 0.. {
                    let (key, value) = (format!("/{writer}/{}", turn % 50), format!("{round}.{turn}"));
                    let Ok(response) = kv.put(put(&key, &value)).await else { return };
                    let revision = response.into_inner().header.unwrap().revision;
                    if sender.send((key, value, revision)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut seen = 0;
        while let Some((key, value, revision)) = receiver.recv().await {
            acknowledged.insert(key, (value, revision));
            newest = newest.max(revision);
            seen += 1;
            if seen == 400 {
                // In the middle of everything; acknowledgements on their way still count.
                child.kill().unwrap();
            }
        }
        assert!(seen >= 400);
        child.wait().unwrap();
    }
    let store = Store::start(folder.path());
    check_all(&connect(&store.url).await, &acknowledged, newest).await;
    store.stop().await;
}

async fn check_all(channel: &Channel, acknowledged: &std::collections::BTreeMap<String, (String, i64)>, newest: i64) {
    let response = KvClient::new(channel.clone()).range(prefix("/")).await.unwrap().into_inner();
    assert!(response.header.unwrap().revision >= newest);
    let found: std::collections::BTreeMap<_, _> = response.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    for (key, (value, revision)) in acknowledged {
        let kv = found.get(key.as_bytes()).unwrap_or_else(|| panic!("{key} is gone"));
        // A write that was never acknowledged may have happened as well, but only after the acknowledged one.
        assert!(kv.mod_revision >= *revision, "{key} went back to {}", kv.mod_revision);
        assert!(kv.mod_revision > *revision || kv.value == value.as_bytes(), "{key} differs");
    }
}
