//! The kubelet and the container runtime die at random moments of pods' lives: every pod runs or goes all the same, and
//! afterwards no mount, control group, interface or sandbox is left.
//!
//! `CORTEN_FAULT_PODS` sets how many pods (a handful by default), `CORTEN_FAULT_SEED` repeats a run.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::inspector;

const PODS: u64 = 6;
const VICTIMS: [&str; 2] = ["kubelet", "containerd"];

/// Moments of a pod's life, in order.
const MOMENTS: [Moment; 4] = [Moment::Made, Moment::Scheduled, Moment::Running, Moment::Deleted];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The object is there.
    Made,
    /// It has a node: the kubelet is at work.
    Scheduled,
    /// Its container runs.
    Running,
    /// It was asked to go.
    Deleted,
}

/// Numbers that follow from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % (sides as u64)).unwrap_or(0)
    }
}

fn number(name: &str) -> Result<Option<u64>> {
    std::env::var(name).ok().map(|text| text.parse().with_context(|| format!("{name}={text}"))).transpose()
}

fn manifest(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: fault}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: corten.local/test-web:v1
    args: [sleep]
    volumeMounts: [{{name: memory, mountPath: /memory}}, {{name: disk, mountPath: /disk, subPath: a/b}}]
  volumes: [{{name: memory, emptyDir: {{medium: Memory}}}}, {{name: disk, emptyDir: {{}}}}]
"#
    )
}

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    let pods = number("CORTEN_FAULT_PODS")?.unwrap_or(PODS);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = number("CORTEN_FAULT_SEED")?.unwrap_or(clock.as_secs());
    println!("  {pods} pods, seed {seed}");
    inspector::with_inspector(context, || {
        let before = at_rest(context)?;
        let mut dice = Dice(seed);
        for index in 0..pods {
            live_and_die(context, &format!("fault-{index}"), &mut dice)?;
        }
        context.kubectl("wait --for=delete pod -l app=fault --timeout=300s")?;
        context.eventually("the state before", || {
            let now = content(context)?;
            let left: Vec<&String> = now.difference(&before).collect();
            ensure!(left.is_empty(), "left behind: {left:?}");
            Ok(())
        })?;
        Ok(())
    })
}

/// What is there once nothing changes any more.
fn at_rest(context: &Context) -> Result<BTreeSet<String>> {
    let mut before = content(context)?;
    context.eventually("a node at rest", || {
        let now = content(context)?;
        let same = now == before;
        before = now;
        ensure!(same, "{before:?}");
        Ok(())
    })?;
    Ok(before)
}

/// Processes come back under their names; what else there is belongs to pods.
fn content(context: &Context) -> Result<BTreeSet<String>> {
    let all = inspector::content(context)?;
    Ok(all.into_iter().filter(|line| !line.starts_with("process ")).collect())
}

/// One pod's life, with one death beside it at a moment that the dice choose.
fn live_and_die(context: &Context, name: &str, dice: &mut Dice) -> Result<()> {
    let (victim, fatal) = (VICTIMS[dice.roll(VICTIMS.len())], MOMENTS[dice.roll(MOMENTS.len())]);
    println!("  {victim} dies when {name} is {fatal:?}");
    for moment in MOMENTS {
        match moment {
            Moment::Made => drop(context.apply(&manifest(name))?),
            Moment::Scheduled => {
                context.kubectl(&format!("wait --for=condition=PodScheduled pod/{name} --timeout=120s")).map(drop)?;
            }
            Moment::Running => {
                context.kubectl(&format!("wait --for=condition=Ready pod/{name} --timeout=300s")).map(drop)?;
            }
            Moment::Deleted => drop(context.kubectl(&format!("delete pod/{name} --wait=false"))?),
        }
        if moment == fatal {
            // Whoever carries the answer may be the victim; a victim that is just starting is tried again.
            context.eventually(&format!("the death of {victim}"), || match inspector::kill(context, victim) {
                Err(error) if ["no process", "dial"].iter().any(|w| format!("{error:#}").contains(w)) => Err(error),
                _ => Ok(()),
            })?;
        }
    }
    Ok(())
}
