//! What a driver can do with a node: the power button and the plug.

use crate::artifacts::Artifacts;
use anyhow::Result;

use crate::cluster::{Cluster, DriverName, Node};
use crate::drivers::{namespace::Namespace, qemu::Qemu};

/// One way to run nodes.
pub trait Driver {
    /// Prepares what all nodes share, such as their network. Doing it again changes nothing.
    ///
    /// # Errors
    /// This host cannot do it.
    fn prepare(&self, cluster: &Cluster, image: &Artifacts) -> Result<()>;

    /// Switches a node on. Its disk is made on the first time and kept from then on.
    ///
    /// # Errors
    /// The node's process did not start.
    fn power_on(&self, cluster: &Cluster, node: &Node, image: &Artifacts) -> Result<()>;

    /// Pulls the plug: nothing in the node gets to finish anything.
    ///
    /// # Errors
    /// The node's process could not be ended.
    fn power_off(&self, cluster: &Cluster, node: &Node) -> Result<()>;

    /// Whether the node is on.
    fn is_on(&self, cluster: &Cluster, node: &Node) -> bool;

    /// Removes everything that lives outside the cluster's folder. All nodes are off.
    ///
    /// # Errors
    /// Something could not be removed; names it.
    fn clean_up(&self, cluster: &Cluster) -> Result<()>;
}

/// The driver of this name.
pub fn driver(name: DriverName) -> &'static dyn Driver {
    match name {
        DriverName::Qemu => &Qemu,
        DriverName::Namespace => &Namespace,
    }
}
