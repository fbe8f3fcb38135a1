//! The pod network of a node: the CNI plugin that containerd calls, and the process that keeps the node's part of the
//! cluster network in place.
//!
//! Owns pod interfaces, pod addresses on this node, routes to other nodes' pods and the masquerading of pod traffic that
//! leaves the cluster. It must never touch Services (that is kube-proxy) or the node's own addresses (that is machined).
//! Start reading at [`node`] (the process) and [`cni`] (the plugin).
//!
//! Pods are attached by routed veth pairs: the pod's side has a /32 and a default route through a link-local gateway
//! whose hardware address is entered by hand; the node's side has no address, only a route to the pod. Traffic between
//! pods of one node therefore always passes the node's routing and netfilter hooks, which service DNAT depends on.

pub mod cni;
pub mod node;

use std::net::Ipv4Addr;

/// The next hop that every pod sees. Link-local (RFC 3927), so that it can be the same for all.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

pub use node::run;
