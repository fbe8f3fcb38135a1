//! A cluster of member processes in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemon::Shutdown;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use store::raft::writer::Faults;
use store_api::etcdserverpb as pb;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::{Channel, Endpoint};

use crate::client::Clients;
use crate::faults::clock;
use crate::ports::free_port;
use crate::proxy::Network;

/// How long anything may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
const ARGUMENTS: &str = "STORE_TEST_ARGUMENTS";

/// Not a test by itself: the process of a member.
#[test]
fn child_process() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    daemon::start_logging();
    // Its end of the pipe closes with the test's process, however that ends.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(3);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::on_signals().unwrap();
        let faults = Faults::default();
        tokio::spawn(fail_on_signals(faults.clone()));
        store::run_on(arguments.lines().map(str::to_owned).collect(), shutdown, faults).await
    });
    if let Err(error) = outcome {
        eprintln!("store: {error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// Lets every sync of a member's log fail from now on.
pub const FAIL_SYNCS: Signal = Signal::SIGUSR1;
/// Lets every write to a member's log fail from now on, as on a full disk.
pub const FILL_DISK: Signal = Signal::SIGUSR2;

async fn fail_on_signals(faults: Faults) {
    let [mut syncs, mut writes] =
        [SignalKind::user_defined1(), SignalKind::user_defined2()].map(|k| signal(k).unwrap());
    tokio::select! {
        _ = syncs.recv() => faults.fail_syncs(),
        _ = writes.recv() => faults.fail_writes(),
    }
}

/// One member.
pub struct Node {
    pub name: String,
    pub folder: PathBuf,
    pub client_url: String,
    /// As other members see it: the proxy.
    pub peer_url: String,
    listen: String,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// Its `--initial-cluster`.
    pub fn first_flag(&self) -> String {
        self.flags[0].clone()
    }

    /// Makes the data directory of a snapshot, for a cluster of these founders.
    pub fn restore(
        &self,
        snapshot: &Path,
        founders: &str,
        flags: &[&str],
    ) -> impl Future<Output = daemon::Outcome> + use<> {
        let mut arguments = vec![
            "store".to_owned(),
            "snapshot".to_owned(),
            "restore".to_owned(),
            snapshot.display().to_string(),
            format!("--data-dir={}", self.folder.display()),
            format!("--name={}", self.name),
            format!("--initial-advertise-peer-urls={}", self.peer_url),
            founders.to_owned(),
        ];
        arguments.extend(flags.iter().map(ToString::to_string));
        async move {
            let (_trigger, shutdown) = daemon::Shutdown::pair();
            store::run(arguments, shutdown).await
        }
    }
}

/// A cluster and its network.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub network: Network,
    flags: Vec<String>,
    folder: TempDir,
}

impl Cluster {
    /// `first` members that found a cluster, and room for `later` ones.
    pub async fn start(first: usize, later: usize, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepare(first, later, flags).await;
        for member in 0..first {
            cluster.start_member(member);
        }
        for member in 0..first {
            cluster.wait_ready(member).await;
        }
        cluster
    }

    /// Members that were never started.
    pub async fn prepare(first: usize, later: usize, flags: &[&str]) -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let network = Network::new(first + later);
        let scheme = if flags.iter().any(|flag| flag.starts_with("--peer-cert-file")) { "https" } else { "http" };
        let mut nodes = Vec::new();
        for member in 0..first + later {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (proxy, port) = (listener.local_addr().unwrap().port(), free_port());
            tokio::spawn(network.clone().serve(listener, member, port, member as u64));
            nodes.push(Node {
                name: format!("m{member}"),
                folder: folder.path().join(format!("m{member}")),
                client_url: format!("http://127.0.0.1:{}", free_port()),
                peer_url: format!("{scheme}://127.0.0.1:{proxy}"),
                listen: format!("{scheme}://127.0.0.1:{port}"),
                flags: Vec::new(),
                child: None,
            });
        }
        let mut cluster = Cluster { nodes, network, flags: flags.iter().map(ToString::to_string).collect(), folder };
        let founders: Vec<usize> = (0..first).collect();
        for member in 0..first {
            cluster.nodes[member].flags = cluster.membership_flags(&founders, "new");
        }
        cluster
    }

    fn membership_flags(&self, members: &[usize], state: &str) -> Vec<String> {
        let pairs: Vec<String> =
            members.iter().map(|m| format!("{}={}", self.nodes[*m].name, self.nodes[*m].peer_url)).collect();
        vec![format!("--initial-cluster={}", pairs.join(",")), format!("--initial-cluster-state={state}")]
    }

    /// Lets a later member join these ones at its next start.
    pub fn will_join(&mut self, member: usize, others: &[usize]) {
        let all: Vec<usize> = others.iter().copied().chain([member]).collect();
        self.nodes[member].flags = self.membership_flags(&all, "existing");
    }

    /// Starts a member's process.
    pub fn start_member(&mut self, member: usize) {
        let node = &mut self.nodes[member];
        assert!(node.child.is_none(), "{} runs already", node.name);
        let mut arguments = vec![
            "store".to_owned(),
            format!("--name={}", node.name),
            format!("--data-dir={}", node.folder.display()),
            format!("--listen-client-urls={}", node.client_url),
            format!("--advertise-client-urls={}", node.client_url),
            format!("--listen-peer-urls={}", node.listen),
            format!("--initial-advertise-peer-urls={}", node.peer_url),
        ];
        arguments.extend(node.flags.iter().cloned());
        arguments.extend(self.flags.iter().cloned());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log_path(self.folder.path(), &node.name));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "harness::child_process", "--nocapture"])
            .env(ARGUMENTS, arguments.join("\n"))
            .envs(clock::environment(&clock_path(self.folder.path(), &node.name)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        self.network.process(member, Some(child.id()));
        node.child = Some(child);
    }

    /// The file that a member's wall clock follows.
    pub fn clock(&self, member: usize) -> PathBuf {
        clock_path(self.folder.path(), &self.nodes[member].name)
    }

    /// Kills a member's process without warning.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.nodes[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.network.process(member, None);
    }

    /// Sends a member's process a signal.
    pub fn signal(&self, member: usize, signal: Signal) {
        let child = self.nodes[member].child.as_ref().expect("a running member");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    }

    fn process_file(&self, member: usize, name: &str) -> PathBuf {
        let child = self.nodes[member].child.as_ref().expect("a running member");
        PathBuf::from(format!("/proc/{}/{name}", child.id()))
    }

    /// A figure of the member's /proc/PID/status, in bytes.
    pub fn memory(&self, member: usize, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.process_file(member, "status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    /// Lets the peak of its memory (VmHWM) begin anew: proc_pid_clear_refs(5).
    pub fn forget_peak(&self, member: usize) {
        std::fs::write(self.process_file(member, "clear_refs"), "5").unwrap();
    }

    /// Whether the process runs.
    pub fn runs(&self, member: usize) -> bool {
        self.nodes[member].child.is_some()
    }

    /// Waits for the process's own end and returns whether it succeeded.
    pub async fn ended(&mut self, member: usize) -> bool {
        let mut child = self.nodes[member].child.take().expect("a running member");
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.network.process(member, None);
                return status.success();
            }
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.nodes[member].name, self.log(member));
            // There is no event for a child's end without giving up the handle.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a member serves clients.
    pub async fn wait_ready(&mut self, member: usize) {
        let serves = self.serves_or_ends(member).await;
        assert!(serves, "{} ended:\n{}", self.nodes[member].name, self.log(member));
    }

    /// Waits until a member that was started serves clients, or ends by itself; returns whether it serves.
    pub async fn serves_or_ends(&mut self, member: usize) -> bool {
        let deadline = Instant::now() + LIMIT;
        let mut clients = self.clients(member);
        while clients.kv.range(pb::RangeRequest { key: "ready".into(), ..Default::default() }).await.is_err() {
            let child = self.nodes[member].child.as_mut().expect("a started member");
            if child.try_wait().unwrap().is_some() {
                self.kill(member);
                return false;
            }
            assert!(Instant::now() < deadline, "{}:\n{}", self.nodes[member].name, self.log(member));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// Clients of a member.
    pub fn clients(&self, member: usize) -> Clients {
        Clients::new(self.channel(member))
    }

    /// A connection to a member, made when it is used.
    pub fn channel(&self, member: usize) -> Channel {
        Endpoint::from_shared(self.nodes[member].client_url.clone()).unwrap().connect_lazy()
    }

    /// What a member has written to its log.
    pub fn log(&self, member: usize) -> String {
        std::fs::read_to_string(log_path(self.folder.path(), &self.nodes[member].name)).unwrap_or_default()
    }

    /// The place of the leader among the members that answer.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + LIMIT;
        loop {
            for member in (0..self.nodes.len()).filter(|m| self.runs(*m)) {
                let mut maintenance = self.clients(member).maintenance;
                let status = tokio::time::timeout(Duration::from_secs(1), maintenance.status(pb::StatusRequest {}));
                if let Ok(Ok(status)) = status.await {
                    let status = status.into_inner();
                    if status.leader != 0 && status.header.unwrap().member_id == status.leader {
                        return member;
                    }
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all running members hold the same at the same revision, and returns the revision.
    pub async fn agree(&self) -> i64 {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|m| self.runs(*m)).collect();
        let mut kv = self.clients(running[0]).kv;
        let get = pb::RangeRequest { key: "agree".into(), ..Default::default() };
        let revision = kv.range(get).await.unwrap().into_inner().header.unwrap().revision;
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut sums = Vec::new();
            for member in &running {
                let hash = self.clients(*member).maintenance.hash_kv(pb::HashKvRequest { revision }).await;
                sums.push(hash.map(|answer| (answer.get_ref().hash, answer.get_ref().compact_revision)).ok());
            }
            let same = sums.iter().all(|sum| sum.is_some() && *sum == sums[0]);
            // A member may still be behind with a compaction.
            let compacting = sums.iter().any(|sum| sum.map(|s| s.1) != sums[0].map(|s| s.1));
            if same {
                return revision;
            }
            let late = Instant::now() >= deadline;
            assert!(!late && (compacting || sums.iter().any(Option::is_none)), "members differ: {sums:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The id of a member.
    pub async fn id(&self, member: usize) -> u64 {
        let status = self.clients(member).maintenance.status(pb::StatusRequest {}).await.unwrap();
        status.into_inner().header.unwrap().member_id
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..self.nodes.len() {
            if std::thread::panicking() {
                let log = self.log(member);
                let tail: Vec<&str> = log.lines().rev().take(25).collect();
                eprintln!("--- {}", self.nodes[member].name);
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
            if let Some(mut child) = self.nodes[member].child.take() {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

fn clock_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.clock"))
}

fn log_path(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}
