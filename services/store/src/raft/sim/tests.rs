//! Runs.

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use store_api::etcdserverpb as pb;
use tokio::runtime::Builder;

use super::World;
use super::clients::{client, once};
use super::cluster::{Cluster, until};
use super::disk::Defect;
use super::faults::{ALL, Fault, judge};

const CLIENTS: usize = 3;
const FAULTS: usize = 8;

/// What a run was like.
struct Report {
    violation: Option<String>,
    trace: Vec<String>,
    hash: u64,
    committed: usize,
    answered: u64,
    seconds: u64,
}

/// Runs a simulation on this thread.
fn run<F: Future<Output = ()>>(seed: u64, tell: impl FnOnce(Arc<World>, PathBuf) -> F) -> Report {
    // In memory where there is such a place: what is durable, the simulation decides.
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let report = runtime.block_on(async {
        let world = World::begin(seed);
        tokio::select! {
            biased;
            () = world.failed.notified() => {}
            () = tell(world.clone(), folder.path().to_owned()) => {}
        }
        let checks = world.checks.lock();
        let mut trace = world.trace.lock();
        Report {
            violation: checks.violation.clone(),
            hash: trace.hasher.finish(),
            trace: std::mem::take(&mut trace.lines),
            committed: checks.committed(),
            answered: checks.answered,
            seconds: world.born.elapsed().as_secs(),
        }
    });
    // Closes the databases, which write to the folder.
    drop(runtime);
    World::end();
    report
}

/// Starts members and waits until they serve.
async fn found(world: &Arc<World>, folder: &Path, size: usize, defect: Option<Defect>) -> Arc<Cluster> {
    let cluster = Cluster::found(world.clone(), folder, size, defect);
    until(world, "the first members serve", || cluster.serving().len() == size).await;
    cluster
}

/// Faults under load.
fn run_faults(seed: u64, defect: Option<Defect>, faults: &'static [Fault]) -> Report {
    run(seed, |world, folder| async move { drive(world, &folder, defect, faults).await })
}

async fn drive(world: Arc<World>, folder: &Path, defect: Option<Defect>, faults: &[Fault]) {
    let size = if world.chance(33) { 5 } else { 3 };
    let cluster = found(&world, folder, size, defect).await;
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(client(cluster.clone()))).collect();
    for _ in 0..FAULTS {
        tokio::time::sleep(Duration::from_millis(world.below(1200))).await;
        if let Some(fault) = world.pick(faults) {
            fault.run(&cluster).await;
        }
    }
    world.note(|| "== all is well again".to_owned());
    cluster.restart_all();
    cluster.stop.store(true, Ordering::Relaxed);
    until(&world, "all members are back", || cluster.complete()).await;
    for client in clients {
        client.await.unwrap();
    }
    let answered = world.checks.lock().answered;
    for _ in 0..100 {
        once(&cluster).await;
        if world.checks.lock().answered > answered {
            break;
        }
    }
    until(&world, "all members have applied the same", || level(&cluster)).await;
    for state in cluster.states().unwrap() {
        world.check(|checks| checks.state(&state));
    }
}

/// Whether all members have applied everything and removed what was compacted.
fn level(cluster: &Cluster) -> bool {
    let serving = cluster.serving();
    let applied = |member: &crate::member::Member| member.consensus.progress().2;
    let all = cluster.world.checks.lock().committed() as u64;
    cluster.complete()
        && serving.iter().all(|serving| {
            let state = &serving.member.state;
            applied(&serving.member) + 1 == all && *state.compacted.borrow() >= state.mvcc.compacted()
        })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

fn show(seed: u64, report: &Report) {
    let Report { committed, answered, seconds, .. } = report;
    println!("seed {seed}: {committed} entries, {answered} answers in {seconds} s");
    if let Some(violation) = &report.violation {
        let skipped = if number("STORE_SIM_SEED").is_some() { 0 } else { report.trace.len().saturating_sub(60) };
        report.trace[skipped..].iter().for_each(|line| println!("{line}"));
        panic!("seed {seed}: {violation}");
    }
}

#[test]
fn clusters_keep_their_promises() {
    if let Some(seed) = number("STORE_SIM_SEED") {
        return show(seed, &run_faults(seed, None, &ALL));
    }
    let seeds = number("STORE_SIM_SEEDS").unwrap_or(32);
    let first = if seeds > 100 { rand::random::<u64>() >> 1 } else { 1 };
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                for seed in (first + worker..first + seeds).step_by(workers as usize) {
                    show(seed, &run_faults(seed, None, &ALL));
                }
            });
        }
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [7, 8] {
        let (one, other) = (run_faults(seed, None, &ALL), run_faults(seed, None, &ALL));
        let different = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
        if let Some(place) = different {
            let from = place.saturating_sub(5);
            panic!("seed {seed}: {:#?} or {:#?}", &one.trace[from..=place], &other.trace[from..=place]);
        }
        assert_eq!((one.hash, one.trace.len()), (other.hash, other.trace.len()));
    }
}

#[test]
fn defects_are_found() {
    const CRASHES: [Fault; 4] = [Fault::CrashAll, Fault::CrashVoters, Fault::CrashLeader, Fault::IsolateLeader];
    for defect in [Defect::LosesSyncs, Defect::ForgetsVotes, Defect::AppliesTwice] {
        let found =
            (1..30).find_map(|seed| run_faults(seed, Some(defect), &CRASHES).violation.map(|found| (seed, found)));
        println!("{defect:?}: {found:?}");
        assert!(found.is_some(), "{defect:?} was not found");
    }
}

#[test]
fn a_removed_learner_ends() {
    let report = run(1, |world, folder| async move {
        let cluster = found(&world, &folder, 3, None).await;
        Fault::AddLearner.run(&cluster).await;
        until(&world, "the learner serves", || cluster.serving().len() == 4).await;
        let serving = cluster.serving();
        let id = serving[3].member.identity.member;
        serving[0].cluster_client().member_remove(pb::MemberRemoveRequest { id }).await.unwrap();
        drop(serving);
        until(&world, "the learner has ended", || cluster.up().len() == 3).await;
    });
    show(1, &report);
}

#[test]
fn a_member_waits_for_a_majority_without_haste() {
    let report = run(1, |world, folder| async move {
        let cluster = found(&world, &folder, 3, None).await;
        let names = cluster.names();
        names.iter().for_each(|name| cluster.crash(name));
        cluster.restart(&names[0]);
        // Whoever asked again at once, where nobody is to be asked, would keep this clock from going on.
        let lines = || world.trace.lock().lines.len();
        let before = lines();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let said = lines() - before;
        assert!((1..2000).contains(&said), "{said} lines in 20 s");
        cluster.restart_all();
        assert!(until(&world, "all members are back", || cluster.complete()).await);
    });
    show(1, &report);
}

#[test]
fn changes_of_the_membership_bear_changes_of_the_leader() {
    for seed in 1..6 {
        let report = run(seed, |world, folder| async move {
            let cluster = found(&world, &folder, 3, None).await;
            let serving = cluster.serving();
            for _ in 0..20 {
                let (at, next) = (world.pick(&serving).unwrap(), world.pick(&serving).unwrap());
                let (name, id) = (&next.name, next.member.identity.member);
                let leader =
                    serving.iter().find(|serving| serving.member.consensus.is_leader()).unwrap_or(next).clone();
                let transfer = tokio::spawn(async move { leader.member.consensus.transfer(id).await });
                tokio::time::sleep(Duration::from_millis(world.below(12))).await;
                let request = pb::MemberUpdateRequest { id, peer_urls: vec![Cluster::url(name)] };
                let answer = at.cluster_client().member_update(request).await;
                world.note(|| format!("{answer:?}"));
                if let Err(status) = answer {
                    judge(&world, "an update", &status);
                }
                transfer.abort();
            }
            let leader = serving.iter().find(|serving| serving.member.consensus.is_leader()).unwrap_or(&serving[0]);
            let id = leader.member.identity.member;
            if let Err(status) = leader.cluster_client().member_remove(pb::MemberRemoveRequest { id }).await {
                judge(&world, "the removal of the leader", &status);
            }
        });
        show(seed, &report);
    }
}
