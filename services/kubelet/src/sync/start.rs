//! Starts sandboxes and containers.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::resource::Resource;
use cri_api::v1;

use super::plan::Start;
use super::{PodSync, container, env, security};
use crate::actions;
use crate::backoff::now;
use crate::images;
use crate::observed::{Observed, State};
use crate::pod::{Container, Pod};
use crate::status::compute::Waiting;
use crate::sync::env::Kind;
use crate::volumes;

/// A hook that never ends must not hold the pod for ever.
const POST_START_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Why a container did not start.
struct NotStarted {
    waiting: Waiting,
    retry_in: Option<i64>,
}

impl NotStarted {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        NotStarted { waiting: Waiting { reason: reason.to_owned(), message: message.into() }, retry_in: None }
    }
}

const RUNTIME_CLASSES: Resource = Resource::new("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", false);

/// The pause before a configuration that could not be used is tried again, unless something wakes the pod before.
const RETRY: i64 = 10_000_000_000;

impl PodSync {
    /// Makes the sandbox: id, configuration and addresses.
    pub(super) async fn make_sandbox(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        attempt: u32,
    ) -> Result<(String, v1::PodSandboxConfig, Vec<String>), String> {
        if !pod.spec.host_network && !*self.shared.network_ready.borrow() {
            return Err(self.failed(
                pod,
                "NetworkNotReady",
                "network is not ready: container runtime network not ready".into(),
            ));
        }
        for old in observed.sandboxes.iter().filter(|s| s.ready || s.attempt + 1 == attempt) {
            self.shared.cri.stop_sandbox(&old.id).await?;
        }
        let refused = |this: &Self, e: String| {
            this.failed(pod, "FailedCreatePodSandBox", format!("Failed to create pod sandbox: {e}"))
        };
        let config = self.sandbox_config(pod, attempt).map_err(|e| refused(self, e))?;
        let handler = self.runtime_handler(pod).await.map_err(|e| refused(self, e))?;
        let made = self.shared.cri.run_sandbox(config.clone(), handler).await;
        let id = made.map_err(|e| refused(self, e))?;
        let fresh = self.shared.cri.observe(&pod.metadata.uid).await?;
        let ips = fresh.sandboxes.iter().find(|s| s.id == id).map(|s| s.ips.clone()).unwrap_or_default();
        // The address is worth knowing before images are there.
        self.publish(pod, &fresh, false);
        Ok((id, config, ips))
    }

    /// The runtime's word for the pod's runtime class.
    async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(class) = pod.spec.runtime_class_name.as_ref().filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let found = self.shared.client.get(RUNTIME_CLASSES, None, class).await;
        let class = found.map_err(|e| format!("failed to get sandbox runtime: {e}"))?;
        Ok(class["handler"].as_str().unwrap_or_default().to_owned())
    }

    /// Starts one container; gives the time until it makes sense to try again if it did not start.
    pub(super) async fn start(
        &mut self,
        pod: &Arc<Pod>,
        start: &Start,
        sandbox: &str,
        config: &v1::PodSandboxConfig,
        ips: &[String],
    ) -> Option<Duration> {
        let container = pod.container(&start.name)?;
        if let Some(left) = self.in_backoff(pod, container, start) {
            return duration(left);
        }
        match self.start_now(pod, container, start, sandbox, config, ips).await {
            Ok(()) => {
                self.waiting.remove(&start.name);
                None
            }
            Err(not) => {
                tracing::info!(pod = %pod.full_name(), container = start.name, reason = not.waiting.reason, message = not.waiting.message, "container not started");
                self.waiting.insert(start.name.clone(), not.waiting);
                duration(not.retry_in.unwrap_or(RETRY))
            }
        }
    }

    /// A container that ended is restarted after a pause that grows.
    fn in_backoff(&mut self, pod: &Arc<Pod>, container: &Container, start: &Start) -> Option<i64> {
        let ended = start.ended_at?;
        let now = now();
        let Some((left, pause)) = self.backoffs.remaining(&container.name, ended, now) else {
            self.backoffs.next(&container.name, ended, now);
            return None;
        };
        let name = &container.name;
        let message = format!("back-off {} restarting failed container={name} pod={}", short(pause), pod.full_name());
        let already = self.waiting.get(name).is_some_and(|w| w.reason == "CrashLoopBackOff");
        if !already {
            let text = format!("Back-off restarting failed container {name} in pod {}", pod.full_name());
            self.shared.container_event(pod, name, true, "BackOff", text);
        }
        self.waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".into(), message });
        Some(left)
    }

    async fn start_now(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        start: &Start,
        sandbox: &str,
        config: &v1::PodSandboxConfig,
        ips: &[String],
    ) -> Result<(), NotStarted> {
        let name = container.name.as_str();
        let of = images::For { pod, container: Some(name) };
        let image = images::ensure(&self.shared, of, &container.image, &container.image_pull_policy, config).await;
        let image = image.map_err(|absent| {
            self.shared.container_event(pod, name, true, "Failed", format!("Error: {}", absent.waiting.reason));
            NotStarted { waiting: absent.waiting, retry_in: absent.retry_in }
        })?;
        let failed = |shared: &Arc<crate::shared::Shared>, reason: &str, text: String| {
            shared.container_event(pod, name, true, "Failed", format!("Error: {text}"));
            NotStarted::new(reason, text)
        };
        let wrong =
            |shared: &Arc<crate::shared::Shared>, text: String| failed(shared, "CreateContainerConfigError", text);
        security::check_non_root(pod, container, &image.user).map_err(|e| wrong(&self.shared, e))?;
        if !container.target_container_name.is_empty() && start.target.is_none() {
            let text = format!("unable to find target container {:?}", container.target_container_name);
            return Err(wrong(&self.shared, text));
        }
        self.image_volumes(pod, container, config).await?;
        let made = self.container_config(pod, container, start, &image.id, ips).await;
        let made = made.map_err(|e| wrong(&self.shared, e))?;
        let id = self.shared.cri.create(sandbox, made, config.clone()).await;
        let id = id.map_err(|e| failed(&self.shared, "CreateContainerError", e))?;
        self.shared.container_event(pod, name, false, "Created", "Container created");
        let started = self.shared.cri.start(&id).await;
        started.map_err(|e| failed(&self.shared, "RunContainerError", e))?;
        self.shared.allocation.cpus.look();
        self.shared.container_event(pod, name, false, "Started", "Container started");
        self.post_start(pod, container, &id, ips).await
    }

    async fn container_config(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        start: &Start,
        image: &str,
        ips: &[String],
    ) -> Result<v1::ContainerConfig, String> {
        if !pod.is_static() && !self.shared.services.is_synced() {
            return Err("services have not yet been read at least once, cannot construct envvars".into());
        }
        let links = pod.spec.enable_service_links != Some(false);
        let services = env::service_variables(&self.shared.services.list(), &pod.metadata.namespace, links);
        let around = self.shared.surroundings(pod, ips);
        let namespace = &pod.metadata.namespace;
        let lookup = |kind: Kind, name: &str| self.shared.objects.get(kind, namespace, name);
        let empty = volumes::Mounted::new();
        let mounted = self.mounted.as_ref().unwrap_or(&empty);
        let files = |volume: &str, path: &str| match mounted.get(volume) {
            Some(volumes::Source::Path(folder)) => volumes::sub_path::read(folder, path),
            _ => Err(format!("fileKeyRef: the pod has no volume {volume:?} with files")),
        };
        let env = env::environment(pod, container, &services, &around, &lookup, &files)?;
        let message_file = self.message_file(pod, container)?;
        let mut config = container::config(
            pod,
            container,
            &container::Parts {
                attempt: start.attempt,
                image_ref: image,
                env: &env,
                mounted,
                hosts_file: &self.hosts_path(pod),
                message_file: &message_file,
                node: self.shared.node_facts(),
                security: &self.shared.node_security(),
                target: start.target.as_deref(),
                recursive_read_only: self.shared.recursive_read_only(),
                sub_paths: &volumes::pod_folder(&self.shared.root, &pod.metadata.uid).join("volume-subpaths"),
            },
        )?;
        self.shared.allocation.equip(pod, &container.name, &mut config).await?;
        self.shared.claims.equip(pod, &container.name, &mut config)?;
        Ok(config)
    }

    /// Pulls the images that the container mounts as volumes.
    async fn image_volumes(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        config: &v1::PodSandboxConfig,
    ) -> Result<(), NotStarted> {
        for volume in pod.spec.volumes.iter().filter(|v| container.volume_mounts.iter().any(|m| m.name == v.name)) {
            let Some(source) = &volume.image else { continue };
            let of = images::For { pod, container: None };
            let found = images::ensure(&self.shared, of, &source.reference, &source.pull_policy, config).await;
            let image = found.map_err(|absent| NotStarted { waiting: absent.waiting, retry_in: absent.retry_in })?;
            if let Some(mounted) = &mut self.mounted {
                mounted.insert(volume.name.clone(), volumes::Source::Image(image.id));
            }
        }
        Ok(())
    }

    /// A fresh file that the container may write whatever user it runs as.
    fn message_file(&self, pod: &Pod, container: &Container) -> Result<PathBuf, String> {
        let folder = volumes::pod_folder(&self.shared.root, &pod.metadata.uid).join("containers").join(&container.name);
        let path = folder.join(format!("{:08x}", rand::random::<u32>()));
        let make = || -> std::io::Result<()> {
            std::fs::create_dir_all(&folder)?;
            std::fs::File::create(&path)?.set_permissions(std::fs::Permissions::from_mode(0o666))
        };
        make().map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }

    async fn post_start(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        id: &str,
        ips: &[String],
    ) -> Result<(), NotStarted> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let target = self.shared.target(pod, id, ips);
        let error = match actions::hook(&self.shared.cri, container, hook, &target, POST_START_LIMIT).await {
            Ok(None) => return Ok(()),
            Ok(Some(unencrypted)) => {
                self.shared.event(pod, true, "LifecycleHTTPFallback", unencrypted);
                return Ok(());
            }
            Err(error) => error,
        };
        // What a hook's server or program says may be secret: it goes to the status, which fewer may read than events.
        self.shared.container_event(pod, &container.name, true, "FailedPostStartHook", "PostStartHook failed");
        let text = "FailedPostStartHook";
        let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
        if let Err(error) = self.stop_container(pod, id, &container.name, grace, text).await {
            tracing::warn!(pod = %pod.full_name(), %error, "container with a failed hook not stopped");
        }
        Err(NotStarted::new("PostStartHookError", error.to_string()))
    }
}

fn duration(nanoseconds: i64) -> Option<Duration> {
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

/// `1m20s`, as upstream writes pauses.
fn short(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    }
}

/// Whether anything of the pod is left running.
pub(super) fn anything_left(observed: &Observed) -> bool {
    observed.sandboxes.iter().any(|s| s.ready)
        || observed.containers.iter().any(|c| matches!(c.state, State::Running | State::Unknown))
}
