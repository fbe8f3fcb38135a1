//! Clusters of several members as processes of their own, with a network between them that the test controls.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod client;
mod defects;
mod etcdctl;
mod faults;
mod harness;
mod history;
mod limits;
mod members;
mod membership;
#[path = "../ports/mod.rs"]
mod ports;
mod proxy;
mod snapshots;
