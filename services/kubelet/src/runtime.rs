//! The CRI calls that the kubelet makes, with errors as the text that events and statuses show.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use cri_api::{Runtime, v1};

use crate::observed::{Instance, Observed, Sandbox, State, labels, state};
use crate::runtime_tally::Tally;
use crate::signal;

/// Calls that only read or are quick by nature.
const QUICK: Duration = Duration::from_secs(30);
/// Calls that make or remove things: a busy node needs its time.
const SLOW: Duration = Duration::from_secs(240);

/// A failed call, as text.
pub type Answer<T> = Result<T, String>;

/// A failed call, as clients of the runtime and of plugins show it.
pub fn text(status: tonic::Status) -> String {
    let code = format!("{:?}", status.code());
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// A failed call in the runtime's own words.
fn message(status: tonic::Status) -> String {
    status.message().to_owned()
}

/// A failed call whose code tells nothing is told without it.
fn readable(status: tonic::Status) -> String {
    if status.code() == tonic::Code::Unknown { message(status) } else { text(status) }
}

fn request<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

/// One call of a service, counted under upstream's name of the operation: the answer's message.
macro_rules! call {
    ($cri:ident.$service:ident.$method:ident, $operation:literal, $request:expr) => {
        $cri.calls.count($operation, $cri.api.$service.clone().$method($request)).await.map(tonic::Response::into_inner)
    };
}

/// A sandbox or container as a list shows it: enough to see that something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The pod it belongs to.
    pub uid: String,
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Whether it runs.
    pub running: bool,
}

/// The runtime.
#[derive(Clone, Debug)]
pub struct Cri {
    /// Its services.
    pub api: Runtime,
    /// The calls below, counted.
    pub calls: Arc<Tally>,
}

impl Cri {
    /// Everything that runs or ran for one pod.
    pub async fn observe(&self, uid: &str) -> Answer<Observed> {
        let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let filter = v1::PodSandboxFilter { label_selector: selector.clone(), ..Default::default() };
        let sandboxes = self.sandboxes(Some(filter)).await?;
        let filter = v1::ContainerFilter { label_selector: selector, ..Default::default() };
        let containers = self.containers(Some(filter)).await?;
        let mut observed = Observed::default();
        for item in sandboxes {
            let ready = item.state == v1::PodSandboxState::SandboxReady as i32;
            let ips = self.sandbox_ips(&item.id).await?;
            let attempt = item.metadata.map(|m| m.attempt).unwrap_or_default();
            observed.sandboxes.push(Sandbox { id: item.id, attempt, ready, ips, created_at: item.created_at });
        }
        for item in containers {
            let call = request(v1::ContainerStatusRequest { container_id: item.id, verbose: false }, QUICK);
            match call!(self.runtime.container_status, "container_status", call) {
                Ok(answer) => {
                    let status = answer.status;
                    observed.containers.extend(status.map(|s| Instance::from_cri(s, item.pod_sandbox_id)));
                }
                Err(error) if error.code() == tonic::Code::NotFound => {}
                Err(error) => return Err(text(error)),
            }
        }
        observed.sort();
        Ok(observed)
    }

    async fn sandboxes(&self, filter: Option<v1::PodSandboxFilter>) -> Answer<Vec<v1::PodSandbox>> {
        let list = request(v1::ListPodSandboxRequest { filter }, QUICK);
        Ok(call!(self.runtime.list_pod_sandbox, "list_podsandbox", list).map_err(text)?.items)
    }

    async fn containers(&self, filter: Option<v1::ContainerFilter>) -> Answer<Vec<v1::Container>> {
        let list = request(v1::ListContainersRequest { filter }, QUICK);
        Ok(call!(self.runtime.list_containers, "list_containers", list).map_err(text)?.containers)
    }

    async fn sandbox_ips(&self, id: &str) -> Answer<Vec<String>> {
        let call = request(v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false }, QUICK);
        let answer = match call!(self.runtime.pod_sandbox_status, "podsandbox_status", call) {
            Ok(answer) => answer,
            Err(error) if error.code() == tonic::Code::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(text(error)),
        };
        let network = answer.status.and_then(|s| s.network).unwrap_or_default();
        let first = (!network.ip.is_empty()).then_some(network.ip);
        Ok(first.into_iter().chain(network.additional_ips.into_iter().map(|p| p.ip)).collect())
    }

    /// All sandboxes and containers of the node that belong to pods, by runtime id.
    pub async fn list(&self) -> Answer<HashMap<String, Listed>> {
        let (sandboxes, containers) = (self.sandboxes(None).await?, self.containers(None).await?);
        let sandboxes =
            sandboxes.into_iter().map(|s| (s.id, s.labels, s.state == v1::PodSandboxState::SandboxReady as i32));
        let containers = containers.into_iter().map(|c| (c.id, c.labels, state(c.state) == State::Running));
        let mut all = HashMap::new();
        for (id, mut labels, running) in sandboxes.chain(containers) {
            let mut take = |name: &str| labels.remove(name).unwrap_or_default();
            let (uid, name, namespace) = (take(labels::POD_UID), take(labels::POD_NAME), take(labels::POD_NAMESPACE));
            if !uid.is_empty() {
                all.insert(id, Listed { uid, name, namespace, running });
            }
        }
        Ok(all)
    }

    /// Running containers of pods: id, pod uid and container name.
    pub async fn running(&self) -> Answer<Vec<(String, String, String)>> {
        let state = Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 });
        let filter = Some(v1::ContainerFilter { state, ..Default::default() });
        let containers = self.containers(filter).await?;
        let known = |mut c: v1::Container| {
            Some((c.id, c.labels.remove(labels::POD_UID)?, c.labels.remove(labels::CONTAINER_NAME)?))
        };
        Ok(containers.into_iter().filter_map(known).collect())
    }

    /// The state of one container.
    pub async fn container_state(&self, id: &str) -> Answer<State> {
        let call = request(v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false }, QUICK);
        let answer = call!(self.runtime.container_status, "container_status", call).map_err(text)?;
        Ok(answer.status.map_or(State::Unknown, |s| state(s.state)))
    }

    /// The first process of a running container and the signal that the runtime would end it with, as far as it tells.
    pub async fn process(&self, id: &str) -> Answer<Option<(i32, Option<String>)>> {
        let call = request(v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: true }, QUICK);
        let answer = match call!(self.runtime.container_status, "container_status", call) {
            Ok(answer) => answer,
            Err(error) if error.code() == tonic::Code::NotFound => return Ok(None),
            Err(error) => return Err(text(error)),
        };
        let Some(status) = answer.status.filter(|s| state(s.state) == State::Running) else { return Ok(None) };
        // containerd's and CRI-O's word alike.
        let info: serde_json::Value =
            answer.info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let pid = info["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1);
        Ok(pid.map(|pid| (pid, signal::name(status.stop_signal))))
    }

    /// Makes a sandbox with its network; returns its id.
    /// `handler` is the runtime class's; empty for the runtime's default.
    pub async fn run_sandbox(&self, config: v1::PodSandboxConfig, handler: String) -> Answer<String> {
        let call = request(v1::RunPodSandboxRequest { config: Some(config), runtime_handler: handler }, SLOW);
        Ok(call!(self.runtime.run_pod_sandbox, "run_podsandbox", call).map_err(text)?.pod_sandbox_id)
    }

    /// Stops a sandbox and takes down its network.
    pub async fn stop_sandbox(&self, id: &str) -> Answer<()> {
        let call = request(v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() }, SLOW);
        missing_is_fine(call!(self.runtime.stop_pod_sandbox, "stop_podsandbox", call))
    }

    /// Removes a sandbox and its containers.
    pub async fn remove_sandbox(&self, id: &str) -> Answer<()> {
        let call = request(v1::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() }, SLOW);
        missing_is_fine(call!(self.runtime.remove_pod_sandbox, "remove_podsandbox", call))
    }

    /// Makes a container; returns its id.
    pub async fn create(&self, sandbox: &str, config: v1::ContainerConfig, of: v1::PodSandboxConfig) -> Answer<String> {
        let call = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(of),
        };
        let answer = call!(self.runtime.create_container, "create_container", request(call, SLOW)).map_err(message)?;
        Ok(answer.container_id)
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Answer<()> {
        let call = request(v1::StartContainerRequest { container_id: id.to_owned() }, SLOW);
        call!(self.runtime.start_container, "start_container", call).map(drop).map_err(message)
    }

    /// Asks a container to end and kills it after `grace` seconds.
    pub async fn stop(&self, id: &str, grace: i64) -> Answer<()> {
        let limit = SLOW + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        let call = request(v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace }, limit);
        missing_is_fine(call!(self.runtime.stop_container, "stop_container", call))
    }

    /// Removes an ended container.
    pub async fn remove(&self, id: &str) -> Answer<()> {
        let call = request(v1::RemoveContainerRequest { container_id: id.to_owned() }, SLOW);
        missing_is_fine(call!(self.runtime.remove_container, "remove_container", call))
    }

    /// Runs a command to its end: exit code and output.
    pub async fn exec(&self, id: &str, command: &[String], limit: Duration) -> Answer<(i32, Vec<u8>)> {
        let seconds = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
        let message = v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command.to_vec(), timeout: seconds };
        let call = request(message, limit + Duration::from_secs(5));
        let answer = call!(self.runtime.exec_sync, "exec_sync", call).map_err(text)?;
        let mut output = answer.stdout;
        output.extend(answer.stderr);
        Ok((answer.exit_code, output))
    }

    /// Makes the runtime open the log file anew after it was moved away.
    pub async fn reopen_log(&self, id: &str) -> Answer<()> {
        let call = request(v1::ReopenContainerLogRequest { container_id: id.to_owned() }, QUICK);
        call!(self.runtime.reopen_container_log, "reopen_container_log", call).map(drop).map_err(text)
    }

    /// Gives a running container other resources.
    pub async fn update(&self, id: &str, resources: v1::LinuxContainerResources) -> Answer<()> {
        let message = v1::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        call!(self.runtime.update_container_resources, "update_container", request(message, SLOW))
            .map(drop)
            .map_err(text)
    }

    /// The runtime's and the network's readiness with the reason if not, and what the runtime can.
    pub async fn status(&self) -> Answer<v1::StatusResponse> {
        let call = request(v1::StatusRequest { verbose: false }, QUICK);
        call!(self.runtime.status, "status", call).map_err(text)
    }

    /// Every name by which a container's image is known.
    pub async fn images_in_use(&self) -> Answer<BTreeSet<String>> {
        let containers = self.containers(None).await?;
        let names = containers.into_iter().flat_map(|c| [c.image_ref, c.image_id, c.image.unwrap_or_default().image]);
        Ok(names.filter(|name| !name.is_empty()).collect())
    }

    /// Removes an image with all its names.
    pub async fn remove_image(&self, id: &str) -> Answer<()> {
        let image = Some(v1::ImageSpec { image: id.to_owned(), ..Default::default() });
        let call = request(v1::RemoveImageRequest { image }, SLOW);
        call!(self.images.remove_image, "remove_image", call).map(drop).map_err(text)
    }

    /// Where the runtime keeps images, as a mount point or folder.
    pub async fn image_folder(&self) -> Answer<Option<String>> {
        let call = request(v1::ImageFsInfoRequest {}, QUICK);
        let answer = call!(self.images.image_fs_info, "image_fs_info", call).map_err(text)?;
        Ok(answer.image_filesystems.into_iter().find_map(|f| f.fs_id).map(|id| id.mountpoint))
    }

    /// `containerd://1.7.24`.
    pub async fn version(&self) -> Answer<String> {
        let call = request(v1::VersionRequest::default(), QUICK);
        let answer = call!(self.runtime.version, "version", call).map_err(text)?;
        Ok(format!("{}://{}", answer.runtime_name, answer.runtime_version.trim_start_matches('v')))
    }

    /// All images.
    pub async fn images(&self) -> Answer<Vec<v1::Image>> {
        let call = request(v1::ListImagesRequest::default(), QUICK);
        Ok(call!(self.images.list_images, "list_images", call).map_err(text)?.images)
    }

    /// One image, if it is there.
    pub async fn image(&self, name: &str) -> Answer<Option<v1::Image>> {
        let image = Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() });
        let call = request(v1::ImageStatusRequest { image, verbose: false }, QUICK);
        Ok(call!(self.images.image_status, "image_status", call).map_err(text)?.image)
    }

    /// Pulls an image. Has no limit of its own: the registry's speed decides.
    pub async fn pull(&self, name: &str, auth: Option<v1::AuthConfig>, sandbox: v1::PodSandboxConfig) -> Answer<()> {
        let image = Some(v1::ImageSpec { image: name.to_owned(), ..Default::default() });
        let call = v1::PullImageRequest { image, auth, sandbox_config: Some(sandbox) };
        call!(self.images.pull_image, "pull_image", call).map(drop).map_err(readable)
    }

    /// Statistics of all running containers.
    pub async fn stats(&self) -> Answer<Vec<v1::ContainerStats>> {
        let call = request(v1::ListContainerStatsRequest::default(), QUICK);
        Ok(call!(self.runtime.list_container_stats, "list_container_stats", call).map_err(text)?.stats)
    }
}

/// Ending or removing what is gone already has succeeded.
fn missing_is_fine<T>(answer: Result<T, tonic::Status>) -> Answer<()> {
    match answer {
        Err(error) if error.code() != tonic::Code::NotFound => Err(text(error)),
        _ => Ok(()),
    }
}
