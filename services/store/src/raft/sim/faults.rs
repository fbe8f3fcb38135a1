//! What happens to simulated clusters, drawn from a table.

use std::sync::Arc;
use std::time::Duration;

use store_api::etcdserverpb as pb;
use tonic::{Code, Status};

use super::clients::once;
use super::cluster::{Cluster, Serving};
use super::{Delay, World};

/// Faults, and changes that are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    CrashOne,
    CrashLeader,
    CrashAll,
    CrashTwice,
    CrashVoters,
    IsolateOne,
    IsolateLeader,
    Split,
    Deaf,
    Mute,
    Rough,
    SlowSync,
    SlowApply,
    MoveLeader,
    FarBehind,
    AddVoter,
    AddLearner,
    Promote,
    Remove,
}

/// All of them; some more often.
pub const ALL: [Fault; 23] = [
    Fault::CrashOne,
    Fault::CrashLeader,
    Fault::CrashLeader,
    Fault::CrashAll,
    Fault::CrashTwice,
    Fault::CrashVoters,
    Fault::IsolateOne,
    Fault::IsolateLeader,
    Fault::Split,
    Fault::Deaf,
    Fault::Mute,
    Fault::Rough,
    Fault::Rough,
    Fault::SlowSync,
    Fault::SlowApply,
    Fault::MoveLeader,
    Fault::MoveLeader,
    Fault::FarBehind,
    Fault::AddVoter,
    Fault::AddLearner,
    Fault::Promote,
    Fault::Remove,
    Fault::Remove,
];

/// Members at most.
const MEMBERS: usize = 6;

impl Fault {
    /// Begins it, lets it last, and mends it.
    pub async fn run(self, cluster: &Arc<Cluster>) {
        let world = &cluster.world;
        world.note(|| format!("== {self:?}"));
        let serving = cluster.serving();
        let Some(one) = world.pick(&serving).cloned() else { return pause(cluster, 500).await };
        let leader = serving.iter().find(|serving| serving.member.consensus.is_leader()).cloned();
        let leader = leader.unwrap_or_else(|| one.clone());
        drop(serving);
        match self {
            Fault::CrashOne => crash(cluster, &[one.name]).await,
            Fault::CrashLeader => crash(cluster, &[leader.name]).await,
            Fault::CrashAll => crash(cluster, &cluster.up()).await,
            Fault::CrashTwice => {
                crash(cluster, &[leader.name.clone(), one.name.clone()]).await;
                pause(cluster, 900).await;
                crash(cluster, &[one.name]).await;
            }
            Fault::CrashVoters => crash_voters(cluster, &leader).await,
            Fault::IsolateOne => isolate(cluster, &[one.name]).await,
            Fault::IsolateLeader => isolate(cluster, &[leader.name]).await,
            Fault::Split => {
                let half: Vec<String> = cluster.up().into_iter().filter(|_| world.chance(50)).collect();
                isolate(cluster, &half).await;
            }
            Fault::Deaf => cut(cluster, |from, to| from != one.name && to == one.name).await,
            Fault::Mute => cut(cluster, |from, to| from == one.name && to != one.name).await,
            Fault::Rough => {
                world.network.lock().rough = true;
                pause(cluster, 4000).await;
                world.network.lock().rough = false;
            }
            Fault::SlowSync => slow(cluster, Delay::Sync).await,
            Fault::SlowApply => slow(cluster, Delay::Apply).await,
            Fault::MoveLeader => {
                let moved = leader.member.consensus.transfer(one.member.identity.member).await;
                world.note(|| format!("the leadership goes to {}: {moved:?}", one.name));
            }
            Fault::FarBehind => far_behind(cluster, one, leader).await,
            Fault::AddVoter => add(cluster, one, false).await,
            Fault::AddLearner => add(cluster, one, true).await,
            Fault::Promote => promote(cluster, one).await,
            Fault::Remove => remove(cluster, one).await,
        }
    }
}

async fn pause(cluster: &Cluster, most: u64) {
    tokio::time::sleep(Duration::from_millis(1 + cluster.world.below(most))).await;
}

async fn crash(cluster: &Arc<Cluster>, names: &[String]) {
    names.iter().for_each(|name| cluster.crash(name));
    for name in names {
        pause(cluster, 1500).await;
        cluster.restart(name);
    }
}

/// Makes the members vote, crashes all of them as soon as one has given its vote, and lets them vote again without the
/// candidate.
async fn crash_voters(cluster: &Arc<Cluster>, leader: &Serving) {
    let before = cluster.world.checks.lock().given();
    let vote = async {
        for _ in 0..4000 {
            if cluster.world.checks.lock().given() > before {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    cut_while(cluster, |from, to| (from == leader.name) != (to == leader.name), vote).await;
    let candidate = cluster.world.checks.lock().last_candidate;
    let candidate = cluster.serving().iter().find(|s| s.member.identity.member == candidate).map(|s| s.name.clone());
    let all = cluster.up();
    all.iter().for_each(|name| cluster.crash(name));
    all.iter().filter(|name| Some(*name) != candidate.as_ref()).for_each(|name| cluster.restart(name));
    pause(cluster, 4000).await;
    cluster.restart_all();
}

async fn isolate(cluster: &Cluster, names: &[String]) {
    let inside = |name: &str| names.iter().any(|other| other == name);
    cut(cluster, |from, to| inside(from) != inside(to)).await;
}

async fn cut(cluster: &Cluster, between: impl Fn(&str, &str) -> bool) {
    cut_while(cluster, between, pause(cluster, 5000)).await;
}

async fn cut_while(cluster: &Cluster, between: impl Fn(&str, &str) -> bool, meanwhile: impl Future<Output = ()>) {
    let all = cluster.names();
    let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (from.clone(), to.clone())));
    cluster.world.network.lock().cuts = pairs.filter(|(from, to)| from != to && between(from, to)).collect();
    meanwhile.await;
    cluster.world.network.lock().cuts.clear();
}

async fn slow(cluster: &Cluster, delay: Delay) {
    cluster.world.slow.lock().push(delay);
    pause(cluster, 4000).await;
    cluster.world.slow.lock().clear();
}

/// Writes so much while a member is away that only a snapshot brings it back, and disturbs that.
async fn far_behind(cluster: &Arc<Cluster>, one: Serving, leader: Serving) {
    let write = async {
        let writes = async {
            for _ in 0..190 {
                once(cluster).await;
            }
        };
        // Without a leader it takes too long.
        let _ = tokio::time::timeout(Duration::from_secs(4), writes).await;
    };
    cut_while(cluster, |from, to| (from == one.name) != (to == one.name), write).await;
    cluster.world.network.lock().rough = cluster.world.chance(50);
    pause(cluster, 600).await;
    if cluster.world.chance(50) {
        let name = if cluster.world.chance(50) { leader.name } else { one.name };
        crash(cluster, &[name]).await;
    }
    cluster.world.network.lock().rough = false;
}

async fn add(cluster: &Arc<Cluster>, at: Serving, is_learner: bool) {
    if at.member.consensus.members().len() >= MEMBERS {
        return;
    }
    let name = cluster.new_name();
    let request = pb::MemberAddRequest { peer_urls: vec![Cluster::url(&name)], is_learner };
    let answer = at.cluster_client().member_add(request).await;
    cluster.world.note(|| format!("added {name}: {answer:?}"));
    match answer {
        Ok(_) => cluster.start_new(&name),
        Err(status) => judge(&cluster.world, "an addition", &status),
    }
}

async fn promote(cluster: &Cluster, at: Serving) {
    let learners: Vec<u64> =
        at.member.consensus.members().into_iter().filter(|(.., learner)| *learner).map(|(id, ..)| id).collect();
    let Some(id) = cluster.world.pick(&learners).copied() else { return };
    let answer = at.cluster_client().member_promote(pb::MemberPromoteRequest { id }).await;
    cluster.world.note(|| format!("promoted {id:x}: {answer:?}"));
    if let Err(status) = answer {
        judge(&cluster.world, "a promotion", &status);
    }
}

async fn remove(cluster: &Cluster, at: Serving) {
    let all: Vec<u64> = at.member.consensus.members().into_iter().map(|(id, ..)| id).collect();
    let Some(id) = cluster.world.pick(&all).copied().filter(|_| all.len() > 2) else { return };
    let answer = at.cluster_client().member_remove(pb::MemberRemoveRequest { id }).await;
    cluster.world.note(|| format!("removed {id:x}: {answer:?}"));
    match answer {
        Ok(_) => {
            cluster.world.check(|checks| checks.told_of_removal(id));
        }
        Err(status) => judge(&cluster.world, "a removal", &status),
    }
}

/// Who asks for a change of the membership is never told to ask somebody else.
pub fn judge(world: &World, what: &str, status: &Status) {
    if status.code() == Code::FailedPrecondition && status.message() == "etcdserver: not leader" {
        world.fail(format!("{what} is answered with {status:?}"));
    }
}
