//! Label and field selectors: the query language of lists, watches and controllers.

mod field;
mod label;
mod parse;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelSelector, Operator, Requirement};

/// Why a selector cannot be used; the texts are those upstream's clients see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text is not in the selector language.
    #[error("{0}")]
    Syntax(String),
    /// The text is in the language but a key or value breaks its rules.
    #[error("{field}: Invalid value: {value:?}: {message}")]
    Invalid {
        /// Where, in upstream's notation.
        field: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        message: String,
    },
    /// A label selector object names an operator that does not exist.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    /// The value is not a label selector object at all.
    #[error("a label selector must be an object")]
    NotASelector,
}
