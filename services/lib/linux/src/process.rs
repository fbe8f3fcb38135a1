//! Processes: start one into its cgroup, watch it by pidfd, reap what nobody waits for.
#![allow(unsafe_code)]

use crate::{Error, Result, cap};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "{}", signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// What to start and what it may do.
#[derive(Debug, Default)]
pub struct Spawn {
    /// Program (absolute path) and arguments; argv[0] is the path.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// The `cgroup.procs` file of the cgroup it is born into.
    pub cgroup_procs: Option<PathBuf>,
    /// Standard output and error; /dev/null without one.
    pub output: Option<OwnedFd>,
    /// Keep only these capabilities (a mask of [`cap::mask`]); `None` keeps all. Implies no_new_privs.
    pub capabilities: Option<u64>,
    /// Out-of-memory score adjustment; refusal (no CAP_SYS_RESOURCE) is not an error.
    pub oom_score_adj: i32,
    /// Soft and hard limit of open files; refusal is not an error.
    pub open_files: Option<(u64, u64)>,
}

/// A child and the descriptor that becomes readable when it ends.
#[derive(Debug)]
pub struct Child {
    /// Process id.
    pub pid: i32,
    pidfd: PidFd,
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Child {
    /// The child's end, if it has ended; reaps it.
    pub fn try_wait(&self) -> Result<Option<Exit>> {
        wait_one(libc::P_PIDFD, self.pidfd.0.as_raw_fd().cast_unsigned(), libc::WNOHANG)
    }

    /// Sends a signal. A child that has ended already is success: its end is on the pidfd.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.pidfd.signal(signal)
    }
}

impl Spawn {
    /// Starts the process in a session of its own with default signal handling.
    pub fn start(mut self) -> Result<Child> {
        let program = self.argv.first().cloned().unwrap_or_default();
        let subject = program.to_string_lossy().into_owned();
        let cgroup = match &self.cgroup_procs {
            Some(path) => Some(File::options().write(true).open(path).map_err(|e| Error::at("open", path, e))?),
            None => None,
        };
        let mut command = Command::new(&program);
        command.args(&self.argv[1..]).env_clear().envs(self.env.drain(..)).current_dir("/").stdin(Stdio::null());
        match self.output.take() {
            Some(fd) => {
                let second = fd.try_clone().map_err(|e| Error::new("dup", &subject, e))?;
                command.stdout(fd).stderr(second);
            }
            None => {
                command.stdout(Stdio::null()).stderr(Stdio::null());
            }
        }
        let (keep, files, oom) = (self.capabilities, self.open_files, self.oom_score_adj);
        // SAFETY: between fork and exec `prepare` only makes system calls on stack data and descriptors that were open before; it
        // does not allocate (but for the error path) or take locks.
        unsafe {
            command.pre_exec(move || prepare(cgroup.as_ref(), keep, files, oom));
        }
        let child = command.spawn().map_err(|e| Error::new("start", &subject, e))?;
        let pid = child.id().cast_signed();
        // Nobody else reaps between the two calls (the caller is the only waiter), so the pid cannot have been given to another process.
        let pidfd = PidFd::open(pid)?;
        Ok(Child { pid, pidfd })
    }
}

fn prepare(cgroup: Option<&File>, keep: Option<u64>, files: Option<(u64, u64)>, oom: i32) -> std::io::Result<()> {
    if let Some(mut procs) = cgroup {
        procs.write_all(b"0")?;
    }
    // SAFETY: setsid takes no argument; sigprocmask and signal get valid pointers and numbers. PID 1 blocks signals for its signalfd and
    // Rust ignores SIGPIPE; a service must start with neither.
    unsafe {
        libc::setsid();
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        if let Some((soft, hard)) = files {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
    if oom != 0 {
        write_oom_score(oom);
    }
    if let Some(mask) = keep {
        cap::restrict_to(mask)?;
        cap::no_new_privileges()?;
    }
    Ok(())
}

/// Writes /proc/self/oom_score_adj without allocating.
fn write_oom_score(value: i32) {
    let mut digits = [0u8; 8];
    let mut cursor = std::io::Cursor::new(&mut digits[..]);
    if write!(cursor, "{value}").is_err() {
        return;
    }
    let length = usize::try_from(cursor.position()).unwrap_or(0);
    // SAFETY: the path is a NUL-terminated literal, the buffer holds `length` bytes, and the descriptor is closed here.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, digits.as_ptr().cast(), length);
            libc::close(fd);
        }
    }
}

/// A descriptor for a process: it stays with that process even when the number is used again.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PidFd {
    /// pidfd_open(2).
    pub fn open(pid: i32) -> Result<PidFd> {
        // SAFETY: pidfd_open takes a number and flags.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd =
            i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(|| Error::last("pidfd_open", pid.to_string()))?;
        // SAFETY: the call has just returned this descriptor (close-on-exec by definition) and nobody else owns it.
        Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// pidfd_send_signal(2); success when the process has already ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.signal_number(signal as i32)
    }

    /// As [`PidFd::signal`], for the signals that have numbers only (signal(7), real-time signals).
    pub fn signal_number(&self, number: i32) -> Result<()> {
        // SAFETY: the descriptor is open, the siginfo pointer may be null.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                number,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        let error = std::io::Error::last_os_error();
        if answer == 0 || error.raw_os_error() == Some(libc::ESRCH) {
            return Ok(());
        }
        Err(Error::new("pidfd_send_signal", number.to_string(), error))
    }
}

fn wait_one(kind: libc::idtype_t, id: libc::id_t, flags: i32) -> Result<Option<Exit>> {
    // SAFETY: siginfo_t is plain data for which zeroes are valid; waitid fills it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call.
    if unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | flags) } != 0 {
        return Err(Error::last("waitid", id.to_string()));
    }
    // SAFETY: after waitid the fields of a SIGCHLD siginfo are valid; a pid of 0 means that nobody has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some(if info.si_code == libc::CLD_EXITED { Exit::Code(status) } else { Exit::Signal(status) }))
}

/// Reaps ended children that nobody supervises (PID 1 inherits every orphan). `supervised` says which must be left to their
/// pidfd. Returns how many were reaped.
pub fn reap_orphans(supervised: impl Fn(i32) -> bool) -> usize {
    let mut count = 0;
    loop {
        // Look without taking: a plain wait for anybody would steal the exit status of a supervised child.
        // SAFETY: as in `wait_one`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) } != 0 {
            return count;
        }
        // SAFETY: as in `wait_one`.
        let pid = unsafe { info.si_pid() };
        // The kernel always shows the same first child. A supervised one is taken by its pidfd on the caller's next turn, which then
        // calls here again.
        if pid == 0 || supervised(pid) {
            return count;
        }
        if wait_one(libc::P_PID, pid.cast_unsigned(), libc::WNOHANG).is_err() {
            return count;
        }
        count += 1;
    }
}

/// True while this process has any child, running or ended. For PID 1: while any process is left, since all descend from it.
pub fn has_children() -> bool {
    wait_one(libc::P_ALL, 0, libc::WNOHANG | libc::WNOWAIT).is_ok()
}

/// A pipe for a child's output: the reading end does not block, the writing end is handed to [`Spawn`].
pub fn output_pipe() -> Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::new("pipe", "output", e))?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|e| Error::new("fcntl", "output pipe", e))?;
    Ok((read, write))
}

/// Reads what is there. `Ok(None)` when nothing is there now, `Ok(Some(0))` at the end.
pub fn read_available(fd: &OwnedFd, buffer: &mut [u8]) -> Result<Option<usize>> {
    match nix::unistd::read(fd, buffer) {
        Ok(n) => Ok(Some(n)),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(None),
        Err(errno) => Err(Error::new("read", "output pipe", errno)),
    }
}

/// Runs a tool to its end and returns its exit and combined output. For the few tools of the image (mkfs, fsck) at boot.
pub fn run_tool(argv: &[&str]) -> Result<(Exit, String)> {
    let subject = argv.first().copied().unwrap_or_default();
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|e| Error::new("pipe", subject, e))?;
    let spawn = Spawn {
        argv: argv.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())],
        output: Some(write),
        ..Spawn::default()
    };
    let child = spawn.start()?;
    let mut output = Vec::new();
    File::from(read).read_to_end(&mut output).map_err(|e| Error::new("read", subject, e))?;
    let exit = wait_one(libc::P_PIDFD, child.pidfd.0.as_raw_fd().cast_unsigned(), 0)?.unwrap_or(Exit::Code(-1));
    Ok((exit, String::from_utf8_lossy(&output).into_owned()))
}

/// Makes this process the one that inherits orphans of its descendants (tests, and drivers that are not PID 1).
pub fn become_subreaper() -> Result<()> {
    // SAFETY: prctl with PR_SET_CHILD_SUBREAPER takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } != 0 {
        return Err(Error::last("prctl", "PR_SET_CHILD_SUBREAPER"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn wait(child: &Child) -> Exit {
        poll(&mut [PollFd::new(child.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        child.try_wait().unwrap().unwrap()
    }

    fn start(argv: &[&str]) -> Child {
        Spawn { argv: argv.iter().map(OsString::from).collect(), ..Spawn::default() }.start().unwrap()
    }

    #[test]
    fn the_pidfd_tells_the_end() {
        assert_eq!(wait(&start(&["/bin/sh", "-c", "exit 7"])), Exit::Code(7));
        let sleeper = start(&["/bin/sleep", "1000"]);
        assert_eq!(sleeper.try_wait().unwrap(), None);
        sleeper.signal(Signal::SIGTERM).unwrap();
        assert_eq!(wait(&sleeper), Exit::Signal(15));
        assert_eq!(Exit::Signal(9).to_string(), "SIGKILL");
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = Spawn { argv: vec!["/no/such".into()], ..Spawn::default() }.start().unwrap_err();
        assert!(error.is(nix::errno::Errno::ENOENT), "{error}");
        assert!(error.to_string().contains("/no/such"));
    }

    #[test]
    fn tools_answer_with_output() {
        let (exit, text) = run_tool(&["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]).unwrap();
        assert_eq!((exit, text.as_str()), (Exit::Code(3), "out\nerr\n"));
    }

    #[test]
    fn capabilities_are_dropped_in_the_child() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let (read, write) = nix::unistd::pipe().unwrap();
        let child = Spawn {
            argv: ["/bin/grep", "CapEff", "/proc/self/status"].iter().map(OsString::from).collect(),
            output: Some(write),
            capabilities: Some(cap::mask(&[cap::Capability::NetBindService])),
            ..Spawn::default()
        };
        let child = child.start().unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(wait(&child), Exit::Code(0));
        assert_eq!(text, "CapEff:\t0000000000000400\n");
    }
}
