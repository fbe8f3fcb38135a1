//! The network between members: one proxy in front of each member's peer listener, and a rule per direction and pair.
//!
//! A rule holds bytes back as a lossy or cut network does: TCP delivers them late or never, but never others. The proxy
//! finds out who connects by the socket's owner, because every member shows all others the same address.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rule {
    /// Nothing passes.
    pub cut: bool,
    /// Everything is late by this much.
    pub delay: Duration,
    /// The share of pieces that have to be sent again, which takes a retransmission timeout.
    pub loss: f64,
}

const RETRANSMISSION: Duration = Duration::from_millis(200);

/// Who may reach whom.
#[derive(Clone)]
pub struct Network {
    rules: Arc<Vec<Vec<watch::Sender<Rule>>>>,
    pids: Arc<Mutex<Vec<Option<u32>>>>,
}

impl Network {
    /// Everything passes.
    pub fn new(members: usize) -> Self {
        let row = || (0..members).map(|_| watch::Sender::new(Rule::default())).collect();
        Network {
            rules: Arc::new((0..members).map(|_| row()).collect()),
            pids: Arc::new(Mutex::new(vec![None; members])),
        }
    }

    /// The process of a member.
    pub fn process(&self, member: usize, pid: Option<u32>) {
        self.pids.lock()[member] = pid;
    }

    /// From now on, bytes from one member to another obey this.
    pub fn rule(&self, from: usize, to: usize, rule: Rule) {
        self.rules[from][to].send_replace(rule);
    }

    /// Cuts or mends both directions between two groups.
    pub fn cut(&self, one: &[usize], other: &[usize]) {
        for a in one {
            for b in other {
                self.rule(*a, *b, Rule { cut: true, ..Rule::default() });
                self.rule(*b, *a, Rule { cut: true, ..Rule::default() });
            }
        }
    }

    /// The same rule everywhere.
    pub fn all(&self, rule: Rule) {
        self.rules.iter().flatten().for_each(|sender| {
            sender.send_replace(rule);
        });
    }

    /// Serves `listener` as the way to `member`, whose own listener is at `port`.
    pub async fn serve(self, listener: TcpListener, member: usize, port: u16, seed: u64) {
        let mut random = SmallRng::seed_from_u64(seed);
        let proxy = listener.local_addr().unwrap().port();
        while let Ok((incoming, from)) = listener.accept().await {
            let (network, seed) = (self.clone(), random.random());
            tokio::spawn(async move {
                // A process that was just killed owns nothing any more.
                let Some(source) = network.owner(from.port(), proxy) else { return };
                let Ok(outgoing) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let (Ok(()), Ok(())) = (incoming.set_nodelay(true), outgoing.set_nodelay(true)) else { return };
                let ((from_read, from_write), (to_read, to_write)) = (incoming.into_split(), outgoing.into_split());
                let there = pump(from_read, to_write, network.rules[source][member].subscribe(), seed);
                let back = pump(to_read, from_write, network.rules[member][source].subscribe(), seed ^ 1);
                // When one direction ends, so does the other.
                tokio::select! {
                    () = there => {}
                    () = back => {}
                }
            });
        }
    }

    /// The member whose process owns the connection from `port` to the proxy at `to`.
    fn owner(&self, port: u16, to: u16) -> Option<usize> {
        const ESTABLISHED: &str = "01";
        let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
        let (local, remote) = (format!("0100007F:{port:04X}"), format!("0100007F:{to:04X}"));
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // The same local port may belong to several connections.
        let mut own = rows.filter(|row| row.len() > 9 && row[1] == local && row[2] == remote && row[3] == ESTABLISHED);
        let socket = format!("socket:[{}]", own.next()?[9]);
        let pids = self.pids.lock().clone();
        pids.iter().position(|pid| pid.is_some_and(|pid| owns(pid, &socket)))
    }
}

fn owns(pid: u32, socket: &str) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == Path::new(socket)))
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut rule: watch::Receiver<Rule>, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let Ok(now) = rule.wait_for(|rule| !rule.cut).await.map(|rule| *rule) else { return };
        let lost = now.loss > 0.0 && random.random_bool(now.loss);
        let late = now.delay + if lost { RETRANSMISSION } else { Duration::ZERO };
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
