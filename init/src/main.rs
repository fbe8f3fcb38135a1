//! PID 1. It boots the node, starts and restarts its services, reaps orphans, and ends everything in order.
//!
//! Owns: the boot list, supervision, service logs, the control socket, the end of the machine. Must never: fail (the kernel panics
//! with it), block on a service, link an async runtime, TLS or a serialisation framework, or parse what a user wrote.
//! Start reading at [`boot`] (what happens in order) and [`supervisor`] (what runs when); this file is the event loop.

mod boot;
mod cmdline;
mod console;
mod control;
mod disks;
mod hostfiles;
mod logs;
mod modules;
mod mounts;
mod reaper;
mod root;
mod services;
mod shutdown;
mod spawn;
mod supervisor;

use console::Console;
use control::Control;
use init_api::{Reply, Request, Target};
use linux::process::Child;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use services::SERVICES;
use shutdown::Ending;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use supervisor::{Action, Event, Supervisor};

/// Milliseconds since the kernel started.
fn now_ms() -> u64 {
    u64::try_from(linux::clock::since_boot().as_millis()).unwrap_or(u64::MAX)
}

fn main() {
    if root::in_initramfs() {
        boot::from_initramfs();
    }
    // Before any thread exists: threads inherit the blocked signals, so the kernel has only our descriptor to deliver them to.
    let signals = reaper::Signals::open();
    let booted = boot::node();
    match Init::new(booted, signals) {
        Ok(mut init) => init.run(),
        Err((mut console, error)) => console.line(&format!("cannot supervise: {error}")),
    }
    // Only reached when supervision is impossible; as PID 1 this panics the kernel, which then restarts the machine.
    std::process::exit(1);
}

struct Init {
    booted: boot::Booted,
    supervisor: Supervisor,
    children: BTreeMap<usize, Child>,
    logs: Vec<logs::Log>,
    control: Control,
    signals: reaper::Signals,
    ending: Option<Ending>,
    /// The target that was asked for. It is taken up after the reply, because starting ten processes takes a while, and after
    /// modules are loaded, because services would start into a kernel that lacks what they need.
    pending: Option<Target>,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Modules,
    Client(usize),
    Child(usize),
    Log(usize),
}

impl Init {
    fn new(
        booted: boot::Booted,
        signals: Result<reaper::Signals, nix::errno::Errno>,
    ) -> Result<Init, (Console, String)> {
        let open = || -> Result<_, String> {
            let signals = signals.map_err(|e| format!("signals: {e}"))?;
            let control = Control::listen(init_api::SOCKET).map_err(|e| format!("control socket: {e}"))?;
            let folder = std::path::Path::new(mounts::SERVICE_LOGS);
            let logs: linux::Result<Vec<_>> = SERVICES.iter().map(|spec| logs::Log::new(folder, spec.name)).collect();
            Ok((signals, control, logs.map_err(|e| e.to_string())?))
        };
        match open() {
            Ok((signals, control, logs)) => {
                let supervisor = Supervisor::new(SERVICES);
                Ok(Init {
                    booted,
                    supervisor,
                    children: BTreeMap::new(),
                    logs,
                    control,
                    signals,
                    ending: None,
                    pending: None,
                })
            }
            Err(error) => Err((booted.console, error)),
        }
    }

    fn run(&mut self) {
        self.booted.console.line("boot done, supervising");
        if !self.booted.cmdline.in_namespace {
            // Ctrl-alt-delete becomes SIGINT to us instead of an immediate reset.
            let _ = nix::sys::reboot::set_cad_enabled(false);
        }
        self.handle(Event::Tick);
        loop {
            for source in self.wait() {
                self.serve(source);
            }
            if self.booted.loading.is_none()
                && let Some(target) = self.pending.take()
            {
                self.handle(Event::Target(target));
            }
            self.handle(Event::Tick);
            if let Some(ending) = self.ending
                && self.supervisor.is_quiet()
            {
                // Open log files would keep the data disk busy.
                self.logs.clear();
                shutdown::finish(ending, &mut self.booted);
            }
        }
    }

    /// Waits for anything to happen or the next deadline.
    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![(Source::Signals, self.signals.as_fd()), (Source::Listener, self.control.as_fd())];
        sources.extend(self.booted.loading.iter().map(|loading| (Source::Modules, loading.as_fd())));
        sources.extend(self.control.clients().map(|(id, fd)| (Source::Client(id), fd)));
        sources.extend(self.children.iter().map(|(row, child)| (Source::Child(*row), child.as_fd())));
        sources.extend(self.logs.iter().enumerate().map(|(row, log)| (Source::Log(row), log.as_fd())));
        let mut fds: Vec<PollFd> = sources.iter().map(|(_, fd)| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let timeout = match self.supervisor.deadline() {
            Some(at) => {
                PollTimeout::try_from(at.saturating_sub(now_ms()).saturating_add(1)).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        if poll(&mut fds, timeout).is_err() {
            return Vec::new();
        }
        let ready = |fd: &PollFd| fd.revents().is_some_and(|events| !events.is_empty());
        sources.iter().zip(&fds).filter(|(_, fd)| ready(fd)).map(|((source, _), _)| *source).collect()
    }

    fn serve(&mut self, source: Source) {
        match source {
            Source::Signals => self.on_signals(),
            Source::Listener => self.control.accept(),
            Source::Modules => self.on_modules(),
            Source::Client(id) => self.on_client(id),
            Source::Child(row) => self.on_child(row),
            Source::Log(row) => self.on_log(row),
        }
    }

    fn on_signals(&mut self) {
        for signal in self.signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGPWR => drop(self.end(Ending::PowerOff)),
                // The kernel turns ctrl-alt-delete into this once it was told to leave it to us.
                Signal::SIGINT => drop(self.end(Ending::Reboot)),
                _ => {}
            }
        }
        self.reap();
    }

    fn on_modules(&mut self) {
        let Some(loading) = self.booted.loading.take() else { return };
        let outcome = loading.finish();
        self.booted.record("modules", outcome);
    }

    fn reap(&self) {
        let supervised: Vec<i32> = self.children.values().map(|child| child.pid).collect();
        linux::process::reap_orphans(|pid| supervised.contains(&pid));
    }

    fn on_child(&mut self, row: usize) {
        let Some(child) = self.children.get(&row) else { return };
        let how = match child.try_wait() {
            Ok(None) => return,
            Ok(Some(exit)) => exit.to_string(),
            // It has ended (its descriptor says so) but its status is lost; not to notice would be worse.
            Err(error) => error.to_string(),
        };
        self.children.remove(&row);
        self.on_log(row);
        self.handle(Event::Exited(row, how));
        // Orphans may have stood in the queue behind this child.
        self.reap();
    }

    fn on_log(&mut self, row: usize) {
        let (all, spec) = (self.booted.cmdline.echo_all, &SERVICES[row]);
        // machined speaks for the node; the others have their files.
        let speaker = row == 0;
        let lines = self.logs[row].pump(|line| all || (speaker && logs::is_important(line)));
        for line in lines {
            self.booted.console.echo(spec.name, &line);
        }
    }

    fn on_client(&mut self, id: usize) {
        while let Some(request) = self.control.next_request(id) {
            let reply = self.answer(request);
            self.control.reply(id, &reply);
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        let event = match request {
            Request::ServiceList => return Reply::Services(self.supervisor.list()),
            Request::BootReport => return Reply::Boot(self.booted.stages.clone()),
            Request::Reboot => return self.end(Ending::Reboot),
            Request::Shutdown => return self.end(Ending::PowerOff),
            Request::SetTarget(target) => match &self.booted.data_error {
                Some(why) if target != Target::Maintenance => {
                    return Reply::Refused(format!("only maintenance is possible without the data disk: {why}"));
                }
                _ => {
                    self.booted.console.line(&format!("target is {target:?}"));
                    self.pending = Some(target);
                    return Reply::Done;
                }
            },
            Request::ServiceStart(name) => row_of(&name).map(Event::Start),
            Request::ServiceStop(name) => row_of(&name).map(Event::Stop),
            Request::ServiceRestart(name) => row_of(&name).map(Event::Restart),
        };
        match event {
            Ok(event) => {
                self.handle(event);
                Reply::Done
            }
            Err(why) => Reply::Refused(why),
        }
    }

    fn end(&mut self, ending: Ending) -> Reply {
        if self.ending.is_none() {
            self.booted.console.line(&format!("{ending}: stopping services"));
            self.ending = Some(ending);
            if let Err(error) = std::fs::write(init_api::ENDING, format!("{ending}\n")) {
                self.booted.console.line(&format!("{}: {error}", init_api::ENDING));
            }
            self.handle(Event::StopAll);
        }
        Reply::Done
    }

    /// Gives the supervisor an event and does what it says, including what follows from that.
    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.supervisor.step(event, now_ms()) {
                match action {
                    Action::Spawn(row) => events.push(self.spawn(row)),
                    Action::Terminate(row) => self.signal(row, Signal::SIGTERM),
                    Action::Kill(row) => self.signal(row, Signal::SIGKILL),
                    Action::Say(row, text) => self.booted.console.line(&format!("{} {text}", SERVICES[row].name)),
                }
            }
        }
    }

    fn spawn(&mut self, row: usize) -> Event {
        let spec = &SERVICES[row];
        let output = match self.logs[row].writer() {
            Ok(output) => output,
            Err(e) => return Event::NotStarted { row, why: format!("output pipe: {e}"), permanent: false },
        };
        match spawn::start(spec, &self.booted.cmdline, output) {
            Ok(child) => {
                let pid = child.pid;
                self.booted.console.line(&format!("{} started as process {pid}", spec.name));
                self.children.insert(row, child);
                Event::Started(row, pid)
            }
            Err(failure) => Event::NotStarted { row, permanent: failure.is_permanent(), why: failure.to_string() },
        }
    }

    fn signal(&mut self, row: usize, signal: Signal) {
        let Some(child) = self.children.get(&row) else { return };
        if let Err(e) = child.signal(signal) {
            self.booted.console.line(&format!("{}: {e}", SERVICES[row].name));
        }
    }
}

fn row_of(name: &str) -> Result<usize, String> {
    services::position(SERVICES, name).ok_or_else(|| format!("there is no service {name:?}"))
}
