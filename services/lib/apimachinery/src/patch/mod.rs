//! The three patch languages a client may send: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and strategic merge patch, which follows the schema.

mod json;
mod merge;
mod strategic;

pub use json::json;
pub use merge::merge;
pub use strategic::strategic;

/// Why a patch cannot be applied, by what the client should be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// Not a patch of its language: 400.
    #[error("{0}")]
    Malformed(String),
    /// A patch that does not fit the object: 422.
    #[error("{0}")]
    Unprocessable(String),
    /// A strategic patch that the schema has no meaning for: 500, as upstream does.
    #[error("{0}")]
    Meaningless(String),
    /// More than the server is willing to do: 413.
    #[error("{0}")]
    TooLarge(String),
}
