//! SPDY/3.1 as exec and attach need it: frames and their compressed headers, without flow control (the peers have none) and
//! without IO. [`Decoder`] turns bytes into [`Frame`]s, [`Encoder`] frames into bytes.
//!
//! Sources: draft-mbelshe-httpbis-spdy-00 (framing, header dictionary), RFC 1950 and RFC 1951 (compression).

mod frame;
mod headers;

pub use frame::{Decoder, Encoder, Frame};
pub use headers::Headers;

/// Bytes that are not SPDY.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another version than 3.
    #[error("SPDY version {0} instead of 3")]
    Version(u16),
    /// A control frame that is longer than any that makes sense.
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    /// A control frame that is shorter than its type demands.
    #[error("a control frame ends early")]
    Short,
    /// Headers that cannot be decompressed or read.
    #[error("headers: {0}")]
    Headers(&'static str),
}
