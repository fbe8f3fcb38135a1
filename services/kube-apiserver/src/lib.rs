//! The Kubernetes API server, process `kube-apiserver`.
//!
//! It owns the Kubernetes API on :6443: TLS, authentication, authorization, admission, validation, the generic verbs over the resource table,
//! and the watch caches over an etcd v3 store. It is the only process that speaks to the store. It must never let a request pass round
//! that chain, hold state that is not in the store, or contain a handler that is particular to one kind: what differs is a [`registry::Strategy`].
//!
//! Start reading at [`server`] (the handler chain, in order), then [`registry`] (what a resource is), [`endpoints`] (the verbs) and
//! [`storage`] (keys, transactions, watch cache).

pub mod admission;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod config;
pub mod config_file;
pub mod discovery;
pub mod endpoints;
pub mod errors;
pub mod flowcontrol;
pub mod followed;
pub mod openapi;
pub mod patch;
pub mod printers;
pub mod protobuf;
pub mod proxy;
pub mod registry;
pub mod server;
pub mod storage;
pub mod tokens;

pub use server::run;
