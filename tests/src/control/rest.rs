//! A cluster at rest: how much the processes that move it ask the API server when nothing happens.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::proxy::Proxy;
use crate::bench::stack::{Stack, System, anonymous_mib, resident_mib};

/// What one process may ask in a minute at rest. A Lease is renewed every two seconds, as upstream does.
const PER_MINUTE_MAX: usize = 60;
/// The part of a minute that is looked at.
const WINDOWS_A_MINUTE: usize = 2;
/// For discovery, tokens, default objects and the first lists.
const SETTLE: Duration = Duration::from_secs(15);
const WINDOW: Duration = Duration::from_secs(30);

/// The check: both processes at once, each through a proxy that counts.
pub async fn run() -> Result<()> {
    let stack = Stack::start_api(&Stack::corten()?, &[], &[]).await?;
    let mut watched = Vec::new();
    for system in [System::ControllerManager, System::Scheduler] {
        let proxy = Proxy::start(&stack, system.user()).await?;
        let child = stack.spawn_system(system, proxy.port(), &[])?;
        watched.push((system, proxy, Ending(child)));
    }
    tokio::time::sleep(SETTLE).await;
    for (_, proxy, _) in &watched {
        proxy.take_asked();
    }
    tokio::time::sleep(WINDOW).await;
    for (system, proxy, child) in &watched {
        let asked = proxy.take_asked();
        let sum = asked.values().sum::<usize>() * WINDOWS_A_MINUTE;
        let (mib, own) = (resident_mib(child.0.id()), anonymous_mib(child.0.id()));
        println!("  {}: resident {mib} MiB, of that its own {own} MiB", system.name());
        println!("  {}: {sum} requests a minute at rest; in half a minute:", system.name());
        most(&asked).into_iter().for_each(|(what, count)| println!("    {count:5}  {what}"));
        ensure!(sum > 0, "{} does not even renew its Lease", system.name());
        ensure!(sum <= PER_MINUTE_MAX, "{} asks {sum} times a minute at rest, not {PER_MINUTE_MAX}", system.name());
    }
    Ok(())
}

fn most(asked: &BTreeMap<String, usize>) -> Vec<(&String, &usize)> {
    let mut all: Vec<_> = asked.iter().collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    all.truncate(8);
    all
}

/// A process that ends with the check.
struct Ending(std::process::Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
