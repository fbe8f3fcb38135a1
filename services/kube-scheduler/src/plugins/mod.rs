//! The rules, one file each. The table names them in the order in which they are asked, which is upstream's.

mod balanced_allocation;
mod dynamic_resources;
mod fit;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod node_volume_limits;
pub mod resources;
mod scheduling_gates;
mod taint_toleration;
mod topology_spread;
mod volume_binding;
mod volume_restrictions;
mod volume_zone;

use serde_json::Value;

use crate::framework::Plugin;

pub use dynamic_resources::NAME as DYNAMIC_RESOURCES;
pub use volume_binding::split as split_claims;

/// Makes a plugin from its arguments; an error names the wrong field.
type Make = fn(&Value) -> Result<Box<dyn Plugin>, String>;

/// A plugin in the table.
pub struct Row {
    /// Upstream's name.
    pub name: &'static str,
    /// How much its scores count unless configured.
    pub weight: i64,
    /// Makes it.
    pub make: Make,
}

macro_rules! row {
    ($name:literal, $weight:literal, $plugin:expr) => {
        Row {
            name: $name,
            weight: $weight,
            make: |args| {
                resources::no_fields_but(args, &[])?;
                Ok(Box::new($plugin))
            },
        }
    };
    ($name:literal, $weight:literal, from $plugin:ty) => {
        Row { name: $name, weight: $weight, make: |args| Ok(Box::new(<$plugin>::read(args)?)) }
    };
}

/// All rules in the order in which they are asked.
pub const ALL: [Row; 16] = [
    row!("SchedulingGates", 0, scheduling_gates::SchedulingGates),
    row!("NodeUnschedulable", 0, node_unschedulable::NodeUnschedulable),
    row!("NodeName", 0, node_name::NodeName),
    row!("TaintToleration", 3, taint_toleration::TaintToleration),
    row!("NodeAffinity", 2, from node_affinity::NodeAffinity),
    row!("NodePorts", 0, node_ports::NodePorts),
    row!("NodeResourcesFit", 1, from fit::Fit),
    row!("VolumeRestrictions", 0, volume_restrictions::VolumeRestrictions),
    row!("NodeVolumeLimits", 0, node_volume_limits::NodeVolumeLimits),
    row!("VolumeBinding", 0, from volume_binding::VolumeBinding),
    row!("VolumeZone", 0, volume_zone::VolumeZone),
    row!("PodTopologySpread", 2, from topology_spread::TopologySpread),
    row!("InterPodAffinity", 2, from inter_pod_affinity::InterPodAffinity),
    row!("DynamicResources", 0, from dynamic_resources::DynamicResources),
    row!("NodeResourcesBalancedAllocation", 1, from balanced_allocation::BalancedAllocation),
    row!("ImageLocality", 1, image_locality::ImageLocality),
];
