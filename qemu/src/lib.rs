//! Test clusters: the same image as virtual machines (`qemu`) or as namespaces of this host (`namespace`).
//!
//! Owns the folder `.corten/<name>/` of a cluster, the processes behind its nodes and the way from a command to a
//! cluster whose nodes are Ready. It must never reach into a node other than through the node's own interfaces: the
//! machine API, the Kubernetes API, the console, the power button. Start reading at [`up`], then [`driver`].

pub mod artifacts;
pub mod cluster;
pub mod down;
pub mod driver;
pub mod drivers;
pub mod forward;
pub mod kubectl;
pub mod setup;
pub mod up;
pub mod wait;

pub use artifacts::Artifacts;
pub use cluster::{Cluster, DriverName, Node, Role};
