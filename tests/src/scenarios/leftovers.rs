//! A workload that is deleted leaves no process, interface, mount, control group or nftables rule behind.

use anyhow::{Result, ensure};

use super::workload;
use crate::context::Context;
use crate::inspector;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    // Once before, so that what is made on first use and stays is not taken for a leftover.
    workload::bring_up(context)?;
    workload::take_down(context)?;
    inspector::with_inspector(context, || compare(context))
}

fn compare(context: &Context) -> Result<()> {
    let mut before = inspector::content(context)?;
    context.eventually("a node at rest", || {
        let now = inspector::content(context)?;
        let same = now == before;
        before = now;
        let busy = before.iter().any(|line| line.contains("interface veth"));
        ensure!(same && !busy, "{before:?}");
        Ok(())
    })?;
    workload::bring_up(context)?;
    let during = inspector::content(context)?;
    for kind in ["interface veth", "mount /", "cgroup /", "nftables "] {
        let seen = during.difference(&before).any(|line| line.starts_with(kind));
        ensure!(seen, "of the workload no {kind:?} is seen: {during:?}");
    }
    workload::take_down(context)?;
    context.eventually("the state before", || {
        let after = inspector::content(context)?;
        let left: Vec<&String> = after.difference(&before).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })?;
    Ok(())
}
