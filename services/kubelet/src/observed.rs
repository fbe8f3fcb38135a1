//! What the runtime says about one pod. Pure data plus the mapping from CRI messages.

use cri_api::v1;

use crate::signal;

/// Label and annotation names that tie sandboxes and containers to pods. Shared with upstream's kubelet, so that either
/// can take over the other's containers.
pub mod labels {
    /// Pod name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// Pod namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// Pod uid.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// Container name.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    /// Annotation: hash of the container's specification.
    pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
    /// Annotation: restarts before this instance.
    pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    /// Annotation: where in the container the termination message is written.
    pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    /// Annotation: whether logs may stand in for the message.
    pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    /// Annotation: the pod's grace period.
    pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// Life of a container as the runtime sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime lost track of it.
    Unknown,
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Runtime id.
    pub id: String,
    /// Number of sandboxes the pod had before.
    pub attempt: u32,
    /// Whether containers can run in it.
    pub ready: bool,
    /// Addresses, the primary one first; empty with the host's network.
    pub ips: Vec<String>,
    /// Nanoseconds since 1970.
    pub created_at: i64,
}

/// One container instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Runtime id.
    pub id: String,
    /// Container name in the pod.
    pub name: String,
    /// Sandbox it belongs to.
    pub sandbox_id: String,
    /// Restarts before it.
    pub restart_count: u32,
    /// Its state.
    pub state: State,
    /// Nanoseconds since 1970; zero if it has not happened.
    pub created_at: i64,
    /// As above.
    pub started_at: i64,
    /// As above.
    pub finished_at: i64,
    /// Exit code of an ended container.
    pub exit_code: i32,
    /// The runtime's word for why it ended.
    pub reason: String,
    /// The runtime's or the container's own explanation.
    pub message: String,
    /// Image name.
    pub image: String,
    /// Image reference by digest.
    pub image_ref: String,
    /// Hash of the specification it was made from.
    pub hash: String,
    /// File on the node that holds the termination message.
    pub message_file: Option<String>,
    /// Whether the log's end stands in for an empty message.
    pub message_from_logs: bool,
    /// Log file.
    pub log_path: String,
    /// The signal that ends it, in the API's word, if the runtime tells.
    pub stop_signal: Option<String>,
    /// The resources it has, if the runtime tells.
    pub resources: Option<Amounts>,
}

/// Resources in the kernel's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// CPU shares.
    pub shares: i64,
    /// CPU time in each period; zero without a limit.
    pub quota: i64,
    /// Bytes of memory; zero without a limit.
    pub memory: i64,
}

/// Everything the runtime has of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Instance>,
}

impl Observed {
    /// Puts the newest first.
    pub fn sort(&mut self) {
        self.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.created_at, s.attempt)));
        self.containers.sort_by_key(|c| std::cmp::Reverse((c.created_at, c.restart_count)));
    }

    /// The newest instance of a container.
    pub fn latest(&self, name: &str) -> Option<&Instance> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// All instances of a container, newest first.
    pub fn instances<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Instance> {
        self.containers.iter().filter(move |c| c.name == name)
    }

    /// The newest sandbox if it is ready.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }
}

impl Instance {
    /// From the runtime's status message.
    pub fn from_cri(status: v1::ContainerStatus, sandbox_id: String) -> Instance {
        let metadata = status.metadata.clone().unwrap_or_default();
        let annotation = |name: &str| status.annotations.get(name).cloned().unwrap_or_default();
        let message_path = annotation(labels::MESSAGE_PATH);
        let message_file = status
            .mounts
            .iter()
            .find(|m| !message_path.is_empty() && m.container_path == message_path)
            .map(|m| m.host_path.clone());
        Instance {
            name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
            sandbox_id,
            restart_count: annotation(labels::RESTART_COUNT).parse().unwrap_or(metadata.attempt),
            state: state(status.state),
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            image: status
                .image
                .map(|i| if i.user_specified_image.is_empty() { i.image } else { i.user_specified_image })
                .unwrap_or_default(),
            image_ref: status.image_ref,
            hash: status.annotations.get(labels::CONTAINER_HASH).cloned().unwrap_or_default(),
            message_file,
            message_from_logs: status
                .annotations
                .get(labels::MESSAGE_POLICY)
                .is_some_and(|p| p == "FallbackToLogsOnError"),
            reason: status.reason,
            message: status.message,
            log_path: status.log_path,
            stop_signal: signal::name(status.stop_signal),
            resources: status.resources.and_then(|r| r.linux).map(|r| Amounts {
                shares: r.cpu_shares,
                quota: r.cpu_quota.max(0),
                memory: r.memory_limit_in_bytes.max(0),
            }),
            id: status.id,
        }
    }
}

/// The CRI's state number.
pub fn state(number: i32) -> State {
    match v1::ContainerState::try_from(number) {
        Ok(v1::ContainerState::ContainerCreated) => State::Created,
        Ok(v1::ContainerState::ContainerRunning) => State::Running,
        Ok(v1::ContainerState::ContainerExited) => State::Exited,
        _ => State::Unknown,
    }
}
