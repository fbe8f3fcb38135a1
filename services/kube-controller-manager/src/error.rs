//! What stops one pass over one object; the work queue tries again later.

use crate::object;

/// A failed pass.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request failed.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// An object is not what the API promises, or refers to something unknown.
    #[error("{0}")]
    Object(String),
}

impl Error {
    /// Someone else wrote first, or the informer lags behind: ordinary, solved by the next pass.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Error::Client(error) if error.is_conflict() || error.is_already_exists())
    }

    /// The namespace is going away and refuses content: there is nothing to retry.
    pub fn is_namespace_terminating(&self) -> bool {
        let Error::Client(error) = self else { return false };
        let causes = error.status().map(|status| object::list(&status.details, "/causes"));
        causes.is_some_and(|causes| causes.iter().any(|cause| cause["reason"] == "NamespaceTerminating"))
    }
}

/// Turns "it is gone already" into success.
pub fn ignore_not_found<T>(result: Result<T, client::Error>) -> Result<Option<T>, client::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
