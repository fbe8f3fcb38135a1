//! Security settings of pods and containers in CRI's terms. Pure.

use cri_api::v1;

use crate::pod::{Container, Pod, SeccompProfile};

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

/// The seccomp profile of a container: its own, the pod's, or none.
fn seccomp(pod: &Pod, container: &Container) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let own: Option<&SeccompProfile> =
        container.security_context.seccomp_profile.as_ref().or(pod.spec.security_context.seccomp_profile.as_ref());
    match own.map(|p| p.kind.as_str()) {
        Some("RuntimeDefault") => profile(ProfileType::RuntimeDefault),
        Some("Localhost") => v1::SecurityProfile {
            profile_type: ProfileType::Localhost.into(),
            localhost_ref: own
                .and_then(|p| p.localhost_profile.as_ref())
                .map(|p| format!("/var/lib/kubelet/seccomp/{p}"))
                .unwrap_or_default(),
        },
        _ => profile(ProfileType::Unconfined),
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
    match (own.run_as_user.or(shared.run_as_user), image.uid) {
        (Some(0), _) => Err("container's runAsUser breaks non-root policy".into()),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err("container has runAsNonRoot and image will run as root".into()),
        (None, Some(_)) => Ok(()),
        (None, None) if image.name.is_empty() => Err("container has runAsNonRoot and image will run as root".into()),
        (None, None) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
            image.name
        )),
    }
}

/// A container's security context.
pub fn context(pod: &Pod, container: &Container) -> v1::LinuxContainerSecurityContext {
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
        namespace_options: Some(namespaces(pod)),
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
        seccomp: Some(seccomp(pod, container)),
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
        let context = context(&pod, &pod.spec.containers[0]);
        assert_eq!(context.run_as_user.map(|v| v.value), Some(5));
        assert_eq!(context.run_as_group.map(|v| v.value), Some(2));
        assert_eq!(context.supplemental_groups, [4, 3]);
        assert!(context.masked_paths.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn privileged_containers_see_everything() {
        let pod = pod(json!({"privileged": true}), json!({}));
        let context = context(&pod, &pod.spec.containers[0]);
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
