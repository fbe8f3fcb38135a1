//! The CNI plugin (specification 1.0.0): `corten-cni` attaches pods, `loopback` brings up `lo` as containerd asks it to.
//!
//! Pure parts: [`config`] (what is asked), [`ipam`] (which address); the shell is [`attach`].

mod attach;
mod config;
mod ipam;

use std::io::{Read, Write};
use std::process::ExitCode;

use config::Command;
use serde_json::{Value, json};

/// An error as the CNI specification wants it on standard output.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Error {
    code: u32,
    message: String,
}

/// Error codes of the CNI specification; plugins' own start at 100.
mod code {
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODE: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
    pub const TRY_AGAIN: u32 = 11;
    pub const NETWORK: u32 = 100;
}

impl Error {
    fn new(code: u32, message: impl ToString) -> Self {
        Error { code, message: message.to_string() }
    }
}

/// Runs the plugin of this name (`corten-cni` or `loopback`) once, as its environment and standard input ask.
pub fn main(plugin: &str) -> ExitCode {
    let mut stdin = Vec::new();
    let outcome = std::io::stdin()
        .read_to_end(&mut stdin)
        .map_err(|e| Error::new(code::IO, e))
        .and_then(|_| config::parse(|name| std::env::var(name).ok(), &stdin))
        .and_then(|request| execute(plugin, &request));
    let (output, exit) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(error) => {
            (json!({"cniVersion": config::VERSION, "code": error.code, "msg": error.message}), ExitCode::FAILURE)
        }
    };
    match std::io::stdout().write_all(output.to_string().as_bytes()) {
        Ok(()) => exit,
        Err(_) => ExitCode::FAILURE,
    }
}

fn execute(plugin: &str, request: &config::Request) -> Result<Option<Value>, Error> {
    if request.command == Command::Version {
        return Ok(Some(json!({"cniVersion": config::VERSION, "supportedVersions": config::SUPPORTED})));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::new(code::IO, e))?;
    runtime.block_on(async {
        match (plugin, &request.command) {
            ("loopback", Command::Add) => attach::loopback(request).await.map(Some),
            ("loopback", _) => Ok(None),
            (_, Command::Add) => attach::add(request).await.map(Some),
            (_, Command::Del) => attach::delete(request).await.map(|()| None),
            (_, Command::Check) => attach::check(request).await.map(|()| None),
            (_, Command::Status | Command::Gc | Command::Version) => Ok(None),
        }
    })
}
