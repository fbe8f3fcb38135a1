//! Seeded rounds of faults under load, and the check of everything that was recorded meanwhile.
//!
//! The short run belongs to the tests. `STORE_FAULT_ROUNDS=200` makes it a long one, in runs of ten rounds with a cluster
//! of their own each; `STORE_FAULT_SEED` repeats one.

pub mod clock;
mod disk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use store_api::etcdserverpb as pb;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::put;
use crate::harness::{Cluster, LIMIT};
use crate::history::model::Store;
use crate::history::workload::{self, Record};
use crate::history::{replay, watch as guarantees, wgl};
use crate::proxy::Rule;
use disk::Disk;

const ROUNDS_PER_RUN: usize = 10;
const CLIENTS: usize = 6;
const PACE: Duration = Duration::from_millis(4);

#[derive(Clone, Copy, Debug)]
enum Fault {
    KillLeader,
    KillOne,
    KillAll,
    PauseLeader,
    PauseOne,
    IsolateLeader,
    IsolateOne,
    Deaf,
    Mute,
    Slow,
    Lossy,
    Defragment,
    MoveLeader,
    ComeAndGo,
    Disk(Disk),
    FlipBit,
    ClockJump,
}

const FAULTS: [Fault; 18] = [
    Fault::KillLeader,
    Fault::KillOne,
    Fault::KillAll,
    Fault::PauseLeader,
    Fault::PauseOne,
    Fault::IsolateLeader,
    Fault::IsolateOne,
    Fault::Deaf,
    Fault::Mute,
    Fault::Slow,
    Fault::Lossy,
    Fault::Defragment,
    Fault::MoveLeader,
    Fault::ComeAndGo,
    Fault::Disk(Disk::SyncFails),
    Fault::Disk(Disk::Full),
    Fault::FlipBit,
    Fault::ClockJump,
];

impl Fault {
    /// Lets it happen for a while, and mends everything.
    async fn run(self, cluster: &mut Cluster, size: usize, random: &mut SmallRng) {
        let leader = cluster.leader().await;
        let one = random.random_range(0..size);
        let long = Duration::from_millis(random.random_range(300..1800));
        let others = |member: usize| (0..size).filter(|m| *m != member).collect::<Vec<_>>();
        match self {
            Fault::KillLeader => kill(cluster, &[leader], long).await,
            Fault::KillOne => kill(cluster, &[one], long).await,
            Fault::KillAll => kill(cluster, &(0..size).collect::<Vec<_>>(), Duration::ZERO).await,
            Fault::PauseLeader | Fault::PauseOne => {
                let member = if matches!(self, Fault::PauseLeader) { leader } else { one };
                cluster.signal(member, Signal::SIGSTOP);
                tokio::time::sleep(long).await;
                cluster.signal(member, Signal::SIGCONT);
            }
            Fault::IsolateLeader | Fault::IsolateOne => {
                let member = if matches!(self, Fault::IsolateLeader) { leader } else { one };
                cluster.network.cut(&[member], &others(member));
                tokio::time::sleep(long).await;
            }
            Fault::Deaf | Fault::Mute => {
                for other in others(one) {
                    let (from, to) = if matches!(self, Fault::Deaf) { (other, one) } else { (one, other) };
                    cluster.network.rule(from, to, Rule { cut: true, ..Rule::default() });
                }
                tokio::time::sleep(long).await;
            }
            Fault::Slow | Fault::Lossy => {
                let (delay, loss) = if matches!(self, Fault::Slow) { (40, 0.0) } else { (0, 0.1) };
                cluster.network.all(Rule { delay: Duration::from_millis(delay), loss, ..Rule::default() });
                tokio::time::sleep(long).await;
            }
            Fault::Defragment => {
                let _ = cluster.clients(one).maintenance.defragment(pb::DefragmentRequest {}).await;
            }
            Fault::MoveLeader => {
                let target_id = cluster.id(one).await;
                let _ = cluster.clients(leader).maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await;
            }
            Fault::ComeAndGo => disk::come_and_go(cluster, size, long).await,
            Fault::Disk(disk) => disk.fail(cluster, one).await,
            Fault::FlipBit => disk::flip_bit(cluster, size, one, random).await,
            Fault::ClockJump => clock::jump(cluster, one, random).await,
        }
        cluster.network.all(Rule::default());
    }
}

async fn kill(cluster: &mut Cluster, members: &[usize], long: Duration) {
    members.iter().for_each(|member| cluster.kill(*member));
    tokio::time::sleep(long).await;
    members.iter().for_each(|member| cluster.start_member(*member));
    for member in members {
        cluster.wait_ready(*member).await;
    }
}

/// The load on a cluster.
struct Load {
    record: Arc<Record>,
    clients: JoinSet<()>,
    watchers: JoinSet<()>,
    stop_clients: watch::Sender<bool>,
    stop_watchers: watch::Sender<bool>,
    got: Vec<watch::Receiver<i64>>,
}

impl Load {
    fn start(cluster: &Cluster, size: usize, seed: u64) -> Load {
        let all = || (0..size).map(|member| cluster.clients(member)).collect::<Vec<_>>();
        let mut load = Load {
            record: Record::new(),
            clients: JoinSet::new(),
            watchers: JoinSet::new(),
            stop_clients: watch::Sender::new(false),
            stop_watchers: watch::Sender::new(false),
            got: Vec::new(),
        };
        for member in 0..size {
            let (sender, receiver) = watch::channel(0);
            load.got.push(receiver);
            let (record, stop) = (load.record.clone(), load.stop_watchers.subscribe());
            load.watchers.spawn(workload::collector(cluster.clients(member), record, stop, sender));
        }
        for number in 0..2 {
            let (record, stop) = (load.record.clone(), load.stop_watchers.subscribe());
            load.watchers.spawn(workload::watcher(seed ^ (1000 + number), all(), record, stop));
        }
        for number in 0..CLIENTS {
            let (record, stop) = (load.record.clone(), load.stop_clients.subscribe());
            load.clients.spawn(workload::client(number, seed ^ number as u64, all(), record, stop, PACE));
        }
        load
    }

    /// Ends the clients, lets the collectors see everything, and checks it all.
    async fn finish(mut self, cluster: &Cluster, seed: u64) {
        self.stop_clients.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        // The last change, so that collectors know when they have seen all.
        let end = last_write(cluster).await;
        for got in &mut self.got {
            let seen = tokio::time::timeout(LIMIT, got.wait_for(|got| *got >= end)).await;
            seen.expect("collectors see the last change").expect("collectors run");
        }
        self.stop_watchers.send_replace(true);
        while self.watchers.join_next().await.is_some() {}
        cluster.agree().await;
        check(&self.record, end, seed);
    }
}

async fn last_write(cluster: &Cluster) -> i64 {
    let deadline = Instant::now() + LIMIT;
    for turn in 0.. {
        let mut kv = cluster.clients(turn % cluster.nodes.len()).kv;
        if let Ok(answer) = kv.put(put("/end", "end")).await {
            return answer.into_inner().header.unwrap().revision;
        }
        assert!(Instant::now() < deadline, "nobody takes the last write");
    }
    unreachable!()
}

fn check(record: &Record, end: i64, seed: u64) {
    let started = Instant::now();
    let (watches, operations) = (record.watches.lock(), record.operations.lock());
    // Who watches a single key sees only a part of a revision that changes several.
    let collectors: Vec<_> = watches.iter().filter(|watch| watch.prefix.is_empty()).cloned().collect();
    let mut history = guarantees::merge(&collectors).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let missing: Vec<i64> = (2..=end).filter(|revision| !history.contains_key(revision)).collect();
    assert!(missing.is_empty(), "seed {seed}: nobody saw revisions {missing:?} of {end}");
    for watch in watches.iter() {
        if let Err(error) = guarantees::check(watch, &history) {
            panic!("seed {seed}: watch of {:?} from {}: {error}", watch.prefix, watch.start);
        }
    }
    if let Err(error) = replay::check(&record.local.lock(), &history) {
        panic!("seed {seed}: a member's own state {error}");
    }
    // The last write is not among the operations.
    history.retain(|revision, _| *revision < end);
    let unknown = operations.iter().filter(|o| o.answer == crate::history::model::Answer::Unknown).count();
    if let Err(violation) = wgl::check(&Store { seen: Some(Arc::new(history)) }, &operations) {
        panic!("seed {seed}: not linearizable after {}: {:#?}", violation.explained, violation.stuck);
    }
    println!(
        "seed {seed}: {} calls ({unknown} without an answer), {} local reads, {} watches, {end} revisions; checked in {:?}",
        operations.len(),
        record.local.lock().len(),
        watches.len(),
        started.elapsed()
    );
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

async fn run(size: usize, rounds: usize, seed: u64) {
    println!("seed {seed}: {size} members, {rounds} rounds");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(size, 1, &["--snapshot-count=500", "--watch-progress-notify-interval=1s"]).await;
    let load = Load::start(&cluster, size, seed);
    for _ in 0..rounds {
        let fault = FAULTS[random.random_range(0..FAULTS.len())];
        let started = Instant::now();
        fault.run(&mut cluster, size, &mut random).await;
        last_write_somewhere(&cluster).await;
        println!("seed {seed}: {fault:?} took {:?}", started.elapsed());
    }
    load.finish(&cluster, seed).await;
}

/// Waits until the cluster works again after a fault.
async fn last_write_somewhere(cluster: &Cluster) {
    let deadline = Instant::now() + LIMIT;
    let get = crate::client::get("/recovered");
    while cluster.clients(0).kv.range(get.clone()).await.is_err() {
        assert!(Instant::now() < deadline, "the cluster does not recover");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_under_faults() {
    let rounds = usize::try_from(number("STORE_FAULT_ROUNDS", 5)).unwrap();
    let seed = number("STORE_FAULT_SEED", rand::random::<u64>() >> 1);
    for first in (0..rounds).step_by(ROUNDS_PER_RUN) {
        let turn = first / ROUNDS_PER_RUN;
        // Every third run of a long mode is with five members.
        let size = if turn % 3 == 2 { 5 } else { 3 };
        run(size, ROUNDS_PER_RUN.min(rounds - first), seed.wrapping_add(turn as u64)).await;
    }
}
