//! Version: what runs here. Anybody may ask; nothing in it is secret.

use machine_api::v1::{Mode, VersionResponse};
use machine_config::Role;

use super::{Api, State};

/// The Kubernetes level this system implements.
const KUBERNETES: &str = "v1.35.0";

pub(super) fn call(api: &Api) -> VersionResponse {
    let (mode, reason) = match &api.state {
        State::Maintenance { reason, .. } => (Mode::Maintenance, reason.clone()),
        State::Running(running) if running.config.role == Role::Worker => (Mode::Worker, String::new()),
        State::Running(_) => (Mode::ControlPlane, String::new()),
    };
    VersionResponse {
        version: format!("v{}", env!("CARGO_PKG_VERSION")),
        kubernetes: KUBERNETES.to_owned(),
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        mode: mode.into(),
        hostname: nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
        reason,
    }
}
