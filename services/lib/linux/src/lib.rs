//! Linux, made safe: mounts, loop devices, modules, processes and their pidfds, network namespaces, capabilities,
//! cgroup v2 files, the kernel log, raw frames.
//!
//! Owns: every `unsafe` block of the operating system (only `pause` has another). Must never: know what a service, a pod or
//! a cluster is, open netlink sockets (crate `netlink`), or keep state between calls.
//! Start reading at [`process`] (how a child is made) and [`mount`].

mod error;

pub mod cap;
pub mod cgroup;
pub mod clock;
pub mod kmsg;
pub mod loopdev;
pub mod memory;
pub mod module;
pub mod mount;
pub mod netns;
pub mod packet;
pub mod process;
pub mod sysctl;

pub use error::{Error, Result};
