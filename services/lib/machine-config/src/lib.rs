//! The machine configuration: one YAML document that says what a machine is and which cluster it belongs to.
//!
//! Owns the document's shape, its checks and the generation of a new cluster's documents. A [`Config`] that exists is
//! valid: every check happens in [`parse`], which reports each problem with its line and path. Must never do IO, look at
//! the machine it runs on, or take a field it does not know.
//!
//! Start at [`Config`] (what there is), then `read.rs` (what is checked) and [`generate`] (what a new cluster gets).

mod config;
mod generate;
mod node;
mod problem;
mod read;
mod reader;
#[cfg(test)]
mod tests;
mod values;

pub use config::{Authority, Cluster, Config, ControlPlane, Endpoint, Interface, Kubelet, Machine, Pool, Role, Route};
pub use generate::{Cluster as NewCluster, Documents, Secrets, generate};
pub use problem::{Problem, Problems};
pub use read::parse;
