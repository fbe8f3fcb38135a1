//! Random orders of events on the real state machine, the real plan and the real status, with a runtime that is only a list.
//! Whatever happens: never two containers of one name at a time, nothing starts after the pod was told to end, what was told
//! to end ends, and a published end is final.

use std::collections::HashMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::machine::{Action, Event, Machine, Stage};
use crate::observed::{Instance, Observed, Sandbox, State};
use crate::pod::Pod;
use crate::status::compute::{self, Failure, Input};
use crate::sync::plan::{FailedProbe, Health, plan};
use crate::sync::resize::Resize;

const RUNS: u64 = 400;
const STEPS: usize = 120;

struct World {
    random: SmallRng,
    pod: Pod,
    machine: Machine,
    due: Option<Action>,
    observed: Observed,
    health: Health,
    failure: Option<Failure>,
    ending: bool,
    ids: u32,
    clock: i64,
}

fn spec(random: &mut SmallRng) -> Value {
    let policy = ["Always", "OnFailure", "Never"][random.random_range(0..3)];
    let own = [json!({}), json!({"restartPolicy": "Never"}), json!({"restartPolicy": "OnFailure"})];
    let mut main = vec![json!({"name": "a"}), json!({"name": "b"})];
    for container in &mut main {
        if let Some(policy) = own[random.random_range(0..3)].get("restartPolicy") {
            container["restartPolicy"] = policy.clone();
        }
    }
    let mut spec = json!({"restartPolicy": policy, "containers": main});
    if random.random_bool(0.5) {
        spec["initContainers"] = json!([{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}]);
    }
    if random.random_bool(0.3) {
        spec["ephemeralContainers"] = json!([{"name": "e"}]);
    }
    spec
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let object = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec(&mut random)});
        let mut world = World {
            random,
            pod: Pod::from_value(&object).unwrap(),
            machine: Machine::default(),
            due: None,
            observed: Observed::default(),
            health: Health::default(),
            failure: None,
            ending: false,
            ids: 0,
            clock: 1_000_000_000,
        };
        world.event(Event::Desired(None));
        world
    }

    fn event(&mut self, event: Event) {
        self.ending |= !matches!(event, Event::Desired(None) | Event::Woken | Event::Done);
        if let Some(action) = self.machine.step(event) {
            self.due = Some(action);
        } else if event == Event::Done {
            self.machine.settle();
        }
    }

    fn running(&self) -> usize {
        self.observed.containers.iter().filter(|c| c.state == State::Running).count()
    }

    /// Something happens that nobody decided.
    fn surprise(&mut self) {
        match self.random.random_range(0..12) {
            0..=3 => self.exit_one(),
            4 => {
                for sandbox in &mut self.observed.sandboxes {
                    sandbox.ready = false;
                }
                self.exit_all(137);
            }
            5 => self.probe_fails(),
            6 => self.become_healthy(),
            7 if self.random.random_bool(0.2) => self.event(Event::Desired(Some(30))),
            8 if self.random.random_bool(0.1) => self.event(Event::Vanished(1)),
            9 if self.random.random_bool(0.1) => {
                self.failure = Some(Failure { reason: "Evicted".into(), message: String::new(), disruption: true });
                self.event(Event::Over(1));
            }
            // Records are lost, as when someone cleans up by hand.
            10 if self.random.random_bool(0.1) => self.observed.containers.retain(|c| c.state == State::Running),
            _ => self.event(Event::Woken),
        }
    }

    fn exit_one(&mut self) {
        let code = [0, 1, 42][self.random.random_range(0..3)];
        let running: Vec<usize> = (0..self.observed.containers.len())
            .filter(|i| self.observed.containers[*i].state == State::Running)
            .collect();
        if !running.is_empty() {
            let index = running[self.random.random_range(0..running.len())];
            self.exit(index, code);
        }
    }

    fn exit(&mut self, index: usize, code: i32) {
        self.clock += 1_000_000_000;
        let container = &mut self.observed.containers[index];
        if container.state == State::Running {
            (container.state, container.exit_code, container.finished_at) = (State::Exited, code, self.clock);
        }
    }

    fn exit_all(&mut self, code: i32) {
        for index in 0..self.observed.containers.len() {
            self.exit(index, code);
        }
    }

    fn probe_fails(&mut self) {
        if let Some(running) = self.observed.containers.iter().find(|c| c.state == State::Running) {
            self.health.failed.insert(running.id.clone(), FailedProbe::Liveness);
        }
    }

    fn become_healthy(&mut self) {
        for container in self.observed.containers.iter().filter(|c| c.state == State::Running) {
            self.health.started.insert(container.id.clone());
            self.health.ready.insert(container.id.clone());
        }
    }

    fn perform(&mut self) {
        let Some(action) = self.due.take() else { return };
        if self.random.random_bool(0.15) {
            self.due = Some(action);
            return;
        }
        match action {
            Action::Sync => self.sync(),
            Action::Stop(_) => {
                self.exit_all(137);
                for sandbox in &mut self.observed.sandboxes {
                    sandbox.ready = false;
                }
                self.event(Event::Done);
            }
            Action::Release => {
                assert_eq!(self.running(), 0, "volumes are taken from running containers");
                self.publish(true);
                self.event(Event::Done);
            }
            Action::Remove => {
                self.observed = Observed::default();
                self.event(Event::Done);
            }
            Action::Report | Action::Exit => {}
        }
    }

    fn sync(&mut self) {
        assert!(!self.ending, "a pod that is to end is not brought further");
        let over = self.publish(false);
        if over {
            return self.event(Event::Over(30));
        }
        let plan = plan(&self.pod, &self.observed, &self.health);
        for kill in &plan.kill {
            let index = self.observed.containers.iter().position(|c| c.id == kill.id).unwrap();
            self.exit(index, 137);
        }
        self.observed.containers.retain(|c| !plan.remove.contains(&c.id));
        self.observed.sandboxes.retain(|s| !plan.remove_sandboxes.contains(&s.id));
        if let Some(attempt) = plan.new_sandbox {
            assert!(self.observed.sandboxes.iter().all(|s| s.attempt < attempt), "attempts only grow");
            assert_eq!(self.running(), 0, "a new sandbox beside running containers");
            self.clock += 1;
            let (id, ips) = (format!("s{attempt}"), vec!["10.0.0.1".into()]);
            self.observed.sandboxes.push(Sandbox { id, attempt, ready: true, ips, created_at: self.clock });
        }
        self.observed.sort();
        for start in plan.start {
            // Something may go wrong before any of them.
            if self.random.random_bool(0.1) {
                break;
            }
            self.start(&start.name, start.attempt);
        }
        self.observed.sort();
        if self.publish(false) {
            self.event(Event::Over(30));
        }
    }

    fn start(&mut self, name: &str, attempt: u32) {
        let twin = self.observed.containers.iter().any(|c| c.name == name && c.state == State::Running);
        assert!(!twin, "two containers {name} at a time");
        let before = self.observed.containers.iter().filter(|c| c.name == name).map(|c| c.restart_count).max();
        assert!(before.is_none_or(|count| count < attempt), "restarts of {name} are counted");
        let sandbox = self.observed.ready_sandbox().expect("containers start in a sandbox");
        (self.ids, self.clock) = (self.ids + 1, self.clock + 1_000_000_000);
        self.observed.containers.push(Instance {
            id: format!("c{}", self.ids),
            name: name.into(),
            sandbox_id: sandbox.id.clone(),
            restart_count: attempt,
            state: State::Running,
            created_at: self.clock,
            started_at: self.clock,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            hash: String::new(),
            message_file: None,
            message_from_logs: false,
            log_path: String::new(),
            stop_signal: None,
            resources: None,
        });
    }

    fn publish(&mut self, terminal: bool) -> bool {
        let (waiting, messages, resize) = (HashMap::new(), HashMap::new(), Resize::default());
        let input = Input {
            pod: &self.pod,
            observed: &self.observed,
            health: &self.health,
            waiting: &waiting,
            messages: &messages,
            terminal,
            failure: self.failure.as_ref().filter(|_| terminal),
            host_ips: &[],
            resize: &resize,
            now: "2026-01-01T00:00:00Z",
        };
        let mut status = compute::status(&input);
        let over = compute::is_over(&status);
        compute::hold_end(&mut status, &input);
        let (old, new) = (self.pod.phase().to_owned(), status["phase"].as_str().unwrap().to_owned());
        if matches!(old.as_str(), "Succeeded" | "Failed") {
            assert_eq!(old, new, "an end is final");
        } else if compute::is_over(&status) {
            assert_eq!(self.running(), 0, "an end is published while something runs");
        }
        self.pod.status = status;
        over
    }
}

#[test]
fn invariants_hold_in_any_order_of_events() {
    let mut ended = 0;
    for seed in 0..RUNS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            if world.random.random_bool(0.5) {
                world.perform();
            } else {
                world.surprise();
            }
        }
        // Told to end and given time, it ends, whatever came before.
        world.event(Event::Desired(Some(30)));
        for _ in 0..100 {
            world.perform();
        }
        assert_eq!(world.running(), 0, "seed {seed}: a deleted pod still runs");
        assert!(
            matches!(world.machine.stage, Stage::Reporting | Stage::Gone),
            "seed {seed}: {:?}",
            world.machine.stage
        );
        ended += usize::from(matches!(world.pod.phase(), "Succeeded" | "Failed"));
    }
    assert!(ended > 50, "the model hardly ever ends a pod: {ended}");
}
