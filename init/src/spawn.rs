//! From a row of the table to a process: command line, environment, cgroup, output.

use crate::cmdline::Cmdline;
use crate::services::{Privileges, Spec};
use linux::cgroup::Cgroup;
use linux::process::{Child, Spawn};
use nix::errno::Errno;
use std::ffi::OsString;
use std::os::fd::OwnedFd;

/// Where machined puts the arguments that depend on the machine, one per line.
const ARGS: &str = "/run/corten/args";
/// Services open sockets and files by the thousand; programs that use select(2) are not among them.
const OPEN_FILES: (u64, u64) = (65_536, 1_048_576);

/// Why a service could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(#[from] linux::Error);

impl Failure {
    /// True when another try cannot help: the root file system is read-only, so a program that is not there will not come.
    pub fn is_permanent(&self) -> bool {
        self.0.is(Errno::ENOENT) || self.0.is(Errno::EACCES) || self.0.is(Errno::ENOEXEC)
    }
}

/// Starts a service.
pub fn start(spec: &Spec, cmdline: &Cmdline, output: OwnedFd) -> Result<Child, Failure> {
    let extra = std::fs::read_to_string(format!("{ARGS}/{}", spec.name)).unwrap_or_default();
    let spawn = Spawn {
        argv: argv(spec, &extra),
        env: environment(cmdline),
        cgroup_procs: cgroup(spec),
        output: Some(output),
        capabilities: match spec.privileges {
            Privileges::All => None,
            Privileges::Only(list) => Some(linux::cap::mask(list)),
        },
        oom_score_adj: spec.oom_score_adj,
        open_files: Some(OPEN_FILES),
    };
    Ok(spawn.start()?)
}

fn argv(spec: &Spec, extra: &str) -> Vec<OsString> {
    let constant = spec.argv.iter().copied();
    constant.chain(extra.lines().filter(|line| !line.is_empty())).map(OsString::from).collect()
}

fn environment(cmdline: &Cmdline) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), "/usr/bin:/usr/sbin:/bin:/sbin".into()),
        ("HOME".into(), "/run".into()),
        ("TMPDIR".into(), "/tmp".into()),
    ];
    if let Some(log) = &cmdline.log {
        env.push(("RUST_LOG".into(), log.into()));
    }
    // What the namespace driver says to PID 1 is for machined as well.
    for name in ["CORTEN_DRIVER", "CORTEN_CMDLINE"] {
        if let Some(value) = std::env::var_os(name) {
            env.push((name.into(), value));
        }
    }
    env
}

/// A service without its cgroup is better than no service (a host that has no cgroup v2 to give away, say).
fn cgroup(spec: &Spec) -> Option<std::path::PathBuf> {
    let group = Cgroup::new(&format!("system/{}", spec.name));
    group.create().ok().map(|()| group.procs_file()).filter(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::SERVICES;

    #[test]
    fn extra_arguments_follow_the_constant_ones() {
        let got = argv(&SERVICES[0], "--flag=a b\n\n--other\n");
        assert_eq!(got, ["/usr/bin/machined", "--flag=a b", "--other"]);
    }
}
