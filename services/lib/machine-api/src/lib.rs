//! The machine API as Rust types, client and server trait.
//!
//! Owns the message shapes, the port and the names in certificates that both sides must agree on. Must never gain behaviour.
//! Start reading at `proto/machine.proto`.

/// The generated code.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::too_many_lines)]
pub mod v1 {
    tonic::include_proto!("corten.machine.v1");
}

/// Where machines listen.
pub const PORT: u16 = 50000;

/// The subject organization of client certificates that may do everything.
pub const ADMIN: &str = "os:admin";

/// The longest message: a piece of an image archive stays well below it.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// A good size for the pieces of a byte stream.
pub const CHUNK: usize = 256 * 1024;
