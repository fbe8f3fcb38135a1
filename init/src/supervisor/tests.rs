//! Histories of a table of three services: `a` always runs, `b` (after a) for workers, `c` (after b) for control planes.

use super::Action::{Kill, Spawn, Terminate};
use super::*;
use crate::services::Privileges;

const fn spec(name: &'static str, target: Target, after: &'static [&'static str]) -> Spec {
    Spec { name, argv: &["/x"], target, after, grace_ms: 5_000, privileges: Privileges::All, oom_score_adj: 0 }
}

const TABLE: &[Spec] =
    &[spec("a", Target::Maintenance, &[]), spec("b", Target::Worker, &["a"]), spec("c", Target::ControlPlane, &["b"])];
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Runs a history: at each time one event, and exactly these actions (without the words) come out.
fn history(steps: &[(u64, Event, &[Action])]) -> Supervisor {
    let mut supervisor = Supervisor::new(TABLE);
    for (number, (now, event, want)) in steps.iter().enumerate() {
        let mut got = supervisor.step(event.clone(), *now);
        got.retain(|action| !matches!(action, Action::Say(..)));
        assert_eq!(&got, want, "step {number}: {event:?} at {now}");
    }
    supervisor
}

fn exited(row: usize) -> Event {
    Event::Exited(row, "exit code 1".to_owned())
}

fn words(supervisor: &Supervisor) -> Vec<&'static str> {
    supervisor.list().iter().map(|service| service.state.word()).collect()
}

#[test]
fn a_target_starts_in_order_and_a_smaller_one_stops_in_reverse() {
    let supervisor = history(&[
        (0, Event::Tick, &[Spawn(A)]),
        (1, Event::Target(Target::ControlPlane), &[]),
        (2, Event::Started(A, 10), &[Spawn(B)]),
        (3, Event::Started(B, 11), &[Spawn(C)]),
        (4, Event::Started(C, 12), &[]),
        (5, Event::Target(Target::Maintenance), &[Terminate(C)]),
        (6, exited(C), &[Terminate(B)]),
        (7, exited(B), &[]),
    ]);
    assert_eq!(words(&supervisor), ["Running", "Waiting", "Waiting"]);
    assert_eq!(supervisor.deadline(), None);
}

#[test]
fn failures_back_off_and_health_forgives() {
    let supervisor = history(&[
        (0, Event::Tick, &[Spawn(A)]),
        (0, Event::Started(A, 1), &[]),
        (10, exited(A), &[]),
        (1_009, Event::Tick, &[]),
        (1_010, Event::Tick, &[Spawn(A)]),
        (1_010, Event::Started(A, 2), &[]),
        (1_020, exited(A), &[]),
        (3_019, Event::Tick, &[]),
        (3_020, Event::Tick, &[Spawn(A)]),
        (3_020, Event::Started(A, 3), &[]),
        (3_020 + HEALTHY_AFTER_MS, exited(A), &[]),
        (4_020 + HEALTHY_AFTER_MS, Event::Tick, &[Spawn(A)]),
    ]);
    assert_eq!(supervisor.list()[A].restarts, 3);
}

#[test]
fn the_longest_back_off_is_bounded() {
    let mut supervisor = history(&[(0, Event::Tick, &[Spawn(A)])]);
    let mut now = 0;
    for _ in 0..20 {
        let failed = Event::NotStarted { row: A, why: "no memory".into(), permanent: false };
        supervisor.step(failed, now);
        let at = supervisor.deadline().unwrap();
        assert!(at - now <= LONGEST_BACKOFF_MS);
        now = at;
        assert_eq!(supervisor.step(Event::Tick, now), [Spawn(A)]);
    }
}

#[test]
fn a_stop_holds_and_a_deaf_service_is_killed() {
    let supervisor = history(&[
        (0, Event::Tick, &[Spawn(A)]),
        (0, Event::Started(A, 1), &[]),
        (100, Event::Stop(A), &[Terminate(A)]),
        (5_099, Event::Tick, &[]),
        (5_100, Event::Tick, &[Kill(A)]),
        (5_101, Event::Tick, &[]),
        (5_200, exited(A), &[]),
        (90_000, Event::Tick, &[]),
    ]);
    assert_eq!(words(&supervisor)[A], "Stopped");
    let mut supervisor = supervisor;
    assert_eq!(supervisor.step(Event::Start(A), 90_001), [Spawn(A)]);
}

#[test]
fn an_administrator_may_stop_what_others_need() {
    let supervisor = history(&[
        (0, Event::Target(Target::Worker), &[Spawn(A)]),
        (1, Event::Started(A, 1), &[Spawn(B)]),
        (2, Event::Started(B, 2), &[]),
        (3, Event::Restart(A), &[Terminate(A)]),
        (4, exited(A), &[Spawn(A)]),
        (5, Event::Started(A, 3), &[]),
    ]);
    assert_eq!(words(&supervisor), ["Running", "Running", "Waiting"]);
    assert_eq!(supervisor.list()[A].restarts, 0, "a restart on request is not a failure");
}

#[test]
fn a_stop_during_the_start_is_not_lost() {
    history(&[
        (0, Event::Tick, &[Spawn(A)]),
        (1, Event::Stop(A), &[]),
        (2, Event::Started(A, 1), &[Terminate(A)]),
        (3, exited(A), &[]),
    ]);
}

#[test]
fn a_missing_program_fails_until_somebody_asks() {
    let missing = Event::NotStarted { row: A, why: "no such file".into(), permanent: true };
    let supervisor = history(&[
        (0, Event::Tick, &[Spawn(A)]),
        (1, missing, &[]),
        (99_000, Event::Tick, &[]),
        (99_001, Event::Start(A), &[Spawn(A)]),
    ]);
    assert_eq!(words(&supervisor)[A], "Starting");
}

#[test]
fn the_end_of_everything_goes_in_reverse_and_stays() {
    let mut supervisor = history(&[
        (0, Event::Target(Target::Worker), &[Spawn(A)]),
        (1, Event::Started(A, 1), &[Spawn(B)]),
        (2, Event::Started(B, 2), &[]),
        (3, Event::StopAll, &[Terminate(B)]),
        (4, Event::Target(Target::ControlPlane), &[]),
        (5, exited(B), &[Terminate(A)]),
    ]);
    assert!(!supervisor.is_quiet());
    supervisor.step(exited(A), 6);
    assert!(supervisor.is_quiet());
    assert_eq!(supervisor.step(Event::Start(A), 7), []);
}

#[test]
fn a_need_that_went_away_is_waited_for() {
    history(&[
        (0, Event::Target(Target::Worker), &[Spawn(A)]),
        (1, Event::Started(A, 1), &[Spawn(B)]),
        (2, Event::Started(B, 2), &[]),
        (10, exited(B), &[]),
        (11, Event::Stop(A), &[Terminate(A)]),
        (12, exited(A), &[]),
        (1_010, Event::Tick, &[]),
        (2_000, Event::Start(A), &[Spawn(A)]),
        (2_001, Event::Started(A, 3), &[Spawn(B)]),
    ]);
}
