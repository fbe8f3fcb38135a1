//! Ends containers and pods, and removes what is left of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use linux::process::PidFd;

use super::PodSync;
use super::start::anything_left;
use crate::actions;
use crate::observed::{Instance, State};
use crate::pod::{Container, Pod};
use crate::shared::Shared;
use crate::signal;
use crate::volumes;

/// A container gets at least this much after its hook took the rest.
const MINIMUM_GRACE: i64 = 2;

impl PodSync {
    /// Runs the hook and ends one container.
    pub(super) async fn stop_container(
        &mut self,
        pod: &Arc<Pod>,
        id: &str,
        name: &str,
        grace: i64,
        message: &str,
    ) -> Result<(), String> {
        let hook_due = self.pre_stopped.insert(id.to_owned());
        if hook_due {
            self.shared.container_event(pod, name, false, "Killing", message);
        }
        let ips = self.sandbox_ips(pod).await;
        Ender { shared: Arc::clone(&self.shared), pod: Arc::clone(pod), ips }.end(id, name, grace, hook_due).await
    }

    async fn sandbox_ips(&self, pod: &Pod) -> Vec<String> {
        let observed = self.shared.cri.observe(&pod.metadata.uid).await.unwrap_or_default();
        observed.sandboxes.first().map(|s| s.ips.clone()).unwrap_or_default()
    }

    /// Ends everything of a pod within `grace` seconds: the containers side by side, then the sidecars from the last to
    /// the first, then the sandbox with its network.
    pub async fn stop(&mut self, pod: &Arc<Pod>, grace: i64) -> Result<(), String> {
        self.probes.end();
        self.waiting.clear();
        let observed = self.shared.cri.observe(&pod.metadata.uid).await?;
        self.publish(pod, &observed, false);
        let ips = observed.sandboxes.first().map(|s| s.ips.clone()).unwrap_or_default();
        let running = observed.containers.iter().filter(|c| matches!(c.state, State::Running | State::Unknown));
        let position = |c: &Instance| pod.spec.init_containers.iter().position(|i| i.name == c.name && i.is_sidecar());
        let (mut sidecars, mains): (Vec<&Instance>, Vec<&Instance>) = running.partition(|c| position(c).is_some());
        sidecars.sort_by_key(|c| std::cmp::Reverse(position(c)));
        let clock = Instant::now();
        let mut due = Vec::new();
        for instance in mains {
            let hook_due = self.pre_stopped.insert(instance.id.clone());
            if hook_due {
                let text = format!("Stopping container {}", instance.name);
                self.shared.container_event(pod, &instance.name, false, "Killing", text);
            }
            due.push((instance, hook_due));
        }
        let ender = Ender { shared: Arc::clone(&self.shared), pod: Arc::clone(pod), ips };
        let work = join_all(due.iter().map(|(c, hook)| ender.end(&c.id, &c.name, grace, *hook)));
        self.tell_meanwhile(pod, work).await?.into_iter().collect::<Result<Vec<()>, String>>()?;
        for sidecar in sidecars {
            let used = i64::try_from(clock.elapsed().as_secs()).unwrap_or(0);
            let left = (grace - used).max(MINIMUM_GRACE.min(grace));
            self.stop_container(pod, &sidecar.id, &sidecar.name, left, &format!("Stopping container {}", sidecar.name))
                .await?;
        }
        for sandbox in &observed.sandboxes {
            self.shared.cri.stop_sandbox(&sandbox.id).await?;
        }
        let after = self.shared.cri.observe(&pod.metadata.uid).await?;
        if anything_left(&after) {
            return Err("containers are still running".into());
        }
        self.probes.stop_all();
        self.read_messages(&after);
        // Before the pod is said to have ended: then its claims may go to another node.
        self.shared.claims.release(&pod.metadata.uid).await
    }

    /// Publishes what the readiness probes say while `work` goes on: traffic is to leave a pod before its end does.
    async fn tell_meanwhile<T>(&mut self, pod: &Pod, work: impl Future<Output = T>) -> Result<T, String> {
        let news = self.probes.news();
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                () = news.notified() => {
                    let observed = self.shared.cri.observe(&pod.metadata.uid).await?;
                    self.publish(pod, &observed, false);
                }
            }
        }
    }

    /// Gives back what a pod no longer needs once nothing of it runs; its records and logs stay.
    pub async fn release(&mut self, pod: &Arc<Pod>) -> Result<(), String> {
        let observed = self.shared.cri.observe(&pod.metadata.uid).await?;
        self.read_messages(&observed);
        self.publish(pod, &observed, true);
        let uid = &pod.metadata.uid;
        self.shared.objects.refer(uid, &std::collections::BTreeSet::new());
        self.shared.tokens.forget(uid);
        self.shared.trust_bundles.forget(uid);
        self.shared.allocation.forget(uid);
        self.shared.admitted.forget(uid);
        self.shared.csi.release(uid).await.map_err(|e| format!("volumes not removed: {e}"))?;
        volumes::teardown(&self.shared.root, uid).map_err(|e| format!("volumes not removed: {e}"))?;
        self.mounted = None;
        if let Some(cgroups) = &self.shared.cgroups {
            cgroups.remove(uid).map_err(|e| format!("cgroup not removed: {e}"))?;
        }
        Ok(())
    }

    /// Removes records and logs.
    pub async fn remove(&mut self, pod: &Arc<Pod>) -> Result<(), String> {
        let observed = self.shared.cri.observe(&pod.metadata.uid).await?;
        for container in &observed.containers {
            self.shared.cri.remove(&container.id).await?;
        }
        for sandbox in &observed.sandboxes {
            self.shared.cri.stop_sandbox(&sandbox.id).await?;
            self.shared.cri.remove_sandbox(&sandbox.id).await?;
        }
        let logs = pod.log_directory();
        match std::fs::remove_dir_all(&logs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("{logs}: {error}")),
            _ => Ok(()),
        }
    }

    /// Has the API server remove the object once it has the final status.
    pub fn report(&self, pod: &Pod) {
        let status = self.published.clone().unwrap_or_default();
        self.shared.publisher.finish(pod, status);
    }
}

/// Ends the containers of a pod.
struct Ender {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    ips: Vec<String>,
}

impl Ender {
    /// Runs the hook, if it is due, and ends one container.
    async fn end(&self, id: &str, name: &str, grace: i64, hook_due: bool) -> Result<(), String> {
        let (pod, clock) = (&self.pod, Instant::now());
        let hook = pod.container(name).and_then(|c| c.lifecycle.as_ref()?.pre_stop.as_ref().map(|h| (c, h)));
        if let Some((container, hook)) = hook.filter(|_| hook_due && grace > 0) {
            let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            let target = self.shared.target(pod, id, &self.ips);
            match actions::hook(&self.shared.cri, container, hook, &target, limit).await {
                Ok(None) => {}
                Ok(Some(unencrypted)) => self.shared.event(pod, true, "LifecycleHTTPFallback", unencrypted),
                Err(error) => {
                    tracing::info!(pod = %pod.full_name(), container = name, %error, "hook before the end failed");
                    self.shared.container_event(pod, name, true, "FailedPreStopHook", "PreStopHook failed");
                }
            }
        }
        let used = i64::try_from(clock.elapsed().as_secs()).unwrap_or(0);
        let left = if hook_due { (grace - used).max(MINIMUM_GRACE.min(grace)) } else { grace };
        let wanted = pod.container(name).and_then(Container::stop_signal).filter(|_| left > 0);
        match wanted {
            Some(signal) => self.end_by(id, signal, left).await,
            None => self.shared.cri.stop(id, left).await,
        }
    }

    /// Ends a container by its own signal. A runtime that says that it knows the signal sends it (containerd from 2.2); an
    /// older one would send the image's, so the kubelet sends this one itself and leaves only the killing to the runtime.
    async fn end_by(&self, id: &str, signal: &str, grace: i64) -> Result<(), String> {
        let cri = &self.shared.cri;
        let Some((pid, known)) = cri.process(id).await? else { return cri.stop(id, grace).await };
        let number = signal::of_kernel(signal).filter(|_| known.as_deref() != Some(signal));
        let (Some(number), Ok(process)) = (number, PidFd::open(pid)) else { return cri.stop(id, grace).await };
        // The number may have gone to another process before the descriptor was opened, but not after.
        if cri.process(id).await?.is_some_and(|(now, _)| now == pid) {
            process.signal_number(number).map_err(|e| e.to_string())?;
            let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            // The process has ended, or its time has.
            let _ = tokio::time::timeout(limit, daemon::process::ended(&process)).await;
        }
        cri.stop(id, 0).await
    }
}
