//! Devices for a pod's resource claims: written before anything else that binds the pod.

use std::collections::HashMap;
use std::sync::Arc;

use client::follow::News;

use super::Scheduler;
use super::feed::Told;
use crate::devices::{Reservation, ResourceClaim};
use crate::framework::Event;
use crate::pod::Pod;
use crate::volumes::Bindings;

/// A pod whose claims are being written.
#[derive(Debug)]
struct Wait {
    pod: Arc<Pod>,
    reservations: Vec<Reservation>,
    /// What comes next.
    bindings: Option<Bindings>,
}

/// All such pods, by uid.
#[derive(Debug, Default)]
pub struct Pending(HashMap<Arc<str>, Wait>);

impl Scheduler {
    pub(super) fn device_told(&mut self, told: Told) {
        let devices = &mut self.cache.devices;
        match told {
            Told::Slice(News::Applied(slice)) => devices.set_slice(&slice.metadata.name.clone(), Some(slice)),
            Told::Slice(News::Gone(id)) => devices.set_slice(&id.name, None),
            Told::DeviceClass(News::Applied(class)) => devices.set_class(&class.metadata.name.clone(), Some(class)),
            Told::DeviceClass(News::Gone(id)) => devices.set_class(&id.name, None),
            Told::ResourceClaim(News::Applied(claim)) => devices.set_claim(claim),
            Told::ResourceClaim(News::Gone(id)) => devices.remove_claim(&id.namespace, &id.name),
            _ => return,
        }
        self.event(Event::Devices);
    }

    pub(super) fn write_claims(&mut self, pod: Arc<Pod>, reservations: Vec<Reservation>, bindings: Option<Bindings>) {
        self.cache.devices.assume(&reservations);
        self.actor.write_claims(&pod, &reservations);
        self.devices.0.insert(Arc::clone(&pod.uid), Wait { pod, reservations, bindings });
    }

    pub(super) fn claims_written(&mut self, uid: &str) {
        if let Some(wait) = self.devices.0.remove(uid) {
            self.bind(wait.pod, wait.bindings);
        }
    }

    /// A claim that was allocated for this pod alone may have been given devices where the pod cannot go any more.
    pub(super) fn give_claims_back(&mut self, pod: &Arc<Pod>) {
        let devices = &self.cache.devices;
        let alone = |claim: &&ResourceClaim| claim.is_allocated() && claim.reserved_for().all(|uid| *uid == *pod.uid);
        let claims: Vec<_> = devices.claims_of(pod).into_iter().filter(alone).map(ResourceClaim::key).collect();
        if !claims.is_empty() {
            self.actor.give_claims_back(pod, claims);
        }
    }

    /// The pod does not get there: its claims may have other devices.
    pub(super) fn forget_claims(&mut self, uid: &str) {
        if let Some(wait) = self.devices.0.remove(uid) {
            self.cache.devices.forget(&wait.reservations);
        }
    }
}
