//! What each kind does differently. A kind is one [`Kind`]: data and a few functions; nothing here knows HTTP or the store.
//!
//! Start at [`kind`] (what every kind gets), then [`pod`] for the richest one. [`pod_defaults`] and [`pod_checks`] are shared by pods and
//! everything that carries a pod template.

pub mod autoscaling;
pub mod autoscaling_notes;
pub mod batch;
pub mod certificate;
pub mod checks;
pub mod config;
pub mod container_checks;
pub mod cron;
pub mod csi;
pub mod device;
pub mod device_claims;
pub mod device_parts;
pub mod endpoints;
pub mod event;
pub mod extension;
pub mod flow;
pub mod job_status_checks;
pub mod kind;
pub mod namespace;
pub mod network;
pub mod node;
pub mod os_checks;
pub mod plain;
pub mod pod;
pub mod pod_annotations;
pub mod pod_checks;
pub mod pod_defaults;
pub mod pod_status_checks;
pub mod probe_checks;
pub mod quota;
pub mod rbac;
pub mod scheduling_checks;
pub mod security_checks;
pub mod service;
pub mod serviceaccount;
pub mod source_checks;
pub mod tree;
pub mod volume;
pub mod volume_checks;
pub mod workload;

#[cfg(test)]
mod cluster_kind_tests;
#[cfg(test)]
mod kind_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;

pub use kind::Kind;
