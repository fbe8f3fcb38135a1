//! The parts of objects that decisions read. Everything else is skipped while parsing.

use client::follow::{Identity, Part};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::terms::Labels;

/// What all objects have.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub resource_version: Box<str>,
    pub labels: Labels,
    pub annotations: Labels,
    pub deletion_timestamp: Option<Box<str>>,
    pub owner_references: Vec<Owner>,
}

impl Meta {
    fn identity(&self) -> Identity {
        Identity {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
        }
    }
}

/// An owner reference.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Owner {
    pub kind: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub controller: bool,
}

/// Declares the part of a kind: its metadata, and below it fields that default.
macro_rules! part {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub struct $name {
            pub metadata: Meta,
            $($(#[$attribute])* pub $field: $type,)*
        }

        impl Part for $name {
            fn identity(&self) -> Identity {
                self.metadata.identity()
            }

            fn version(&self) -> &str {
                &self.metadata.resource_version
            }
        }
    };
}

part! {
    /// A pod.
    PodObject { spec: PodSpec, status: PodStatus, }
}

/// A pod's spec. What is serialised is what tells kinds of pods apart; see [`crate::spec`].
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    #[serde(skip_serializing)]
    pub node_name: Box<str>,
    #[serde(skip_serializing)]
    pub scheduling_gates: Vec<Gate>,
    pub scheduler_name: Box<str>,
    pub priority: i64,
    pub preemption_policy: Box<str>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub resources: Resources,
    pub overhead: Map<String, Value>,
    pub node_selector: Map<String, Value>,
    pub affinity: Value,
    pub tolerations: Vec<Value>,
    pub topology_spread_constraints: Vec<Value>,
    pub volumes: Vec<Volume>,
    pub resource_claims: Vec<Value>,
}

/// A scheduling gate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Gate {
    pub name: Box<str>,
}

/// A container.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    pub image: Box<str>,
    pub resources: Resources,
    pub ports: Vec<Port>,
    pub restart_policy: Box<str>,
}

/// What a container or pod asks for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Resources {
    pub requests: Map<String, Value>,
}

/// A container's port; those without a host port are left out of the key.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    pub host_port: i64,
    #[serde(rename = "hostIP")]
    pub host_ip: Box<str>,
    pub protocol: Box<str>,
}

/// A volume of a kind that concerns placement; other kinds read as one without any. Projected volumes have random names,
/// so a name is kept only where it matters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    #[serde(skip_serializing)]
    pub name: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gce_persistent_disk: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_elastic_block_store: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iscsi: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rbd: Option<Value>,
}

/// The claim that a volume names.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSource {
    pub claim_name: Box<str>,
}

/// A pod's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    pub phase: Box<str>,
    pub nominated_node_name: Box<str>,
    pub start_time: Box<str>,
    pub conditions: Vec<Condition>,
    pub resource_claim_statuses: Vec<Value>,
}

/// A condition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: Box<str>,
    pub status: Box<str>,
    pub reason: Box<str>,
    pub message: Box<str>,
}

part! {
    /// A node.
    NodeObject { spec: NodeSpec, status: NodeStatus, }
}

/// A node's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    pub unschedulable: bool,
    pub taints: Vec<Value>,
}

/// A node's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub allocatable: Map<String, Value>,
    pub images: Vec<Image>,
}

/// An image on a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Image {
    pub names: Vec<Box<str>>,
    pub size_bytes: i64,
}

part! {
    /// A namespace.
    NamespaceObject {}
}

part! {
    /// Whatever selects pods by `spec.selector`: Services, ReplicaSets, StatefulSets, ReplicationControllers.
    SelectingObject { spec: SelectingSpec, }
}

/// The selector, of either form.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SelectingSpec {
    pub selector: Value,
}

part! {
    /// A PodDisruptionBudget.
    BudgetObject { spec: SelectingSpec, status: BudgetStatus, }
}

/// A budget's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BudgetStatus {
    pub disruptions_allowed: i64,
    pub disrupted_pods: Map<String, Value>,
}

part! {
    /// A PersistentVolumeClaim.
    ClaimObject { spec: ClaimSpec, status: ClaimStatus, }
}

/// A claim's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSpec {
    pub volume_name: Box<str>,
    pub storage_class_name: Box<str>,
    pub access_modes: Vec<Box<str>>,
    pub volume_mode: Box<str>,
    pub resources: Resources,
    pub selector: Value,
}

/// A claim's status.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimStatus {
    pub phase: Box<str>,
}

part! {
    /// A PersistentVolume.
    VolumeObject { spec: VolumeSpec, status: ClaimStatus, }
}

/// A volume's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct VolumeSpec {
    pub capacity: Map<String, Value>,
    pub access_modes: Vec<Box<str>>,
    pub volume_mode: Box<str>,
    pub storage_class_name: Box<str>,
    pub claim_ref: Option<ClaimRef>,
    pub node_affinity: Value,
    pub csi: Option<CsiSource>,
}

/// The claim that a volume is bound to or kept for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimRef {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
}

/// A CSI volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CsiSource {
    pub driver: Box<str>,
    pub volume_handle: Box<str>,
}

part! {
    /// A StorageClass.
    ClassObject {
        provisioner: Box<str>,
        volume_binding_mode: Box<str>,
        allowed_topologies: Vec<Value>,
    }
}

part! {
    /// A CSINode.
    CsiNodeObject { spec: CsiNodeSpec, }
}

/// A CSINode's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    pub drivers: Vec<CsiDriver>,
}

/// A driver on a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiDriver {
    pub name: Box<str>,
    pub allocatable: Allocatable,
}

/// How many volumes a driver attaches to the node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Allocatable {
    pub count: Option<i64>,
}

part! {
    /// A ResourceClaim.
    ResourceClaimObject { spec: Value, status: Value, }
}

part! {
    /// A DeviceClass.
    DeviceClassObject { spec: DeviceClassSpec, }
}

/// A device class's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeviceClassSpec {
    pub selectors: Vec<Value>,
    pub config: Vec<Value>,
}

part! {
    /// A ResourceSlice.
    SliceObject { spec: SliceSpec, }
}

impl SliceObject {
    /// Driver and name of its pool.
    pub fn pool_id(&self) -> (Box<str>, Box<str>) {
        (self.spec.driver.clone(), self.spec.pool.name.clone())
    }
}

/// A slice's spec.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceSpec {
    pub driver: Box<str>,
    pub pool: Pool,
    pub node_name: Box<str>,
    pub node_selector: Value,
    pub all_nodes: bool,
    pub per_device_node_selection: bool,
    pub devices: Vec<Device>,
}

/// What a slice is a part of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Pool {
    pub name: Box<str>,
    pub generation: i64,
    pub resource_slice_count: i64,
}

/// A device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    pub name: Box<str>,
    pub attributes: Value,
    pub capacity: Value,
    pub node_name: Box<str>,
    pub node_selector: Value,
    pub all_nodes: bool,
    pub taints: Vec<Value>,
    pub consumes_counters: Option<Value>,
    pub binding_conditions: Option<Value>,
    pub allow_multiple_allocations: bool,
}
