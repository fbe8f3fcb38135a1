//! The typed part of a pod that the kubelet acts on. Everything else of the object passes through untouched: the kubelet
//! only ever patches status.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// Declares the structs of the pod model: camelCase names, every field optional in JSON.
macro_rules! model {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attr:meta])* $field:ident : $ty:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, PartialEq)]
        #[serde(rename_all = "camelCase", default)]
        #[allow(missing_docs)]
        pub struct $name { $($(#[$attr])* pub $field: $ty,)* }
    )*};
}

/// Annotation: where a pod came from: `file` or `api`.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// Annotation of a static pod's object at the API server: the hash of the static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation of a static pod: its hash.
pub const HASH: &str = "kubernetes.io/config.hash";
/// The priority of system-cluster-critical.
pub const CRITICAL_PRIORITY: i64 = 2_000_000_000;

/// String maps: labels, annotations, limits.
pub type Map = BTreeMap<String, String>;

model! {
    /// A pod.
    Pod { metadata: Metadata, spec: PodSpec, status: Value }
    /// Object metadata.
    Metadata {
        name: String, namespace: String, uid: String, resource_version: String, generation: i64,
        labels: Map, annotations: Map,
        deletion_timestamp: Option<String>, deletion_grace_period_seconds: Option<i64>,
        creation_timestamp: String, owner_references: Vec<Value>,
    }
    /// Pod specification.
    PodSpec {
        node_name: String, service_account_name: String, restart_policy: RestartPolicy,
        init_containers: Vec<Container>, containers: Vec<Container>, ephemeral_containers: Vec<Container>,
        volumes: Vec<Volume>, image_pull_secrets: Vec<ObjectRef>,
        node_selector: Map, affinity: Affinity, tolerations: Vec<Toleration>,
        priority: Option<i64>, priority_class_name: String, overhead: Map, resources: Option<Resources>,
        resource_claims: Vec<PodClaim>,
        termination_grace_period_seconds: Option<i64>, active_deadline_seconds: Option<i64>,
        dns_policy: String, dns_config: Option<DnsConfig>, enable_service_links: Option<bool>,
        host_network: bool, #[serde(rename = "hostPID")] host_pid: bool, #[serde(rename = "hostIPC")] host_ipc: bool,
        share_process_namespace: Option<bool>, hostname: String, subdomain: String,
        #[serde(rename = "setHostnameAsFQDN")] set_hostname_as_fqdn: Option<bool>,
        hostname_override: Option<String>, host_users: Option<bool>,
        host_aliases: Vec<HostAlias>, security_context: PodSecurityContext, readiness_gates: Vec<ReadinessGate>,
        runtime_class_name: Option<String>,
    }
    /// Where a pod wants to run; only the node's part matters to a kubelet.
    Affinity { node_affinity: NodeAffinity }
    /// The required terms, one of which must match.
    NodeAffinity { required_during_scheduling_ignored_during_execution: Option<NodeSelector> }
    /// Terms, one of which must match.
    NodeSelector { node_selector_terms: Vec<NodeSelectorTerm> }
    /// Requirements that must all hold.
    NodeSelectorTerm { match_expressions: Vec<Requirement>, match_fields: Vec<Requirement> }
    /// One requirement.
    Requirement { key: String, operator: String, values: Vec<String> }
    /// A taint that the pod puts up with.
    Toleration { key: String, operator: String, value: String, effect: String }
    /// An extra line in /etc/hosts.
    HostAlias { ip: String, hostnames: Vec<String> }
    /// A condition that others set and Ready waits for.
    ReadinessGate { condition_type: String }
    /// DNS settings of the pod itself.
    DnsConfig { nameservers: Vec<String>, searches: Vec<String>, options: Vec<DnsOption> }
    /// One resolver option.
    DnsOption { name: String, value: Option<String> }
    /// Pod-wide security settings.
    PodSecurityContext {
        run_as_user: Option<i64>, run_as_group: Option<i64>, run_as_non_root: Option<bool>, fs_group: Option<i64>,
        supplemental_groups: Vec<i64>, sysctls: Vec<Sysctl>, seccomp_profile: Option<SeccompProfile>,
        app_armor_profile: Option<SeccompProfile>, supplemental_groups_policy: Option<String>,
        fs_group_change_policy: Option<String>, se_linux_options: Option<SeLinuxOptions>,
    }
    /// SELinux label.
    SeLinuxOptions { user: String, role: String, #[serde(rename = "type")] kind: String, level: String }
    /// A kernel parameter of the pod.
    Sysctl { name: String, value: String }
    /// A seccomp or AppArmor profile: both have one shape.
    SeccompProfile { #[serde(rename = "type")] kind: String, localhost_profile: Option<String> }
    /// A container.
    Container {
        name: String, image: String, image_pull_policy: String, command: Vec<String>, args: Vec<String>,
        working_dir: String, env: Vec<EnvVar>, env_from: Vec<EnvFrom>, resources: Resources,
        volume_mounts: Vec<VolumeMount>, volume_devices: Vec<VolumeDevice>, ports: Vec<Port>, lifecycle: Option<Lifecycle>,
        liveness_probe: Option<Probe>, readiness_probe: Option<Probe>, startup_probe: Option<Probe>,
        security_context: SecurityContext, termination_message_path: String, termination_message_policy: String,
        restart_policy: Option<String>, restart_policy_rules: Vec<RestartRule>, resize_policy: Vec<ResizePolicy>,
        target_container_name: String, stdin: bool, stdin_once: bool, tty: bool,
    }
    /// What to do when the container ends with certain codes.
    RestartRule { action: String, exit_codes: Option<ExitCodes> }
    /// A set of exit codes.
    ExitCodes { operator: String, values: Vec<i32> }
    /// Whether a change of one resource's amount restarts the container.
    ResizePolicy { resource_name: String, restart_policy: String }
    /// Requests and limits.
    Resources { limits: Map, requests: Map, claims: Vec<ClaimPart> }
    /// A claim of the pod, or one request of it.
    ClaimPart { name: String, request: String }
    /// A claim on dynamic resources: an object's name, or the template that it is made from.
    PodClaim {
        name: String, resource_claim_name: Option<String>, resource_claim_template_name: Option<String>,
    }
    /// An environment variable.
    EnvVar { name: String, value: Option<String>, value_from: Option<EnvSource> }
    /// Where a variable's value comes from.
    EnvSource {
        field_ref: Option<FieldRef>, resource_field_ref: Option<ResourceFieldRef>,
        config_map_key_ref: Option<KeyRef>, secret_key_ref: Option<KeyRef>, file_key_ref: Option<FileKeyRef>,
    }
    /// One variable of a file in one of the pod's volumes.
    FileKeyRef { volume_name: String, path: String, key: String, optional: bool }
    /// A field of the pod.
    FieldRef { field_path: String }
    /// A container's resource amount.
    ResourceFieldRef { container_name: String, resource: String, divisor: Value }
    /// One key of a ConfigMap or Secret.
    KeyRef { name: String, key: String, optional: bool }
    /// All keys of a ConfigMap or Secret as variables.
    EnvFrom { prefix: String, config_map_ref: Option<ObjectRef>, secret_ref: Option<ObjectRef> }
    /// A ConfigMap or Secret.
    ObjectRef { name: String, optional: bool }
    /// A volume inside a container.
    VolumeMount {
        name: String, mount_path: String, sub_path: String, sub_path_expr: String, read_only: bool,
        mount_propagation: Option<String>, recursive_read_only: Option<String>,
    }
    /// A volume as a block device.
    VolumeDevice { name: String, device_path: String }
    /// A port of a container.
    Port { name: String, container_port: i32, host_port: i32, #[serde(rename = "hostIP")] host_ip: String, protocol: String }
    /// Hooks.
    Lifecycle { post_start: Option<Handler>, pre_stop: Option<Handler>, stop_signal: Option<String> }
    /// What a hook or a probe does.
    Handler {
        exec: Option<ExecAction>, http_get: Option<HttpGet>, tcp_socket: Option<TcpSocket>, grpc: Option<GrpcAction>,
        sleep: Option<SleepAction>,
    }
    /// A command.
    ExecAction { command: Vec<String> }
    /// An HTTP request; the port is a number or a container port's name.
    HttpGet { path: String, port: Value, host: String, scheme: String, http_headers: Vec<HttpHeader> }
    /// A request header.
    HttpHeader { name: String, value: String }
    /// A TCP connection.
    TcpSocket { port: Value, host: String }
    /// A gRPC health check.
    GrpcAction { port: i32, service: Option<String> }
    /// A pause.
    SleepAction { seconds: i64 }
    /// A probe.
    Probe {
        #[serde(flatten)] handler: Handler, initial_delay_seconds: i64, timeout_seconds: i64, period_seconds: i64,
        success_threshold: i64, failure_threshold: i64, termination_grace_period_seconds: Option<i64>,
    }
    /// Security settings of a container.
    SecurityContext {
        run_as_user: Option<i64>, run_as_group: Option<i64>, run_as_non_root: Option<bool>, privileged: Option<bool>,
        read_only_root_filesystem: Option<bool>, allow_privilege_escalation: Option<bool>,
        capabilities: Capabilities, seccomp_profile: Option<SeccompProfile>, proc_mount: Option<String>,
        app_armor_profile: Option<SeccompProfile>, se_linux_options: Option<SeLinuxOptions>,
    }
    /// Capabilities to add and drop.
    Capabilities { add: Vec<String>, drop: Vec<String> }
    /// A volume: exactly one source.
    Volume {
        name: String, empty_dir: Option<EmptyDir>, host_path: Option<HostPath>, config_map: Option<ConfigMapVolume>,
        secret: Option<SecretVolume>, #[serde(rename = "downwardAPI")] downward_api: Option<DownwardVolume>, projected: Option<ProjectedVolume>,
        persistent_volume_claim: Option<ClaimVolume>, ephemeral: Option<Value>, image: Option<ImageVolume>,
        csi: Option<CsiVolume>, #[serde(flatten)] other: BTreeMap<String, Value>,
    }
    /// A volume of a CSI driver that lives with the pod.
    CsiVolume {
        driver: String, read_only: bool, fs_type: Option<String>, volume_attributes: Map,
        node_publish_secret_ref: Option<ObjectRef>,
    }
    /// A claim on a persistent volume.
    ClaimVolume { claim_name: String, read_only: bool }
    /// The files of an image.
    ImageVolume { reference: String, pull_policy: String }
    /// Scratch space.
    EmptyDir { medium: String, size_limit: Option<Value> }
    /// A path of the node.
    HostPath { path: String, #[serde(rename = "type")] kind: Option<String> }
    /// A ConfigMap as files.
    ConfigMapVolume { name: String, items: Vec<KeyToPath>, default_mode: Option<u32>, optional: bool }
    /// A Secret as files.
    SecretVolume { secret_name: String, items: Vec<KeyToPath>, default_mode: Option<u32>, optional: bool }
    /// Pod fields as files.
    DownwardVolume { items: Vec<DownwardFile>, default_mode: Option<u32> }
    /// One file with a pod field.
    DownwardFile { path: String, field_ref: Option<FieldRef>, resource_field_ref: Option<ResourceFieldRef>, mode: Option<u32> }
    /// A key and the file it becomes.
    KeyToPath { key: String, path: String, mode: Option<u32> }
    /// Several sources in one folder.
    ProjectedVolume { sources: Vec<Projection>, default_mode: Option<u32> }
    /// One source of a projected volume.
    Projection {
        config_map: Option<ProjectedObject>, secret: Option<ProjectedObject>,
        #[serde(rename = "downwardAPI")] downward_api: Option<DownwardVolume>,
        service_account_token: Option<TokenProjection>, cluster_trust_bundle: Option<TrustProjection>,
        #[serde(flatten)] other: BTreeMap<String, Value>,
    }
    /// The certificates of one trust bundle, or of those of a signer that the selector matches.
    TrustProjection {
        name: Option<String>, signer_name: Option<String>, label_selector: Option<Value>, optional: bool, path: String,
    }
    /// A ConfigMap or Secret in a projected volume.
    ProjectedObject { name: String, items: Vec<KeyToPath>, optional: bool }
    /// A service-account token as a file.
    TokenProjection { audience: String, expiration_seconds: Option<i64>, path: String }
}

/// What happens when a container ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Restart.
    #[default]
    Always,
    /// Restart after a failure.
    OnFailure,
    /// Leave.
    Never,
}

/// Quality of service, which decides cgroup and OOM score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Limits everywhere, equal to requests.
    Guaranteed,
    /// Some requests or limits.
    Burstable,
    /// None.
    BestEffort,
}

impl Pod {
    /// Reads a pod object. An explicit null means the same as a missing field.
    ///
    /// A mirror stands for the static pod that runs here, so it has that one's uid.
    pub fn from_value(value: &Value) -> Result<Pod, serde_json::Error> {
        let mut pod = Pod::deserialize(without_nulls(value))?;
        if pod.metadata.annotations.contains_key(MIRROR)
            && let Some(uid) = pod.metadata.annotations.get(HASH)
        {
            pod.metadata.uid.clone_from(uid);
        }
        Ok(pod)
    }

    /// `name_namespace(uid)`, the form of upstream's messages.
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.metadata.name, self.metadata.namespace, self.metadata.uid)
    }

    /// Init containers first, then the others; without the ephemeral ones, which have no part in what the pod needs.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().chain(&self.spec.containers)
    }

    /// As above, with the ephemeral ones.
    pub fn every_container(&self) -> impl Iterator<Item = &Container> {
        self.all_containers().chain(&self.spec.ephemeral_containers)
    }

    /// A container of any kind.
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.every_container().find(|c| c.name == name)
    }

    /// Where a container stands in the object: what an event about it names.
    pub fn field_path(&self, name: &str) -> String {
        let has = |list: &[Container]| list.iter().any(|c| c.name == name);
        let list = match (has(&self.spec.containers), has(&self.spec.init_containers)) {
            (true, _) => "containers",
            (_, true) => "initContainers",
            _ => "ephemeralContainers",
        };
        format!("spec.{list}{{{name}}}")
    }

    /// Sidecars and main containers: those that run side by side.
    pub fn lasting_containers(&self) -> impl Iterator<Item = &Container> {
        self.spec.init_containers.iter().filter(|c| c.is_sidecar()).chain(&self.spec.containers)
    }

    /// Where the kubelet itself found the pod, if not at the API server.
    pub fn is_static(&self) -> bool {
        self.metadata.annotations.get(SOURCE).is_some_and(|source| source != "api")
    }

    /// Whether the node must run it before anything else: mirrors, static pods and the highest priorities.
    pub fn is_critical(&self) -> bool {
        self.is_static()
            || self.metadata.annotations.contains_key(MIRROR)
            || self.spec.priority >= Some(CRITICAL_PRIORITY)
    }

    /// Whether the node cannot do without it.
    pub fn is_node_critical(&self) -> bool {
        self.is_critical() && self.spec.priority_class_name == "system-node-critical"
    }

    /// Whether deletion was asked for.
    pub fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The seconds its containers get to stop.
    pub fn grace_period(&self) -> i64 {
        self.metadata.deletion_grace_period_seconds.or(self.spec.termination_grace_period_seconds).unwrap_or(30).max(0)
    }

    /// The phase the API server has.
    pub fn phase(&self) -> &str {
        self.status["phase"].as_str().unwrap_or_default()
    }

    /// Folder of its container logs, by the CRI's convention.
    pub fn log_directory(&self) -> String {
        let m = &self.metadata;
        format!("/var/log/pods/{}_{}_{}", m.namespace, m.name, m.uid)
    }

    /// Computes the quality of service.
    pub fn qos(&self) -> QosClass {
        let mut any = false;
        let mut guaranteed = true;
        // Amounts of the pod as a whole stand above those of its containers.
        let whole = self.spec.resources.as_ref().filter(|r| !r.limits.is_empty() || !r.requests.is_empty());
        let parts: Vec<&Resources> = match whole {
            Some(whole) => vec![whole],
            None => self.all_containers().map(|c| &c.resources).collect(),
        };
        for r in parts {
            for resource in ["cpu", "memory"] {
                let (limit, request) = (amount(&r.limits, resource), amount(&r.requests, resource));
                any |= limit > 0 || request > 0;
                guaranteed &= limit > 0 && (request == 0 || request == limit);
            }
        }
        match (any, guaranteed) {
            (false, _) => QosClass::BestEffort,
            (true, true) => QosClass::Guaranteed,
            (true, false) => QosClass::Burstable,
        }
    }
}

impl Container {
    /// An init container that runs beside the others for the pod's whole life.
    pub fn is_sidecar(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }

    /// The signal that asks it to end, if it is not the image's.
    pub fn stop_signal(&self) -> Option<&str> {
        self.lifecycle.as_ref()?.stop_signal.as_deref()
    }

    /// Finds a probe's or hook's port by number or name.
    pub fn port_number(&self, port: &Value) -> Option<u16> {
        let number = match port {
            Value::Number(n) => n.as_i64(),
            Value::String(text) => text
                .parse()
                .ok()
                .or_else(|| self.ports.iter().find(|p| p.name == *text).map(|p| i64::from(p.container_port))),
            _ => None,
        }?;
        u16::try_from(number).ok().filter(|n| *n > 0)
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), without_nulls(v))).collect()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// A resource amount in thousandths; zero when it is missing or unreadable.
pub fn amount(amounts: &Map, resource: &str) -> i128 {
    amounts.get(resource).and_then(|text| apimachinery::quantity::Quantity::parse(text).ok()).map_or(0, |q| q.milli())
}

/// A pod's limits of huge pages in bytes, by the kernel's name of their size: `2MB`, `1GB`.
pub fn huge_pages(pod: &Pod) -> Vec<(String, i128)> {
    let names: std::collections::BTreeSet<&String> =
        pod.all_containers().flat_map(|c| c.resources.limits.keys()).filter(|k| k.starts_with("hugepages-")).collect();
    let size = |name: &str| name.trim_start_matches("hugepages-").replace('i', "B");
    names.into_iter().map(|name| (size(name), crate::admission::limit(pod, name) / 1000)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(limits: Value, requests: Value) -> Pod {
        Pod::from_value(&json!({"spec": {"containers": [{"resources": {"limits": limits, "requests": requests}}]}}))
            .unwrap()
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        assert_eq!(with(json!({}), json!({})).qos(), QosClass::BestEffort);
        assert_eq!(with(json!({}), json!({"cpu": "100m"})).qos(), QosClass::Burstable);
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(with(both.clone(), both.clone()).qos(), QosClass::Guaranteed);
        assert_eq!(with(both, json!({"cpu": "500m", "memory": "1Gi"})).qos(), QosClass::Burstable);
    }

    #[test]
    fn ports_are_found_by_number_and_name() {
        let container = Container {
            ports: vec![Port { name: "web".into(), container_port: 8080, ..Port::default() }],
            ..Container::default()
        };
        assert_eq!(container.port_number(&json!(80)), Some(80));
        assert_eq!(container.port_number(&json!("web")), Some(8080));
        assert_eq!(container.port_number(&json!("81")), Some(81));
        assert_eq!(container.port_number(&json!("none")), None);
    }

    #[test]
    fn events_name_containers_by_their_list() {
        let container = |name: &str| Container { name: name.into(), ..Container::default() };
        let mut pod = Pod::default();
        (pod.spec.containers, pod.spec.init_containers) = (vec![container("a")], vec![container("b")]);
        let paths = ["a", "b", "c"].map(|name| pod.field_path(name));
        assert_eq!(paths, ["spec.containers{a}", "spec.initContainers{b}", "spec.ephemeralContainers{c}"]);
    }
}
