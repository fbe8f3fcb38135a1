//! News into the picture of the cluster, and from there to pods that they help.

use std::sync::Arc;
use std::time::Instant;

use client::follow::News;

use super::feed::Told;
use super::{Scheduler, workloads};
use crate::framework::Event;
use crate::node::Offer;
use crate::objects::{NodeObject, PodObject};
use crate::pod::Pod;

impl Scheduler {
    /// Takes one piece of news in.
    pub(super) fn told(&mut self, told: Told) {
        match told {
            Told::Pod(news) => self.pod(*news),
            Told::Node(news) => self.node(news),
            Told::Namespace(News::Applied(object)) => {
                let meta = object.metadata;
                self.cache.set_namespace(&meta.name, Some(meta.labels));
            }
            Told::Namespace(News::Gone(id)) => drop(self.cache.set_namespace(&id.name, None)),
            Told::Namespace(News::Synced) => {}
            Told::Service(news) => self.workloads.told(workloads::SERVICE, news),
            Told::ReplicaSet(news) => self.workloads.told(workloads::REPLICASET, news),
            Told::StatefulSet(news) => self.workloads.told(workloads::STATEFULSET, news),
            Told::Controller(news) => self.workloads.told(workloads::CONTROLLER, news),
            Told::Budget(News::Applied(budget)) => self.cache.budgets.set(&budget),
            Told::Budget(News::Gone(id)) => self.cache.budgets.remove(&id.namespace, &id.name),
            Told::Budget(News::Synced) => {}
            device @ (Told::Slice(_) | Told::DeviceClass(_) | Told::ResourceClaim(_)) => self.device_told(device),
            storage => self.storage_told(storage),
        }
    }

    fn node(&mut self, news: News<NodeObject>) {
        match news {
            News::Applied(object) => {
                let new = Arc::new(Offer::read(object));
                let old = self.cache.set_node(Arc::clone(&new));
                // A heartbeat changes nothing that a pod could have waited for.
                if old.as_ref() != Some(&new) {
                    self.event(Event::Node { old, new });
                }
            }
            News::Gone(id) => {
                self.cache.remove_node(&id.name);
                self.event(Event::NodeGone);
            }
            News::Synced => {}
        }
    }

    fn pod(&mut self, news: News<PodObject>) {
        match news {
            News::Applied(object) if matches!(&*object.status.phase, "Succeeded" | "Failed") => {
                self.pod_gone(&object.metadata.uid);
            }
            News::Applied(object) => {
                let pod = Arc::new(Pod::read(object, &mut self.specs));
                if pod.node.is_empty() { self.waiting(pod) } else { self.placed(pod) }
            }
            News::Gone(id) => self.pod_gone(&id.uid),
            News::Synced => {}
        }
    }

    fn placed(&mut self, pod: Arc<Pod>) {
        // Its own binding reports the end itself; anybody else's ends the wait here.
        if !self.cache.is_assumed(&pod.uid) {
            self.queue.remove(&pod.uid);
        }
        let old = self.cache.set_pod(Arc::clone(&pod));
        // The kubelet's status reports concern nobody who waits.
        let changed = old.as_ref().is_some_and(|old| !Arc::ptr_eq(&old.spec, &pod.spec) || old.ending != pod.ending);
        if old.is_none() || changed {
            self.event(Event::Placed { pod, changed });
        }
    }

    fn waiting(&mut self, pod: Arc<Pod>) {
        // News from before its binding: the decision stands.
        if self.cache.is_assumed(&pod.uid) {
            return;
        }
        if pod.ending || !self.profiles.contains_key(&pod.spec.scheduler) {
            self.queue.remove(&pod.uid);
            return self.cache.denominate(&pod.uid);
        }
        // A node that was cleared in here a moment ago is not in old news yet; that it was taken back is.
        let said_nothing = |known: &Arc<Pod>| known.nominated().is_empty();
        if !pod.nominated().is_empty() || !self.queue.get(&pod.uid).is_some_and(said_nothing) {
            self.cache.nominate(&pod, pod.nominated());
        }
        self.queue.set(pod, Instant::now());
    }

    fn pod_gone(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.hush(uid);
        self.cache.denominate(uid);
        if let Some(pod) = self.cache.remove_pod(uid) {
            self.event(Event::Gone(pod));
        }
    }
}
