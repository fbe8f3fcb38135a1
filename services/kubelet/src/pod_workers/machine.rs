//! The life of one pod on the node as a state machine. Pure.
//!
//! ```text
//! Running ──deleted, vanished, over──▶ Stopping ──stopped──▶ Releasing ──released──▶ Ended (completed, object stays)
//!                                                                │                     │ deleted or vanished
//!                                                                └─deleted/vanished──▶ Removing ──removed──▶ Reporting ──vanished──▶ Gone
//! ```

/// Where a pod is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// It should run.
    #[default]
    Running,
    /// Its containers are being ended within this many seconds.
    Stopping(i64),
    /// Volumes and cgroup are being given back.
    Releasing,
    /// It has completed; records and logs stay while the object exists.
    Ended,
    /// Records and logs are being removed.
    Removing,
    /// The API server has been asked to remove the object.
    Reporting,
    /// Nothing is left.
    Gone,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The object is new or changed; with the grace period if it is being deleted.
    Desired(Option<i64>),
    /// The object no longer exists; its containers get this many seconds.
    Vanished(i64),
    /// The pod has ended for good; what still runs beside it gets this many seconds.
    Over(i64),
    /// Something about its containers or objects changed.
    Woken,
    /// The work of the stage is done.
    Done,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring it to what it should be.
    Sync,
    /// End its containers; replaces any work under way.
    Stop(i64),
    /// Give back volumes and cgroup.
    Release,
    /// Remove records and logs.
    Remove,
    /// Publish the last status and have the object removed.
    Report,
    /// Forget it.
    Exit,
}

/// One pod's machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The stage.
    pub stage: Stage,
    deleted: bool,
    vanished: bool,
}

impl Machine {
    /// Takes an event; says what to do now, if anything.
    pub fn step(&mut self, event: Event) -> Option<Action> {
        match event {
            Event::Desired(Some(_)) => self.deleted = true,
            Event::Vanished(_) => self.vanished = true,
            _ => {}
        }
        let (stage, action) = self.next(event)?;
        self.stage = stage;
        Some(action)
    }

    fn next(&self, event: Event) -> Option<(Stage, Action)> {
        match (self.stage, event) {
            (Stage::Running, Event::Desired(None) | Event::Woken) => Some((Stage::Running, Action::Sync)),
            (Stage::Running, Event::Desired(Some(grace)) | Event::Vanished(grace)) => {
                Some((Stage::Stopping(grace), Action::Stop(grace)))
            }
            (Stage::Running, Event::Over(grace)) => Some((Stage::Stopping(grace), Action::Stop(grace))),
            // A second request counts only if it is more urgent.
            (Stage::Stopping(now), Event::Desired(Some(grace)) | Event::Vanished(grace)) if grace < now => {
                Some((Stage::Stopping(grace), Action::Stop(grace)))
            }
            (Stage::Stopping(_), Event::Done) => Some((Stage::Releasing, Action::Release)),
            (Stage::Releasing, Event::Done) if self.deleted || self.vanished => Some((Stage::Removing, Action::Remove)),
            (Stage::Ended, Event::Desired(Some(_)) | Event::Vanished(_)) => Some((Stage::Removing, Action::Remove)),
            (Stage::Removing, Event::Done) if self.vanished => Some((Stage::Gone, Action::Exit)),
            (Stage::Removing, Event::Done) => Some((Stage::Reporting, Action::Report)),
            (Stage::Reporting, Event::Vanished(_)) => Some((Stage::Gone, Action::Exit)),
            _ => None,
        }
    }

    /// As [`Machine::step`] for the one transition without an action.
    pub fn settle(&mut self) {
        if self.stage == Stage::Releasing && !self.deleted && !self.vanished {
            self.stage = Stage::Ended;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &[Event]) -> (Machine, Vec<Option<Action>>) {
        let mut machine = Machine::default();
        let actions = events
            .iter()
            .map(|event| {
                let action = machine.step(*event);
                if action.is_none() && *event == Event::Done {
                    machine.settle();
                }
                action
            })
            .collect();
        (machine, actions)
    }

    #[test]
    fn a_deleted_pod_is_stopped_released_removed_and_reported() {
        let (machine, actions) = run(&[
            Event::Desired(None),
            Event::Desired(Some(30)),
            Event::Done,
            Event::Done,
            Event::Done,
            Event::Vanished(0),
        ]);
        use Action::*;
        assert_eq!(actions, [Some(Sync), Some(Stop(30)), Some(Release), Some(Remove), Some(Report), Some(Exit)]);
        assert_eq!(machine.stage, Stage::Gone);
    }

    #[test]
    fn a_more_urgent_deletion_replaces_the_first() {
        let (_, actions) =
            run(&[Event::Desired(Some(30)), Event::Desired(Some(60)), Event::Woken, Event::Desired(Some(0))]);
        assert_eq!(actions, [Some(Action::Stop(30)), None, None, Some(Action::Stop(0))]);
    }

    #[test]
    fn a_completed_pod_keeps_its_records_until_it_is_deleted() {
        let (machine, _) = run(&[Event::Over(30), Event::Done, Event::Done]);
        assert_eq!(machine.stage, Stage::Ended);
        let (machine, actions) =
            run(&[Event::Over(30), Event::Done, Event::Done, Event::Woken, Event::Desired(Some(30))]);
        assert_eq!(actions[3..], [None, Some(Action::Remove)]);
        assert_eq!(machine.stage, Stage::Removing);
    }

    #[test]
    fn a_pod_whose_object_vanished_leaves_without_a_report() {
        let (machine, actions) =
            run(&[Event::Desired(None), Event::Vanished(1), Event::Done, Event::Done, Event::Done]);
        assert_eq!(actions.last(), Some(&Some(Action::Exit)));
        assert_eq!(machine.stage, Stage::Gone);
    }

    #[test]
    fn deletion_while_completing_is_not_forgotten() {
        let (_, actions) = run(&[Event::Over(30), Event::Desired(Some(60)), Event::Done, Event::Done]);
        assert_eq!(actions[2..], [Some(Action::Release), Some(Action::Remove)]);
    }
}
