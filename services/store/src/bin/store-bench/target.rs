//! What is measured: the members of one cluster, started here or elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use store_api::etcdserverpb as pb;
use store_api::etcdserverpb::kv_client::KvClient;
use store_api::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::Failure;
use crate::connection::Connection;
use crate::process::{Memory, Process};

/// A program's name begins with this where a URL could stand.
const START: &str = "start:";
/// Until a started member must answer.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// One cluster.
pub struct Target {
    /// For people.
    pub name: String,
    urls: Vec<String>,
    members: Members,
}

enum Members {
    /// Started elsewhere, on this machine if the process is known.
    Others(Option<Process>),
    Own(Vec<Own>),
}

/// A member that was started here; killed at the end.
struct Own {
    command: Vec<String>,
    child: Child,
}

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &[String]) -> Result<Child, Failure> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|e| format!("{program}: {e}").into())
}

/// A port that nobody listens on at the moment.
fn free_port() -> Result<u16, Failure> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// How to start each member of a cluster, by etcd's flags, and its client URL.
fn commands(program: &str, folder: &Path, ports: &[(u16, u16)]) -> Vec<(Vec<String>, String)> {
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let all: Vec<String> = ports.iter().enumerate().map(|(m, (_, peer))| format!("m{m}={}", url(*peer))).collect();
    let one = |(m, (client, peer)): (usize, &(u16, u16))| {
        let command = vec![
            program.to_owned(),
            format!("--name=m{m}"),
            format!("--data-dir={}", folder.join(format!("m{m}")).display()),
            format!("--listen-client-urls={}", url(*client)),
            format!("--advertise-client-urls={}", url(*client)),
            format!("--listen-peer-urls={}", url(*peer)),
            format!("--initial-advertise-peer-urls={}", url(*peer)),
            format!("--initial-cluster={}", all.join(",")),
        ];
        (command, url(*client))
    };
    ports.iter().enumerate().map(one).collect()
}

impl Target {
    /// Reads an endpoint: URLs of one cluster with commas between them, or `start:PROGRAM` for `members` new members with
    /// their data in `folder`.
    ///
    /// # Errors
    /// The program does not start or does not answer.
    pub async fn new(endpoint: &str, pid: Option<u32>, members: usize, folder: &Path) -> Result<Self, Failure> {
        let Some(program) = endpoint.strip_prefix(START) else {
            let urls = endpoint.split(',').map(str::to_owned).collect();
            return Ok(Target { name: endpoint.to_owned(), urls, members: Members::Others(pid.map(Process)) });
        };
        let mut ports = Vec::new();
        for _ in 0..members {
            ports.push((free_port()?, free_port()?));
        }
        let mut target = Target { name: program.to_owned(), urls: Vec::new(), members: Members::Own(Vec::new()) };
        let mut own = Vec::new();
        for (command, url) in commands(program, folder, &ports) {
            own.push(Own { child: spawn(&command)?, command });
            target.urls.push(url);
        }
        target.members = Members::Own(own);
        for url in &target.urls {
            answers(url).await?;
        }
        Ok(target)
    }

    /// Opens connections, to the members in turn.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(&self, count: usize) -> Result<Vec<Connection>, Failure> {
        let mut connections = Vec::new();
        for url in self.urls.iter().cycle().take(count.max(1)) {
            connections.push(Connection::open(url).await?);
        }
        Ok(connections)
    }

    /// Opens connections on which both sides may go on sending, to the members in turn.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn streams(&self, count: usize) -> Result<Vec<Channel>, Failure> {
        let mut connections = Vec::new();
        for url in self.urls.iter().cycle().take(count.max(1)) {
            connections.push(Channel::from_shared(url.clone())?.tcp_nodelay(true).connect().await?);
        }
        Ok(connections)
    }

    fn processes(&self) -> Vec<Process> {
        match &self.members {
            Members::Others(process) => process.iter().copied().collect(),
            Members::Own(own) => own.iter().map(|own| Process(own.child.id())).collect(),
        }
    }

    /// CPU time used so far by all members, in seconds, if their processes are known.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn cpu_seconds(&self) -> Result<Option<f64>, Failure> {
        let all: Vec<f64> = self.processes().iter().map(|process| process.cpu_seconds()).collect::<Result<_, _>>()?;
        Ok(if all.is_empty() { None } else { Some(all.iter().sum()) })
    }

    /// Each member's memory.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn memory(&self) -> Result<Vec<Memory>, Failure> {
        self.processes().iter().map(|process| process.memory()).collect()
    }

    /// How often the members have synced their logs, if they tell.
    pub async fn syncs(&self) -> Option<f64> {
        let mut sum = 0.0;
        for url in &self.urls {
            sum += syncs(url).await?;
        }
        Some(sum)
    }

    /// Kills the leader, and returns how long it took until a write succeeded; then starts it again.
    ///
    /// # Errors
    /// The members were not started here, there is one only, or no other takes over.
    pub async fn fail_over(&mut self) -> Result<Duration, Failure> {
        let leader = self.leader().await?;
        let Members::Own(own) = &mut self.members else { return Err(format!("needs {START}PROGRAM").into()) };
        if own.len() < 3 {
            return Err("needs --members=3 or more".into());
        }
        let other = self.urls[(leader + 1) % own.len()].clone();
        let mut kv = KvClient::new(Channel::from_shared(other)?.connect().await?);
        let start = Instant::now();
        own[leader].child.kill()?;
        own[leader].child.wait()?;
        let put = || pb::PutRequest { key: "/failover".into(), value: "v".into(), ..Default::default() };
        // A request may wait for an answer that never comes, so it is repeated.
        while !tokio::time::timeout(Duration::from_millis(200), kv.put(put())).await.is_ok_and(|put| put.is_ok()) {
            if start.elapsed() > LIMIT {
                return Err("no other member takes over".into());
            }
            tokio::time::sleep(PAUSE).await;
        }
        let took = start.elapsed();
        own[leader].child = spawn(&own[leader].command)?;
        answers(&self.urls[leader]).await?;
        Ok(took)
    }

    /// The place of the leader.
    async fn leader(&self) -> Result<usize, Failure> {
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            for (place, url) in self.urls.iter().enumerate() {
                let mut maintenance = MaintenanceClient::new(Channel::from_shared(url.clone())?.connect().await?);
                let status = maintenance.status(pb::StatusRequest {}).await?.into_inner();
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Ok(place);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err("no leader".into())
    }
}

/// Waits until a member answers reads that ask for a quorum.
async fn answers(url: &str) -> Result<(), Failure> {
    let start = Instant::now();
    let channel = Channel::from_shared(url.to_owned())?.connect_lazy();
    let mut kv = KvClient::new(channel);
    while kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.is_err() {
        if start.elapsed() > LIMIT {
            return Err(format!("{url} does not answer").into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// How often a member has synced its log, if it tells.
async fn syncs(url: &str) -> Option<f64> {
    let address = url.split_once("://").map_or(url, |(_, rest)| rest);
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.lines()
        .find_map(|line| line.strip_prefix("etcd_disk_wal_fsync_duration_seconds_count "))
        .and_then(|count| count.trim().parse().ok())
}

/// A folder of this process's own, removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it inside another one.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path) -> Result<Self, Failure> {
        let path = parent.join(format!("store-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Folder(path))
    }

    /// Where one target keeps its data.
    pub fn of(&self, target: usize) -> PathBuf {
        self.0.join(target.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_cluster_know_each_other() {
        let commands = commands("etcd", Path::new("/d"), &[(1, 2), (3, 4)]);
        let (command, url) = &commands[1];
        assert_eq!(url, "http://127.0.0.1:3");
        assert_eq!(command[0], "etcd");
        for flag in [
            "--name=m1",
            "--data-dir=/d/m1",
            "--listen-peer-urls=http://127.0.0.1:4",
            "--initial-cluster=m0=http://127.0.0.1:2,m1=http://127.0.0.1:4",
        ] {
            assert!(command.iter().any(|argument| argument == flag), "{flag}");
        }
    }
}
