//! The data disk is full to the last byte: writes are refused with a line that says why, reads go on, and nothing that was
//! acknowledged is lost.

use anyhow::{Result, ensure};

use super::workload;
use crate::context::Context;
use crate::inspector;

/// Long enough to see what a full disk does on an emulated machine.
const FULL_SECONDS: u32 = 45;
/// What a refused write says, as etcd's clients know it.
const REFUSAL: &str = "database space exceeded";

/// The scenario.
pub fn run(context: &Context) -> Result<()> {
    inspector::with_inspector(context, || {
        workload::bring_up(context)?;
        context.kubectl("create configmap before-full --from-literal=key=value")?;
        inspector::fill(context, FULL_SECONDS)?;
        let refused = context.kubectl_fails("create configmap while-full --from-literal=key=value")?;
        ensure!(refused.contains(REFUSAL), "a write on a full disk is answered by: {refused}");
        ensure!(refused.trim().lines().count() <= 2, "more than one line: {refused}");
        context.kubectl("get configmap before-full")?;
        workload::reachable(context)?;
        context.eventually("a write once there is room", || {
            context.kubectl("create configmap after-full --from-literal=key=value").map(drop)
        })?;
        let kept = context.get("configmap before-full")?;
        ensure!(kept["data"]["key"] == "value", "what was there before: {kept}");
        ensure!(context.kubectl("get configmap while-full").is_err(), "what was refused is there");
        context.kubectl("delete configmap before-full after-full")?;
        context.kubectl(&format!("wait --for=condition=Ready node/{} --timeout=300s", context.node().name))?;
        workload::take_down(context)
    })
}
