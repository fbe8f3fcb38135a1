//! A controller manager, or a scheduler, that is killed after every n-th of its writes reaches the state that one reaches which lives on.
//! So do both on an API server whose store is etcd.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use client::{Client, Resource, resource};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::proxy::Proxy;
use super::snapshot::{self, Snapshot};
use super::story::{self, NAMESPACES, PHASES, Phase};
use crate::bench::hollow;
use crate::bench::stack::{Stack, Store, System};

/// After how many writes the process is killed, again and again, in each of the rounds, unless others are asked for.
pub const EVERY: &[usize] = &[3];
/// Nobody else wants to lead, and a killed leader would be waited for.
const ALONE: &[&str] = &["--leader-elect=false"];
const NODES: usize = 3;
/// From binding to Running.
const START: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(100);
/// A state that is the same in so many looks is there to stay, for as long as nobody is known to write.
const STILL: usize = 15;
/// The same for a state that was expected.
const STAYS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(120);

const RESOURCES: &[Resource<'static>] = &[
    resource::NAMESPACES,
    resource::PODS,
    resource::SERVICES,
    resource::ENDPOINTS,
    resource::ENDPOINTSLICES,
    resource::CONFIGMAPS,
    resource::SERVICEACCOUNTS,
    resource::DEPLOYMENTS,
    resource::REPLICASETS,
    Resource::new("", "v1", "resourcequotas", "ResourceQuota", true),
    Resource::new("apps", "v1", "statefulsets", "StatefulSet", true),
    Resource::new("apps", "v1", "daemonsets", "DaemonSet", true),
    Resource::new("apps", "v1", "controllerrevisions", "ControllerRevision", true),
    Resource::new("batch", "v1", "jobs", "Job", true),
    Resource::new("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
];

/// What a run without faults left after each phase.
struct Reference {
    snapshots: Vec<Snapshot>,
    writes: usize,
}

/// The check, for each of the two processes.
pub async fn run(every: &[usize]) -> Result<()> {
    for victim in [System::ControllerManager, System::Scheduler] {
        let reference = reference(victim).await.with_context(|| format!("{}, unharmed", victim.name()))?;
        let name = victim.name();
        println!("  {name}: {} writes in {} phases", reference.writes, PHASES.len());
        let unharmed = replayed(Store::Etcd, victim, None, &reference).await;
        unharmed.with_context(|| format!("{name}, with an API server on etcd"))?;
        for n in every {
            let begun = Instant::now();
            let kills = replayed(Store::Corten, victim, Some(*n), &reference).await;
            let kills = kills.with_context(|| format!("{name}, killed after every {n} writes"))?;
            let took = begun.elapsed().as_secs_f64();
            println!("  {name}: killed {kills} times, after every {n} writes ... {took:.1} s");
            ensure!(kills > 0, "nobody was killed");
        }
    }
    Ok(())
}

async fn reference(victim: System) -> Result<Reference> {
    let round = Round::start(Store::Corten, victim, None).await?;
    let mut snapshots = Vec::new();
    for phase in PHASES {
        story::play(&round.client, phase).await?;
        snapshots.push(round.settled(phase).await.with_context(|| format!("phase {}", phase.name))?);
    }
    Ok(Reference { snapshots, writes: round.proxy.writes() })
}

/// Plays the story again, while the process is killed if it shall be; returns how often.
async fn replayed(store: Store, victim: System, every: Option<usize>, reference: &Reference) -> Result<usize> {
    let mut round = Round::start(store, victim, every).await?;
    for (phase, expected) in PHASES.iter().zip(&reference.snapshots) {
        story::play(&round.client, phase).await?;
        round.becomes(expected).await.with_context(|| format!("phase {}", phase.name))?;
    }
    Ok(round.kills)
}

/// One cluster and the process that is to suffer.
struct Round {
    child: Child,
    kills: usize,
    every: Option<usize>,
    victim: System,
    client: Client,
    proxy: Proxy,
    hollow: JoinHandle<()>,
    stack: Stack,
}

impl Round {
    async fn start(store: Store, victim: System, every: Option<usize>) -> Result<Round> {
        let mut stack = Stack::start_api_on(store, &Stack::corten()?, &[], &[]).await?;
        let bystander = if victim == System::Scheduler { System::ControllerManager } else { System::Scheduler };
        stack.start_system(bystander)?;
        let client = stack.client()?;
        hollow::register(std::slice::from_ref(&client), NODES).await?;
        let hollow = tokio::spawn(hollow::live(stack.client()?, NODES, START));
        let proxy = Proxy::start(&stack, victim.user()).await?;
        let child = stack.spawn_system(victim, proxy.port(), ALONE)?;
        proxy.watch(child.id(), every)?;
        Ok(Round { child, kills: 0, every, victim, client, proxy, hollow, stack })
    }

    async fn again(&mut self) -> Result<()> {
        self.child.wait()?;
        self.kills += 1;
        self.child = self.stack.spawn_system(self.victim, self.proxy.port(), ALONE)?;
        self.proxy.watch(self.child.id(), self.every)
    }

    async fn look(&self) -> Result<Snapshot> {
        snapshot::take(&self.client, RESOURCES, NAMESPACES).await
    }

    /// The state once nothing moves any more and the phase has had its effect.
    async fn settled(&self, phase: &Phase) -> Result<Snapshot> {
        let (deadline, mut ticks) = (Instant::now() + PATIENCE, ticks());
        let (mut last, mut same) = (Snapshot::new(), 0);
        loop {
            ticks.tick().await;
            let now = self.look().await?;
            let unmet = phase.effects.iter().find(|effect| !effect.is_in(&now));
            same = if unmet.is_none() && now == last { same + 1 } else { 0 };
            if same == STILL {
                return Ok(now);
            }
            ensure!(
                Instant::now() < deadline,
                "nothing settles: {}",
                unmet.map_or(snapshot::difference(&last, &now), |effect| effect.missing_in(&now))
            );
            last = now;
        }
    }

    /// Waits for a state, and replaces the process whenever it has been ended.
    async fn becomes(&mut self, expected: &Snapshot) -> Result<()> {
        let (deadline, mut ticks) = (Instant::now() + PATIENCE, ticks());
        let mut same = 0;
        while same < STAYS {
            tokio::select! {
                () = self.proxy.ended() => self.again().await?,
                _ = ticks.tick() => {
                    if let Some(status) = self.child.try_wait()?.filter(|_| !self.proxy.has_cut()) {
                        anyhow::bail!("the process ended by itself: {status}");
                    }
                    let now = self.look().await?;
                    same = if now == *expected { same + 1 } else { 0 };
                    if Instant::now() > deadline {
                        let log = self.stack.log_tail(self.victim);
                        anyhow::bail!("after {} kills:\n{}\n{log}", self.kills, snapshot::difference(expected, &now));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.hollow.abort();
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Something that must be true of one object after a phase, so that a broken reference is not what others are measured by.
pub struct Effect {
    /// The start of the object's name in a snapshot.
    pub of: &'static str,
    /// Where to look, as a JSON pointer; the object itself if empty.
    pub at: &'static str,
    /// What is to be there, as JSON; `null` for nothing.
    pub is: &'static str,
}

impl Effect {
    fn found<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Value> {
        let (_, object) = snapshot.iter().find(|(name, _)| name.starts_with(self.of))?;
        object.pointer(self.at)
    }

    fn is_in(&self, snapshot: &Snapshot) -> bool {
        self.found(snapshot).map_or("null".to_owned(), Value::to_string) == self.is
    }

    fn missing_in(&self, snapshot: &Snapshot) -> String {
        let found = self.found(snapshot).map_or("null".to_owned(), Value::to_string);
        format!("{}{} is {found}, not {}", self.of, self.at, self.is)
    }
}
