//! The supervisor as a pure state machine: events and a time go in, actions come out. No clock, no process, no file.
//!
//! Every transition is in [`Supervisor::step`] and [`Supervisor::settle`]: the first records what happened, the second
//! compares what is with what should be and orders the difference.

use crate::services::{Spec, position};
use init_api::{Service, State as Public, Target};

/// Back-off after a first failure; it doubles up to [`LONGEST_BACKOFF_MS`].
pub const FIRST_BACKOFF_MS: u64 = 1_000;
/// The longest wait between two starts.
pub const LONGEST_BACKOFF_MS: u64 = 30_000;
/// A service that ran this long is healthy: its next failure starts again with the shortest back-off.
pub const HEALTHY_AFTER_MS: u64 = 60_000;

/// What happened. Services are meant by their row in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node is to be this.
    Target(Target),
    /// An administrator's request.
    Start(usize),
    /// An administrator's request.
    Stop(usize),
    /// An administrator's request.
    Restart(usize),
    /// A spawn that was ordered gave this process.
    Started(usize, i32),
    /// A spawn that was ordered failed; `permanent` when trying again cannot help.
    NotStarted { row: usize, why: String, permanent: bool },
    /// A process ended, in words.
    Exited(usize, String),
    /// A deadline passed.
    Tick,
    /// Everything is to stop.
    StopAll,
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start it and answer with `Started` or `NotStarted`.
    Spawn(usize),
    /// Send SIGTERM.
    Terminate(usize),
    /// Send SIGKILL.
    Kill(usize),
    /// Tell the administrator.
    Say(usize, String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Waiting,
    Starting,
    Running {
        pid: i32,
        since: u64,
    },
    /// `kill_at` is `None` once SIGKILL is sent.
    Stopping {
        pid: i32,
        kill_at: Option<u64>,
    },
    Backoff {
        until: u64,
    },
    Failed(String),
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Stopped by an administrator.
    held: bool,
    restarts: u32,
    last_exit: String,
    delay: u64,
}

/// All services and what should be.
#[derive(Debug)]
pub struct Supervisor {
    specs: &'static [Spec],
    entries: Vec<Entry>,
    target: Target,
    stop_all: bool,
}

impl Supervisor {
    /// Nothing runs; the target is Maintenance.
    pub fn new(specs: &'static [Spec]) -> Supervisor {
        let entry = |_| Entry {
            state: State::Waiting,
            held: false,
            restarts: 0,
            last_exit: String::new(),
            delay: FIRST_BACKOFF_MS,
        };
        Supervisor { specs, entries: specs.iter().map(entry).collect(), target: Target::Maintenance, stop_all: false }
    }

    /// Records an event and says what to do now.
    pub fn step(&mut self, event: Event, now: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Target(target) => self.target = target,
            Event::StopAll => self.stop_all = true,
            Event::Tick => {}
            Event::Start(row) => self.release(row),
            Event::Stop(row) => {
                self.entries[row].held = true;
                self.stop(row, now, &mut actions);
            }
            Event::Restart(row) => {
                self.release(row);
                self.stop(row, now, &mut actions);
            }
            Event::Started(row, pid) => self.started(row, pid, now, &mut actions),
            Event::NotStarted { row, why, permanent } => self.not_started(row, why, permanent, now, &mut actions),
            Event::Exited(row, how) => self.exited(row, how, now, &mut actions),
        }
        self.settle(now, &mut actions);
        actions
    }

    /// When the next deadline passes.
    pub fn deadline(&self) -> Option<u64> {
        let of = |entry: &Entry| match entry.state {
            State::Backoff { until } => Some(until),
            State::Stopping { kill_at, .. } => kill_at,
            _ => None,
        };
        self.entries.iter().filter_map(of).min()
    }

    /// True when no service has a process.
    pub fn is_quiet(&self) -> bool {
        !self.entries.iter().any(|entry| entry.state.is_live())
    }

    /// The list an administrator sees.
    pub fn list(&self) -> Vec<Service> {
        let public = |(spec, entry): (&Spec, &Entry)| Service {
            name: spec.name.to_owned(),
            state: match &entry.state {
                State::Waiting if entry.held => Public::Stopped,
                State::Waiting => Public::Waiting,
                State::Starting => Public::Starting,
                State::Running { pid, since } => Public::Running { pid: pid.cast_unsigned(), since_ms: *since },
                State::Stopping { pid, .. } => Public::Stopping { pid: pid.cast_unsigned() },
                State::Backoff { until } => Public::Backoff { until_ms: *until },
                State::Failed(why) => Public::Failed(why.clone()),
            },
            restarts: entry.restarts,
            last_exit: entry.last_exit.clone(),
        };
        self.specs.iter().zip(&self.entries).map(public).collect()
    }

    /// Brings every service nearer to what should be.
    fn settle(&mut self, now: u64, actions: &mut Vec<Action>) {
        for row in 0..self.entries.len() {
            let wanted = self.wanted(row);
            match self.entries[row].state {
                State::Waiting if wanted && self.ready(row) => self.spawn(row, actions),
                State::Backoff { until } if wanted && until <= now => {
                    self.entries[row].restarts += 1;
                    // When what it needs has gone meanwhile it waits for that instead.
                    self.entries[row].state = State::Waiting;
                    if self.ready(row) {
                        self.spawn(row, actions);
                    }
                }
                State::Backoff { .. } if !wanted => self.entries[row].state = State::Waiting,
                State::Running { .. } if !wanted && !self.has_live_dependents(row) => self.stop(row, now, actions),
                State::Stopping { pid, kill_at: Some(at) } if at <= now => {
                    self.entries[row].state = State::Stopping { pid, kill_at: None };
                    actions.push(Action::Say(row, "does not end by itself: killed".to_owned()));
                    actions.push(Action::Kill(row));
                }
                _ => {}
            }
        }
    }

    fn wanted(&self, row: usize) -> bool {
        !self.stop_all && !self.entries[row].held && self.specs[row].target <= self.target
    }

    fn ready(&self, row: usize) -> bool {
        self.specs[row]
            .after
            .iter()
            .filter_map(|name| position(self.specs, name))
            .all(|other| matches!(self.entries[other].state, State::Running { .. }))
    }

    /// A service that ends because of the target or the end of everything ends after those that need it.
    fn has_live_dependents(&self, row: usize) -> bool {
        let name = self.specs[row].name;
        self.specs.iter().zip(&self.entries).any(|(spec, entry)| spec.after.contains(&name) && entry.state.is_live())
    }

    fn spawn(&mut self, row: usize, actions: &mut Vec<Action>) {
        self.entries[row].state = State::Starting;
        actions.push(Action::Spawn(row));
    }

    /// Forgets whatever kept a service from running.
    fn release(&mut self, row: usize) {
        let entry = &mut self.entries[row];
        entry.held = false;
        entry.delay = FIRST_BACKOFF_MS;
        if matches!(entry.state, State::Failed(_) | State::Backoff { .. }) {
            entry.state = State::Waiting;
        }
    }

    fn stop(&mut self, row: usize, now: u64, actions: &mut Vec<Action>) {
        let kill_at = Some(now + self.specs[row].grace_ms);
        let entry = &mut self.entries[row];
        match entry.state {
            State::Running { pid, .. } => {
                entry.state = State::Stopping { pid, kill_at };
                actions.push(Action::Terminate(row));
            }
            State::Backoff { .. } | State::Failed(_) => entry.state = State::Waiting,
            State::Waiting | State::Starting | State::Stopping { .. } => {}
        }
    }

    fn started(&mut self, row: usize, pid: i32, now: u64, actions: &mut Vec<Action>) {
        self.entries[row].state = State::Running { pid, since: now };
        // A stop that came while it was being started; `settle` looks after targets.
        if self.entries[row].held {
            self.stop(row, now, actions);
        }
    }

    fn not_started(&mut self, row: usize, why: String, permanent: bool, now: u64, actions: &mut Vec<Action>) {
        let entry = &mut self.entries[row];
        entry.last_exit.clone_from(&why);
        if permanent {
            actions.push(Action::Say(row, format!("cannot be started: {why}")));
            entry.state = State::Failed(why);
        } else {
            self.back_off(row, &why, now, actions);
        }
    }

    fn exited(&mut self, row: usize, how: String, now: u64, actions: &mut Vec<Action>) {
        self.entries[row].last_exit.clone_from(&how);
        match self.entries[row].state {
            State::Stopping { .. } => {
                self.entries[row].state = State::Waiting;
                actions.push(Action::Say(row, format!("stopped ({how})")));
            }
            State::Running { since, .. } => {
                if now.saturating_sub(since) >= HEALTHY_AFTER_MS {
                    self.entries[row].delay = FIRST_BACKOFF_MS;
                }
                self.back_off(row, &how, now, actions);
            }
            State::Waiting | State::Starting | State::Backoff { .. } | State::Failed(_) => {}
        }
    }

    fn back_off(&mut self, row: usize, how: &str, now: u64, actions: &mut Vec<Action>) {
        let wanted = self.wanted(row);
        let entry = &mut self.entries[row];
        if !wanted {
            entry.state = State::Waiting;
            actions.push(Action::Say(row, format!("ended ({how})")));
            return;
        }
        let delay = entry.delay;
        entry.state = State::Backoff { until: now + delay };
        entry.delay = (delay * 2).min(LONGEST_BACKOFF_MS);
        actions.push(Action::Say(row, format!("ended ({how}); starts again in {} s", delay / 1000)));
    }
}

impl State {
    fn is_live(&self) -> bool {
        matches!(self, State::Starting | State::Running { .. } | State::Stopping { .. })
    }
}

#[cfg(test)]
mod tests;
