//! The members of a simulated cluster: their processes start, crash and end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use daemon::Shutdown;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use store_api::etcdserverpb::cluster_client::ClusterClient;
use tokio::task::JoinHandle;

use super::check::Applied;
use super::disk::{Defect, Disk};
use super::{Link, World};
use crate::config::Config;
use crate::member::{Closing, Member};
use crate::raft::transport::REMOVED;
use crate::raft::writer::{Fatal, Faults};
use crate::server::Server;

/// A cluster.
pub struct Cluster {
    pub world: Arc<World>,
    folder: PathBuf,
    nodes: Mutex<BTreeMap<String, Node>>,
    founders: usize,
    defect: Option<Defect>,
    counter: AtomicU64,
    /// Clients shall end.
    pub stop: AtomicBool,
}

enum Node {
    Starting,
    Up(Box<Up>),
    Down(PathBuf),
    Gone,
}

struct Up {
    member: Arc<Member>,
    closing: Closing,
    server: Server,
    process: u64,
    folder: PathBuf,
    synced: (u64, usize),
    tasks: Vec<JoinHandle<()>>,
    ready: bool,
}

/// A member that serves clients.
#[derive(Clone)]
pub struct Serving {
    pub name: String,
    pub process: u64,
    pub member: Arc<Member>,
    server: Server,
}

impl Serving {
    /// A client of it.
    pub fn cluster_client(&self) -> ClusterClient<Link> {
        ClusterClient::new(Link::Local(self.server.clone()))
    }
}

fn url(name: &str) -> String {
    format!("http://127.0.0.1:{}", 7000 + name[1..].parse::<u64>().unwrap())
}

/// A member's vote and log, for the trace.
fn standing(member: &Member) -> String {
    let metrics = member.consensus.raft().metrics();
    let metrics = metrics.borrow_watched();
    format!("vote {}, last {:?}, applied {:?}", metrics.vote, metrics.last_log_index, metrics.last_applied)
}

impl Cluster {
    /// Starts the first members; `folder` must outlive the runtime.
    pub fn found(world: Arc<World>, folder: &Path, founders: usize, defect: Option<Defect>) -> Arc<Self> {
        let cluster = Arc::new(Cluster {
            world,
            folder: folder.to_owned(),
            nodes: Mutex::default(),
            founders,
            defect,
            counter: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        for _ in 0..founders {
            let name = cluster.new_name();
            cluster.start(&name, cluster.new_folder());
        }
        cluster
    }

    /// A number that was never used.
    pub fn number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn new_folder(&self) -> PathBuf {
        self.folder.join(self.number().to_string())
    }

    /// The name of the next member.
    pub fn new_name(&self) -> String {
        let mut nodes = self.nodes.lock();
        let name = format!("n{}", nodes.len() + 1);
        nodes.insert(name.clone(), Node::Gone);
        name
    }

    /// Where others find a member.
    pub fn url(name: &str) -> String {
        url(name)
    }

    /// Starts a member that was added.
    pub fn start_new(self: &Arc<Self>, name: &str) {
        self.start(name, self.new_folder());
    }

    fn start(self: &Arc<Self>, name: &str, folder: PathBuf) {
        self.nodes.lock().insert(name.to_owned(), Node::Starting);
        tokio::spawn(self.clone().open(name.to_owned(), folder));
    }

    fn config(&self, name: &str, folder: &Path) -> Config {
        let founder = name[1..].parse::<usize>().unwrap() <= self.founders;
        let nodes = self.nodes.lock();
        let all = nodes.keys().filter(|other| !founder || other[1..].parse::<usize>().unwrap() <= self.founders);
        let pairs: Vec<String> = all.map(|name| format!("{name}={}", url(name))).collect();
        Config::try_parse_from([
            "store".to_owned(),
            format!("--name={name}"),
            format!("--data-dir={}", folder.display()),
            format!("--initial-advertise-peer-urls={}", url(name)),
            format!("--listen-peer-urls={}", url(name)),
            format!("--initial-cluster={}", pairs.join(",")),
            format!("--initial-cluster-state={}", if founder { "new" } else { "existing" }),
            "--snapshot-count=40".to_owned(),
            "--max-learners=2".to_owned(),
        ])
        .unwrap()
    }

    async fn open(self: Arc<Self>, name: String, folder: PathBuf) {
        let process = self.world.network.lock().start(&name);
        self.world.note(|| format!("{name} starts"));
        let fatal = Fatal::new();
        let (member, closing) = loop {
            let config = self.config(&name, &folder);
            match Member::open(config, fatal.clone(), Faults::default()).await {
                Ok(opened) => break opened,
                Err(error) if error.to_string().contains(REMOVED) => return self.gone(&name),
                // Those that would know are away.
                Err(error) if error.to_string().contains("cannot join") => {
                    self.world.note(|| format!("{name}: {error}"));
                }
                Err(error) => return self.world.fail(format!("{name} does not start: {error}")),
            }
        };
        self.world.note(|| format!("{name} is {:x}, {}", member.identity.member, standing(&member)));
        let (trigger, shutdown) = Shutdown::pair();
        let server = Server::for_members(member.clone(), shutdown.clone());
        self.world.network.lock().listen(&name, &url(&name), server.clone());
        let (cluster, running, mine) = (self.clone(), member.clone(), name.clone());
        let serve = tokio::spawn(async move {
            let _trigger = trigger;
            match running.join().await {
                Ok(()) => cluster.ready(&mine),
                Err(error) => cluster.world.note(|| format!("{mine} cannot join: {error}")),
            }
            running.lead(shutdown).await;
        });
        let (cluster, mine) = (self.clone(), name.clone());
        let end = tokio::spawn(async move {
            let reason = fatal.wait().await;
            match reason == REMOVED {
                true => cluster.gone(&mine),
                false => cluster.world.fail(format!("{mine} stops: {reason}")),
            }
        });
        let synced = closing.durable();
        let up = Up { member, closing, server, process, folder, synced, tasks: vec![serve, end], ready: false };
        self.nodes.lock().insert(name, Node::Up(Box::new(up)));
    }

    fn ready(&self, name: &str) {
        self.world.note(|| format!("{name} serves"));
        if let Some(Node::Up(up)) = self.nodes.lock().get_mut(name) {
            up.ready = true;
        }
    }

    /// A member ends for good.
    fn gone(&self, name: &str) {
        self.world.note(|| format!("{name} ends"));
        self.world.network.lock().stop(name);
        if let Some(Node::Up(up)) = self.nodes.lock().insert(name.to_owned(), Node::Gone) {
            up.end();
        }
    }

    /// Cuts a member's power.
    pub fn crash(&self, name: &str) {
        let image = self.new_folder();
        let up = match self.nodes.lock().get_mut(name) {
            Some(node @ Node::Up(_)) => std::mem::replace(node, Node::Down(image.clone())),
            _ => return,
        };
        let Node::Up(up) = up else { return };
        self.world.note(|| format!("{name} crashes, synced to {:x?}, {}", up.closing.durable(), standing(&up.member)));
        self.world.network.lock().stop(name);
        let disk = Disk {
            folder: &up.folder,
            engine: &up.member.engine,
            synced: up.closing.durable(),
            synced_before: up.synced,
        };
        let term = |index| self.world.checks.lock().term(index);
        if let Err(error) = disk.cut_power(&self.world, &image, self.defect, term) {
            self.world.fail(format!("no image of {name}: {error}"));
        }
        up.end();
    }

    /// Starts a member that crashed.
    pub fn restart(self: &Arc<Self>, name: &str) {
        let image = match self.nodes.lock().get(name) {
            Some(Node::Down(image)) => image.clone(),
            _ => return,
        };
        self.start(name, image);
    }

    /// Starts all that crashed.
    pub fn restart_all(self: &Arc<Self>) {
        let names: Vec<String> = self.nodes.lock().keys().cloned().collect();
        names.iter().for_each(|name| self.restart(name));
    }

    /// Who can crash.
    pub fn up(&self) -> Vec<String> {
        self.nodes.lock().iter().filter(|(_, node)| matches!(node, Node::Up(_))).map(|(name, _)| name.clone()).collect()
    }

    /// All members that ever were.
    pub fn names(&self) -> Vec<String> {
        self.nodes.lock().keys().cloned().collect()
    }

    /// Whether every member is up or gone.
    pub fn complete(&self) -> bool {
        self.nodes.lock().values().all(|node| match node {
            Node::Up(up) => up.ready,
            Node::Gone => true,
            Node::Starting | Node::Down(_) => false,
        })
    }

    /// Who serves clients.
    pub fn serving(&self) -> Vec<Serving> {
        let serving = |(name, node): (&String, &Node)| match node {
            Node::Up(up) if up.ready => Some(Serving {
                name: name.clone(),
                process: up.process,
                member: up.member.clone(),
                server: up.server.clone(),
            }),
            _ => None,
        };
        self.nodes.lock().iter().filter_map(serving).collect()
    }

    /// The members' states, as far as they can be compared.
    pub fn states(&self) -> Result<Vec<Applied>, String> {
        self.serving().iter().map(|serving| Applied::look(&serving.member.engine, true)).collect()
    }
}

impl Up {
    /// What is left of a process cannot do anything any more, but its tasks have to end.
    fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        tokio::spawn(self.closing.close());
    }
}

/// Waits until something holds, for as long as a cluster may take to recover.
pub async fn until(world: &World, what: &str, holds: impl Fn() -> bool) -> bool {
    for _ in 0..1200 {
        if holds() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.fail(format!("not within a minute: {what}"));
    false
}
