//! Asking PID 1, without blocking the runtime.

use std::path::PathBuf;

use init_api::{Error, Reply, Request};

/// A way to PID 1. Each call is its own connection, so a restarted daemon needs no state.
#[derive(Debug, Clone)]
pub(crate) struct Init {
    socket: PathBuf,
}

impl Init {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(crate) async fn call(&self, request: Request) -> Result<Reply, Error> {
        let socket = self.socket.clone();
        match tokio::task::spawn_blocking(move || init_api::call_at(&socket, &request)).await {
            Ok(result) => result,
            Err(join) => {
                Err(Error::Io { path: self.socket.display().to_string(), source: std::io::Error::other(join) })
            }
        }
    }
}
