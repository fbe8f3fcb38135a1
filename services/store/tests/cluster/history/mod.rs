//! Recorded histories of concurrent clients and what must be true of them.
//!
//! [`model`] says what one request does to the store, [`wgl`] whether the recorded answers fit to some order of the requests
//! that agrees with real time, [`watch`] whether each watcher saw what happened, [`replay`] whether reads of one member's
//! own state show a state that existed. [`workload`] makes the requests.

pub mod model;
pub mod replay;
pub mod watch;
pub mod wgl;
pub mod workload;
