//! How a process on the node asks PID 1 for something: request and reply types and their codec, blocking, on a Unix socket.
//!
//! Owns: the wire form. Must never: use a serialisation framework or an async runtime (PID 1 links neither), or grow a
//! request whose meaning needs a parser. Start reading at [`Request`]; [`call`] is the client.

mod client;
mod codec;

pub use client::{Error, call, call_at};
pub use codec::{MAX_FRAME, Malformed, decode_reply, decode_request, encode_reply, encode_request};

/// Where PID 1 listens.
pub const SOCKET: &str = "/run/init.sock";

/// This file is there once the machine is going down: a service that is told to stop learns from it that everything ends.
pub const ENDING: &str = "/run/corten/ending";

/// What the node is to be. It decides which services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Only the machine API.
    Maintenance,
    /// The node services.
    Worker,
    /// The node services and the control plane.
    ControlPlane,
}

/// One request; each gets one [`Reply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Run the services of this target and stop the others.
    SetTarget(Target),
    /// Every service and its state.
    ServiceList,
    /// Start a stopped or failed service.
    ServiceStart(String),
    /// Stop a service until it is started again.
    ServiceStop(String),
    /// Stop it if it runs, and start it.
    ServiceRestart(String),
    /// Stop everything in order and restart the machine.
    Reboot,
    /// Stop everything in order and switch the machine off.
    Shutdown,
    /// The steps of this boot with their times.
    BootReport,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, or accepted: a service that was asked to stop may still be stopping.
    Done,
    /// Refused; a sentence for the administrator.
    Refused(String),
    /// To [`Request::ServiceList`].
    Services(Vec<Service>),
    /// To [`Request::BootReport`].
    Boot(Vec<Stage>),
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name in the table.
    pub name: String,
    /// What it does now.
    pub state: State,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// How it last ended, in words: `exit code 1`, `SIGKILL`. Empty when it never has.
    pub last_exit: String,
}

/// What a service does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The target does not want it, or something it needs does not run yet.
    Waiting,
    /// Being started.
    Starting,
    /// It runs.
    Running {
        /// Process id.
        pid: u32,
        /// Milliseconds after the kernel's start at which it was started.
        since_ms: u64,
    },
    /// It was told to stop and has not ended yet.
    Stopping {
        /// Process id.
        pid: u32,
    },
    /// It ended by itself and is started again at this time.
    Backoff {
        /// Milliseconds after the kernel's start.
        until_ms: u64,
    },
    /// Stopped by request.
    Stopped,
    /// It cannot be started; why. Only a request starts it again.
    Failed(String),
}

impl State {
    /// One word for tables.
    pub fn word(&self) -> &'static str {
        match self {
            State::Waiting => "Waiting",
            State::Starting => "Starting",
            State::Running { .. } => "Running",
            State::Stopping { .. } => "Stopping",
            State::Backoff { .. } => "Backoff",
            State::Stopped => "Stopped",
            State::Failed(_) => "Failed",
        }
    }
}

/// One step of the boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The step's name.
    pub name: String,
    /// When it was finished, in milliseconds after the kernel's start.
    pub done_ms: u64,
    /// What was found or done, or why it failed.
    pub detail: String,
    /// False when the step failed.
    pub ok: bool,
}
