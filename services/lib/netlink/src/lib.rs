//! Links, addresses and routes over rtnetlink: the only crate that opens an AF_NETLINK socket.
//!
//! Owns the translation between our few operations and rtnetlink(7) messages. Every operation is idempotent: what is
//! already as asked for is success, so callers state what should be, not what to change. It must never decide addresses
//! or routes. Start reading at [`Handle`]; a handle works in the network namespace of the thread that made it.

mod address;
mod link;
mod neighbour;
mod route;

use std::io;

use netlink_packet_core::ErrorMessage;

pub use link::Link;
pub use route::{Route, RouteEntry};

/// Why the kernel did not do what was asked; names the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be opened.
    #[error("rtnetlink socket: {0}")]
    Socket(#[source] io::Error),
    /// The request was refused.
    #[error("{what}: {source}")]
    Refused {
        /// The operation and its object.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The request could not be built or its answer understood.
    #[error("{what}: {reason}")]
    Message {
        /// The operation and its object.
        what: String,
        /// What was wrong.
        reason: String,
    },
}

/// One rtnetlink socket; clones share it. Its driver task ends with the last handle.
#[derive(Clone, Debug)]
pub struct Handle(rtnetlink::Handle);

impl Handle {
    /// Opens a socket in the current thread's network namespace. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// No socket could be opened.
    pub fn new() -> Result<Handle, Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Socket)?;
        tokio::spawn(connection);
        Ok(Handle(handle))
    }
}

/// Turns an answer into our error, treating the codes in `accepted` as success.
fn finish(what: impl FnOnce() -> String, result: Result<(), rtnetlink::Error>, accepted: &[i32]) -> Result<(), Error> {
    let Err(error) = result else { return Ok(()) };
    match os_code(&error) {
        Some(code) if accepted.contains(&code) => Ok(()),
        Some(code) => Err(Error::Refused { what: what(), source: io::Error::from_raw_os_error(code) }),
        None => Err(Error::Message { what: what(), reason: error.to_string() }),
    }
}

fn os_code(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(ErrorMessage { code: Some(code), .. }) => Some(code.get().abs()),
        _ => None,
    }
}

fn failed(what: String, error: rtnetlink::Error) -> Error {
    match os_code(&error) {
        Some(code) => Error::Refused { what, source: io::Error::from_raw_os_error(code) },
        None => Error::Message { what, reason: error.to_string() },
    }
}
