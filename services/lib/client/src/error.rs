//! What can go wrong between a client and an API server.

use serde::Deserialize;
use serde_json::Value;

/// The parts of a `metav1.Status` that clients decide by.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, such as `NotFound`.
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// Causes and the object's name and kind.
    pub details: Value,
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error.
    #[error("{}", .0.message)]
    Api(Box<Status>),
    /// No answer: the connection or TLS failed.
    #[error("{server}: {reason}")]
    Connection {
        /// The server that was asked.
        server: String,
        /// The underlying failure.
        reason: String,
    },
    /// The answer is not what the API promises.
    #[error("unexpected answer to {request}: {reason}")]
    Answer {
        /// Method and path.
        request: String,
        /// What was wrong.
        reason: String,
    },
    /// The request could not be built.
    #[error("request: {0}")]
    Request(String),
    /// The kubeconfig is unusable.
    #[error(transparent)]
    Kubeconfig(#[from] crate::KubeconfigError),
}

impl Error {
    /// The server's status, if it answered with one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Api(status) => Some(status),
            _ => None,
        }
    }

    fn has(&self, code: u16, reason: &str) -> bool {
        self.status().is_some_and(|s| s.reason == reason || (s.reason.is_empty() && s.code == code))
    }

    /// 404 NotFound.
    pub fn is_not_found(&self) -> bool {
        self.has(404, "NotFound")
    }

    /// 409 Conflict: the object changed meanwhile or a precondition failed.
    pub fn is_conflict(&self) -> bool {
        self.has(409, "Conflict")
    }

    /// 409 AlreadyExists.
    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|s| s.reason == "AlreadyExists")
    }

    /// 410: the resource version or continue token is too old.
    pub fn is_gone(&self) -> bool {
        self.status().is_some_and(|s| s.code == 410 || s.reason == "Expired" || s.reason == "Gone")
    }

    /// 403 Forbidden.
    pub fn is_forbidden(&self) -> bool {
        self.has(403, "Forbidden")
    }
}
