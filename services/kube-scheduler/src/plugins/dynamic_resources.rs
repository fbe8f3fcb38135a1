//! DynamicResources: allocation of devices for resource claims is not there yet, so a pod that needs it is refused by name
//! instead of being started without its devices.

use serde_json::Value;

use crate::cache::Cache;
use crate::framework::{Cycle, Event, Plugin, Refusal};
use crate::plugins::resources::no_fields_but;
use crate::pod::Pod;

pub struct DynamicResources;

impl DynamicResources {
    pub fn read(args: &Value) -> Result<Self, String> {
        no_fields_but(args, &["filterTimeout"])?;
        Ok(DynamicResources)
    }
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn admit(&self, cycle: &Cycle<'_>) -> Result<(), Refusal> {
        if cycle.pod.spec.resource_claims == 0 {
            return Ok(());
        }
        Err(Refusal::hopeless("pod has resource claims, which this scheduler cannot allocate"))
    }

    fn helps(&self, _: &Pod, _: &Event, _: &Cache) -> bool {
        false
    }
}
