//! Security settings of pods and containers in CRI's terms. Pure.

use cri_api::v1;

use crate::pod::{Container, Pod, SeLinuxOptions, SeccompProfile};

/// Parts of /proc and /sys that containers must not read, and those they must not write. The container ecosystem's
/// common list.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Which namespaces a pod shares with the node.
pub fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let node_or = |node: bool, other: v1::NamespaceMode| if node { v1::NamespaceMode::Node } else { other };
    let pid = if pod.spec.share_process_namespace == Some(true) {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: node_or(pod.spec.host_network, v1::NamespaceMode::Pod).into(),
        pid: node_or(pod.spec.host_pid, pid).into(),
        ipc: node_or(pod.spec.host_ipc, v1::NamespaceMode::Pod).into(),
        target_id: String::new(),
    }
}

/// Supplementary groups of every process in the pod.
pub fn groups(pod: &Pod) -> Vec<i64> {
    let context = &pod.spec.security_context;
    context.supplemental_groups.iter().copied().chain(context.fs_group).collect()
}

/// A profile without a file.
pub fn profile(kind: v1::security_profile::ProfileType) -> v1::SecurityProfile {
    v1::SecurityProfile { profile_type: kind.into(), localhost_ref: String::new() }
}

/// The seccomp profile of a container: its own, the pod's, or the node's default. Privileged containers have none.
fn seccomp(pod: &Pod, container: &Container, node: &NodeSecurity) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let own: Option<&SeccompProfile> =
        container.security_context.seccomp_profile.as_ref().or(pod.spec.security_context.seccomp_profile.as_ref());
    match own.map(|p| p.kind.as_str()) {
        Some("RuntimeDefault") => profile(ProfileType::RuntimeDefault),
        Some("Localhost") => {
            let file = own.and_then(|p| p.localhost_profile.as_deref()).unwrap_or_default();
            let path = node.seccomp_folder.join(file).to_string_lossy().into_owned();
            v1::SecurityProfile { profile_type: ProfileType::Localhost.into(), localhost_ref: path }
        }
        None if node.seccomp_default && container.security_context.privileged != Some(true) => {
            profile(ProfileType::RuntimeDefault)
        }
        _ => profile(ProfileType::Unconfined),
    }
}

/// What the node decides about security.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSecurity {
    /// Whether containers without a profile get the runtime's.
    pub seccomp_default: bool,
    /// Where the profiles of the node are.
    pub seccomp_folder: std::path::PathBuf,
}

/// The AppArmor profile: the container's, the pod's, or the runtime's choice. Localhost profiles are named, not files.
fn apparmor(pod: &Pod, container: &Container) -> Option<v1::SecurityProfile> {
    use v1::security_profile::ProfileType;
    let own = container.security_context.app_armor_profile.as_ref().or(pod
        .spec
        .security_context
        .app_armor_profile
        .as_ref())?;
    Some(match own.kind.as_str() {
        "Localhost" => v1::SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: own.localhost_profile.clone().unwrap_or_default(),
        },
        "Unconfined" => profile(ProfileType::Unconfined),
        _ => profile(ProfileType::RuntimeDefault),
    })
}

/// A SELinux label in CRI's terms.
pub fn selinux(options: Option<&SeLinuxOptions>) -> Option<v1::SeLinuxOption> {
    options.map(|o| v1::SeLinuxOption {
        user: o.user.clone(),
        role: o.role.clone(),
        r#type: o.kind.clone(),
        level: o.level.clone(),
    })
}

/// How image groups join the pod's.
pub fn groups_policy(pod: &Pod) -> v1::SupplementalGroupsPolicy {
    match pod.spec.security_context.supplemental_groups_policy.as_deref() {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict,
        _ => v1::SupplementalGroupsPolicy::Merge,
    }
}

/// The image's own user, by number or by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// Number, if the image names one.
    pub uid: Option<i64>,
    /// Name, if it does not.
    pub name: String,
}

/// Refuses a container that may not run as root but would.
///
/// # Errors
/// The text for the container's status.
pub fn check_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), String> {
    let (own, shared) = (&container.security_context, &pod.spec.security_context);
    if own.run_as_non_root.or(shared.run_as_non_root) != Some(true) {
        return Ok(());
    }
    let refused = |text: &str| Err(format!("{text} (pod: {:?}, container: {})", pod.full_name(), container.name));
    match (own.run_as_user.or(shared.run_as_user), image.uid) {
        (Some(0), _) => refused("container's runAsUser breaks non-root policy"),
        (Some(_), _) | (None, Some(1..)) => Ok(()),
        (None, None) if !image.name.is_empty() => refused(&format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
            image.name
        )),
        (None, _) => refused("container has runAsNonRoot and image will run as root"),
    }
}

/// A container's security context. An ephemeral container joins the processes of `target`, a container id, if it has one.
pub fn context(
    pod: &Pod,
    container: &Container,
    node: &NodeSecurity,
    target: Option<&str>,
) -> v1::LinuxContainerSecurityContext {
    let mut namespace_options = namespaces(pod);
    if let Some(target) = target.filter(|_| !pod.spec.host_pid && pod.spec.share_process_namespace != Some(true)) {
        namespace_options.pid = v1::NamespaceMode::Target.into();
        target.clone_into(&mut namespace_options.target_id);
    }
    let (own, shared) = (&container.security_context, &pod.spec.security_context);
    let privileged = own.privileged == Some(true);
    let list = |paths: &[&str]| -> Vec<String> {
        if privileged || own.proc_mount.as_deref() == Some("Unmasked") {
            Vec::new()
        } else {
            paths.iter().map(|p| (*p).to_owned()).collect()
        }
    };
    let user = own.run_as_user.or(shared.run_as_user);
    v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: own.capabilities.add.clone(),
            drop_capabilities: own.capabilities.drop.clone(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespace_options),
        selinux_options: selinux(own.se_linux_options.as_ref().or(shared.se_linux_options.as_ref())),
        run_as_user: user.map(|value| v1::Int64Value { value }),
        // The runtime refuses a group without a user.
        run_as_group: own
            .run_as_group
            .or(shared.run_as_group)
            .map(|value| v1::Int64Value { value })
            .filter(|_| user.is_some()),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: list(MASKED),
        readonly_paths: list(READ_ONLY),
        seccomp: Some(seccomp(pod, container, node)),
        apparmor: apparmor(pod, container),
        supplemental_groups_policy: groups_policy(pod).into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: serde_json::Value, shared: serde_json::Value) -> Pod {
        Pod::from_value(
            &json!({"spec": {"containers": [{"name": "c", "securityContext": container}], "securityContext": shared}}),
        )
        .unwrap()
    }

    #[test]
    fn the_container_overrides_the_pod() {
        let pod = pod(
            json!({"runAsUser": 5}),
            json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4]}),
        );
        let context = context(&pod, &pod.spec.containers[0], &NodeSecurity::default(), None);
        assert_eq!(context.run_as_user.map(|v| v.value), Some(5));
        assert_eq!(context.run_as_group.map(|v| v.value), Some(2));
        assert_eq!(context.supplemental_groups, [4, 3]);
        assert!(context.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn profiles_come_from_the_container_then_the_pod_then_the_node() {
        use v1::security_profile::ProfileType;
        let node = NodeSecurity { seccomp_default: true, seccomp_folder: "/s".into() };
        let pick = |container, shared| {
            let pod = pod(container, shared);
            let context = context(&pod, &pod.spec.containers[0], &node, None);
            let seccomp = context.seccomp.unwrap();
            (seccomp.profile_type, seccomp.localhost_ref, context.apparmor.map(|a| a.localhost_ref))
        };
        let default = i32::from(ProfileType::RuntimeDefault);
        assert_eq!(pick(json!({}), json!({})), (default, String::new(), None));
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
        let localhost = (ProfileType::Localhost.into(), "/s/a/b.json".to_owned(), None);
        assert_eq!(pick(local.clone(), json!({"seccompProfile": {"type": "Unconfined"}})), localhost);
        assert_eq!(pick(json!({}), local), localhost);
        let privileged = pick(json!({"privileged": true}), json!({}));
        assert_eq!(privileged.0, i32::from(ProfileType::Unconfined));
        let armor = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "k8s-x"}});
        assert_eq!(pick(json!({}), armor).2, Some("k8s-x".to_owned()));
    }

    #[test]
    fn an_ephemeral_container_can_join_anothers_processes() {
        let pod = pod(json!({}), json!({}));
        let context = context(&pod, &pod.spec.containers[0], &NodeSecurity::default(), Some("id"));
        let options = context.namespace_options.unwrap();
        assert_eq!((options.pid, options.target_id.as_str()), (v1::NamespaceMode::Target.into(), "id"));
    }

    #[test]
    fn privileged_containers_see_everything() {
        let pod = pod(json!({"privileged": true}), json!({}));
        let context = context(&pod, &pod.spec.containers[0], &NodeSecurity::default(), None);
        assert!(context.privileged && context.masked_paths.is_empty() && context.readonly_paths.is_empty());
    }

    #[test]
    fn root_is_refused_where_it_is_forbidden() {
        let check = |container, image: ImageUser| {
            let pod = pod(container, json!({"runAsNonRoot": true}));
            check_non_root(&pod, &pod.spec.containers[0], &image).is_ok()
        };
        let root = ImageUser { uid: Some(0), name: String::new() };
        assert!(!check(json!({}), root.clone()));
        assert!(!check(json!({}), ImageUser::default()));
        assert!(!check(json!({}), ImageUser { uid: None, name: "www".into() }));
        assert!(check(json!({"runAsUser": 7}), root.clone()));
        assert!(check(json!({"runAsNonRoot": false}), root));
    }
}
