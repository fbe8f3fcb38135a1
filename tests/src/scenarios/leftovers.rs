//! A workload that is deleted leaves no process, interface, mount, control group or nftables rule behind.

use anyhow::{Result, ensure};
use qemu::drivers::namespace::inspect;

use super::workload;
use crate::context::Context;

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    // Once before, so that what is made on first use and stays is not taken for a leftover.
    workload::bring_up(context)?;
    workload::take_down(context)?;
    let content = || inspect::content(&context.cluster, context.node());
    let mut before = content()?;
    context.eventually("a node at rest", || {
        let now = content()?;
        let same = now == before;
        before = now;
        let busy = before.iter().any(|line| line.contains("veth") || line.contains("containerd-shim"));
        ensure!(same && !busy, "{before:?}");
        Ok(())
    })?;
    workload::bring_up(context)?;
    let during = content()?;
    ensure!(
        during.iter().any(|line| line.starts_with("interface veth")),
        "the pods' interfaces are not seen: {during:?}"
    );
    workload::take_down(context)?;
    context.eventually("the state before", || {
        let after = content()?;
        let left: Vec<&String> = after.difference(&before).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    })?;
    Ok(())
}
