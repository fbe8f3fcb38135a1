//! Volumes for claims that waited for their pod's node: written first, then waited for, then the pod is bound.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use client::follow::News;

use super::Scheduler;
use super::feed::Told;
use crate::framework::Event;
use crate::node::Offer;
use crate::plugins::split_claims;
use crate::pod::Pod;
use crate::volumes::{Bindings, Volumes};

/// A pod whose volumes are being bound.
#[derive(Debug)]
struct Wait {
    pod: Arc<Pod>,
    bindings: Bindings,
    deadline: Instant,
    written: bool,
}

/// All such pods, by uid.
#[derive(Debug, Default)]
pub struct Pending(HashMap<Arc<str>, Wait>);

impl Pending {
    /// When the first of them has waited too long.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.values().map(|wait| wait.deadline).min()
    }
}

/// What has to be written for a pod on a node; none if its claims are all bound.
pub fn needed(volumes: &Volumes, pod: &Pod, node: &Offer) -> Option<Bindings> {
    if pod.spec.claims.is_empty() {
        return None;
    }
    let (_, delayed) = split_claims(pod, volumes);
    volumes.bindings(&delayed, node).filter(|bindings| *bindings != Bindings::default())
}

impl Scheduler {
    pub(super) fn storage_told(&mut self, told: Told) {
        let volumes = &mut self.cache.volumes;
        match told {
            Told::Claim(News::Applied(claim)) => volumes.set_claim(claim),
            Told::Claim(News::Gone(id)) => volumes.remove_claim(&id.namespace, &id.name),
            Told::Volume(News::Applied(volume)) => volumes.set_volume(volume),
            Told::Volume(News::Gone(id)) => volumes.remove_volume(&id.name),
            Told::Class(News::Applied(class)) => volumes.set_class(&class.metadata.name.clone(), Some(class)),
            Told::Class(News::Gone(id)) => volumes.set_class(&id.name, None),
            Told::CsiNode(News::Applied(node)) => volumes.set_limits(&node.metadata.name, Some(&node)),
            Told::CsiNode(News::Gone(id)) => volumes.set_limits(&id.name, None),
            _ => return,
        }
        self.event(Event::Storage);
        self.look_at_volumes();
    }

    pub(super) fn bind_volumes(&mut self, pod: Arc<Pod>, bindings: Bindings) {
        self.cache.volumes.assume(&bindings);
        self.actor.write_volumes(&pod, &bindings);
        let deadline = Instant::now() + self.bind_timeout(&pod);
        let wait = Wait { pod: Arc::clone(&pod), bindings, deadline, written: false };
        self.storage.0.insert(Arc::clone(&pod.uid), wait);
    }

    pub(super) fn volumes_written(&mut self, uid: &str) {
        if let Some(wait) = self.storage.0.get_mut(uid) {
            wait.written = true;
        }
        self.look_at_volumes();
    }

    /// Binds pods whose volumes are complete and gives up on those whose never will be.
    fn look_at_volumes(&mut self) {
        let mut ends = Vec::new();
        for (uid, wait) in self.storage.0.iter().filter(|(_, wait)| wait.written) {
            let complete = match self.cache.slot(&wait.pod.node) {
                Some(slot) => self.cache.volumes.complete(&wait.bindings, &self.cache.node(slot).offer),
                None => Err(format!("node {:?} not found", wait.pod.node)),
            };
            match complete {
                Ok(false) => {}
                Ok(true) => ends.push((Arc::clone(uid), None)),
                Err(reason) => ends.push((Arc::clone(uid), Some(reason))),
            }
        }
        for (uid, failure) in ends {
            let Some(wait) = self.storage.0.remove(&uid) else { continue };
            match failure {
                None => self.actor.bind(wait.pod),
                Some(reason) => {
                    self.cache.volumes.forget(&wait.bindings);
                    self.not_bound(&wait.pod, format!("binding volumes: {reason}"), false);
                }
            }
        }
    }

    /// Gives up on volumes that were not bound in time.
    pub(super) fn storage_late(&mut self, now: Instant) {
        let late: Vec<Arc<str>> =
            self.storage.0.iter().filter(|(_, wait)| wait.deadline <= now).map(|(uid, _)| Arc::clone(uid)).collect();
        for uid in late {
            if let Some(wait) = self.storage.0.remove(&uid) {
                self.cache.volumes.forget(&wait.bindings);
                self.not_bound(&wait.pod, "binding volumes: timed out waiting for the condition".to_owned(), false);
            }
        }
    }
}
