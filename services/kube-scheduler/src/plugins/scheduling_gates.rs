//! SchedulingGates: a pod with gates is not tried at all; the queue keeps it until they are gone.

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Plugin, Refusal};
use crate::pod::Pod;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn admit(&self, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        let gates = cycle.pod.waiting.as_ref().map_or(&[][..], |waiting| &waiting.gates);
        if gates.is_empty() {
            return Ok(());
        }
        let gates: Vec<&str> = gates.iter().map(|gate| &**gate).collect();
        Err(Refusal::hopeless(format!("waiting for scheduling gates: [{}]", gates.join(" "))))
    }

    fn helps(&self, _: &Pod, _: &Event, _: &Cache) -> bool {
        false
    }
}
